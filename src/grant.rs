use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;

use serde::ser::{Serialize, SerializeMap, Serializer};
use zeroize::Zeroizing;

use crate::secret::{Secret, is_same};

/// What a token is asked for with: one of the two grant types that WeSeeDo's authentication page
/// names.
///
/// The `client_id` and `client_secret` are made in WeSeeDo's administrative interface
/// (<https://admin.weseedo.nl>, API tab).
///
/// Equality compares the secrets too, and the whole grant is the cache's key: a wrong secret is
/// never answered with the token of the right one. `Debug` prints the `client_id` and nothing else.
#[derive(Clone, Eq)]
#[non_exhaustive]
pub enum Grant {
    /// The program acts for itself (RFC 6749 section 4.4).
    ClientCredentials {
        /// The client identifier.
        client_id: String,
        /// The client secret.
        client_secret: Secret,
    },
    /// The program acts for a user whose password it was given (RFC 6749 section 4.3). RFC 9700
    /// section 2.4 advises against it; WeSeeDo offers it.
    Password {
        /// The client identifier.
        client_id: String,
        /// The client secret.
        client_secret: Secret,
        /// The user's name: personal data, never printed or logged.
        username: String,
        /// The user's password.
        password: Secret,
    },
}

impl Grant {
    /// Creates a client credentials grant.
    pub fn client_credentials(
        client_id: impl Into<String>,
        client_secret: impl Into<Secret>,
    ) -> Self {
        Self::ClientCredentials { client_id: client_id.into(), client_secret: client_secret.into() }
    }

    /// Creates a password grant.
    pub fn password(
        client_id: impl Into<String>,
        client_secret: impl Into<Secret>,
        username: impl Into<String>,
        password: impl Into<Secret>,
    ) -> Self {
        Self::Password {
            client_id: client_id.into(),
            client_secret: client_secret.into(),
            username: username.into(),
            password: password.into(),
        }
    }

    pub(crate) fn client_id(&self) -> &str {
        match self {
            Self::ClientCredentials { client_id, .. } | Self::Password { client_id, .. } => {
                client_id
            }
        }
    }

    /// All that must not be quoted back from a server's answer.
    pub(crate) fn private_texts(&self) -> [&str; 3] {
        match self {
            Self::ClientCredentials { client_secret, .. } => [client_secret.expose(), "", ""],
            Self::Password { client_secret, username, password, .. } => {
                [client_secret.expose(), password.expose(), username]
            }
        }
    }

    /// The name of a secret that starts or ends with white space, if there is one.
    pub(crate) fn secret_with_space(&self) -> Option<&'static str> {
        let has_space = |secret: &Secret| secret.expose().trim().len() < secret.expose().len();
        match self {
            Self::ClientCredentials { client_secret, .. }
            | Self::Password { client_secret, .. }
                if has_space(client_secret) =>
            {
                Some("client_secret")
            }
            Self::Password { password, .. } if has_space(password) => Some("password"),
            _ => None,
        }
    }

    /// The body of the token request, in a buffer that never grew: growth would leave a copy
    /// behind.
    pub(crate) fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let mut length = Length(0);
        write_json(&mut length, self);
        let mut body = Zeroizing::new(Vec::with_capacity(length.0));
        write_json(&mut *body, self);
        body
    }
}

fn write_json(writer: impl io::Write, grant: &Grant) {
    // Neither writer fails, and strings under string keys can all be serialized.
    #[expect(clippy::expect_used, reason = "proven above")]
    serde_json::to_writer(writer, &Body(grant)).expect("writing strings to memory");
}

struct Body<'a>(&'a Grant);

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.0 {
            Grant::ClientCredentials { client_id, client_secret } => {
                map.serialize_entry("grant_type", "client_credentials")?;
                map.serialize_entry("client_id", client_id)?;
                map.serialize_entry("client_secret", client_secret.expose())?;
            }
            Grant::Password { client_id, client_secret, username, password } => {
                map.serialize_entry("grant_type", "password")?;
                map.serialize_entry("client_id", client_id)?;
                map.serialize_entry("client_secret", client_secret.expose())?;
                map.serialize_entry("username", username)?;
                map.serialize_entry("password", password.expose())?;
            }
        }
        map.end()
    }
}

/// Counts what is written, and keeps none of it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PartialEq for Grant {
    /// Takes the same time wherever secrets of one length differ.
    // Inlined into the loop of `get_token`, it would have every field loaded before each lookup.
    #[inline(never)]
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::ClientCredentials { client_id, client_secret },
                Self::ClientCredentials { client_id: their_id, client_secret: their_secret },
            ) => is_same(client_id, their_id) && client_secret == their_secret,
            (
                Self::Password { client_id, client_secret, username, password },
                Self::Password {
                    client_id: their_id,
                    client_secret: their_secret,
                    username: their_name,
                    password: their_password,
                },
            ) => {
                is_same(client_id, their_id)
                    && client_secret == their_secret
                    && is_same(username, their_name)
                    && password == their_password
            }
            _ => false,
        }
    }
}

impl Hash for Grant {
    /// Covers the secrets too, so that wrong ones of one client don't collide.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut write = |text: &str| {
            state.write(text.as_bytes());
            // What can't be in a text tells where it ends.
            state.write_u8(0xff);
        };
        match self {
            Self::ClientCredentials { client_id, client_secret } => {
                write(client_id);
                write(client_secret.expose());
            }
            Self::Password { client_id, client_secret, username, password } => {
                write(client_id);
                write(client_secret.expose());
                write(username);
                write(password.expose());
            }
        }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::ClientCredentials { .. } => "ClientCredentials",
            Self::Password { .. } => "Password",
        };
        f.debug_struct(name).field("client_id", &self.client_id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_is_the_documented_json() {
        let body = Grant::client_credentials("id", "s3cr3t").to_json();
        assert_eq!(
            str::from_utf8(&body),
            Ok(r#"{"grant_type":"client_credentials","client_id":"id","client_secret":"s3cr3t"}"#)
        );
        let body = Grant::password("id", "s3cr3t", "jan", "pa\"ss\\w\u{e9}\n").to_json();
        assert_eq!(
            str::from_utf8(&body),
            Ok(concat!(
                r#"{"grant_type":"password","client_id":"id","client_secret":"s3cr3t","#,
                r#""username":"jan","password":"pa\"ss\\wé\n"}"#
            ))
        );
        assert_eq!(body.capacity(), body.len());
    }

    #[test]
    fn every_field_counts_in_equality() {
        let grant = Grant::password("id", "s3cr3t", "jan", "pass");
        assert_eq!(grant, grant.clone());
        for other in [
            Grant::password("ID", "s3cr3t", "jan", "pass"),
            Grant::password("id", "S3cr3t", "jan", "pass"),
            Grant::password("id", "s3cr3t", "Jan", "pass"),
            Grant::password("id", "s3cr3t", "jan", "Pass"),
            Grant::client_credentials("id", "s3cr3t"),
        ] {
            assert_ne!(grant, other);
        }
    }

    #[test]
    fn debug_shows_the_client_id_only() {
        assert_eq!(
            format!("{:?}", Grant::client_credentials("id", "s3cr3t")),
            "ClientCredentials { client_id: \"id\", .. }"
        );
        assert_eq!(
            format!("{:?}", Grant::password("id", "s3cr3t", "jan", "pass")),
            "Password { client_id: \"id\", .. }"
        );
    }
}
