//! Bad days of the network and the endpoint, over real sockets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use weseedo_auth::{Authenticator, Environment, Error, InvalidResponse, Token};

use crate::support::{
    DATE, HOUR, Server, answer, assert_not_reached, grant, read_request, token_answer,
};

const TIMEOUT: Duration = Duration::from_millis(400);
/// Generous for the slowest machine; without a bound, each of these would take far longer or for ever.
const MARGIN: Duration = Duration::from_secs(3);

/// Asks once, without retries, and checks that `timeout` bounds the call.
#[track_caller]
fn ask(server: &Server) -> Result<Token, Error> {
    let authenticator = server.builder().timeout(TIMEOUT).retries(0).build().unwrap();
    let start = Instant::now();
    let outcome = authenticator.get_token(&grant());
    let took = start.elapsed();
    assert!(took < TIMEOUT + MARGIN, "{took:?}");
    outcome
}

#[track_caller]
fn assert_broken(server: &Server) {
    match ask(server).unwrap_err() {
        error @ Error::Transport(_) => assert!(error.is_transient(), "{error:?}"),
        other => panic!("{other:?}"),
    }
}

/// Reads the request, writes `text`, and then does `end`.
fn writing(text: String, end: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
    Server::start(move |_, mut stream| {
        read_request(&mut stream);
        stream.write_all(text.as_bytes()).unwrap();
        end(stream);
    })
}

/// Keeps a connection open until the other side has gone.
fn stall(mut stream: TcpStream) {
    while !matches!(stream.read(&mut [0; 512]), Ok(0) | Err(_)) {}
}

fn half(text: &str) -> String {
    text[..text.len() / 2].to_owned()
}

#[test]
fn refused_connection() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let authenticator = Authenticator::new(Environment::Custom(base_url)).unwrap();
    assert_not_reached(&authenticator, Duration::from_secs(5));
}

#[test]
#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn unknown_host() {
    let environment = Environment::Custom("https://weseedo-auth.invalid".to_owned());
    let timeout = Duration::from_secs(3);
    let authenticator = Authenticator::builder(environment).timeout(timeout).build().unwrap();
    assert_not_reached(&authenticator, timeout * 2);
}

#[test]
fn reset_before_and_after_the_request() {
    // To close with unread input resets the connection.
    assert_broken(&Server::start(|_, stream| drop(stream)));
    assert_broken(&writing(String::new(), drop));
}

#[test]
fn half_a_header() {
    assert_broken(&writing("HTTP/1.1 200 OK\r\nContent-Le".to_owned(), drop));
}

#[test]
fn half_a_body() {
    let text = token_answer("t", HOUR);
    assert_broken(&writing(text[..text.len() - 10].to_owned(), drop));
}

#[test]
fn half_a_chunk() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_broken(&writing(format!("{head}20\r\n{{\"access_token\":"), drop));
    assert_broken(&writing(format!("{head}zz\r\n"), drop));
}

#[test]
fn content_length_too_long_or_too_short() {
    let text = token_answer("t", HOUR);
    let (_, length) = text.split_once("Content-Length: ").unwrap();
    let length: usize = length.split_once('\r').unwrap().0.parse().unwrap();
    let with = |n: usize| {
        text.replace(&format!("Content-Length: {length}"), &format!("Content-Length: {n}"))
    };
    assert_broken(&writing(with(length + 1), drop));
    let error = ask(&writing(with(length - 1), drop)).unwrap_err();
    assert!(matches!(error, Error::InvalidResponse(InvalidResponse::Body(_))), "{error:?}");
}

#[test]
fn stall_before_within_and_after_the_header() {
    assert_broken(&Server::start(|_, stream| stall(stream)));
    assert_broken(&writing(half("HTTP/1.1 200 OK\r\nDate: x\r\n\r\n"), stall));
    assert_broken(&writing(half(&token_answer("t", HOUR)), stall));
}

#[test]
fn dripping_answer_is_not_waited_for() {
    for text in [token_answer("t", HOUR), answer("401 Unauthorized", "", &"x".repeat(1000))] {
        let server = Server::start(move |_, mut stream| {
            read_request(&mut stream);
            let (head, body) = text.split_at(text.find("\r\n\r\n").unwrap() + 4);
            let _ = stream.write_all(head.as_bytes());
            for byte in body.bytes() {
                sleep(Duration::from_millis(50));
                if stream.write_all(&[byte]).is_err() {
                    break;
                }
            }
        });
        let error = ask(&server).unwrap_err();
        assert!(
            matches!(error, Error::Transport(_) | Error::Rejected { status: 401, .. }),
            "{error:?}"
        );
    }
}

#[test]
fn garbage_instead_of_http() {
    assert_broken(&writing("SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(), drop));
}

#[test]
fn passing_failures_are_retried_within_the_call() {
    for failure in [
        "",
        "HTTP/1.1 200 OK\r\n",
        &answer("500 Oops", "", ""),
        &answer("429 Slow", "Retry-After: 0\r\n", ""),
    ] {
        let failure = failure.to_owned();
        let server =
            Server::answering(
                move |n| {
                    if n < 2 { failure.clone() } else { token_answer("t", HOUR) }
                },
            );
        server.builder().build().unwrap().get_token(&grant()).unwrap();
        assert_eq!(server.connections(), 3);
    }
}

#[test]
fn failures_that_stay_are_not_retried() {
    for failure in ["400 Bad", "401 No", "404 Gone", "302 Found", "204 Nothing"] {
        let server = Server::answering(move |_| answer(failure, "Location: /x\r\n", ""));
        server.builder().build().unwrap().get_token(&grant()).unwrap_err();
        assert_eq!(server.connections(), 1, "{failure}");
    }
}

#[test]
fn retries_end_where_the_timeout_leaves_no_room() {
    // A stall uses the time up.
    let server = Server::start(|_, stream| stall(stream));
    let authenticator = server.builder().timeout(TIMEOUT).retries(100).build().unwrap();
    let start = Instant::now();
    authenticator.get_token(&grant()).unwrap_err();
    assert!(start.elapsed() < TIMEOUT + MARGIN);
    // The socket's timer may end a moment before the deadline, and leave room for one more.
    assert!(server.connections() <= 2);

    let server = Server::answering(|_| answer("503 Busy", "", ""));
    let authenticator = server.builder().timeout(TIMEOUT).retries(u32::MAX).build().unwrap();
    let start = Instant::now();
    let error = authenticator.get_token(&grant()).unwrap_err();
    assert!(start.elapsed() < TIMEOUT + MARGIN);
    // The deadline may also fall within the last retry.
    assert!(error.is_transient(), "{error:?}");
}

#[test]
fn retry_after_in_either_form_is_remembered() {
    for value in ["120", "Fri, 31 Dec 2021 00:02:00 GMT"] {
        let headers = format!("Date: {DATE}\r\nRetry-After: {value}\r\n");
        let server = Server::answering(move |_| answer("503 Busy", &headers, ""));
        let authenticator = server.builder().build().unwrap();
        for _ in 0..3 {
            let error = authenticator.get_token(&grant()).unwrap_err();
            let wait = error.retry_after().unwrap();
            assert!(
                wait <= Duration::from_secs(120) && wait > Duration::from_secs(110),
                "{wait:?}"
            );
        }
        assert_eq!(server.connections(), 1);
        authenticator.clear();
        authenticator.get_token(&grant()).unwrap_err();
        assert_eq!(server.connections(), 2, "clear forgets it");
    }
}

#[test]
fn short_retry_after_is_waited_for_within_the_call() {
    let server = Server::answering(|n| match n {
        0 => answer("429 Slow", "Retry-After: 1\r\n", ""),
        _ => token_answer("t", HOUR),
    });
    let start = Instant::now();
    server.builder().build().unwrap().get_token(&grant()).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn idle_connection_that_the_server_closes_is_never_reused() {
    // The answer promises to keep the connection, and the server closes it all the same.
    let server =
        Server::answering(|_| token_answer("t", HOUR).replace("Connection: close\r\n", ""));
    let authenticator = server.builder().retries(0).build().unwrap();
    for n in 1..=3 {
        let token = authenticator.get_token(&grant()).unwrap();
        authenticator.invalidate(&grant(), &token);
        assert_eq!(server.connections(), n);
    }
}

#[test]
fn error_status_stands_though_its_body_breaks_off() {
    for (status, text) in [
        (401, "HTTP/1.1 401 No\r\nContent-Length: 99\r\n\r\nclient secret s3c"),
        (503, "HTTP/1.1 503 Busy\r\nContent-Length: 99\r\n\r\nx"),
    ] {
        let error = ask(&writing(text.to_owned(), drop)).unwrap_err();
        assert_eq!(error.status(), Some(status));
        assert!(
            !error.to_string().contains("s3c"),
            "half a secret can't be told from other text: {error}"
        );
    }
}
