//! A `redis-server` on loopback that keeps nothing on disk, and is killed when it is dropped.

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

/// The URL in `WESEEDO_REDIS_URL`, or that of a server which is started.
pub fn named_or_started() -> Result<(String, Option<RedisServer>), String> {
    if let Ok(url) = env::var("WESEEDO_REDIS_URL") {
        return Ok((url, None));
    }
    let server = RedisServer::start().map_err(|error| error.to_string())?;
    Ok((server.url(), Some(server)))
}

impl RedisServer {
    /// Starts one on a free port. Without the program, the error is `NotFound` and says what to do.
    pub fn start() -> io::Result<Self> {
        let mut tries = 0;
        loop {
            let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            match start_on(port) {
                // Somebody else took the port meanwhile.
                Err(error) if error.kind() == ErrorKind::AddrInUse && tries < 5 => tries += 1,
                process => return Ok(Self { port, process: process? }),
            }
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

/// Starts one on this port, and waits until it answers.
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
            return Err(Error::new(ErrorKind::AddrInUse, "redis-server has ended at once"));
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

/// Whether this process answers on the port, and not another test's, which got it first.
fn is_answered_by(process: u32, port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"INFO server\r\n")?;
        let process = format!("process_id:{process}");
        io::Result::Ok(BufReader::new(stream).lines().map_while(Result::ok).any(|l| l == process))
    };
    ask().unwrap_or(false)
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
