use std::fmt;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, ErrorKind};
use std::path::Path;

use zeroize::Zeroizing;

use crate::read;

/// The largest file that is read, in bytes.
const MAX_FILE: usize = 64 * 1024;

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
    /// Copies of the returned text are not wiped.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a secret from a file, such as one of systemd's `LoadCredential`, or a Docker or
    /// Kubernetes secret.
    ///
    /// One line end (`\n` or `\r\n`) is taken off the end; other white space is part of the secret.
    /// The file may be a pipe or be in `/proc`; it is read to at most 64 KiB, into a buffer that is
    /// wiped.
    ///
    /// ```
    /// use weseedo_auth::{Grant, Secret};
    ///
    /// # let path = std::env::temp_dir().join(format!("weseedo-auth-doc-{}", std::process::id()));
    /// # std::fs::write(&path, "s3cr3t\n")?;
    /// let secret = Secret::from_file(&path)?;
    /// # std::fs::remove_file(&path)?;
    /// assert_eq!(secret.expose(), "s3cr3t");
    /// let grant = Grant::client_credentials("client id", secret);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The file system's error, such as [`NotFound`](ErrorKind::NotFound), or
    /// [`InvalidData`](ErrorKind::InvalidData) if the file is empty, larger than 64 KiB or not
    /// UTF-8. The text names the path.
    pub fn from_file(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        // The buffer has the same size for every file, because the metadata of a pipe or of a file
        // in `/proc` is wrong.
        let mut buffer = Zeroizing::new(vec![0; MAX_FILE + 1]);
        let text = File::open(path).and_then(|file| read::until_full(file, &mut buffer));
        text.and_then(Self::from_content)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    fn from_content(content: &[u8]) -> io::Result<Self> {
        let invalid = |reason| Err(io::Error::new(ErrorKind::InvalidData, reason));
        if content.len() > MAX_FILE {
            return invalid("is larger than 64 KiB, too large for a secret");
        }
        let Ok(text) = str::from_utf8(content) else {
            return invalid("is not UTF-8, and a secret must be");
        };
        let line = text.strip_suffix("\r\n").or(text.strip_suffix('\n')).unwrap_or(text);
        if line.is_empty() {
            return invalid("is empty, and a secret must not be");
        }
        Ok(Self::from(line))
    }
}

impl From<String> for Secret {
    /// Takes the buffer over: it is wiped, spare capacity included, when the `Secret` is dropped.
    fn from(secret: String) -> Self {
        Self(Zeroizing::new(secret))
    }
}

impl From<&str> for Secret {
    /// Copies the text; the crate doesn't wipe the caller's own copy.
    fn from(secret: &str) -> Self {
        Self::from(secret.to_owned())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        is_same(self.expose(), other.expose())
    }
}

/// Whether two texts are equal. Takes the same time wherever two texts of one length differ.
pub(crate) fn is_same(a: &str, b: &str) -> bool {
    let difference = || a.bytes().zip(b.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    // `black_box` keeps the compiler from leaving the loop at the first difference.
    a.len() == b.len() && black_box(difference()) == 0
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
    fn file_loses_one_line_end_and_nothing_else() {
        let read = |content: &[u8]| Secret::from_content(content).unwrap().expose().to_owned();
        for (content, secret) in [
            ("s3cr3t", "s3cr3t"),
            ("s3cr3t\n", "s3cr3t"),
            ("s3cr3t\r\n", "s3cr3t"),
            ("s3cr3t\n\n", "s3cr3t\n"),
            ("s3cr3t\r", "s3cr3t\r"),
            (" s3cr3t \n", " s3cr3t "),
            ("\ns", "\ns"),
        ] {
            assert_eq!(read(content.as_bytes()), secret, "{content:?}");
        }
        assert_eq!(read("x".repeat(MAX_FILE).as_bytes()).len(), MAX_FILE);
    }

    #[test]
    fn file_that_holds_no_secret_is_refused_by_its_path() {
        let path = std::env::temp_dir().join(format!("weseedo-auth-secret-{}", std::process::id()));
        let refused = |content: Option<&[u8]>| {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = Secret::from_file(&path).unwrap_err();
            let _ = std::fs::remove_file(&path);
            let text = error.to_string();
            assert!(text.starts_with(&path.display().to_string()), "{text}");
            (error.kind(), text)
        };
        assert_eq!(refused(None).0, ErrorKind::NotFound);
        for (content, reason) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"\r\n", "is empty"),
            (b"s3cr3t\xff", "is not UTF-8"),
            ("x".repeat(MAX_FILE + 1).as_bytes(), "is larger than 64 KiB"),
        ] {
            let (kind, text) = refused(Some(content));
            assert!(kind == ErrorKind::InvalidData && text.contains(reason), "{text}");
            assert!(!text.contains("s3cr3t"), "{text}");
        }
    }

    /// The metadata of files in `/proc` says that they are empty.
    #[test]
    #[cfg(target_os = "linux")]
    fn size_in_the_metadata_of_a_file_is_ignored() {
        assert!(Secret::from_file("/proc/self/status").unwrap().expose().starts_with("Name:"));
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
