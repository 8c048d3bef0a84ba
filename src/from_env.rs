//! Grants from environment variables.

use std::env;
use std::ffi::OsString;

use zeroize::Zeroize;

use crate::error::{Error, GrantError};
use crate::grant::Grant;
use crate::secret::Secret;

impl Grant {
    /// Reads a grant from environment variables. An empty variable counts as unset.
    ///
    /// | variable | |
    /// |---|---|
    /// | `WESEEDO_CLIENT_ID` | required |
    /// | `WESEEDO_CLIENT_SECRET_FILE`, else `WESEEDO_CLIENT_SECRET` | required; the first is the path of a file, for [`Secret::from_file`] |
    /// | `WESEEDO_USERNAME` | for the password grant, together with a password |
    /// | `WESEEDO_PASSWORD_FILE`, else `WESEEDO_PASSWORD` | for the password grant, together with a user name |
    ///
    /// Prefer files: the environment keeps a copy of its own, which is not wiped.
    ///
    /// # Errors
    ///
    /// [`Error::Grant`]: its text names the variable that is missing or unusable.
    pub fn from_env() -> Result<Self, Error> {
        read(|name| env::var_os(name))
    }
}

/// Reads a grant from variables. An empty variable counts as unset.
fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Grant, Error> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let text = |name| {
        set(name).map(OsString::into_string).transpose().map_err(|value| {
            value.into_encoded_bytes().zeroize();
            missing(&format!("{name} must be UTF-8"))
        })
    };
    let secret = |file, name| match set(file).map(Secret::from_file) {
        Some(secret) => secret.map(Some).map_err(|error| missing(&format!("{file}: {error}"))),
        None => Ok(text(name)?.map(Secret::from)),
    };
    let client_id = text("WESEEDO_CLIENT_ID")?.ok_or_else(|| missing("set WESEEDO_CLIENT_ID"))?;
    let client_secret = secret("WESEEDO_CLIENT_SECRET_FILE", "WESEEDO_CLIENT_SECRET")?
        .ok_or_else(|| missing("set WESEEDO_CLIENT_SECRET_FILE or WESEEDO_CLIENT_SECRET"))?;
    let password = secret("WESEEDO_PASSWORD_FILE", "WESEEDO_PASSWORD")?;
    match (text("WESEEDO_USERNAME")?, password) {
        (None, None) => Ok(Grant::client_credentials(client_id, client_secret)),
        (Some(name), Some(word)) => Ok(Grant::password(client_id, client_secret, name, word)),
        (Some(_), None) => Err(missing(
            "WESEEDO_USERNAME is set: set WESEEDO_PASSWORD_FILE or WESEEDO_PASSWORD too",
        )),
        (None, Some(_)) => Err(missing("a password is set: set WESEEDO_USERNAME too")),
    }
}

fn missing(reason: &str) -> Error {
    Error::Grant(GrantError(Box::<dyn std::error::Error + Send + Sync>::from(reason).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(variables: &[(&str, &str)]) -> Result<Grant, String> {
        let find = |name: &str| variables.iter().find(|(other, _)| *other == name);
        read(|name| find(name).map(|(_, value)| value.into())).map_err(|error| error.to_string())
    }

    const ID: (&str, &str) = ("WESEEDO_CLIENT_ID", "id");
    const SECRET: (&str, &str) = ("WESEEDO_CLIENT_SECRET", "s3cr3t");
    const USERNAME: (&str, &str) = ("WESEEDO_USERNAME", "jan");
    const PASSWORD: (&str, &str) = ("WESEEDO_PASSWORD", "p4ss");

    #[test]
    fn grant_is_read_from_its_variables() {
        let client = Grant::client_credentials("id", "s3cr3t");
        assert_eq!(read_from(&[ID, SECRET]).unwrap(), client);
        let unset = [("WESEEDO_USERNAME", ""), ("WESEEDO_CLIENT_SECRET_FILE", "")];
        assert_eq!(read_from(&[ID, SECRET, unset[0], unset[1]]).unwrap(), client);
        let user = Grant::password("id", "s3cr3t", "jan", "p4ss");
        assert_eq!(read_from(&[ID, SECRET, USERNAME, PASSWORD]).unwrap(), user);
    }

    #[test]
    fn file_comes_before_the_secret_itself() {
        let path = std::env::temp_dir().join(format!("weseedo-auth-env-{}", std::process::id()));
        std::fs::write(&path, "from file\n").unwrap();
        let file = path.to_str().unwrap();
        let grant = read_from(&[
            ID,
            SECRET,
            ("WESEEDO_CLIENT_SECRET_FILE", file),
            USERNAME,
            PASSWORD,
            ("WESEEDO_PASSWORD_FILE", file),
        ]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(grant.unwrap(), Grant::password("id", "from file", "jan", "from file"));
        let error = read_from(&[ID, SECRET, ("WESEEDO_CLIENT_SECRET_FILE", file)]).unwrap_err();
        let expected = format!("no grant: WESEEDO_CLIENT_SECRET_FILE: {file}: ");
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn error_says_which_variable_to_set() {
        for (variables, text) in [
            (&[][..], "set WESEEDO_CLIENT_ID"),
            (&[ID], "set WESEEDO_CLIENT_SECRET_FILE or WESEEDO_CLIENT_SECRET"),
            (
                &[ID, SECRET, USERNAME],
                "WESEEDO_USERNAME is set: set WESEEDO_PASSWORD_FILE or WESEEDO_PASSWORD too",
            ),
            (&[ID, SECRET, PASSWORD], "a password is set: set WESEEDO_USERNAME too"),
        ] {
            assert_eq!(read_from(variables).unwrap_err(), format!("no grant: {text}"));
        }
    }

    #[test]
    #[cfg(unix)]
    fn value_that_is_not_utf8_is_not_shown() {
        use std::os::unix::ffi::OsStringExt;

        let value = || Some(OsString::from_vec(b"s3cr3t\xff".to_vec()));
        let error = read(|_| value()).unwrap_err();
        assert_eq!(error.to_string(), "no grant: WESEEDO_CLIENT_ID must be UTF-8");
    }
}
