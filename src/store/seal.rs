use std::time::{Duration, SystemTime};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, HKDF_SHA512, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::grant::Grant;
use crate::token::Token;

/// Identifies the format. Changing it makes values of older versions unreachable.
const FORMAT: &[u8] = b"weseedo-auth token store, format 2";
const NAME_LENGTH: usize = 32;
const KEY_LENGTH: usize = 32;
/// The longest value that is opened, in bytes. An answer of the token endpoint has at most half of
/// that.
pub(super) const MAX_SEALED: usize = 32 * 1024;

/// The name under which a grant's token is stored, and the key that seals it.
///
/// Both are derived from the grant, secrets included, and from the token endpoint. Without the
/// secrets, nobody can read or forge a stored token, and no grant finds the token of another one.
///
/// Boxed, because moving a value on the stack leaves unwiped copies there.
pub(super) struct Seal(Box<Zeroizing<[u8; NAME_LENGTH + KEY_LENGTH]>>);

/// A stored token.
pub(super) struct Opened {
    pub(super) access_token: Zeroizing<String>,
    pub(super) expires: OffsetDateTime,
    pub(super) fetched: SystemTime,
    pub(super) lifetime: Duration,
}

impl Seal {
    pub(super) fn new(token_endpoint: &str, grant: &Grant) -> Self {
        let (client_id, client_secret) = (grant.client_id(), grant.client_secret().expose());
        let (secrets, info) = match grant.user() {
            None => (
                framed(&[client_secret]),
                framed(&[token_endpoint, "client_credentials", client_id]),
            ),
            Some((name, password)) => (
                framed(&[client_secret, password]),
                framed(&[token_endpoint, "password", client_id, name]),
            ),
        };
        let mut name_and_key = Box::new(Zeroizing::new([0; NAME_LENGTH + KEY_LENGTH]));
        // RFC 5869 section 2.3: only more than 255 times the length of a hash is too long.
        #[expect(clippy::expect_used, reason = "proven above")]
        Salt::new(HKDF_SHA256, FORMAT)
            .extract(&secrets)
            // `HKDF_SHA512` stands only for its length: 64 bytes, for the name and the key.
            .expand(&[&info], HKDF_SHA512)
            .and_then(|okm| okm.fill(&mut **name_and_key))
            .expect("two hashes' length of key material");
        Self(name_and_key)
    }

    /// The name, as 64 hexadecimal digits.
    pub(super) fn name(&self) -> String {
        hex(self.raw_name())
    }

    fn raw_name(&self) -> &[u8] {
        &self.0[..NAME_LENGTH]
    }

    fn key(&self) -> Option<LessSafeKey> {
        UnboundKey::new(&CHACHA20_POLY1305, &self.0[NAME_LENGTH..]).ok().map(LessSafeKey::new)
    }

    /// Returns the nonce and the sealed token, to be stored under the name; `None` if the system
    /// gives no random numbers.
    pub(super) fn seal(&self, token: &Token) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let access_token = token.access_token().as_bytes();
        // `expires` in nanoseconds, the time of the fetch and the lifetime in milliseconds.
        let head = 16 + 8 + 8;
        let length = NONCE_LEN + head + access_token.len() + CHACHA20_POLY1305.tag_len();
        let mut value = Zeroizing::new(Vec::with_capacity(length));
        value.extend(nonce);
        value.extend(token.expires_at().unix_timestamp_nanos().to_be_bytes());
        let fetched = token.lifetime().start.wall.duration_since(SystemTime::UNIX_EPOCH);
        value.extend(milliseconds(fetched.unwrap_or_default()).to_be_bytes());
        value.extend(milliseconds(token.lifetime().length).to_be_bytes());
        value.extend(access_token);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let text = &mut value[NONCE_LEN..];
        let tag = self.key()?.seal_in_place_separate_tag(nonce, Aad::from(self.raw_name()), text);
        value.extend(tag.ok()?.as_ref());
        Some(std::mem::take(&mut *value))
    }

    /// Opens a value that was sealed for this name and with this key; `None` for any other.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Opened> {
        let (nonce, text) = sealed.split_first_chunk()?;
        if sealed.len() > MAX_SEALED {
            return None;
        }
        let mut text = Zeroizing::new(text.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let aad = Aad::from(self.raw_name());
        let text = &*self.key()?.open_in_place(nonce, aad, &mut text).ok()?;
        let (expires, text) = text.split_first_chunk()?;
        let (fetched, text) = text.split_first_chunk()?;
        let (lifetime, text) = text.split_first_chunk()?;
        let expires = i128::from_be_bytes(*expires);
        let duration = |bytes: &[u8; 8]| Duration::from_millis(u64::from_be_bytes(*bytes));
        Some(Opened {
            access_token: Zeroizing::new(str::from_utf8(text).ok()?.to_owned()),
            expires: OffsetDateTime::from_unix_timestamp_nanos(expires).ok()?,
            fetched: SystemTime::UNIX_EPOCH.checked_add(duration(fetched))?,
            lifetime: duration(lifetime),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Writes each text after its length, so that no two lists of texts give the same bytes. The buffer
/// has its final size from the start, because growing would leave an unwiped copy.
fn framed(texts: &[&str]) -> Zeroizing<Vec<u8>> {
    let length = texts.iter().map(|text| size_of::<u64>() + text.len()).sum();
    let mut framed = Zeroizing::new(Vec::with_capacity(length));
    for text in texts {
        framed.extend((text.len() as u64).to_be_bytes());
        framed.extend(text.as_bytes());
    }
    framed
}

/// Whole milliseconds, at most `u64::MAX`.
fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Moment, Span};

    const ENDPOINT: &str = "https://api.weseedo.nl/api/v2/oauth2/token";
    const ACCESS_TOKEN: &str = "d33.59b";

    fn client() -> Grant {
        Grant::client_credentials("id", "s3cr3t")
    }

    fn user() -> Grant {
        Grant::password("id", "s3cr3t", "jan", "p4ss")
    }

    fn token() -> Token {
        let lifetime = Span::new(Moment::now(), Duration::from_secs(3600));
        Token::new(ACCESS_TOKEN, OffsetDateTime::UNIX_EPOCH + Duration::from_nanos(9), lifetime)
    }

    /// Computed by RFC 5869 with Python's `hmac` and `hashlib`, from the documented salt, input and
    /// info.
    #[test]
    fn name_and_key_are_known() {
        let seal = Seal::new(ENDPOINT, &client());
        let name = "71cf41f59184abea5b86a7b75fd24c344745b49eed19596ed3be621bb1be313f";
        assert_eq!(seal.name(), name);
        let key = "adf303be4f461cec0a7066a26a2fe3998c988f07ebcb1daeecd2265088d136ac";
        assert_eq!(hex(&**seal.0), format!("{name}{key}"));
        let seal = Seal::new(ENDPOINT, &user());
        let name = "d2f5d74101c7ea7cd3580f6ff86021d5a0a6147299556c01c50e16e7ce90f639";
        assert_eq!(seal.name(), name);
        let key = "de620aec9884207297464ceedf40fca75dd3e37c00205ca1a079fe17dbcc69b6";
        assert_eq!(hex(&**seal.0), format!("{name}{key}"));
    }

    /// Sealed by the Python package `cryptography` with the key above. While this test passes,
    /// programs with another version of this crate can read the values of this one.
    #[test]
    fn value_is_known() {
        let value = concat!(
            "000102030405060708090a0bc8258a6e2d8adc2db6419eeca33dbb6cf18e3a71a26d82e9ef82e546c655a193",
            "0f0877ba48505422fd2eda7e613eb2a677a28007f4ddaa"
        );
        let value: Vec<_> = (0..value.len() / 2)
            .map(|i| u8::from_str_radix(&value[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let opened = Seal::new(ENDPOINT, &client()).open(&value).unwrap();
        assert_eq!(*opened.access_token, ACCESS_TOKEN);
        assert_eq!(opened.expires.to_string(), "2021-12-31 23:59:59.999 +00:00:00");
        let fetched = opened.fetched.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(fetched, Duration::from_millis(1_640_991_599_500));
        assert_eq!(opened.lifetime, Duration::from_secs(3598));
    }

    #[test]
    fn sealed_token_opens_to_the_same_token() {
        for grant in [client(), user()] {
            let (seal, token) = (Seal::new(ENDPOINT, &grant), token());
            let opened = seal.open(&seal.seal(&token).unwrap()).unwrap();
            assert_eq!(*opened.access_token, ACCESS_TOKEN);
            assert_eq!(opened.expires, token.expires_at());
            let fetched = token.lifetime().start.wall;
            assert!(fetched.duration_since(opened.fetched).unwrap() < Duration::from_millis(1));
            assert_eq!(opened.lifetime, token.lifetime().length);
        }
    }

    #[test]
    fn token_is_never_sealed_to_the_same_value_twice() {
        let (seal, token) = (Seal::new(ENDPOINT, &client()), token());
        assert_ne!(seal.seal(&token), seal.seal(&token));
    }

    #[test]
    fn every_part_of_the_grant_and_the_endpoint_counts() {
        let seal = Seal::new(ENDPOINT, &user());
        let value = seal.seal(&token()).unwrap();
        for other in [
            Seal::new(ENDPOINT, &client()),
            Seal::new("https://api.weseedo.nl/api/oauth2/token", &user()),
            Seal::new(ENDPOINT, &Grant::password("ID", "s3cr3t", "jan", "p4ss")),
            Seal::new(ENDPOINT, &Grant::password("id", "S3cr3t", "jan", "p4ss")),
            Seal::new(ENDPOINT, &Grant::password("id", "s3cr3t", "Jan", "p4ss")),
            Seal::new(ENDPOINT, &Grant::password("id", "s3cr3t", "jan", "P4ss")),
            // The same letters, divided differently between two fields.
            Seal::new(ENDPOINT, &Grant::password("idj", "s3cr3t", "an", "p4ss")),
            Seal::new(ENDPOINT, &Grant::password("id", "s3cr3tp", "jan", "4ss")),
        ] {
            assert_ne!(seal.name(), other.name());
            assert!(other.open(&value).is_none());
        }
        // Client credentials with the same list of texts.
        let client = Seal::new(ENDPOINT, &Grant::client_credentials("jan", "s3cr3t"));
        let user = Seal::new(ENDPOINT, &Grant::password("jan", "s3cr3t", "", ""));
        assert_ne!(client.name(), user.name());
    }

    #[test]
    fn value_that_was_moved_to_another_name_does_not_open() {
        let seal = Seal::new(ENDPOINT, &client());
        let value = seal.seal(&token()).unwrap();
        let mut moved = Seal(seal.0.clone());
        moved.0[0] ^= 1;
        assert!(
            moved.open(&value).is_none(),
            "the name is authenticated, although the key is the same"
        );
    }

    #[test]
    fn truncated_or_changed_value_does_not_open() {
        let seal = Seal::new(ENDPOINT, &client());
        let value = seal.seal(&token()).unwrap();
        for i in 0..value.len() {
            assert!(seal.open(&value[..i]).is_none(), "the first {i} bytes");
            assert!(seal.open(&value[i + 1..]).is_none(), "all but the first {}", i + 1);
            for bit in 0..8 {
                let mut flipped = value.clone();
                flipped[i] ^= 1 << bit;
                assert!(seal.open(&flipped).is_none(), "bit {bit} of byte {i}");
            }
        }
        assert!(seal.open(&[value, vec![0]].concat()).is_none());
    }

    #[test]
    fn nothing_is_legible_in_a_value() {
        let (seal, token) = (Seal::new(ENDPOINT, &user()), token());
        let value = seal.seal(&token).unwrap();
        for text in [ACCESS_TOKEN, "s3cr3t", "p4ss", "jan", "weseedo"] {
            for piece in text.as_bytes().windows(text.len().min(4)) {
                assert!(!value.windows(piece.len()).any(|window| window == piece), "{text}");
            }
        }
        assert!(seal.name().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn times_out_of_range_do_no_harm() {
        assert_eq!(milliseconds(Duration::MAX), u64::MAX);
        let (start, length) = (Moment::now(), Duration::MAX);
        let expires = OffsetDateTime::from_unix_timestamp(253_402_300_799).unwrap();
        let token = Token::new(ACCESS_TOKEN, expires, Span::new(start, length));
        let seal = Seal::new(ENDPOINT, &client());
        let opened = seal.open(&seal.seal(&token).unwrap()).unwrap();
        assert_eq!(opened.lifetime, Duration::from_millis(u64::MAX));
    }
}
