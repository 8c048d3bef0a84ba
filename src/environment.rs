use std::fmt;
use std::str::FromStr;

use crate::error::ConfigError;

/// A WeSeeDo environment: where the token endpoint and the API are.
///
/// Sandbox and production behave the same (WeSeeDo's authentication page). The OpenAPI document of
/// each is at `api/v2/docs` below its base URL.
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

impl FromStr for Environment {
    type Err = ConfigError;

    /// Reads `sandbox`, `production` or a URL.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text {
            "sandbox" => Ok(Self::Sandbox),
            "production" => Ok(Self::Production),
            url if url.contains("://") => Ok(Self::Custom(url.to_owned())),
            _ => Err(ConfigError::BaseUrl("must be sandbox, production or a URL")),
        }
    }
}

impl fmt::Display for Environment {
    /// Writes the text that [`FromStr`] reads, without user info.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sandbox => "sandbox",
            Self::Production => "production",
            Self::Custom(url) => url.rsplit_once('@').map_or(url, |(_, host)| host),
        })
    }
}

impl fmt::Debug for Environment {
    /// Leaves user info out, because a URL with a password may be printed before `build` refuses
    /// it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sandbox => f.write_str("Sandbox"),
            Self::Production => f.write_str("Production"),
            Self::Custom(_) => write!(f, "Custom({:?})", self.to_string()),
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
    fn text_names_an_environment() {
        for text in ["sandbox", "production", "https://a.example/b"] {
            assert_eq!(text.parse::<Environment>().unwrap().to_string(), text);
        }
        assert_eq!("sandbox".parse(), Ok(Environment::Sandbox));
        assert_eq!("production".parse(), Ok(Environment::Production));
        for text in ["", "Sandbox", "acceptance", "api.weseedo.nl"] {
            let error = text.parse::<Environment>().unwrap_err();
            assert_eq!(error.to_string(), "base URL: must be sandbox, production or a URL");
        }
    }

    #[test]
    fn debug_hides_user_info() {
        let secret = Environment::Custom("https://user:s3cr3t@a.example".into());
        assert_eq!(format!("{secret:?}"), "Custom(\"a.example\")");
        assert_eq!(secret.to_string(), "a.example");
        let plain = Environment::Custom("https://a.example".into());
        assert_eq!(format!("{plain:?}"), "Custom(\"https://a.example\")");
    }
}
