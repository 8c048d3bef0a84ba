//! Certificates that are trusted, and those that must not be.

use std::sync::Arc;

use rcgen::CertificateParams;
use rustls::ServerConfig;
use time::OffsetDateTime;
use weseedo_auth::ureq;
use weseedo_auth::ureq::tls::{Certificate, TlsConfig};
use weseedo_auth::{Authenticator, Environment, Error};

use crate::support::{HOUR, Server, answer, answer_over_tls, certificate, grant, token_answer};

fn params(host: &str) -> CertificateParams {
    CertificateParams::new(vec![host.to_owned()]).unwrap()
}

/// A server with a certificate, and an authenticator that trusts `trusted`.
fn server(
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
    let authenticator =
        Authenticator::builder(environment).http(move |http| match trusted.clone() {
            Some(trusted) => {
                http.tls_config(TlsConfig::builder().root_certs([trusted].into()).build())
            }
            None => http,
        });
    (server, authenticator.build().unwrap())
}

#[test]
fn root_of_the_users_own_is_trusted_for_tokens_and_calls() {
    let (trusted, config) = certificate(&params("127.0.0.1"));
    let (server, authenticator) = server(config, Some(trusted));
    assert_eq!(
        authenticator.get_token(&grant()).unwrap().access_token(),
        "t0k3n"
    );
    let url = format!("{}/api", server.base_url.replace("http:", "https:"));
    let mut echo = authenticator.agent(grant()).get(url).call().unwrap();
    assert!(
        echo.body_mut()
            .read_to_string()
            .unwrap()
            .contains("\r\nauthorization: Bearer t0k3n\r\n")
    );
}

#[test]
fn bad_certificates_are_told_and_not_tried_again() {
    let mut expired = params("127.0.0.1");
    expired.not_before = OffsetDateTime::UNIX_EPOCH;
    expired.not_after = OffsetDateTime::UNIX_EPOCH + time::Duration::DAY;
    for (params, is_trusted) in [
        (params("127.0.0.1"), false),
        (expired, true),
        (params("other.example"), true),
    ] {
        let (trusted, config) = certificate(&params);
        let (server, authenticator) = server(config, is_trusted.then_some(trusted));
        let error = authenticator.get_token(&grant()).unwrap_err();
        assert!(
            matches!(error, Error::Transport(_)) && !error.is_transient(),
            "{error:?}"
        );
        assert!(error.to_string().contains("certificate"), "{error}");
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn agent_of_an_https_environment_speaks_no_plain_http() {
    let plain = Server::answering(|_| answer("200 OK", "", ""));
    let environment = Environment::Custom("https://127.0.0.1:1".to_owned());
    let authenticator = Authenticator::builder(environment)
        .http(|http| http.https_only(false))
        .build()
        .unwrap();
    let error = authenticator
        .agent(grant())
        .get(&plain.base_url)
        .call()
        .unwrap_err();
    assert!(
        matches!(error, ureq::Error::RequireHttpsOnly(_)),
        "{error:?}"
    );
    assert_eq!(plain.connections(), 0);
}
