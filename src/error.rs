use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no token.
///
/// The text is complete, and [`source`](std::error::Error::source) repeats none of it. Only the
/// causes of a [`GrantSource`](super::GrantSource)'s own error are not in the text but in
/// `source`. ureq prefixes the text with `other: ` and hides the causes: print
/// [`Error::from_ureq`] instead.
///
/// The text holds no secret and no user name. The server's words are quoted only if all of them
/// are in a list of words that error texts use. They must not share six characters in a row with a
/// secret or user name of the grant. Other words are withheld, and the text says so. The host of a
/// redirect need not be in the list.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting is unusable. Returned by [`Builder::build`](super::Builder::build), and by calls
    /// through an [`agent`](super::Authenticator::agent) whose settings are unusable.
    Config(ConfigError),
    /// The [`GrantSource`](super::GrantSource) gave no grant.
    Grant(GrantError),
    /// The token endpoint was not reached, or gave no whole answer in time.
    Transport(TransportError),
    /// The server refused the request. Asking again with the same grant will not help.
    #[non_exhaustive]
    Rejected {
        /// The HTTP status code: a 4xx or 5xx that [`Unavailable`](Self::Unavailable) doesn't list.
        status: u16,
        /// The error code of RFC 6749 section 5.2, such as `invalid_client`, if the server gave one
        /// of 1 to 64 lower-case letters and underscores.
        code: Option<String>,
        /// The server's own words: `error_description` (RFC 6749 section 5.2), else `message`, else
        /// plain text. For 404 and 405 also the URL that was asked, and the setting that changes
        /// it.
        description: Option<String>,
    },
    /// The server can't answer now: 408, 425, 429, 500, 502, 503, 504 or 520 to 599.
    #[non_exhaustive]
    Unavailable {
        /// The HTTP status code.
        status: u16,
        /// The error code, as in [`Rejected`](Self::Rejected).
        code: Option<String>,
        /// The server's own words, as in [`Rejected`](Self::Rejected).
        description: Option<String>,
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
    /// A logger or middleware called `get_token` for the very grant whose token it was fetching.
    Reentrant,
    /// The settings of [`Builder::http`](super::Builder::http).
    Http(&'static str),
}

/// The error of a [`GrantSource`](super::GrantSource).
#[derive(Clone, Debug)]
pub struct GrantError(pub(crate) Arc<dyn std::error::Error + Send + Sync>);

/// Why the token endpoint gave no whole answer.
///
/// The text names its host and port, the proxy if there is one, the time that had passed after a
/// time-out, and the cause.
#[derive(Clone, Debug)]
pub struct TransportError {
    text: Arc<str>,
    error: Arc<ureq::Error>,
}

/// Why an answer is not a usable token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidResponse {
    /// A status that is neither a success nor a redirect nor an error.
    Status(u16),
    /// The whole body is unusable: it is empty, too large, no JSON object…
    Body(&'static str),
    /// A field is missing, repeated or unusable.
    #[non_exhaustive]
    Field {
        /// `access_token`, `expires` or `token_type`.
        name: &'static str,
        /// Why the field is unusable.
        reason: &'static str,
    },
    /// The endpoint redirects. Redirects are refused, so that credentials never travel to another
    /// host.
    #[non_exhaustive]
    Redirect {
        /// The HTTP status code.
        status: u16,
        /// The scheme and host that the redirect points to; `None` for a relative URL, or if the
        /// host resembles a secret or user name.
        to: Option<String>,
    },
    /// The token had expired when it arrived.
    Expired,
}

impl Error {
    /// Returns the error that kept an API call through [`Bearer`](super::Bearer) or
    /// [`with_token`](super::Authenticator::with_token) from getting a token; `None` if the call
    /// itself failed.
    #[must_use]
    pub fn from_ureq(error: &ureq::Error) -> Option<&Self> {
        let ureq::Error::Other(error) = error else { return None };
        error.downcast_ref()
    }

    /// Wraps the error for an API call, whose errors are ureq's.
    pub(crate) fn into_ureq(self) -> ureq::Error {
        ureq::Error::Other(Box::new(self))
    }

    pub(crate) fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        if let Self::Unavailable { retry_after, .. } = &mut self {
            *retry_after = wait;
        }
        self
    }

    /// Returns whether asking again later may help.
    ///
    /// [`Unavailable`](Self::Unavailable) is transient, and so are network errors, time-outs and a
    /// token that had expired on arrival. So is a certificate that is not valid *yet*, because a
    /// machine may start before its clock is set. Every other certificate error, a TLS alert, and a
    /// proxy's 4xx other than 408 and 429 are permanent.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::InvalidResponse(InvalidResponse::Expired) => true,
            Self::Transport(error) => error.is_transient(),
            _ => false,
        }
    }

    /// Returns the HTTP status code of [`Rejected`](Self::Rejected),
    /// [`Unavailable`](Self::Unavailable), and of an unexpected status or a redirect; else `None`.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Rejected { status, .. }
            | Self::Unavailable { status, .. }
            | Self::InvalidResponse(
                InvalidResponse::Status(status) | InvalidResponse::Redirect { status, .. },
            ) => Some(*status),
            _ => None,
        }
    }

    /// Returns how long the server asks to be left alone, at most 1 h.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Unavailable { retry_after, .. } = self else { return None };
        *retry_after
    }
}

impl TransportError {
    pub(crate) fn new(text: String, error: ureq::Error) -> Self {
        Self { text: text.into(), error: error.into() }
    }

    /// Returns ureq's error.
    #[must_use]
    pub fn ureq(&self) -> &ureq::Error {
        &self.error
    }

    /// Returns whether the time ran out.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.ureq(), ureq::Error::Timeout(_))
    }

    /// Returns whether a certificate was not accepted.
    #[must_use]
    pub fn is_certificate(&self) -> bool {
        self.tls_text().is_some_and(|text| text.contains("certificate"))
    }

    fn is_transient(&self) -> bool {
        match self.ureq() {
            ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_) => true,
            // ureq keeps the proxy's status in the text alone.
            ureq::Error::ConnectProxyFailed(text) => {
                !text.contains("responded 4") || text.contains("408") || text.contains("429")
            }
            // An error of TLS is permanent, except for a certificate that is not valid yet.
            _ => self.tls_text().is_some_and(|text| {
                let has_any = |pieces: &[&str]| pieces.iter().any(|piece| text.contains(piece));
                !has_any(&["certificate", "alert", "incompatible"])
                    || has_any(&["not valid yet", "not yet valid", "notvalidyet"])
            }),
        }
    }

    /// The lower-case text of an error that TLS may have caused. Only the text distinguishes these
    /// errors without a dependency on the TLS library.
    fn tls_text(&self) -> Option<String> {
        let text = match self.ureq() {
            ureq::Error::Io(error) => error.to_string(),
            #[cfg(feature = "native-tls")]
            ureq::Error::NativeTls(error) => error.to_string(),
            _ => return None,
        };
        Some(text.to_ascii_lowercase())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Grant(error) => error.fmt(f),
            Self::Transport(error) => error.fmt(f),
            Self::Rejected { status, code, description }
            | Self::Unavailable { status, code, description, .. } => {
                f.write_str(match self {
                    Self::Rejected { .. } => "token request rejected with",
                    _ => "token endpoint unavailable,",
                })?;
                write!(f, " status {status}")?;
                [code, description].into_iter().flatten().try_for_each(|w| write!(f, ": {w}"))?;
                let Some(wait) = self.retry_after() else { return Ok(()) };
                write!(f, ": try again in {} s", wait.as_secs_f64().ceil())
            }
            Self::InvalidResponse(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Grant(error) = self { error.source() } else { None }
    }
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no grant: {}", self.0)
    }
}

impl std::error::Error for GrantError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TransportError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (setting, reason) = match self {
            Self::BaseUrl(reason) => ("base URL", reason),
            Self::TokenPath(reason) => ("token path", reason),
            Self::Timeout => ("timeout", &"must be longer than zero"),
            Self::Capacity => ("capacity", &"must be at least 1"),
            Self::Reentrant => {
                ("logger or middleware", &"must not ask for the token that it is fetching")
            }
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
            Self::Redirect { status, to } => {
                let to = to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
                write!(f, "status {status}, a redirect{to}, and redirects are refused")
            }
            Self::Status(status) => write!(f, "unexpected status {status}"),
            Self::Body(reason) => write!(f, "the body {reason}"),
            Self::Field { name, reason } => write!(f, "field `{name}` {reason}"),
            Self::Expired => f.write_str("the token had expired on arrival"),
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
        Error::Transport(TransportError::new("no answer".to_owned(), error))
    }

    fn tls(text: &str) -> Error {
        transport(ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, text)))
    }

    #[test]
    fn texts_say_what_happened() {
        let words = |text: Option<&str>| text.map(Into::into);
        let rejected = |code, description| Error::Rejected {
            status: 401,
            code: words(code),
            description: words(description),
        };
        let unavailable = |code, description, retry_after| Error::Unavailable {
            status: 503,
            code: words(code),
            description: words(description),
            retry_after,
        };
        let invalid = Error::InvalidResponse;
        for (error, text) in [
            (Error::Config(ConfigError::Capacity), "capacity: must be at least 1"),
            (transport(ureq::Error::HostNotFound), "no answer"),
            (rejected(None, None), "token request rejected with status 401"),
            (
                rejected(Some("invalid_client"), Some("no such client")),
                "token request rejected with status 401: invalid_client: no such client",
            ),
            (unavailable(None, None, None), "token endpoint unavailable, status 503"),
            (
                unavailable(Some("down"), Some("maintenance"), Some(Duration::from_millis(1_200))),
                "token endpoint unavailable, status 503: down: maintenance: try again in 2 s",
            ),
            (
                invalid(InvalidResponse::Redirect { status: 307, to: None }),
                "the token endpoint's answer is unusable: status 307, a redirect, and redirects are refused",
            ),
            (
                invalid(InvalidResponse::Redirect { status: 307, to: Some("https://a".into()) }),
                "the token endpoint's answer is unusable: status 307, a redirect to https://a, and redirects are refused",
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
                "the token endpoint's answer is unusable: the token had expired on arrival",
            ),
        ] {
            assert_eq!(error.to_string(), text);
            assert!(error.source().is_none(), "the text is complete");
        }
    }

    #[test]
    fn error_of_ureq_is_accessible() {
        let Error::Transport(error) = transport(ureq::Error::HostNotFound) else { panic!() };
        assert!(matches!(error.ureq(), ureq::Error::HostNotFound));
        assert!(!error.is_timeout() && !error.is_certificate());
        let Error::Transport(error) = tls("invalid peer certificate: Expired") else { panic!() };
        assert!(error.is_certificate());
        let timeout = ureq::Error::Timeout(ureq::Timeout::Global);
        let Error::Transport(error) = transport(timeout) else { panic!() };
        assert!(error.is_timeout());
    }

    #[test]
    fn permanent_errors_are_not_transient() {
        let proxy = |text: &str| transport(ureq::Error::ConnectProxyFailed(text.to_owned()));
        for error in [
            tls("invalid peer certificate: Expired"),
            tls("received fatal alert: HandshakeFailure"),
            tls("received fatal alert: ProtocolVersion"),
            tls("peer is incompatible: NoCipherSuitesInCommon"),
            proxy("proxy server responded 403/403"),
            proxy("proxy server responded 407/407"),
            transport(ureq::Error::TlsRequired),
        ] {
            assert!(!error.is_transient(), "{error:?}");
        }
        for error in [
            tls("invalid peer certificate: certificate not valid yet: verification time 1"),
            tls("received corrupt message"),
            proxy("proxy server responded 408/408"),
            proxy("proxy server responded 429/429"),
            proxy("proxy server responded 503/503"),
            proxy("proxy server did not respond"),
            transport(ureq::Error::HostNotFound),
            transport(ureq::Error::Timeout(ureq::Timeout::Global)),
        ] {
            assert!(error.is_transient(), "{error:?}");
        }
    }
}
