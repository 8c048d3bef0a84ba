use std::net::{Ipv4Addr, Ipv6Addr};

use ureq::http::Uri;

use crate::error::ConfigError;

/// The token endpoint's URL, checked: it has a scheme, a host and a path, and plain `http` is on
/// loopback.
pub(crate) struct Address(Uri);

impl Address {
    pub(crate) fn new(base_url: &str, token_path: &str) -> Result<Self, ConfigError> {
        if let Some(reason) = fault_of_base(base_url) {
            return Err(ConfigError::BaseUrl(reason));
        }
        Err(ConfigError::TokenPath(match format!("{base_url}{token_path}").parse() {
            _ if !token_path.starts_with('/') => "must start with /",
            _ if token_path.contains(['?', '#']) => "must have no query and no fragment",
            Ok(uri) if is_visible(token_path) => return Ok(Self(uri)),
            _ => "holds what can't stand in a URL: percent-encode it",
        }))
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }

    pub(crate) fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    pub(crate) fn host_and_port(&self) -> String {
        format!("{}:{}", self.0.host().unwrap_or_default(), port(&self.0))
    }

    /// Whether `uri` belongs to the API: it has the token endpoint's scheme, host and port (RFC 6454
    /// section 4), but is not the endpoint.
    pub(crate) fn is_api(&self, uri: &Uri) -> bool {
        let hosts = uri.host().zip(self.0.host());
        uri.scheme() == self.0.scheme()
            && hosts.is_some_and(|(host, own)| host.eq_ignore_ascii_case(own))
            && port(uri) == port(&self.0)
            && uri.path() != self.0.path()
    }
}

/// Returns the fault of a base URL, if it has one.
fn fault_of_base(url: &str) -> Option<&'static str> {
    let uri = url.parse::<Uri>().ok().filter(|_| is_visible(url));
    let Some((scheme, authority)) =
        uri.as_ref().and_then(|uri| uri.scheme_str().zip(uri.authority()))
    else {
        return Some("must be a URL, such as https://api.example");
    };
    let host = authority.host();
    let port = authority.as_str().get(host.len()..).and_then(|rest| rest.strip_prefix(':'));
    Some(match scheme {
        // Searches the text and not the `Uri`, because `Uri` drops a fragment.
        _ if url.contains(['?', '#']) => "must have no query and no fragment",
        _ if authority.as_str().contains('@') => {
            "must have no user info: what authenticates belongs in a Grant"
        }
        _ if host.is_empty() => "must name a host",
        _ if port.is_some_and(|port| port.parse::<u16>().is_err()) => {
            "must have a port from 0 to 65535, or none"
        }
        "https" if cfg!(any(feature = "rustls", feature = "native-tls")) => return None,
        "https" => "is https, which needs the feature rustls or native-tls of weseedo-auth",
        "http" if is_loopback(host) => return None,
        "http" => "must be https: plain http is accepted for loopback hosts only",
        _ => "must start with https://",
    })
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

/// The port of the URL, or else the scheme's default port.
fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
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
