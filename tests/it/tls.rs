//! Certificates that are trusted, and certificates that must not be.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::CertificateParams;
use rustls::{HandshakeKind, ServerConfig};
use time::OffsetDateTime;
use weseedo_auth::ureq;
use weseedo_auth::ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use weseedo_auth::{Authenticator, Environment, Error};

use crate::support::{
    HOUR, Server, answer, answer_over_tls, assert_not_reached, certificate, grant, stall,
    token_answer,
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

/// Returns a server with a certificate, an authenticator that trusts `trusted`, and the list of
/// handshakes.
fn server(
    provider: TlsProvider,
    config: Arc<ServerConfig>,
    trusted: Option<RootCerts>,
) -> (Server, Authenticator, Arc<Mutex<Vec<HandshakeKind>>>) {
    let handshakes = Arc::new(Mutex::new(Vec::new()));
    let finished = Arc::clone(&handshakes);
    let server = Server::start(move |_, stream| {
        let handshake = answer_over_tls(stream, &config, |request| {
            if request.starts_with("POST") {
                token_answer("t0k3n", HOUR)
            } else {
                answer("200 OK", "", request)
            }
        });
        finished.lock().unwrap().extend(handshake);
    });
    let environment = Environment::Custom(https(&server));
    let authenticator = Authenticator::builder(environment).http(move |http| {
        let tls = TlsConfig::builder().provider(provider);
        let tls = match trusted.clone() {
            Some(trusted) => tls.root_certs(trusted),
            None => tls,
        };
        http.tls_config(tls.build())
    });
    (server, authenticator.build().unwrap(), handshakes)
}

fn https(server: &Server) -> String {
    server.base_url.replace("http:", "https:")
}

fn roots(trusted: Certificate<'static>) -> RootCerts {
    [trusted].into()
}

#[test]
fn users_root_certificate_is_trusted_for_tokens_and_api_calls() {
    for provider in PROVIDERS {
        let (trusted, config) = certificate(&params("127.0.0.1"));
        let (server, authenticator, _) = server(*provider, config, Some(roots(trusted)));
        let token = authenticator.get_token(&grant()).unwrap();
        assert_eq!(token.access_token(), "t0k3n");
        let url = format!("{}/api", https(&server));
        let mut answer = authenticator.agent(grant()).get(url).call().unwrap();
        let echo = answer.body_mut().read_to_string().unwrap();
        assert!(echo.contains("\r\nauthorization: Bearer t0k3n\r\n"), "{echo}");
    }
}

#[test]
fn bad_certificates_are_reported_and_not_retried() {
    let mut expired = params("127.0.0.1");
    expired.not_before = OffsetDateTime::UNIX_EPOCH;
    expired.not_after = OffsetDateTime::UNIX_EPOCH + time::Duration::DAY;
    let cases = [(params("127.0.0.1"), false), (expired, true), (params("other.example"), true)];
    for (provider, (params, is_trusted)) in
        PROVIDERS.iter().flat_map(|p| cases.iter().map(move |case| (p, case)))
    {
        let (trusted, config) = certificate(params);
        let trusted = is_trusted.then(|| roots(trusted));
        let (server, authenticator, _) = server(*provider, config, trusted);
        let error = authenticator.get_token(&grant()).unwrap_err();
        assert!(matches!(error, Error::Transport(_)) && !error.is_transient(), "{error:?}");
        assert!(error.to_string().contains("certificate"), "{error}");
        assert_eq!(server.connections(), 1);
    }
}

/// A retry may help, because a machine that boots before its clock is set sees such certificates.
#[test]
fn certificate_that_is_not_valid_yet_is_retried() {
    let mut early = params("127.0.0.1");
    early.not_before = OffsetDateTime::UNIX_EPOCH + time::Duration::days(365 * 80);
    early.not_after = early.not_before + time::Duration::DAY;
    for provider in PROVIDERS {
        let (trusted, config) = certificate(&early);
        let (server, authenticator, _) = server(*provider, config, Some(roots(trusted)));
        let error = authenticator.get_token(&grant()).unwrap_err();
        assert!(matches!(error, Error::Transport(_)) && error.is_transient(), "{error:?}");
        assert_eq!(server.connections(), 3);
    }
}

#[test]
#[cfg(feature = "wipe")]
fn one_tls_set_up_serves_all_token_requests() {
    for provider in PROVIDERS {
        let (trusted, config) = certificate(&params("127.0.0.1"));
        let (_server, authenticator, handshakes) = server(*provider, config, Some(roots(trusted)));
        for requests in 1..=3 {
            authenticator.get_token(&grant()).unwrap();
            authenticator.forget(&grant());
            crate::support::wait_until(|| handshakes.lock().unwrap().len() == requests);
        }
        // native-tls keeps its configuration too, but resumes no session.
        let resumes = matches!(provider, TlsProvider::Rustls);
        let later = if resumes { HandshakeKind::Resumed } else { HandshakeKind::Full };
        assert_eq!(*handshakes.lock().unwrap(), [HandshakeKind::Full, later, later]);
    }
}

/// Runs again in a child process, because the root certificates are removed after the first
/// request.
#[test]
#[cfg(all(feature = "wipe", feature = "native-tls", target_os = "linux"))]
fn roots_of_the_system_are_read_once() {
    const ROOTS: &str = "SSL_CERT_FILE";
    if std::env::var_os("WESEEDO_AUTH_ROOTS").is_none() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "tls::roots_of_the_system_are_read_once", "--test-threads", "1"]);
        let directory = std::env::temp_dir().join(format!("weseedo-auth-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("roots.pem");
        let output = child
            .env("WESEEDO_AUTH_ROOTS", &file)
            .env(ROOTS, &file)
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let file = std::env::var_os(ROOTS).unwrap();
    for provider in PROVIDERS {
        let is_rustls = matches!(provider, TlsProvider::Rustls);
        if is_rustls && cfg!(not(feature = "platform-verifier")) {
            continue;
        }
        let (trusted, config) = certificate(&params("127.0.0.1"));
        std::fs::write(&file, crate::support::pem("CERTIFICATE", trusted.der())).unwrap();
        let (_server, authenticator, _) =
            server(*provider, config, Some(RootCerts::PlatformVerifier));
        authenticator.get_token(&grant()).unwrap();
        std::fs::remove_file(&file).unwrap();
        authenticator.forget(&grant());
        authenticator.get_token(&grant()).unwrap();
    }
}

#[test]
fn tls_settings_of_one_call_apply_to_that_call_only() {
    for provider in PROVIDERS {
        let (trusted, config) = certificate(&params("127.0.0.1"));
        let (other, _) = certificate(&params("127.0.0.1"));
        let (server, authenticator, _) = server(*provider, config, Some(roots(trusted)));
        let (agent, url) = (authenticator.agent(grant()), format!("{}/api", https(&server)));
        agent.get(&url).call().unwrap();
        let distrusting = TlsConfig::builder().provider(*provider).root_certs([other].into());
        let request = agent.get(&url).config().tls_config(distrusting.build()).build();
        let error = request.call().unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
        agent.get(&url).call().unwrap();
    }
}

#[test]
fn handshake_that_stalls_ends_with_the_timeout() {
    for provider in PROVIDERS {
        let server = Server::start(|_, stream| stall(stream));
        let environment = Environment::Custom(https(&server));
        let authenticator = Authenticator::builder(environment)
            .timeout(Duration::from_millis(400))
            .http(|http| http.tls_config(TlsConfig::builder().provider(*provider).build()))
            .build()
            .unwrap();
        assert_not_reached(&authenticator, Duration::from_secs(3));
    }
}

#[test]
fn agent_of_an_https_environment_refuses_plain_http() {
    let plain = Server::answering(|_| answer("200 OK", "", ""));
    let environment = Environment::Custom("https://127.0.0.1:1".to_owned());
    let authenticator =
        Authenticator::builder(environment).http(|http| http.https_only(false)).build().unwrap();
    let error = authenticator.agent(grant()).get(&plain.base_url).call().unwrap_err();
    assert!(matches!(error, ureq::Error::RequireHttpsOnly(_)), "{error:?}");
    assert_eq!(plain.connections(), 0);
}
