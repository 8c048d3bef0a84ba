//! A small HTTP client, and a load made of it, for the service.

use std::error::Error;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// The status and body of an answer, such as `200 ok`.
pub fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let answer = io::read_to_string(stream)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok(format!("{} {body}", head.split(' ').nth(1).unwrap_or_default()))
}

/// Asks until the answer has this in it, for 10 s at most.
pub fn poll(address: SocketAddr, path: &str, text: &str) -> Result<String, Box<dyn Error>> {
    let patience = Instant::now() + Duration::from_secs(10);
    while Instant::now() < patience {
        let answer = get(address, path)?;
        if answer.contains(text) {
            return Ok(answer);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(format!("waited in vain for {text:?} from {path}").into())
}

#[derive(Default)]
pub struct Load {
    pub calls: AtomicU64,
    pub lost: AtomicU64,
}

/// Does `work` while eight clients call, each about 100 times a second.
pub fn under_load<T>(address: SocketAddr, work: impl FnOnce() -> T) -> (T, Load) {
    let (load, is_over) = (Load::default(), AtomicBool::new(false));
    let outcome = thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    load.call(address);
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
        let outcome = work();
        is_over.store(true, Relaxed);
        outcome
    });
    (outcome, load)
}

impl Load {
    fn call(&self, address: SocketAddr) {
        self.calls.fetch_add(1, Relaxed);
        match get(address, "/meetings") {
            Ok(answer) if answer == "200 []" => {}
            outcome => {
                self.lost.fetch_add(1, Relaxed);
                eprintln!("lost: {outcome:?}");
            }
        }
    }
}
