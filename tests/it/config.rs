//! `build` refuses unusable settings.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use weseedo_auth::ureq::Proxy;
use weseedo_auth::{Authenticator, Builder, ConfigError, Environment, Error, Grant};

fn builder(base_url: &str) -> Builder {
    Authenticator::builder(Environment::Custom(base_url.to_owned()))
}

#[track_caller]
fn refused(builder: Builder) -> ConfigError {
    match builder.build() {
        Err(Error::Config(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn https_is_accepted() {
    for url in [
        "https://api.example",
        "HTTPS://API.EXAMPLE/",
        "https://api.example:8443/prefix//",
        "https://192.0.2.1",
        "https://[2001:db8::1]:443",
    ] {
        builder(url).build().unwrap();
    }
    Authenticator::new(Environment::Sandbox).unwrap();
    Authenticator::new(Environment::Production).unwrap();
}

#[test]
#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
fn https_without_tls_names_the_features() {
    assert_eq!(
        refused(builder("https://api.example")).to_string(),
        "base URL: is https, which needs the feature rustls or native-tls of weseedo-auth"
    );
}

#[test]
fn plain_http_is_accepted_on_loopback_only() {
    for url in [
        "http://localhost",
        "HTTP://LocalHost:8080/prefix",
        "http://127.0.0.1",
        "http://127.255.0.3:80/",
        "http://[::1]:8080",
    ] {
        builder(url).build().unwrap();
    }
    for url in [
        "http://api.example",
        "http://localhost.evil.example",
        "http://localhost.",
        "http://127.0.0.1.evil.example",
        "http://128.0.0.1",
        "http://127.1",
        "http://2130706433",
        "http://0.0.0.0",
        "http://[::]",
        "http://[::ffff:127.0.0.1]",
        "http://[2001:db8::1]",
    ] {
        assert_eq!(
            refused(builder(url)),
            ConfigError::BaseUrl("must be https: plain http is accepted for loopback hosts only"),
            "{url}"
        );
    }
}

#[test]
fn base_url_must_be_an_origin_and_a_path() {
    for (url, reason) in [
        ("", "must be a URL, such as https://api.example"),
        ("https://", "must be a URL, such as https://api.example"),
        ("https://api.example/pr\u{e9}fix", "must be a URL, such as https://api.example"),
        ("https:// api.example", "must be a URL, such as https://api.example"),
        ("https://api.example\r\nX: y", "must be a URL, such as https://api.example"),
        ("https://b\u{fc}cher.example", "must be a URL, such as https://api.example"),
        ("https://a.example\\@b.example", "must be a URL, such as https://api.example"),
        ("api.example", "must be a URL, such as https://api.example"),
        ("/api", "must be a URL, such as https://api.example"),
        ("ftp://api.example", "must start with https://"),
        ("https://:443", "must name a host"),
        ("https://api.example?x", "must have no query and no fragment"),
        ("https://api.example/#x", "must have no query and no fragment"),
        (
            "https://user:pass@api.example",
            "must have no user info: what authenticates belongs in a Grant",
        ),
        (
            "http://127.0.0.1@evil.example",
            "must have no user info: what authenticates belongs in a Grant",
        ),
        (
            "http://localhost:80@evil.example",
            "must have no user info: what authenticates belongs in a Grant",
        ),
        ("https://api.example:99999", "must have a port from 0 to 65535, or none"),
        ("http://localhost:", "must have a port from 0 to 65535, or none"),
    ] {
        assert_eq!(refused(builder(url)), ConfigError::BaseUrl(reason), "{url}");
    }
}

#[test]
fn token_path_must_be_a_path() {
    let builder = |path| builder("http://localhost").token_path(path);
    builder("/").build().unwrap();
    for (path, reason) in [
        ("", "must start with /"),
        ("token", "must start with /"),
        ("@evil.example/", "must start with /"),
        ("https://evil.example/", "must start with /"),
        ("/token?x", "must have no query and no fragment"),
        ("/token#x", "must have no query and no fragment"),
        ("/to ken", "holds what can't stand in a URL: percent-encode it"),
        ("/to\r\nken", "holds what can't stand in a URL: percent-encode it"),
        ("/t\u{f6}ken", "holds what can't stand in a URL: percent-encode it"),
    ] {
        assert_eq!(refused(builder(path)), ConfigError::TokenPath(reason), "{path}");
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    let builder = || builder("http://localhost");
    assert_eq!(refused(builder().timeout(Duration::ZERO)), ConfigError::Timeout);
    assert_eq!(refused(builder().capacity(0)), ConfigError::Capacity);
    builder()
        .timeout(Duration::MAX)
        .capacity(usize::MAX)
        .retries(u32::MAX)
        .renew_before(Duration::MAX)
        .build()
        .unwrap();
}

#[test]
fn http_settings_that_would_panic_later_are_refused() {
    let builder = || builder("http://localhost");
    let header = ConfigError::Http("a header value holds what can't stand in an HTTP header");
    assert_eq!(refused(builder().http(|http| http.user_agent("a\nb"))), header);
    assert_eq!(refused(builder().http(|http| http.accept("a\nb"))), header);
    let buffer = ConfigError::Http("buffers must have from 1 byte to 64 MiB");
    assert_eq!(refused(builder().http(|http| http.input_buffer_size(0))), buffer);
    assert_eq!(refused(builder().http(|http| http.output_buffer_size(0))), buffer);
    assert_eq!(refused(builder().http(|http| http.input_buffer_size(200 << 20))), buffer);
    #[cfg(not(feature = "socks-proxy"))]
    assert_eq!(
        refused(builder().http(|http| http.proxy(Proxy::new("socks5://localhost:1080").ok()))),
        ConfigError::Http("a SOCKS proxy needs the feature socks-proxy of weseedo-auth")
    );
}

#[test]
#[cfg(all(feature = "rustls", not(feature = "native-tls"), not(feature = "platform-verifier")))]
fn tls_that_is_not_compiled_in_is_refused() {
    use weseedo_auth::ureq::tls::{RootCerts, TlsConfig, TlsProvider};

    let tls = |config: TlsConfig| {
        builder("https://localhost").http(move |http| http.tls_config(config.clone()))
    };
    assert_eq!(
        refused(tls(TlsConfig::builder().provider(TlsProvider::NativeTls).build())),
        ConfigError::Http("the TLS provider needs the feature native-tls of weseedo-auth")
    );
    assert_eq!(
        refused(tls(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())),
        ConfigError::Http(
            "the platform's root certificates need the feature platform-verifier of weseedo-auth"
        )
    );
}

#[test]
#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn roots_without_a_certificate_are_refused() {
    use weseedo_auth::ureq::tls::{Certificate, RootCerts, TlsConfig};

    let roots = |certificates: Vec<Certificate<'static>>| {
        let tls = TlsConfig::builder().root_certs(RootCerts::from(certificates)).build();
        builder("https://api.example").http(move |http| http.tls_config(tls.clone()))
    };
    let text = "HTTP settings: the root certificates hold no certificate: read a PEM file with \
                ureq::tls::parse_pem";
    assert_eq!(refused(roots(Vec::new())).to_string(), text);
    let pem = Certificate::from_der(b"-----BEGIN CERTIFICATE-----").to_owned();
    assert_eq!(refused(roots(vec![pem])).to_string(), text);
}

#[test]
fn plain_http_needs_a_proxy_on_loopback() {
    let proxied = |proxy: &'static str| {
        builder("http://localhost").http(move |http| http.proxy(Proxy::new(proxy).ok()))
    };
    proxied("http://127.0.0.1:3128").build().unwrap();
    assert_eq!(
        refused(proxied("http://proxy.example:3128")),
        ConfigError::Http("the proxy must be on a loopback host: the base URL is plain http")
    );
}

#[test]
fn settings_for_the_agent_are_checked_again() {
    let calls = AtomicUsize::new(0);
    let authenticator = builder("http://localhost")
        .http(move |http| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => http,
            _ => http.proxy(Proxy::new("http://proxy.example:3128").ok()),
        })
        .build()
        .unwrap();
    let grant = Grant::client_credentials("id", "s3cr3t");
    let error = authenticator.agent(grant).get("http://localhost/api").call().unwrap_err();
    let Some(Error::Config(error)) = Error::from_ureq(&error) else { panic!("{error:?}") };
    let reason = "the proxy must be on a loopback host: the base URL is plain http";
    assert_eq!(*error, ConfigError::Http(reason));
}
