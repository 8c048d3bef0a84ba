use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no token.
///
/// No text in it holds a secret or a user name. Of a server's answer it quotes the error code if
/// that is 1 to 64 visible ASCII characters, and the first 256 characters of a description,
/// printable and without markup. A text in which six characters in a row of a private text of the
/// grant can be found (all of them, if it has three to five) is withheld whole, in whatever case,
/// and also where they are percent-encoded, escaped for JSON or HTML, in hexadecimal or base64, or
/// in two of these over each other.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting is unusable. Comes only from [`Builder::build`](super::Builder::build) and
    /// [`Authenticator::new`](super::Authenticator::new), before any I/O.
    Config(ConfigError),
    /// The token endpoint was not reached, or gave no whole answer in time. The text names its host
    /// and port, the proxy if there is one, and after a timeout the time. What ureq said is the
    /// [`source`](std::error::Error::source), a [`ureq::Error`].
    Transport(Arc<ureq::Error>),
    /// The server refused: any 4xx status but 408 and 429. Asking again with the same grant will
    /// not help.
    #[non_exhaustive]
    Rejected {
        /// The HTTP status code.
        status: u16,
        /// The error code of RFC 6749 section 5.2, such as `invalid_client`, where the server gave
        /// one.
        code: Option<String>,
        /// The server's own words: `error_description` (RFC 6749 section 5.2), else `message`, else
        /// `name`, else plain text; never markup. For 404 and 405 also the URL that was asked, and
        /// the setting that changes it.
        description: Option<String>,
    },
    /// The server can't answer now: 408, 429 or any 5xx status.
    #[non_exhaustive]
    Unavailable {
        /// The HTTP status code.
        status: u16,
        /// How long the server asks to be left alone (`Retry-After`, RFC 9110 section 10.2.3), at
        /// most 1 h.
        retry_after: Option<Duration>,
    },
    /// The server answered, but not with a usable token.
    InvalidResponse(InvalidResponse),
}

/// Which setting is unusable, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The URL of [`Environment::Custom`](super::Environment::Custom).
    BaseUrl(&'static str),
    /// [`Builder::token_path`](super::Builder::token_path).
    TokenPath(&'static str),
    /// [`Builder::timeout`](super::Builder::timeout) is zero.
    Timeout,
    /// [`Builder::capacity`](super::Builder::capacity) is zero.
    Capacity,
    /// What [`Builder::http`](super::Builder::http) configured.
    Http(&'static str),
}

/// Why an answer is not a usable token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidResponse {
    /// A status that is neither a success nor an error. Redirects are among them: they are refused,
    /// so that credentials never travel to another host.
    Status(u16),
    /// The body as a whole: empty, too large, no JSON object…
    Body(&'static str),
    /// A field that is missing, stands twice, or holds what can't be used.
    #[non_exhaustive]
    Field {
        /// `access_token`, `expires` or `token_type`.
        name: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The token was over when it arrived.
    Expired,
}

impl Error {
    /// Returns the error with which an API call through [`Bearer`](super::Bearer) or
    /// [`with_token`](super::Authenticator::with_token) ended for want of a token; `None` if the
    /// call itself failed.
    #[must_use]
    pub fn from_ureq(error: &ureq::Error) -> Option<&Self> {
        match error {
            ureq::Error::Other(error) => error.downcast_ref(),
            _ => None,
        }
    }

    /// On the way to an API call, whose errors are ureq's.
    pub(crate) fn into_ureq(self) -> ureq::Error {
        ureq::Error::Other(Box::new(self))
    }

    pub(crate) fn unreached(text: String, error: ureq::Error) -> Self {
        let unreached = Unreached { text, error };
        Self::Transport(Arc::new(ureq::Error::Other(Box::new(unreached))))
    }

    /// Returns whether asking again later may help: [`Unavailable`](Self::Unavailable), and
    /// [`Transport`](Self::Transport) unless it will be so again: a setting, a header that is too
    /// large, a proxy that answers 407, a certificate that is not trusted. One that is not valid
    /// *yet* may pass: it is what a machine sees that boots before its clock is set.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Transport(error) => match cause(error) {
                // A TLS library's error text is the one thing that tells a certificate from a
                // broken connection without depending on that library.
                ureq::Error::Io(error) => !is_about_certificate(error),
                #[cfg(feature = "native-tls")]
                ureq::Error::NativeTls(error) => !is_about_certificate(error),
                // RFC 9110 section 15.5.8: the proxy wants to know who asks. ureq keeps its status
                // in the text alone.
                ureq::Error::ConnectProxyFailed(text) => !text.contains("407"),
                ureq::Error::Timeout(_)
                | ureq::Error::HostNotFound
                | ureq::Error::ConnectionFailed
                | ureq::Error::Protocol(_) => true,
                _ => false,
            },
            Self::Config(_) | Self::Rejected { .. } | Self::InvalidResponse(_) => false,
        }
    }

    /// Returns the HTTP status code, where the server's answer had one that explains the error.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Rejected { status, .. }
            | Self::Unavailable { status, .. }
            | Self::InvalidResponse(InvalidResponse::Status(status)) => Some(*status),
            Self::Config(_) | Self::Transport(_) | Self::InvalidResponse(_) => None,
        }
    }

    /// Returns how long the server asks to be left alone, at most 1 h.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Where there was no answer from, and why.
#[derive(Debug)]
struct Unreached {
    text: String,
    error: ureq::Error,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Unreached {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// ureq's own error, without what this crate says of it.
fn cause(error: &ureq::Error) -> &ureq::Error {
    unreached(error).map_or(error, |unreached| &unreached.error)
}

fn unreached(error: &ureq::Error) -> Option<&Unreached> {
    match error {
        ureq::Error::Other(error) => error.downcast_ref(),
        _ => None,
    }
}

/// Whether a certificate is at fault, and will be so later too: one that is not valid yet is what a
/// machine sees that boots before its clock is set.
fn is_about_certificate(error: &dyn std::error::Error) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    let is_early = ["not valid yet", "not yet valid", "notvalidyet"];
    text.contains("certificate") && !is_early.iter().any(|early| text.contains(early))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Transport(error) => match unreached(error) {
                Some(unreached) => unreached.fmt(f),
                None => write!(f, "no answer from the token endpoint: {error}"),
            },
            Self::Rejected { status, code, description } => {
                write!(f, "token request rejected with status {status}")?;
                for text in [code, description].into_iter().flatten() {
                    write!(f, ": {text}")?;
                }
                Ok(())
            }
            Self::Unavailable { status, retry_after } => {
                write!(f, "token endpoint unavailable, status {status}")?;
                match retry_after {
                    Some(wait) => write!(f, ": try again in {} s", wait.as_secs_f64().ceil()),
                    None => Ok(()),
                }
            }
            Self::InvalidResponse(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Not the `Arc`, which nobody would think to downcast to.
            Self::Transport(error) => Some(cause(error)),
            _ => None,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (setting, reason) = match self {
            Self::BaseUrl(reason) => ("base URL", reason),
            Self::TokenPath(reason) => ("token path", reason),
            Self::Timeout => ("timeout", &"must be longer than zero"),
            Self::Capacity => ("capacity", &"must be at least 1"),
            Self::Http(reason) => ("HTTP settings", reason),
        };
        write!(f, "{setting}: {reason}")
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for InvalidResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the token endpoint's answer is unusable: ")?;
        match self {
            Self::Status(status @ 300..=399) => {
                write!(f, "status {status}, a redirect, and redirects are refused")
            }
            Self::Status(status) => write!(f, "unexpected status {status}"),
            Self::Body(reason) => write!(f, "the body {reason}"),
            Self::Field { name, reason } => write!(f, "field `{name}` {reason}"),
            Self::Expired => f.write_str("the token was over on arrival"),
        }
    }
}

impl std::error::Error for InvalidResponse {}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use super::*;

    fn transport(error: ureq::Error) -> Error {
        Error::Transport(Arc::new(error))
    }

    #[test]
    fn texts_say_what_happened() {
        let rejected = |code: Option<&str>, description: Option<&str>| Error::Rejected {
            status: 401,
            code: code.map(Into::into),
            description: description.map(Into::into),
        };
        let unavailable = |retry_after| Error::Unavailable { status: 503, retry_after };
        let invalid = Error::InvalidResponse;
        for (error, text) in [
            (Error::Config(ConfigError::Capacity), "capacity: must be at least 1"),
            (
                transport(ureq::Error::HostNotFound),
                "no answer from the token endpoint: host not found",
            ),
            (rejected(None, None), "token request rejected with status 401"),
            (
                rejected(Some("invalid_client"), Some("no such client")),
                "token request rejected with status 401: invalid_client: no such client",
            ),
            (unavailable(None), "token endpoint unavailable, status 503"),
            (
                unavailable(Some(Duration::from_millis(1_200))),
                "token endpoint unavailable, status 503: try again in 2 s",
            ),
            (
                invalid(InvalidResponse::Status(307)),
                "the token endpoint's answer is unusable: status 307, a redirect, and redirects are refused",
            ),
            (
                invalid(InvalidResponse::Body("is empty")),
                "the token endpoint's answer is unusable: the body is empty",
            ),
            (
                invalid(InvalidResponse::Field { name: "expires", reason: "is missing" }),
                "the token endpoint's answer is unusable: field `expires` is missing",
            ),
            (
                invalid(InvalidResponse::Expired),
                "the token endpoint's answer is unusable: the token was over on arrival",
            ),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn ureq_error_is_the_source() {
        let error = transport(ureq::Error::HostNotFound);
        let source = error.source().and_then(|source| source.downcast_ref());
        assert!(matches!(source, Some(ureq::Error::HostNotFound)));
    }

    #[test]
    fn certificates_and_settings_are_not_transient() {
        let tls = |text| ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, text));
        assert!(!transport(tls("invalid peer certificate: Expired")).is_transient());
        assert!(!transport(ureq::Error::TlsRequired).is_transient());
        assert!(transport(tls("received corrupt message")).is_transient());
        assert!(transport(ureq::Error::HostNotFound).is_transient());
        assert!(transport(ureq::Error::Timeout(ureq::Timeout::Global)).is_transient());
    }
}
