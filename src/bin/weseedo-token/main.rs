//! Prints an access token for the WeSeeDo API, for scripts and cron; tries the token endpoint;
//! shows how the library works.

#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod arguments;
mod check;
mod demo;
mod failure;
mod log_to_stderr;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use time::{OffsetDateTime, UtcOffset};
use weseedo_auth::{
    Authenticator, Builder, Event, FileStore, Grant, Lease, StoreError, Stored, Token, TokenStore,
};

use crate::arguments::{Command, Format, Settings};
use crate::failure::Failure;

const HELP: &str = "\
Prints an access token for the WeSeeDo API.

Usage: weseedo-token [OPTIONS]          prints a token
       weseedo-token check [OPTIONS]    tries the token endpoint and prints what it finds
       weseedo-token demo               shows the library at work, without network or credentials

Options:
  --environment ENV   sandbox, production or a URL; required [WESEEDO_ENVIRONMENT]
  --token-path PATH   path of the token endpoint, /api/v2/oauth2/token by default
                      [WESEEDO_TOKEN_PATH]
  --store DIR         directory where runs share a token; none by default [WESEEDO_TOKEN_DIR]
  --refresh           requests a new token although the stored one is valid
  --format FORMAT     token (default), header or json
  -v, --verbose       logs to standard error
  -h, --help          prints this help
  -V, --version       prints the version

Credentials, from environment variables:
  WESEEDO_CLIENT_ID
  WESEEDO_CLIENT_SECRET_FILE, else WESEEDO_CLIENT_SECRET
  WESEEDO_USERNAME, and WESEEDO_PASSWORD_FILE, else WESEEDO_PASSWORD, for the password grant

Exit status: 0 success, 2 usage or setting, 3 rejected credentials, 4 try again later,
1 anything else
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print_error(&failure.text);
            ExitCode::from(failure.status)
        }
    }
}

fn run() -> Result<(), Failure> {
    let settings = match arguments::parse()? {
        Command::Help => return print(HELP),
        Command::Version => {
            return print(concat!("weseedo-token ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Command::Demo => return demo::run(),
        Command::Check(settings) => return check::run(settings),
        Command::Token(settings) => settings,
    };
    let (format, grant) = (settings.format, Grant::from_env()?);
    let token = builder(settings).build()?.get_token(&grant)?;
    print(&text(&token, format)?)
}

fn builder(settings: Settings) -> Builder {
    if settings.verbose {
        log_to_stderr::start();
    }
    let mut builder = Authenticator::builder(settings.environment);
    if let Some(path) = settings.token_path {
        builder = builder.token_path(path);
    }
    let Some(directory) = settings.store else { return builder };
    let store = SharedStore { files: FileStore::new(directory), refresh: settings.refresh };
    builder.store(store).on_event(|event| {
        if let Event::StoreFailed { error, .. } = event {
            print_error(&format!("the token is not shared: {error}"));
        }
    })
}

/// A store in a directory. With `--refresh`, it is only written to.
struct SharedStore {
    files: FileStore,
    refresh: bool,
}

impl TokenStore for SharedStore {
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        if self.refresh { Ok(None) } else { self.files.load(key) }
    }

    fn save(&self, key: &str, sealed: &[u8], remaining: Duration) -> Result<(), StoreError> {
        self.files.save(key, sealed, remaining)
    }

    fn remove(&self, key: &str, sealed: &[u8]) -> Result<(), StoreError> {
        self.files.remove(key, sealed)
    }

    fn lease(&self, key: &str, at_most: Duration) -> Result<Option<Lease>, StoreError> {
        if self.refresh { Ok(Some(Lease::none())) } else { self.files.lease(key, at_most) }
    }
}

fn text(token: &Token, format: Format) -> Result<String, Failure> {
    Ok(match format {
        Format::Token => format!("{}\n", token.access_token()),
        Format::Header => format!("Authorization: {}\n", token.authorization()),
        Format::Json => {
            // A token may contain characters that JSON escapes.
            let access_token = serde_json::to_string(token.access_token());
            let access_token = access_token.map_err(|error| Failure::other(&error))?;
            let (expires, seconds) = (rfc3339(token.expires_at()), token.remaining().as_secs());
            format!(
                "{{\"access_token\":{access_token},\"token_type\":\"Bearer\",\
                 \"expires\":\"{expires}\",\"expires_in\":{seconds}}}\n"
            )
        }
    })
}

/// RFC 3339, in UTC and to the millisecond.
fn rfc3339(moment: OffsetDateTime) -> String {
    let utc = moment.to_offset(UtcOffset::UTC);
    let (date, (hour, minute, second, milli)) = (utc.date(), utc.to_hms_milli());
    format!("{date}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    written.map_err(|error| Failure::other(&format_args!("standard output: {error}")))
}

/// Writes to standard error. Not with `eprintln!`, which panics if that is a file on a full disk.
fn print_error(text: &str) {
    let _ = writeln!(io::stderr(), "weseedo-token: {text}");
}
