//! Gets a token with each grant, calls the API with it, and shows that a second `get_token` makes
//! no request.
//!
//! Without `WESEEDO_CLIENT_ID` it talks to a stand-in on loopback; with it to WeSeeDo's sandbox, or
//! to `WESEEDO_BASE_URL`. The client secret is read from the file that `WESEEDO_CLIENT_SECRET_FILE`
//! names, else from `WESEEDO_CLIENT_SECRET`. `WESEEDO_USERNAME` and `WESEEDO_PASSWORD_FILE` or
//! `WESEEDO_PASSWORD` add the password grant, `WESEEDO_TOKEN_PATH` changes the token endpoint's
//! path.

mod standin;
#[path = "standin/target.rs"]
mod target;

use std::error::Error;
use std::time::Instant;

use target::Target;

fn main() -> Result<(), Box<dyn Error>> {
    let Target { builder, grants, docs, standin } = Target::from_variables()?;
    let authenticator = builder.build()?;
    println!("{authenticator:?}");

    for grant in grants {
        println!("\n{grant:?}");
        for call in ["first ", "second"] {
            let start = Instant::now();
            let token = authenticator.get_token(&grant)?;
            let (took, expires) = (start.elapsed(), token.expires_at());
            let shown = shortened(token.access_token());
            println!("  {call} get_token: {shown}, expires {expires}, took {took:?}");
        }
        let answer = authenticator.agent(grant).get(&docs).call()?;
        println!("  GET {docs}: {}", answer.status());
    }
    if let Some(standin) = standin {
        println!("\ntoken requests that the stand-in saw: {}", standin.token_requests());
    }
    Ok(())
}

/// Enough to tell one token from the next, and too little to use it.
fn shortened(token: &str) -> String {
    match token.len() {
        12.. => format!("{}...{}", &token[..3], &token[token.len() - 3..]),
        _ => "...".to_owned(),
    }
}
