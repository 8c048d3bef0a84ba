//! Gets a token with each grant, calls the API with it, and shows that a second `get_token` makes no request.
//!
//! Without `WESEEDO_CLIENT_ID` and `WESEEDO_CLIENT_SECRET` it talks to a stand-in on loopback; with them to WeSeeDo's
//! sandbox, or to `WESEEDO_BASE_URL`. `WESEEDO_USERNAME` and `WESEEDO_PASSWORD` add the password grant,
//! `WESEEDO_TOKEN_PATH` changes the token endpoint's path.

mod standin;

use std::env;
use std::error::Error;
use std::time::Instant;

use standin::Standin;
use weseedo_auth::{Authenticator, Environment, Grant};

fn main() -> Result<(), Box<dyn Error>> {
    let var = |name| env::var(name).ok();
    let mut standin = None;
    let (environment, grants) = if let Some(client_id) = var("WESEEDO_CLIENT_ID") {
        let client_secret =
            env::var("WESEEDO_CLIENT_SECRET").map_err(|_| "WESEEDO_CLIENT_SECRET is not set")?;
        let mut grants = vec![Grant::client_credentials(&*client_id, &*client_secret)];
        if let (Some(username), Some(password)) = (var("WESEEDO_USERNAME"), var("WESEEDO_PASSWORD"))
        {
            grants.push(Grant::password(
                client_id,
                client_secret,
                username,
                password,
            ));
        }
        (
            var("WESEEDO_BASE_URL").map_or(Environment::Sandbox, Environment::Custom),
            grants,
        )
    } else {
        let base_url = standin.insert(Standin::start()).base_url();
        println!("WESEEDO_CLIENT_ID is not set: talking to a stand-in");
        let grants = vec![
            Grant::client_credentials("demo", "demo secret"),
            Grant::password("demo", "demo secret", "jan", "demo password"),
        ];
        (Environment::Custom(base_url), grants)
    };
    let docs = format!("{}/api/v2/docs", environment.base_url());

    let mut builder = Authenticator::builder(environment);
    if let Some(path) = var("WESEEDO_TOKEN_PATH") {
        builder = builder.token_path(path);
    }
    let authenticator = builder.build()?;
    println!("{authenticator:?}");

    for grant in grants {
        println!("\n{grant:?}");
        for call in ["first ", "second"] {
            let start = Instant::now();
            let token = authenticator.get_token(&grant)?;
            let text = token.access_token();
            let (head, tail) = (
                &text[..text.len().min(3)],
                &text[text.len().saturating_sub(3)..],
            );
            println!(
                "  {call} get_token: {head}...{tail}, expires {}, took {:?}",
                token.expires(),
                start.elapsed()
            );
        }
        let answer = authenticator.agent(grant).get(&docs).call()?;
        println!("  GET {docs}: {}", answer.status());
    }
    if let Some(standin) = standin {
        println!(
            "\ntoken requests that the stand-in saw: {}",
            standin.token_requests()
        );
    }
    Ok(())
}
