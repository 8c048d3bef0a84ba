use std::fmt;
use std::hint::black_box;

use zeroize::Zeroizing;

/// A client secret or password: wiped from memory when dropped, and never printed.
///
/// There is no `Display` and no `Serialize`; [`expose`](Self::expose) is the one way to read it.
/// `Debug` prints no part of it. Equality takes the same time wherever two secrets of one length
/// differ.
///
/// ```
/// use weseedo_auth::Secret;
///
/// let secret = Secret::from(String::from("s3cr3t")); // takes the String's buffer over, copies nothing
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// assert_eq!(secret.expose(), "s3cr3t");
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Returns the secret in plain text.
    ///
    /// What is copied from it is no longer wiped.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    /// Takes the buffer over: it is wiped, spare capacity included, when the `Secret` is dropped.
    fn from(secret: String) -> Self {
        Self(Zeroizing::new(secret))
    }
}

impl From<&str> for Secret {
    /// Copies the text; the caller's own copy is the caller's to wipe.
    fn from(secret: &str) -> Self {
        Self::from(secret.to_owned())
    }
}

impl PartialEq for Secret {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        is_same(self.expose(), other.expose())
    }
}

/// Whether two texts are the same, in a time that depends on their lengths only.
///
/// Eight bytes at a time, the last of them perhaps partly twice: a lookup compares all of a grant.
#[inline]
pub(crate) fn is_same(ours: &str, theirs: &str) -> bool {
    let (ours, theirs) = (ours.as_bytes(), theirs.as_bytes());
    if ours.len() != theirs.len() {
        return false;
    }
    let (Some(a), Some(b)) = (ours.last_chunk(), theirs.last_chunk()) else {
        return is_same_and_short(ours, theirs);
    };
    let pairs = ours.as_chunks().0.iter().zip(theirs.as_chunks().0);
    // `black_box` keeps the compiler from leaving the loop at the first difference.
    black_box(pairs.fold(difference(*a, *b), |sum, (a, b)| sum | difference(*a, *b))) == 0
}

/// The bits in which two pieces differ.
#[inline]
fn difference(a: [u8; 8], b: [u8; 8]) -> u64 {
    u64::from_ne_bytes(a) ^ u64::from_ne_bytes(b)
}

#[inline(never)]
fn is_same_and_short(a: &[u8], b: &[u8]) -> bool {
    black_box(a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b))) == 0
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_is_taken_over_without_a_copy() {
        let text = String::from("s3cr3t");
        let address = text.as_ptr();
        assert_eq!(Secret::from(text).expose().as_ptr(), address);
    }

    #[test]
    fn equal_means_the_same_text() {
        let secret = Secret::from("s3cr3t");
        assert_eq!(secret, secret.clone());
        for other in ["", "s3cr3", "s3cr3t!", "S3cr3t", "s3cr3T"] {
            assert_ne!(secret, Secret::from(other), "{other}");
        }
    }
}
