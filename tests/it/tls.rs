//! Certificates that are trusted, and those that must not be.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use rcgen::CertificateParams;
use rustls::ServerConfig;
use time::OffsetDateTime;
use weseedo_auth::ureq;
use weseedo_auth::ureq::tls::{Certificate, TlsConfig, TlsProvider};
use weseedo_auth::{Authenticator, Environment, Error};

use crate::support::{
    HOUR, Server, answer, answer_over_tls, assert_not_reached, certificate, grant, token_answer,
};

fn params(host: &str) -> CertificateParams {
    CertificateParams::new(vec![host.to_owned()]).unwrap()
}

/// The TLS libraries that are compiled in.
const PROVIDERS: &[TlsProvider] = &[
    #[cfg(feature = "rustls")]
    TlsProvider::Rustls,
    #[cfg(feature = "native-tls")]
    TlsProvider::NativeTls,
];

/// A server with a certificate, and an authenticator that trusts `trusted`.
fn server(
    provider: TlsProvider,
    config: Arc<ServerConfig>,
    trusted: Option<Certificate<'static>>,
) -> (Server, Authenticator) {
    let server = Server::start(move |_, stream| {
        answer_over_tls(stream, &config, |request| {
            if request.starts_with("POST") {
                token_answer("t0k3n", HOUR)
            } else {
                answer("200 OK", "", request)
            }
        });
    });
    let environment = Environment::Custom(server.base_url.replace("http:", "https:"));
    let authenticator = Authenticator::builder(environment).http(move |http| {
        let tls = TlsConfig::builder().provider(provider);
        let tls = match trusted.clone() {
            Some(trusted) => tls.root_certs([trusted].into()),
            None => tls,
        };
        http.tls_config(tls.build())
    });
    (server, authenticator.build().unwrap())
}

#[test]
fn root_of_the_users_own_is_trusted_for_tokens_and_calls() {
    for provider in PROVIDERS {
        let (trusted, config) = certificate(&params("127.0.0.1"));
        let (server, authenticator) = server(*provider, config, Some(trusted));
        let token = authenticator.get_token(&grant()).unwrap();
        assert_eq!(token.access_token(), "t0k3n");
        let url = format!("{}/api", server.base_url.replace("http:", "https:"));
        let mut answer = authenticator.agent(grant()).get(url).call().unwrap();
        let echo = answer.body_mut().read_to_string().unwrap();
        assert!(echo.contains("\r\nauthorization: Bearer t0k3n\r\n"), "{echo}");
    }
}

#[test]
fn bad_certificates_are_told_and_not_tried_again() {
    let mut expired = params("127.0.0.1");
    expired.not_before = OffsetDateTime::UNIX_EPOCH;
    expired.not_after = OffsetDateTime::UNIX_EPOCH + time::Duration::DAY;
    let cases = [(params("127.0.0.1"), false), (expired, true), (params("other.example"), true)];
    for (provider, (params, is_trusted)) in
        PROVIDERS.iter().flat_map(|p| cases.iter().map(move |case| (p, case)))
    {
        let (trusted, config) = certificate(params);
        let (server, authenticator) = server(*provider, config, is_trusted.then_some(trusted));
        let error = authenticator.get_token(&grant()).unwrap_err();
        assert!(matches!(error, Error::Transport(_)) && !error.is_transient(), "{error:?}");
        assert!(error.to_string().contains("certificate"), "{error}");
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn handshake_that_stalls_ends_with_the_timeout() {
    for provider in PROVIDERS {
        let server =
            Server::start(|_, mut stream| while matches!(stream.read(&mut [0; 512]), Ok(1..)) {});
        let environment = Environment::Custom(server.base_url.replace("http:", "https:"));
        let authenticator = Authenticator::builder(environment)
            .timeout(Duration::from_millis(400))
            .http(|http| http.tls_config(TlsConfig::builder().provider(*provider).build()))
            .build()
            .unwrap();
        assert_not_reached(&authenticator, Duration::from_secs(3));
    }
}

#[test]
fn agent_of_an_https_environment_speaks_no_plain_http() {
    let plain = Server::answering(|_| answer("200 OK", "", ""));
    let environment = Environment::Custom("https://127.0.0.1:1".to_owned());
    let authenticator =
        Authenticator::builder(environment).http(|http| http.https_only(false)).build().unwrap();
    let error = authenticator.agent(grant()).get(&plain.base_url).call().unwrap_err();
    assert!(matches!(error, ureq::Error::RequireHttpsOnly(_)), "{error:?}");
    assert_eq!(plain.connections(), 0);
}
