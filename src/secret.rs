use std::fmt;
use std::hint::black_box;

use zeroize::Zeroizing;

/// A client secret or password: wiped from memory when dropped, and never printed.
///
/// There is no `Display` and no `Serialize`; [`expose`](Self::expose) is the one way to read it. `Debug` prints no part
/// of it. Equality takes the same time wherever two secrets of one length differ.
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
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.expose().as_bytes(), other.expose().as_bytes());
        // `black_box` keeps the compiler from leaving the loop at the first difference.
        ours.len() == theirs.len()
            && black_box(ours.iter().zip(theirs).fold(0, |diff, (a, b)| diff | (a ^ b))) == 0
    }
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
