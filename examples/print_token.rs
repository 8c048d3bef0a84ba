//! Prints a token, for a shell script: `curl -H "Authorization: Bearer $(print_token)" …`
//!
//! `WESEEDO_CLIENT_ID` and `WESEEDO_CLIENT_SECRET` must be set. `WESEEDO_BASE_URL` and
//! `WESEEDO_TOKEN_PATH` may be; without them it asks the sandbox.

use std::env;
use std::error::Error;
use std::process::ExitCode;

use weseedo_auth::{Authenticator, Environment, Grant, Token};

fn main() -> ExitCode {
    match token() {
        Ok(token) => {
            println!("{}", token.access_token());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("print_token: {error}");
            ExitCode::FAILURE
        }
    }
}

fn token() -> Result<Token, Box<dyn Error>> {
    let must = |name| env::var(name).map_err(|error| format!("{name}: {error}"));
    let grant =
        Grant::client_credentials(must("WESEEDO_CLIENT_ID")?, must("WESEEDO_CLIENT_SECRET")?);
    let base_url = env::var("WESEEDO_BASE_URL").ok();
    let mut builder =
        Authenticator::builder(base_url.map_or(Environment::Sandbox, Environment::Custom));
    if let Ok(path) = env::var("WESEEDO_TOKEN_PATH") {
        builder = builder.token_path(path);
    }
    Ok(builder.build()?.get_token(&grant)?)
}
