//! Shares one `Authenticator` between 32 threads: together they make one token request.

mod standin;

use std::error::Error;
use std::thread;

use standin::Standin;
use weseedo_auth::{Authenticator, Environment, Grant};

const THREADS: usize = 32;
const CALLS: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let standin = Standin::start();
    let authenticator = Authenticator::new(Environment::Custom(standin.base_url()))?;
    let grant = Grant::client_credentials("demo", "demo secret");

    let workers: Vec<_> = (0..THREADS)
        .map(|_| {
            // Clones share one cache and one set of secrets.
            let (authenticator, grant) = (authenticator.clone(), grant.clone());
            thread::spawn(move || {
                (0..CALLS).try_for_each(|_| authenticator.get_token(&grant).map(drop))
            })
        })
        .collect();
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked")??;
    }

    println!("{} calls from {THREADS} threads", THREADS * CALLS);
    println!("token requests: {}", standin.token_requests());
    Ok(())
}
