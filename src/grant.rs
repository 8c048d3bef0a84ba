use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io;
use std::sync::{Arc, LazyLock};

use serde::ser::{Serialize, SerializeMap, Serializer};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Of the digests: random, so that nobody can choose grants that have the same.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What a token is asked for with: one of the two grant types that WeSeeDo's authentication page
/// names.
///
/// The `client_id` and `client_secret` are made in WeSeeDo's administrative interface
/// (<https://admin.weseedo.nl>, API tab).
///
/// Clones share one copy of the secrets, so that cloning is cheap. Equality compares the secrets
/// too, and the whole grant is the cache's key: a wrong secret is never answered with the token of
/// the right one. `Debug` prints the `client_id` and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant(Arc<Inner>);

/// The digest is compared first, and what differs has another one.
#[derive(PartialEq, Eq)]
struct Inner {
    /// A keyed hash of all the rest, worked out once: a lookup hashes nothing else.
    digest: Zeroizing<u64>,
    client_id: String,
    client_secret: Secret,
    user: Option<User>,
}

#[derive(PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) password: Secret,
}

impl Grant {
    /// Creates a client credentials grant: the program acts for itself (RFC 6749 section 4.4).
    pub fn client_credentials(
        client_id: impl Into<String>,
        client_secret: impl Into<Secret>,
    ) -> Self {
        Self::new(client_id.into(), client_secret.into(), None)
    }

    /// Creates a password grant: the program acts for a user whose password it was given (RFC 6749
    /// section 4.3). RFC 9700 section 2.4 advises against it; WeSeeDo offers it.
    ///
    /// The user's name is personal data, and never printed or logged.
    pub fn password(
        client_id: impl Into<String>,
        client_secret: impl Into<Secret>,
        username: impl Into<String>,
        password: impl Into<Secret>,
    ) -> Self {
        let user = User { name: username.into(), password: password.into() };
        Self::new(client_id.into(), client_secret.into(), Some(user))
    }

    fn new(client_id: String, client_secret: Secret, user: Option<User>) -> Self {
        let names = (&client_id, user.as_ref().map(|user| &user.name));
        let secrets = (client_secret.expose(), user.as_ref().map(|user| user.password.expose()));
        let digest = Zeroizing::new(KEYS.hash_one((names, secrets)));
        Self(Arc::new(Inner { digest, client_id, client_secret, user }))
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.0.client_id
    }

    pub(crate) fn client_secret(&self) -> &Secret {
        &self.0.client_secret
    }

    /// For whom the program acts, if not for itself.
    pub(crate) fn user(&self) -> Option<&User> {
        self.0.user.as_ref()
    }

    /// All that must not be quoted back from a server's answer.
    pub(crate) fn private_texts(&self) -> [&str; 3] {
        let user = self.user().map_or(["", ""], |user| [user.password.expose(), &user.name]);
        [self.client_secret().expose(), user[0], user[1]]
    }

    /// The name of a secret that starts or ends with white space, if there is one.
    pub(crate) fn secret_with_space(&self) -> Option<&'static str> {
        let has_space = |secret: &Secret| secret.expose().trim().len() < secret.expose().len();
        if has_space(self.client_secret()) {
            return Some("client_secret");
        }
        self.user().filter(|user| has_space(&user.password)).map(|_| "password")
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
        let grant = self.0;
        let grant_type = if grant.user().is_some() { "password" } else { "client_credentials" };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("grant_type", grant_type)?;
        map.serialize_entry("client_id", grant.client_id())?;
        map.serialize_entry("client_secret", grant.client_secret().expose())?;
        if let Some(user) = grant.user() {
            map.serialize_entry("username", &user.name)?;
            map.serialize_entry("password", user.password.expose())?;
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

impl Hash for Grant {
    /// Writes a random number that stands for the grant, and nothing of the grant itself.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(*self.0.digest);
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.user().is_some() { "Password" } else { "ClientCredentials" };
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
    fn hash_is_that_of_an_equal_grant_and_tells_nothing_of_it() {
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
            "ClientCredentials { client_id: \"id\", .. }"
        );
        assert_eq!(
            format!("{:?}", Grant::password("id", "s3cr3t", "jan", "pass")),
            "Password { client_id: \"id\", .. }"
        );
    }
}
