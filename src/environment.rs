use std::fmt;

/// A WeSeeDo environment: where the token endpoint and the API stand.
///
/// Sandbox and production behave the same (WeSeeDo's authentication page). The OpenAPI document of
/// each stands at `api/v2/docs` below its base URL.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Environment {
    /// `https://sandbox-api.weseedo.nl`, for development.
    Sandbox,
    /// `https://api.weseedo.nl`
    Production,
    /// A base URL of your own: a proxy in front of WeSeeDo, or a mock server in a test.
    ///
    /// It must be `https`, or `http` on a loopback host (`localhost`, `127.0.0.0/8`, `[::1]`). A
    /// path is kept as a prefix of the token path; user info, a query or a fragment is refused.
    /// [`Builder::build`](super::Builder::build) checks it.
    Custom(String),
}

impl Environment {
    /// Returns the base URL, without a trailing slash.
    #[must_use]
    pub fn base_url(&self) -> &str {
        match self {
            Self::Sandbox => "https://sandbox-api.weseedo.nl",
            Self::Production => "https://api.weseedo.nl",
            Self::Custom(url) => url.trim_end_matches('/'),
        }
    }
}

impl fmt::Debug for Environment {
    /// Leaves user info out: a URL that holds a password is refused later, but may be printed
    /// before.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sandbox => f.write_str("Sandbox"),
            Self::Production => f.write_str("Production"),
            Self::Custom(url) if url.contains('@') => f.write_str("Custom(..)"),
            Self::Custom(url) => f.debug_tuple("Custom").field(url).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_url_has_no_trailing_slash() {
        assert_eq!(Environment::Sandbox.base_url(), "https://sandbox-api.weseedo.nl");
        assert_eq!(Environment::Production.base_url(), "https://api.weseedo.nl");
        assert_eq!(
            Environment::Custom("https://a.example/b//".into()).base_url(),
            "https://a.example/b"
        );
    }

    #[test]
    fn debug_hides_user_info() {
        let secret = Environment::Custom("https://user:s3cr3t@a.example".into());
        assert_eq!(format!("{secret:?}"), "Custom(..)");
        let plain = Environment::Custom("https://a.example".into());
        assert_eq!(format!("{plain:?}"), "Custom(\"https://a.example\")");
    }
}
