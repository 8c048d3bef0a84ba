//! A client secret that is reset while the program runs: the agent reads the new one from the file
//! when the token endpoint rejects the old one.
//!
//! The order that loses least: reset the secret, write the file, and only then let the old tokens
//! end. A token that expires costs no call. One that is revoked costs the calls that carry it,
//! which end with the API's 401: an agent can't repeat a request, since its body may be gone.

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
use weseedo_auth::{Authenticator, Environment, Grant, GrantSource, Secret, ureq};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::temp_dir().join(format!("weseedo-rotation-{}", process::id()));
    fs::create_dir(&directory)?;
    let outcome = rotate(&directory.join("client_secret"));
    fs::remove_dir_all(&directory)?;
    outcome
}

fn rotate(file: &Path) -> Result<(), Box<dyn Error>> {
    let mut standin = Standin::start();
    let first = standin.accept_only("first secret");
    write(file, "first secret\n")?;

    let reads = Arc::new(AtomicUsize::new(0));
    let (path, count) = (file.to_owned(), Arc::clone(&reads));
    let source = GrantSource::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Grant::client_credentials("demo", Secret::from_file(&path)?))
    });
    let authenticator = Authenticator::new(Environment::Custom(standin.base_url()))?;
    let agent = authenticator.agent(source);
    let mut calls =
        Calls { agent, url: standin.base_url() + "/api/v2/personal/meetings", ok: 0, failed: 0 };

    calls.make("with the first secret");
    first.remove();
    standin.accept_only("second secret");
    write(file, "second secret\n")?;
    calls.make("secret reset, file written, token still good");
    standin.revoke_tokens();
    calls.make("token revoked");

    println!("\nAPI calls: {} ok, {} failed", calls.ok, calls.failed);
    println!("token requests: {}", standin.token_requests());
    println!("reads of the file: {}", reads.load(Ordering::Relaxed));
    Ok(())
}

/// Puts the file there in one step: who reads it sees the old secret or the new one, never a part.
fn write(file: &Path, secret: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, secret)?;
    fs::rename(new, file)
}

struct Calls {
    agent: ureq::Agent,
    url: String,
    ok: usize,
    failed: usize,
}

impl Calls {
    fn make(&mut self, when: &str) {
        println!("{when}:");
        for n in 1..=5 {
            match self.agent.get(&self.url).call() {
                Ok(answer) => {
                    self.ok += 1;
                    println!("  call {n}: {}", answer.status());
                }
                Err(error) => {
                    self.failed += 1;
                    println!("  call {n}: {error}");
                }
            }
        }
    }
}
