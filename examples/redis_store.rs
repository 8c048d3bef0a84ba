//! One token for a fleet: a token store in Redis or Valkey. Copy the file up to `main`.
//!
//! The program acts as 8 processes that share the store, and needs `redis-server`.
//! `WESEEDO_REDIS_URL` names a running server instead, such as
//! `rediss://:password@redis.example:6380`.

mod standin;

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Client, Connection, FromRedisValue, Pipeline, RedisResult, pipe};
use weseedo_auth::{Authenticator, Environment, Grant, Lease, StoreError, Stored, TokenStore};

const PREFIX: &str = "weseedo-auth:";
/// The limit for connecting, and for each read and write.
const STEP: Duration = Duration::from_millis(500);
/// The limit for a whole call of the store.
const CALL: Duration = Duration::from_secs(1);
/// A connection that was idle for longer is not used again, because a firewall may have dropped it.
const LONGEST_IDLE: Duration = Duration::from_secs(10);
/// Removes a value only if it is still the expected one.
const REMOVE: &str = "return redis.call('GET',KEYS[1]) == ARGV[1] and redis.call('DEL',KEYS[1])";

/// A cheap handle: clones share the connection that was used last.
#[derive(Clone)]
pub(crate) struct RedisStore {
    client: Client,
    idle: Arc<Mutex<Option<(Instant, Connection)>>>,
}

impl RedisStore {
    /// Connects at the first call of the store.
    pub(crate) fn new(url: &str) -> RedisResult<Self> {
        Ok(Self { client: Client::open(url)?, idle: Arc::default() })
    }

    /// Runs the commands in a thread, because the client can't limit the look-up of a host name or
    /// an answer that arrives byte by byte.
    fn run<T: FromRedisValue + Send + 'static>(
        &self,
        commands: &Pipeline,
    ) -> Result<T, StoreError> {
        let (store, commands, (sender, receiver)) =
            (self.clone(), commands.clone(), mpsc::channel());
        thread::Builder::new().spawn(move || sender.send(store.query(&commands)))?;
        Ok(receiver.recv_timeout(CALL).map_err(|_| "redis does not answer")??)
    }

    fn query<T: FromRedisValue>(&self, commands: &Pipeline) -> RedisResult<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((_, connection)) = idle.filter(|(since, _)| since.elapsed() < LONGEST_IDLE) {
            match self.query_on(connection, commands) {
                // The server may have been restarted, so a new connection may work.
                Err(error) if error.is_connection_dropped() => {}
                answer => return answer,
            }
        }
        let connection = self.client.get_connection_with_timeout(STEP)?;
        connection.set_read_timeout(Some(STEP))?;
        connection.set_write_timeout(Some(STEP))?;
        self.query_on(connection, commands)
    }

    /// Keeps the connection only after a success, because a new one may reach a server that works.
    fn query_on<T: FromRedisValue>(
        &self,
        mut connection: Connection,
        commands: &Pipeline,
    ) -> RedisResult<T> {
        let answer = commands.query(&mut connection)?;
        let idle = Some((Instant::now(), connection));
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = idle;
        Ok(answer)
    }
}

impl TokenStore for RedisStore {
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let (key, mut commands) = (format!("{PREFIX}{key}"), pipe());
        commands.atomic().cmd("GET").arg(&key).cmd("PTTL").arg(&key);
        let (sealed, ms): (Option<Vec<u8>>, i64) = self.run(&commands)?;
        let Some(stored) = sealed.map(Stored::new) else { return Ok(None) };
        // PTTL answers -1 for a value without an end.
        Ok(Some(match ms.try_into() {
            Ok(ms) => stored.with_remaining(Duration::from_millis(ms)),
            Err(_) => stored,
        }))
    }

    fn save(&self, key: &str, sealed: &[u8], remaining: Duration) -> Result<(), StoreError> {
        let ms = remaining.as_millis().max(1);
        self.run(pipe().cmd("SET").arg(format!("{PREFIX}{key}")).arg(sealed).arg("PX").arg(ms))
    }

    fn remove(&self, key: &str, sealed: &[u8]) -> Result<(), StoreError> {
        self.run(pipe().cmd("EVAL").arg(REMOVE).arg(1).arg(format!("{PREFIX}{key}")).arg(sealed))
    }

    fn lease(&self, key: &str, at_most: Duration) -> Result<Option<Lease>, StoreError> {
        let (store, key, ms) = (self.clone(), format!("{key}:lease"), at_most.as_millis().max(1));
        let (mut commands, holder) = (pipe(), RandomState::new().hash_one(()).to_le_bytes());
        commands.cmd("SET").arg(format!("{PREFIX}{key}")).arg(&holder).arg("NX").arg("PX").arg(ms);
        let (is_free,): (bool,) = self.run(&commands)?;
        Ok(is_free.then(|| Lease::new(move || _ = store.remove(&key, &holder))))
    }
}

fn main() -> ExitCode {
    match share_a_token() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("redis_store: {error}");
            ExitCode::FAILURE
        }
    }
}

fn share_a_token() -> Result<(), Box<dyn Error>> {
    let (url, _server) = redis_server::named_or_started()?;
    let standin = standin::Standin::start();
    for _ in 0..8 {
        // Each authenticator has a cache of its own, as in a process of its own.
        let builder = Authenticator::builder(Environment::Custom(standin.base_url()));
        let builder = builder.store(RedisStore::new(&url)?).on_event(|event| println!("{event:?}"));
        builder.build()?.get_token(&Grant::client_credentials("demo", "demo secret"))?;
    }
    println!("token requests of 8 processes: {}", standin.token_requests());
    Ok(())
}

/// A `redis-server` on loopback that keeps nothing on disk, and is killed when it is dropped.
pub(crate) mod redis_server {
    use std::env;
    use std::io::{self, BufRead, BufReader, Error, ErrorKind, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    pub struct RedisServer {
        pub port: u16,
        pub process: Child,
    }

    /// Returns the URL in `WESEEDO_REDIS_URL`, or that of a new server.
    pub fn named_or_started() -> Result<(String, Option<RedisServer>), String> {
        match env::var("WESEEDO_REDIS_URL") {
            Ok(url) if !url.is_empty() => return Ok((url, None)),
            _ => {}
        }
        let server = RedisServer::start().map_err(|error| error.to_string())?;
        Ok((server.url(), Some(server)))
    }

    impl RedisServer {
        /// Starts a server on a free port. Without the program `redis-server`, the error is
        /// `NotFound` and says what to do.
        pub fn start() -> io::Result<Self> {
            let mut tries = 0;
            loop {
                let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
                match start_on(port) {
                    // Another process took the port meanwhile.
                    Err(error) if error.kind() == ErrorKind::AddrInUse && tries < 5 => tries += 1,
                    process => return Ok(Self { port, process: process? }),
                }
            }
        }

        pub fn url(&self) -> String {
            format!("redis://127.0.0.1:{}", self.port)
        }
    }

    /// Starts a server on this port, and waits until it answers.
    pub fn start_on(port: u16) -> io::Result<Child> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(env::temp_dir());
        let mut process = match command.stdout(Stdio::null()).spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let advice = "install redis-server, or set WESEEDO_REDIS_URL";
                return Err(Error::new(error.kind(), advice));
            }
            process => process?,
        };
        let patience = Instant::now() + Duration::from_secs(10);
        while !is_answered_by(process.id(), port) {
            if process.try_wait()?.is_some() {
                return Err(Error::new(ErrorKind::AddrInUse, "redis-server ended at once"));
            }
            if Instant::now() > patience {
                process.kill()?;
                process.wait()?;
                return Err(Error::new(ErrorKind::TimedOut, "redis-server does not answer"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(process)
    }

    /// Whether this process answers on the port, and not a server that got the port first.
    fn is_answered_by(process: u32, port: u16) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"INFO server\r\n")?;
            let process = format!("process_id:{process}");
            io::Result::Ok(
                BufReader::new(stream).lines().map_while(Result::ok).any(|line| line == process),
            )
        };
        ask().unwrap_or(false)
    }

    impl Drop for RedisServer {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
