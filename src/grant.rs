use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use serde::Serializer;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The keys of all digests. They are random, so that nobody can choose grants whose digests
/// collide.
static DIGEST_KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The credentials of a token request, and its grant type. WeSeeDo's authentication page names two
/// types.
///
/// `client_id` and `client_secret` are created in WeSeeDo's administrative interface
/// (<https://admin.weseedo.nl>, API tab).
///
/// Clones share one copy of the secrets, so that cloning is cheap. The whole grant, secrets
/// included, is the key of the cache, so that a wrong secret never gets the token of the right one.
/// `Debug` prints the `client_id` and nothing else.
///
/// ```
/// use weseedo_auth::Grant;
///
/// let grant = Grant::client_credentials("client id", "client secret");
/// assert!(matches!(grant, Grant::ClientCredentials(_)));
/// assert_eq!(grant.client_id(), "client id");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grant {
    /// The program acts for itself: [`Grant::client_credentials`].
    ClientCredentials(Credentials),
    /// The program acts for a user: [`Grant::password`].
    Password(Credentials),
}

/// The texts of a [`Grant`]. They are wiped from memory when the last clone is dropped.
///
/// `Debug` prints the `client_id` and nothing else. Comparing two secrets of the same length takes
/// the same time wherever they differ.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(Arc<Inner>);

/// The digest is compared first: it differs for almost all grants that differ.
#[derive(PartialEq, Eq)]
struct Inner {
    /// A keyed hash of the other fields, computed once, so that a cache lookup hashes nothing else.
    digest: Zeroizing<u64>,
    client_id: String,
    client_secret: Secret,
    user: Option<User>,
}

/// A user's name and password.
type User = (Secret, Secret);

impl Grant {
    /// Creates a client credentials grant: the program acts for itself (RFC 6749 section 4.4).
    pub fn client_credentials(
        client_id: impl Into<String>,
        client_secret: impl Into<Secret>,
    ) -> Self {
        Self::ClientCredentials(Credentials::new(client_id.into(), client_secret.into(), None))
    }

    /// Creates a password grant: the program acts for a user who gave it a password (RFC 6749
    /// section 4.3). RFC 9700 section 2.4 advises against this grant type; WeSeeDo offers it.
    ///
    /// The user name is personal data and is never printed or logged.
    pub fn password(
        client_id: impl Into<String>,
        client_secret: impl Into<Secret>,
        username: impl Into<String>,
        password: impl Into<Secret>,
    ) -> Self {
        let user = (username.into().into(), password.into());
        Self::Password(Credentials::new(client_id.into(), client_secret.into(), Some(user)))
    }

    /// Returns the client identifier.
    #[must_use]
    pub fn client_id(&self) -> &str {
        self.credentials().client_id()
    }

    pub(crate) fn client_secret(&self) -> &Secret {
        &self.credentials().0.client_secret
    }

    /// The user's name and password, if the program acts for a user. Their presence decides the
    /// grant type, because a caller can put the credentials of one variant into the other.
    pub(crate) fn user(&self) -> Option<(&str, &str)> {
        let (name, password) = self.credentials().0.user.as_ref()?;
        Some((name.expose(), password.expose()))
    }

    fn credentials(&self) -> &Credentials {
        let (Self::ClientCredentials(credentials) | Self::Password(credentials)) = self;
        credentials
    }

    /// The texts that an error must not quote from a server's answer; "" if there is none.
    pub(crate) fn private_texts(&self) -> [&str; 3] {
        let (name, password) = self.user().unwrap_or_default();
        [self.client_secret().expose(), password, name]
    }

    /// The name of a secret that starts or ends with a character that is probably a mistake.
    pub(crate) fn secret_with_stray_end(&self) -> Option<&'static str> {
        let is_stray = |char: char| {
            let is_invisible = matches!(char, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}');
            let is_quote = matches!(
                char,
                '"' | '\'' | '`' | '\u{ab}' | '\u{b4}' | '\u{bb}' | '\u{2018}'
                    ..='\u{201f}' | '\u{2039}' | '\u{203a}'
            );
            char.is_whitespace() || char.is_control() || is_invisible || is_quote
        };
        let is_secret = |name: &str| name == "client_secret" || name == "password";
        let mut fields = self.fields().filter(|(name, _)| is_secret(name));
        fields.find(|(_, text)| text.starts_with(is_stray) || text.ends_with(is_stray)).map(|f| f.0)
    }

    /// The body of the token request.
    pub(crate) fn to_json(&self) -> Zeroizing<Vec<u8>> {
        // A buffer that grows would leave an unwiped copy behind. An escaped byte takes six at
        // most.
        let length = self.fields().map(|(name, text)| name.len() + 8 + 6 * text.len()).sum();
        let mut body = Zeroizing::new(Vec::with_capacity(length));
        // Writing to memory doesn't fail, and strings under string keys can all be serialized.
        #[expect(clippy::expect_used, reason = "proven above")]
        serde_json::Serializer::new(&mut *body).collect_map(self.fields()).expect("text as JSON");
        body
    }

    fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let grant_type = if self.user().is_some() { "password" } else { "client_credentials" };
        let client = [
            ("grant_type", grant_type),
            ("client_id", self.client_id()),
            ("client_secret", self.client_secret().expose()),
        ];
        let user = self.user().map(|(name, password)| [("username", name), ("password", password)]);
        client.into_iter().chain(user.into_iter().flatten())
    }
}

impl Credentials {
    fn new(client_id: String, client_secret: Secret, user: Option<User>) -> Self {
        let user_texts = user.as_ref().map(|(name, password)| (name.expose(), password.expose()));
        let digest = DIGEST_KEYS.hash_one((&client_id, client_secret.expose(), user_texts));
        let digest = Zeroizing::new(digest);
        Self(Arc::new(Inner { digest, client_id, client_secret, user }))
    }

    /// Returns the client identifier.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.0.client_id
    }
}

impl Hash for Grant {
    /// Hashes the digest of the grant, and none of its texts.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(*self.credentials().0.digest);
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("client_id", &self.0.client_id).finish_non_exhaustive()
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
    }

    #[test]
    fn body_never_grows() {
        for text in ["", "\0\u{1}\u{1f}", "\"\\\n", "\u{e9}\u{1f600}"] {
            for grant in [
                Grant::client_credentials(text, text),
                Grant::password(text, text, text.repeat(99), text),
            ] {
                let length: usize =
                    grant.fields().map(|(name, text)| name.len() + 8 + 6 * text.len()).sum();
                assert!(grant.to_json().len() <= length);
            }
        }
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
    fn equal_grants_have_one_hash_which_shows_nothing_of_them() {
        struct Written(Vec<u8>);
        impl Hasher for Written {
            fn write(&mut self, bytes: &[u8]) {
                self.0.extend(bytes);
            }
            fn finish(&self) -> u64 {
                0
            }
        }
        let written = |grant: &Grant| {
            let mut written = Written(Vec::new());
            grant.hash(&mut written);
            written.0
        };
        let grant = || Grant::password("id", "s3cr3t", "jan", "pass");
        assert_eq!(written(&grant()), written(&grant()));
        assert_eq!(written(&grant()).len(), size_of::<u64>());
        for other in [
            Grant::password("ids", "3cr3t", "jan", "pass"),
            Grant::password("id", "s3cr3t", "janp", "ass"),
            Grant::client_credentials("id", "s3cr3t"),
        ] {
            assert_ne!(written(&grant()), written(&other));
        }
    }

    #[test]
    fn debug_shows_the_client_id_only() {
        assert_eq!(
            format!("{:?}", Grant::client_credentials("id", "s3cr3t")),
            "ClientCredentials(Credentials { client_id: \"id\", .. })"
        );
        assert_eq!(
            format!("{:?}", Grant::password("id", "s3cr3t", "jan", "pass")),
            "Password(Credentials { client_id: \"id\", .. })"
        );
        let Grant::Password(credentials) = Grant::password("id", "s3cr3t", "jan", "pass") else {
            panic!("another variant");
        };
        assert_eq!(credentials.client_id(), "id");
        assert_eq!(format!("{credentials:?}"), "Credentials { client_id: \"id\", .. }");
    }
}
