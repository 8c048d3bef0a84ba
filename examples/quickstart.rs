//! Lists meetings: the shortest useful program.
//!
//! Without `WESEEDO_CLIENT_ID` it talks to a stand-in on loopback. With it, the program reads its
//! credentials as `Grant::from_env` does, and talks to `WESEEDO_ENVIRONMENT`: `sandbox`,
//! `production` or a URL.

mod standin;

use std::error::Error;
use std::process::ExitCode;

use weseedo_auth::Authenticator;

/// The field names are the stand-in's. The OpenAPI document, at `api/v2/docs` below the
/// environment's base URL, has the real ones.
#[derive(serde::Deserialize)]
struct Meeting {
    id: String,
    start: String,
}

fn main() -> ExitCode {
    // The text of an error is complete. `Debug`, which a `main` that returns the error would print,
    // is harder to read.
    match list_meetings() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

fn list_meetings() -> Result<(), Box<dyn Error>> {
    let (environment, grant, _standin) = standin::from_env_or_started()?;
    let url = format!("{}/api/v2/personal/meetings", environment.base_url());

    let authenticator = Authenticator::new(environment)?;
    let agent = authenticator.agent(grant);
    let meetings: Vec<Meeting> = agent.get(url).call()?.body_mut().read_json()?;

    for Meeting { id, start } in meetings {
        println!("meeting {id} starts at {start}");
    }
    Ok(())
}
