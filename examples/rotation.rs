//! Goes on after the client secret was reset: when the token endpoint rejects the old secret, the
//! agent reads the new one from its file.
//!
//! `GrantSource::from_env` does the same for the file that `WESEEDO_CLIENT_SECRET_FILE` names. This
//! example counts the reads, so it has a function of its own.
//!
//! The order that loses least: reset the secret, write the file, and only then revoke the old
//! tokens. A token that expires costs no call. If a token is revoked, the agent repeats the calls
//! that carried it, except for those with a body.

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
    ok += call(&agent, &meetings, "secret reset and file written, the token is still valid");
    standin.revoke_tokens();
    ok += call(&agent, &meetings, "token revoked");

    println!("API calls: {ok} ok, {} failed", 3 * CALLS - ok);
    println!("token requests: {}", standin.token_requests());
    println!("reads of the file: {}", reads.load(Ordering::Relaxed));
    Ok(())
}

/// Replaces the file in one step, so that a reader sees one whole secret, the old or the new.
fn write(file: &Path, secret: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, secret)?;
    fs::rename(new, file)
}

/// Makes some calls, and returns how many succeeded.
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

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::temp_dir().join(format!("weseedo-rotation-{}", process::id()));
    fs::create_dir(&directory)?;
    let outcome = rotate(&directory.join("client_secret"));
    fs::remove_dir_all(&directory)?;
    outcome
}
