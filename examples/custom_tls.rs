//! Trusts a certification authority of your own, and sets a proxy, timeouts and what an API gateway
//! wants: everything that `Builder::http` reaches.

mod standin;

use std::error::Error;
use std::io::{self, Cursor};
use std::time::Duration;

use weseedo_auth::ureq::http::{HeaderValue, Method, Request, Response};
use weseedo_auth::ureq::middleware::MiddlewareNext;
use weseedo_auth::ureq::tls::{Certificate, RootCerts, TlsConfig};
use weseedo_auth::ureq::{self, Body, Proxy, SendBody};
use weseedo_auth::{Authenticator, Environment, Grant};

fn main() -> Result<(), Box<dyn Error>> {
    let (base_url, der) = tls_standin::start()?;
    let meetings = format!("{base_url}/api/v2/personal/meetings");

    // From a file: `Certificate::from_pem(&std::fs::read("ca.pem")?)?`. To trust what the system
    // trusts, use `RootCerts::PlatformVerifier`, with the feature `platform-verifier`.
    let roots = RootCerts::from([Certificate::from_der(&der).to_owned()]);
    let authenticator = Authenticator::builder(Environment::Custom(base_url))
        .timeout(Duration::from_secs(5)) // for a token
        .http(move |http| {
            http.tls_config(TlsConfig::builder().root_certs(roots.clone()).build())
                .proxy(Proxy::try_from_env()) // or `Proxy::new("http://proxy.example:3128").ok()`
                .timeout_connect(Some(Duration::from_secs(2)))
                .timeout_recv_response(Some(Duration::from_secs(10))) // for API calls too
                .middleware(for_gateway)
        })
        .build()?;

    let grant = Grant::client_credentials("demo", "demo secret");
    println!("{:?}", authenticator.get_token(&grant)?);
    let list = authenticator.agent(grant).get(meetings).call()?.body_mut().read_to_string()?;
    println!("meetings: {list}");
    Ok(())
}

/// Adds a header to every request, and a field to the JSON body of the token request.
///
/// The crate does not wipe the copies that middleware makes, so the client secret in this new body
/// stays in memory after the body is freed. A header alone needs no such copy.
fn for_gateway(
    mut request: Request<SendBody>,
    next: MiddlewareNext,
) -> Result<Response<Body>, ureq::Error> {
    request.headers_mut().insert("x-gateway-key", HeaderValue::from_static("demo key"));
    if request.method() != Method::POST || request.uri().path() != "/api/v2/oauth2/token" {
        return next.handle(request);
    }
    let (mut parts, body) = request.into_parts();
    let text = io::read_to_string(body.into_reader())?;
    let text = text.replacen('{', r#"{"tenant":"demo","#, 1);
    // Without this header, ureq sends a body of a reader in chunks, which some servers refuse.
    parts.headers.insert("content-length", HeaderValue::from(text.len()));
    let body = SendBody::from_owned_reader(Cursor::new(text));
    next.handle(Request::from_parts(parts, body))
}

/// A stand-in that speaks TLS, with a certificate that is made when it starts.
mod tls_standin {
    use std::error::Error;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::thread;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use crate::standin::{HOUR, MEETINGS, token_body};

    /// Starts the stand-in, and returns its base URL and its certificate (DER).
    pub fn start() -> Result<(String, Vec<u8>), Box<dyn Error>> {
        let name = "127.0.0.1".to_owned();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name])?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::from(signing_key))?;
        let config = Arc::new(config);
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let base_url = format!("https://{}", listener.local_addr()?);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Err(error) = answer_one(stream, &config) {
                    eprintln!("stand-in: {error}");
                }
            }
        });
        Ok((base_url, cert.der().to_vec()))
    }

    /// Answers a POST with a token, and any other request with meetings. Refuses what a gateway
    /// would refuse.
    fn answer_one(stream: TcpStream, config: &Arc<ServerConfig>) -> Result<(), Box<dyn Error>> {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config))?, stream);
        let mut reader = BufReader::new(&mut stream);
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {
            let line = head.trim_end().rsplit('\n').next().unwrap_or_default().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let is_for_token = head.starts_with("POST");
        let (status, answer) = if !head.contains("x-gateway-key: demo key\r\n") {
            ("403 Forbidden", "no gateway key".to_owned())
        } else if is_for_token && !body.starts_with(br#"{"tenant":"demo","#) {
            ("403 Forbidden", "no tenant".to_owned())
        } else if is_for_token {
            ("200 OK", token_body(0, HOUR))
        } else {
            ("200 OK", MEETINGS.to_owned())
        };
        let length = answer.len();
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}");
        write!(stream, "{head}\r\n\r\n{answer}")?;
        stream.conn.send_close_notify();
        Ok(stream.flush()?)
    }
}
