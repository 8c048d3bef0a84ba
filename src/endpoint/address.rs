use std::net::{Ipv4Addr, Ipv6Addr};

use ureq::http::Uri;

#[cfg(feature = "wipe")]
use crate::endpoint::transport;
use crate::error::ConfigError;

/// The token endpoint's URL, checked: it has a scheme, a host and a path, and plain `http` is on
/// loopback.
pub(crate) struct Address(Uri);

impl Address {
    pub(crate) fn new(base_url: &str, token_path: &str) -> Result<Self, ConfigError> {
        let base = |reason| Err(ConfigError::BaseUrl(reason));
        let uri = match base_url.parse::<Uri>() {
            Ok(uri) if is_visible(base_url) => uri,
            _ => return base("must be a URL, such as https://api.example"),
        };
        // `Uri` drops a fragment.
        if base_url.contains(['?', '#']) {
            return base("must have no query and no fragment");
        }
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return base("must be a URL, such as https://api.example");
        };
        if authority.as_str().contains('@') {
            return base("must have no user info: what authenticates belongs in a Grant");
        }
        let host = authority.host();
        if host.is_empty() {
            return base("must name a host");
        }
        match authority.as_str()[host.len()..].strip_prefix(':') {
            Some(port) if port.parse::<u16>().is_err() => {
                return base("must have a port from 0 to 65535, or none");
            }
            _ => {}
        }
        match scheme {
            "https" if cfg!(any(feature = "rustls", feature = "native-tls")) => {}
            "https" => {
                return base(
                    "is https, which needs the feature rustls or native-tls of weseedo-auth",
                );
            }
            "http" if is_loopback(host) => {}
            "http" => return base("must be https: plain http is accepted for loopback hosts only"),
            _ => return base("must start with https://"),
        }

        if !token_path.starts_with('/') {
            return Err(ConfigError::TokenPath("must start with /"));
        }
        if token_path.contains(['?', '#']) {
            return Err(ConfigError::TokenPath("must have no query and no fragment"));
        }
        match format!("{base_url}{token_path}").parse() {
            Ok(uri) if is_visible(token_path) => Ok(Self(uri)),
            _ => Err(ConfigError::TokenPath("holds what can't stand in a URL: percent-encode it")),
        }
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }

    pub(crate) fn is_https(&self) -> bool {
        is_https(&self.0)
    }

    pub(crate) fn host_and_port(&self) -> String {
        format!("{}:{}", self.0.host().unwrap_or_default(), port(&self.0))
    }

    /// Whether `uri` belongs to the API: the token endpoint's origin, but not the endpoint.
    pub(crate) fn is_api(&self, uri: &Uri) -> bool {
        self.is_same_origin(uri) && uri.path() != self.0.path()
    }

    /// Whether `uri` has the scheme, host and port of the token endpoint (RFC 6454 section 4).
    fn is_same_origin(&self, uri: &Uri) -> bool {
        let hosts = uri.host().zip(self.0.host());
        uri.scheme() == self.0.scheme()
            && hosts.is_some_and(|(host, own)| host.eq_ignore_ascii_case(own))
            && port(uri) == port(&self.0)
    }

    /// Whether the last request of this thread carried a token to this origin. Always true without
    /// the feature `wipe` and for agents that the user made, because no request is recorded there.
    pub(crate) fn has_got_token(&self) -> bool {
        #[cfg(feature = "wipe")]
        let request = transport::take_last_request();
        #[cfg(not(feature = "wipe"))]
        let request = None::<Option<Uri>>;
        request.is_none_or(|sent_to| sent_to.is_some_and(|uri| self.is_same_origin(&uri)))
    }
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || ipv6
            .is_some_and(|host| host.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback()))
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// The port of the URL, or else the scheme's default port.
fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if is_https(uri) { 443 } else { 80 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// <https://www.rfc-editor.org/rfc/rfc6454#section-4>
    #[test]
    fn api_is_the_same_origin_except_the_token_endpoint() {
        let is_api = |endpoint: &str, uri: &str| {
            Address(endpoint.parse().unwrap()).is_api(&uri.parse().unwrap())
        };
        let endpoint = "https://api.example/v2/token";
        for uri in [
            "https://api.example/",
            "https://api.example/v2/meetings?token=x",
            "https://API.Example/v2/TOKEN",
            "https://api.example:443/v2",
            "HTTPS://api.example:443/v2",
        ] {
            assert!(is_api(endpoint, uri), "{uri}");
            assert!(is_api("https://api.example:443/v2/token", uri), "{uri}");
        }
        for uri in [
            "http://api.example/v2",
            "http://api.example:443/v2",
            "https://api.example:8443/v2",
            "https://api.example.evil.example/v2",
            "https://evil.example/api.example",
            "https://api.example@evil.example/",
            "https://api.example./v2",
            "https://api.example/v2/token",
            "https://api.example/v2/token?x",
            "/v2/meetings",
        ] {
            assert!(!is_api(endpoint, uri), "{uri}");
        }
        assert!(is_api("http://localhost:80/token", "http://localhost/v2"));
        assert!(!is_api("http://localhost/token", "http://127.0.0.1/v2"));
        assert!(is_api("http://[::1]:8080/token", "http://[::1]:8080/v2"));
    }
}
