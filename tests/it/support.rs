//! The stand-in server of tests and benches, on loopback. It does things that mockito can't: it
//! breaks off answers, stalls and speaks TLS.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
#[cfg(feature = "store")]
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
#[cfg(feature = "store")]
use std::{env, fs, process};

use mockito::{Mock, ServerGuard};
#[cfg(any(feature = "rustls", feature = "native-tls"))]
use rcgen::{CertificateParams, KeyPair};
#[cfg(any(feature = "rustls", feature = "native-tls"))]
use rustls::{
    HandshakeKind, ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer,
};
#[cfg(any(feature = "rustls", feature = "native-tls"))]
use weseedo_auth::ureq::tls::Certificate;
use weseedo_auth::{Authenticator, Builder, Environment, Error, Grant};

pub const HOUR: Duration = Duration::from_secs(3600);

pub struct Server {
    pub base_url: String,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    /// Serves each connection in its own thread. `serve` gets the number of the connection, counted
    /// from 0.
    pub fn start(serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let accepted = Arc::new(AtomicUsize::new(0));
        let (count, serve) = (Arc::clone(&accepted), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (n, serve) = (count.fetch_add(1, Ordering::SeqCst), Arc::clone(&serve));
                thread::spawn(move || serve(n, stream));
            }
        });
        Self { base_url, accepted }
    }

    /// Answers one request on each connection. `answer` gets the number of the connection, counted
    /// from 0.
    pub fn answering(answer: impl Fn(usize) -> String + Send + Sync + 'static) -> Self {
        Self::start(move |n, mut stream| {
            read_request(&mut stream);
            let _ = stream.write_all(answer(n).as_bytes());
        })
    }

    /// Answers every request with `answer`, except on connections that stall.
    pub fn stalling(
        stalls: impl Fn(usize) -> bool + Send + Sync + 'static,
        answer: String,
    ) -> Self {
        Self::start(move |n, mut stream| {
            if stalls(n) {
                return stall(stream);
            }
            read_request(&mut stream);
            let _ = stream.write_all(answer.as_bytes());
        })
    }

    /// Keeps each connection open and answers every request on it.
    pub fn keeping(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::start(move |_, mut stream| {
            loop {
                let request = read_request(&mut stream);
                if request.is_empty() || stream.write_all(answer(&request).as_bytes()).is_err() {
                    break;
                }
            }
        })
    }

    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub fn builder(&self) -> Builder {
        Authenticator::builder(Environment::Custom(self.base_url.clone()))
    }
}

/// Checks that a call fails within `in_time` with a transient transport error. Returns the error.
#[track_caller]
pub fn assert_not_reached(authenticator: &Authenticator, in_time: Duration) -> Error {
    let start = Instant::now();
    let error = authenticator.get_token(&grant()).unwrap_err();
    let took = start.elapsed();
    assert!(matches!(error, Error::Transport(_)) && error.is_transient(), "{error:?}");
    assert!(took < in_time, "{took:?}");
    error
}

pub fn grant() -> Grant {
    Grant::client_credentials("id", "s3cr3t")
}

/// Reads a request with its body. Returns an empty text at the end of the connection.
pub fn read_request(stream: &mut impl Read) -> String {
    let (mut request, mut block) = (Vec::new(), [0; 4096]);
    while !is_whole(&request) {
        match stream.read(&mut block) {
            Ok(n @ 1..) => request.extend(&block[..n]),
            _ => break,
        }
    }
    String::from_utf8(request).unwrap()
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .split_once("content-length: ")
        .map_or("0", |(_, rest)| rest.split_once('\r').map_or(rest, |(length, _)| length));
    body.len() >= length.parse().unwrap()
}

/// Keeps a connection open until the client closes it.
pub fn stall(mut stream: impl Read) {
    while !matches!(stream.read(&mut [0; 512]), Ok(0) | Err(_)) {}
}

/// Polls until `holds` returns true, for 20 s at most.
#[track_caller]
pub fn wait_until(holds: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < patience, "the condition did not become true within 20 s");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Makes threads wait in [`pass`](Self::pass) while it is closed.
#[derive(Clone, Default)]
pub struct Gate {
    is_closed: Arc<AtomicBool>,
}

impl Gate {
    pub fn closed() -> Self {
        let gate = Self::default();
        gate.close();
        gate
    }

    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    pub fn open(&self) {
        self.is_closed.store(false, Ordering::SeqCst);
    }

    #[track_caller]
    pub fn pass(&self) {
        wait_until(|| !self.is_closed.load(Ordering::SeqCst));
    }
}

/// Returns the body of a usable answer. The token's lifetime starts at [`DATE`].
pub fn token_body(access_token: &str, lifetime: Duration) -> String {
    let s = lifetime.as_secs();
    let expires = format!(
        "2021-12-31T{:02}:{:02}:{:02}.{:03}Z",
        s / 3600,
        s / 60 % 60,
        s % 60,
        lifetime.subsec_millis()
    );
    format!(r#"{{"access_token":"{access_token}","expires":"{expires}","token_type":"Bearer"}}"#)
}

/// The time of each answer by the server's clock, which alone decides; the local clock is years
/// ahead.
pub const DATE: &str = "Fri, 31 Dec 2021 00:00:00 GMT";

/// Returns a whole answer with a usable token.
pub fn token_answer(access_token: &str, lifetime: Duration) -> String {
    answer("200 OK", &format!("Date: {DATE}\r\n"), &token_body(access_token, lifetime))
}

/// Returns a whole answer with a token that is valid for exactly an hour, because the crate takes
/// one second off.
pub fn token_for_an_hour(access_token: &str) -> String {
    token_answer(access_token, HOUR + Duration::from_secs(1))
}

/// The default path of the token endpoint.
pub const TOKEN_PATH: &str = "/api/v2/oauth2/token";

/// Returns a mock of the token endpoint at its default path.
pub fn token_mock(server: &mut ServerGuard, access_token: &str) -> Mock {
    token_mock_at(server, TOKEN_PATH, access_token)
}

pub fn token_mock_at(server: &mut ServerGuard, path: &str, access_token: &str) -> Mock {
    server.mock("POST", path).with_header("date", DATE).with_body(token_body(access_token, HOUR))
}

/// Returns a whole answer that closes the connection.
pub fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Answers one request over TLS, and returns the kind of the handshake.
#[cfg(any(feature = "rustls", feature = "native-tls"))]
pub fn answer_over_tls(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    answer: impl FnOnce(&str) -> String,
) -> Option<HandshakeKind> {
    over_tls(stream, config, |stream| {
        let request = read_request(stream);
        let _ = stream.write_all(answer(&request).as_bytes());
    })
}

/// Serves a connection over TLS, ends it, and returns the kind of the handshake.
#[cfg(any(feature = "rustls", feature = "native-tls"))]
pub fn over_tls(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    serve: impl FnOnce(&mut StreamOwned<ServerConnection, TcpStream>),
) -> Option<HandshakeKind> {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    serve(&mut stream);
    stream.conn.send_close_notify();
    let _ = stream.flush();
    stream.conn.handshake_kind()
}

/// Returns a self-signed certificate, and a server's TLS configuration with it.
#[cfg(any(feature = "rustls", feature = "native-tls"))]
pub fn certificate(params: &CertificateParams) -> (Certificate<'static>, Arc<ServerConfig>) {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::from(key))
            .unwrap();
    (Certificate::from_der(certificate.der()).to_owned(), Arc::new(config))
}

/// Writes DER as PEM (RFC 7468 section 2).
#[cfg(any(
    all(feature = "store", unix),
    all(feature = "wipe", feature = "native-tls", target_os = "linux")
))]
pub fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = (0..3).fold(0, |bits, i| bits << 8 | u32::from(*group.get(i).unwrap_or(&0)));
            let digits = (0..=group.len()).map(|i| ALPHABET[(bits >> (18 - 6 * i) & 63) as usize]);
            text.extend(digits.chain([b'='; 2]).take(4).map(char::from));
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// The path of a temporary directory that does not exist yet. The directory is removed when this is
/// dropped.
#[cfg(feature = "store")]
pub struct Directory(pub PathBuf);

#[cfg(feature = "store")]
impl Directory {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weseedo-auth-{}-{count}", process::id());
        Self(env::temp_dir().join(name))
    }
}

#[cfg(feature = "store")]
impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
