//! A client secret that is reset while the program runs: the agent reads the new one from the file
//! when the token endpoint rejects the old one.
//!
//! The order that loses least: reset the secret, write the file, and only then revoke the old
//! tokens. A token that expires costs no call. If a token is revoked, the agent repeats the calls
//! that carried it, unless they have a body.

#[path = "standin/reset.rs"]
mod reset;
#[path = "standin/revoke.rs"]
mod revoke;
mod standin;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, io, process};

use standin::Standin;
use weseedo_auth::ureq::Agent;
use weseedo_auth::{Authenticator, Environment, Grant, GrantSource, Secret};

const CALLS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::temp_dir().join(format!("weseedo-rotation-{}", process::id()));
    fs::create_dir(&directory)?;
    let outcome = rotate(&directory.join("client_secret"));
    fs::remove_dir_all(&directory)?;
    outcome
}

fn rotate(file: &Path) -> Result<(), Box<dyn Error>> {
    let mut standin = Standin::start();
    standin.reset_secret("first secret");
    write(file, "first secret\n")?;

    let reads = Arc::new(AtomicUsize::new(0));
    let (path, count) = (file.to_owned(), Arc::clone(&reads));
    let source = GrantSource::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Grant::client_credentials("demo", Secret::from_file(&path)?))
    });
    let authenticator = Authenticator::new(Environment::Custom(standin.base_url()))?;
    let agent = authenticator.agent(source);
    let meetings = format!("{}/api/v2/personal/meetings", standin.base_url());

    let mut ok = call(&agent, &meetings, "with the first secret");
    standin.reset_secret("second secret");
    write(file, "second secret\n")?;
    ok += call(&agent, &meetings, "secret reset, file written, the token goes on");
    standin.revoke_tokens();
    ok += call(&agent, &meetings, "token revoked");

    println!("API calls: {ok} ok, {} failed", 3 * CALLS - ok);
    println!("token requests: {}", standin.token_requests());
    println!("reads of the file: {}", reads.load(Ordering::Relaxed));
    Ok(())
}

/// Makes some calls, and returns how many went well.
fn call(agent: &Agent, url: &str, when: &str) -> usize {
    println!("{when}:");
    let mut ok = 0;
    for n in 1..=CALLS {
        match agent.get(url).call() {
            Ok(answer) => {
                ok += 1;
                println!("  call {n}: {}", answer.status());
            }
            Err(error) => println!("  call {n}: {error}"),
        }
    }
    ok
}

/// Puts the file there in one step: who reads it sees the old secret or the new one, never a part.
fn write(file: &Path, secret: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, secret)?;
    fs::rename(new, file)
}
