//! One token for a fleet: a store in Redis or Valkey, and stand-ins for processes that share it.
//! `WESEEDO_REDIS_URL` names the server, such as `rediss://:password@redis.example:6380`.

#[path = "standin/redis.rs"]
pub(crate) mod redis_server;
mod standin;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use std::{error::Error, thread};

use redis::{Client, Connection, FromRedisValue, Pipeline, RedisResult, pipe};
use weseedo_auth::{Authenticator, Environment, Grant, Lease, StoreError, Stored, TokenStore};

const PREFIX: &str = "weseedo-auth:";
const STEP: Duration = Duration::from_millis(500);
const REMOVE: &str = "return redis.call('GET',KEYS[1]) == ARGV[1] and redis.call('DEL',KEYS[1])";

/// A handle: clones share the connection that was used last.
#[derive(Clone)]
pub(crate) struct RedisStore(Client, Arc<Mutex<Option<(Instant, Connection)>>>);

impl RedisStore {
    /// Connects when it is first asked.
    pub(crate) fn new(url: &str) -> RedisResult<Self> {
        Ok(Self(Client::open(url)?, Arc::default()))
    }

    /// Asks in a thread: the limits below are for each read, and none for the look-up of a host.
    fn ask<T: FromRedisValue + Send + 'static>(&self, ask: &Pipeline) -> Result<T, StoreError> {
        let (store, ask, (sender, receiver)) = (self.clone(), ask.clone(), mpsc::channel());
        thread::Builder::new().spawn(move || sender.send(store.query(&ask)))?;
        Ok(receiver.recv_timeout(STEP * 2).map_err(|_| "redis does not answer")??)
    }

    fn query<T: FromRedisValue>(&self, ask: &Pipeline) -> RedisResult<T> {
        let kept = self.1.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A firewall may have forgotten what was idle for longer, without a word.
        if let Some((_, connection)) = kept.filter(|(since, _)| since.elapsed() < STEP * 20) {
            match self.query_on(connection, ask) {
                // The server was restarted, say: a new connection may do.
                Err(error) if error.is_connection_dropped() => {}
                answer => return answer,
            }
        }
        let connection = self.0.get_connection_with_timeout(STEP)?;
        connection.set_read_timeout(Some(STEP))?;
        connection.set_write_timeout(Some(STEP))?;
        self.query_on(connection, ask)
    }

    /// Keeps the connection if all went well: else the next one may lead to a server that works.
    fn query_on<T: FromRedisValue>(&self, mut on: Connection, ask: &Pipeline) -> RedisResult<T> {
        let answer = ask.query(&mut on)?;
        self.1.lock().unwrap_or_else(PoisonError::into_inner).replace((Instant::now(), on));
        Ok(answer)
    }
}

impl TokenStore for RedisStore {
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let (key, mut ask) = (format!("{PREFIX}{key}"), pipe());
        ask.atomic().cmd("GET").arg(&key).cmd("PTTL").arg(&key);
        let (sealed, ms): (Option<Vec<u8>>, i64) = self.ask(&ask)?;
        let Some(stored) = sealed.map(Stored::new) else { return Ok(None) };
        // PTTL answers -1 for a value that is kept for ever.
        Ok(Some(match ms.try_into() {
            Ok(ms) => stored.with_remaining(Duration::from_millis(ms)),
            Err(_) => stored,
        }))
    }

    fn save(&self, key: &str, sealed: &[u8], remaining: Duration) -> Result<(), StoreError> {
        let ms = remaining.as_millis().max(1);
        self.ask(pipe().cmd("SET").arg(format!("{PREFIX}{key}")).arg(sealed).arg("PX").arg(ms))
    }

    fn remove(&self, key: &str, sealed: &[u8]) -> Result<(), StoreError> {
        self.ask(pipe().cmd("EVAL").arg(REMOVE).arg(1).arg(format!("{PREFIX}{key}")).arg(sealed))
    }

    fn lease(&self, key: &str, at_most: Duration) -> Result<Option<Lease>, StoreError> {
        let (store, key, ms) = (self.clone(), format!("{key}:lease"), at_most.as_millis().max(1));
        let (mut ask, holder) = (pipe(), RandomState::new().hash_one(()).to_le_bytes());
        ask.cmd("SET").arg(format!("{PREFIX}{key}")).arg(&holder).arg("NX").arg("PX").arg(ms);
        let (is_free,): (bool,) = self.ask(&ask)?;
        Ok(is_free.then(|| Lease::new(move || _ = store.remove(&key, &holder))))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (url, _server) = redis_server::named_or_started()?;
    let standin = standin::Standin::start();
    for _ in 0..8 {
        let builder = Authenticator::builder(Environment::Custom(standin.base_url()));
        let builder = builder.store(RedisStore::new(&url)?).on_event(|event| println!("{event:?}"));
        builder.build()?.get_token(&Grant::client_credentials("demo", "demo secret"))?;
    }
    println!("token requests of 8 processes: {}", standin.token_requests());
    Ok(())
}
