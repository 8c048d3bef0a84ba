//! Prints a token, for a shell script: `curl -H "Authorization: Bearer $(print_token)" …`
//!
//! `WESEEDO_CLIENT_ID` must be set, and `WESEEDO_CLIENT_SECRET_FILE` (the path of a file with the
//! secret) or, where that is not set, `WESEEDO_CLIENT_SECRET`. `WESEEDO_BASE_URL` and
//! `WESEEDO_TOKEN_PATH` may be; without them it asks the sandbox. With `WESEEDO_TOKEN_DIR`, a
//! directory of its own, it keeps the token there, and later runs make no request until that is
//! over; this takes `--features store`.

use std::env;
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use weseedo_auth::{Authenticator, Environment, Grant, Secret, Token};

fn main() -> ExitCode {
    match token().and_then(|token| Ok(writeln!(io::stdout(), "{}", token.access_token())?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}

/// Not `eprintln!`, which panics where standard error is a file on a full disk.
fn tell(what: &dyn Display) {
    let _ = writeln!(io::stderr(), "print_token: {what}");
}

fn token() -> Result<Token, Box<dyn Error>> {
    let id = "WESEEDO_CLIENT_ID";
    let id = env::var(id).map_err(|error| format!("{id}: {error}"))?;
    let secret = if let Some(path) = env::var_os("WESEEDO_CLIENT_SECRET_FILE") {
        Secret::from_file(path)?
    } else {
        // Not the error of `env::var`, which shows what is not UTF-8.
        let secret = env::var("WESEEDO_CLIENT_SECRET").ok();
        secret.ok_or("set WESEEDO_CLIENT_SECRET_FILE or WESEEDO_CLIENT_SECRET")?.into()
    };
    let grant = Grant::client_credentials(id, secret);
    let base_url = env::var("WESEEDO_BASE_URL").ok();
    let mut builder =
        Authenticator::builder(base_url.map_or(Environment::Sandbox, Environment::Custom));
    if let Ok(path) = env::var("WESEEDO_TOKEN_PATH") {
        builder = builder.token_path(path);
    }
    if let Some(directory) = env::var_os("WESEEDO_TOKEN_DIR") {
        #[cfg(feature = "store")]
        let kept = builder.store(weseedo_auth::FileStore::new(directory)).on_event(|event| {
            if let weseedo_auth::Event::StoreFailed { error, .. } = event {
                tell(&format_args!("the token is not kept: {error}"));
            }
        });
        #[cfg(not(feature = "store"))]
        let kept = Err(format!(
            "to keep the token in {}, build with --features store",
            directory.display()
        ))?;
        builder = kept;
    }
    Ok(builder.build()?.get_token(&grant)?)
}
