//! Calls the API in two ways, and distinguishes a missing token from a call that failed.

mod standin;

use std::error::Error;

use standin::Standin;
use weseedo_auth::{Authenticator, Environment, Grant, ureq};

const NEW_MEETING: &str = r#"{"start":"2030-05-02T09:00:00Z"}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let mut standin = Standin::start();
    standin.reset_secret("demo secret");
    let authenticator = Authenticator::new(Environment::Custom(standin.base_url()))?;
    let bearer = authenticator.bearer(Grant::client_credentials("demo", "demo secret"));
    let meetings = format!("{}/api/v2/personal/meetings", standin.base_url());

    // The agent adds the token. If the API refuses a token, the agent repeats a call without a body
    // with another token. Make the agent once and keep it, because it owns a pool of connections.
    let agent = bearer.agent();
    let list = agent.get(&meetings).call()?.body_mut().read_to_string()?;
    println!("listed: {list}");

    // `with_token` can repeat any call, also a POST: the closure makes the body again each time.
    let created = bearer.with_token(|token| {
        let request = agent.post(&meetings).header("Authorization", token.authorization());
        request.content_type("application/json").send(NEW_MEETING)?.body_mut().read_to_string()
    })?;
    println!("created: {created}");

    if let Err(error) = agent.get(format!("{meetings}/none")).call() {
        println!("unknown meeting: {}", explained(&error));
    }
    let agent = authenticator.agent(Grant::client_credentials("demo", "wrong secret"));
    if let Err(error) = agent.get(&meetings).call() {
        println!("wrong secret: {}", explained(&error));
    }
    println!("token requests: {}", standin.token_requests());
    Ok(())
}

/// Says whether the API was called at all. Without a token it is not.
fn explained(error: &ureq::Error) -> String {
    match weseedo_auth::Error::from_ureq(error) {
        Some(error) if error.is_transient() => format!("no token, try again later: {error}"),
        Some(error) => format!("no token, check the settings: {error}"),
        None => format!("the call failed: {error}"),
    }
}
