//! Lists meetings through a ureq agent that brings the token along.

mod standin;

use std::error::Error;

use standin::Standin;
use weseedo_auth::{Authenticator, Environment, Grant, ureq};

fn main() -> Result<(), Box<dyn Error>> {
    let standin = Standin::start();
    let authenticator = Authenticator::new(Environment::Custom(standin.base_url()))?;
    let grant = Grant::client_credentials("demo", "demo secret");
    let meetings = format!("{}/api/v2/personal/meetings", standin.base_url());

    // For most calls. If the API refuses the token, a call without a body is repeated with another.
    let agent = authenticator.agent(grant.clone());
    let mut answer = agent.get(&meetings).call()?;
    println!("through agent: {}", answer.body_mut().read_to_string()?);

    // For any call that may be repeated, also one with a body.
    let list = authenticator.with_token(&grant, |token| {
        let request = ureq::get(&meetings).header("Authorization", token.authorization());
        request.call()?.body_mut().read_to_string()
    })?;
    println!("through with_token: {list}");

    println!("token requests: {}", standin.token_requests());
    Ok(())
}
