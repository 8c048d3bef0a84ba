//! Failures of the network and the endpoint, over real sockets.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

#[cfg(any(feature = "rustls", feature = "native-tls"))]
use weseedo_auth::ureq::Proxy;
use weseedo_auth::{Authenticator, Environment, Error, InvalidResponse, Token};

use crate::support::{
    DATE, HOUR, Server, answer, assert_not_reached, grant, read_request, stall, token_answer,
    wait_until,
};

const TIMEOUT: Duration = Duration::from_millis(400);
/// Enough for a slow machine, because a call without a timeout would take far longer or never end.
const MARGIN: Duration = Duration::from_secs(3);

/// Calls `get_token` without retries, and checks that `timeout` bounds the call.
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

/// Returns a server that reads the request, writes `text`, and calls `end` with the connection.
fn writing(text: String, end: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
    Server::start(move |_, mut stream| {
        read_request(&mut stream);
        stream.write_all(text.as_bytes()).unwrap();
        end(stream);
    })
}

fn half(text: &str) -> String {
    text[..text.len() / 2].to_owned()
}

/// Returns a port on loopback that no program listens on.
fn dead_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn refused_connection() {
    let port = dead_port();
    let environment = Environment::Custom(format!("http://127.0.0.1:{port}"));
    let authenticator = Authenticator::new(environment).unwrap();
    let error = assert_not_reached(&authenticator, Duration::from_secs(5));
    let place =
        format!("no answer from the token endpoint at 127.0.0.1:{port}: Connection refused");
    assert!(error.to_string().starts_with(&place), "{error}");
}

#[test]
#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn unknown_host() {
    let environment = Environment::Custom("https://weseedo-auth.invalid".to_owned());
    let timeout = Duration::from_secs(3);
    let authenticator = Authenticator::builder(environment).timeout(timeout).build().unwrap();
    let error = assert_not_reached(&authenticator, timeout * 2);
    assert!(error.to_string().contains("at weseedo-auth.invalid:443: "), "{error}");
}

#[test]
fn timeout_error_names_the_elapsed_time() {
    let server = Server::start(|_, stream| stall(stream));
    let builder = server.builder().timeout(TIMEOUT).retries(0);
    let error = assert_not_reached(&builder.build().unwrap(), TIMEOUT + MARGIN);
    let text = error.to_string();
    let time = text.split_once(": timed out after ").and_then(|(_, time)| time.strip_suffix("ms"));
    let time: f64 = time.unwrap_or_else(|| panic!("{text}")).parse().unwrap();
    assert!((390.0..=900.0).contains(&time), "{text}");
    let Error::Transport(error) = error else { panic!("{error:?}") };
    assert!(error.is_timeout());

    let builder = server.builder().retries(0);
    let builder = builder.http(|http| http.timeout_recv_response(Some(TIMEOUT)));
    let error = assert_not_reached(&builder.build().unwrap(), TIMEOUT + MARGIN);
    let text = error.to_string();
    assert!(
        text.contains(": timed out after 4") && text.ends_with("ms (receive response)"),
        "{text}"
    );
}

#[test]
fn timeout_error_names_the_whole_time_of_a_caller_that_first_waited_for_another() {
    let server = Server::start(|_, stream| stall(stream));
    let authenticator = server.builder().timeout(TIMEOUT * 3).retries(0).build().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| authenticator.get_token(&grant()).unwrap_err());
        wait_until(|| server.connections() == 1);
        thread::sleep(TIMEOUT);
        let error = authenticator.get_token(&grant()).unwrap_err().to_string();
        assert!(error.contains(": timed out after 1."), "{error}");
        assert_eq!(server.connections(), 2, "the second caller has asked, too");
    });
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn behind_proxy(port: u16) -> Authenticator {
    let environment = Environment::Custom("https://weseedo-auth.invalid".to_owned());
    let builder = Authenticator::builder(environment).http(move |http| {
        http.proxy(Proxy::new(&format!("http://jan:hunter2@127.0.0.1:{port}")).ok())
    });
    builder.retries(1).build().unwrap()
}

#[test]
#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn error_names_the_dead_proxy() {
    let port = dead_port();
    let error = assert_not_reached(&behind_proxy(port), Duration::from_secs(5));
    let text = error.to_string();
    let place = format!("weseedo-auth.invalid:443 through the proxy 127.0.0.1:{port}: ");
    assert!(text.contains(&place) && !text.contains("hunter2"), "{text}");
}

#[test]
#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn refusal_by_a_proxy_is_retried_only_if_it_is_transient() {
    for (status, is_transient) in
        [("407 Who?", false), ("403 No", false), ("429 Wait", true), ("503 Busy", true)]
    {
        let proxy = Server::answering(move |_| answer(status, "", ""));
        let port = proxy.base_url.rsplit(':').next().unwrap().parse().unwrap();
        let error = behind_proxy(port).get_token(&grant()).unwrap_err();
        assert!(matches!(error, Error::Transport(_)), "{error:?}");
        assert_eq!(error.is_transient(), is_transient, "{error}");
        assert!(error.to_string().contains(&status[..3]), "{error}");
        assert_eq!(proxy.connections(), 1 + usize::from(is_transient));
    }
}

#[test]
#[cfg(all(feature = "wipe", any(feature = "rustls", feature = "native-tls")))]
fn deadline_holds_while_a_proxy_answers_byte_by_byte() {
    let proxy = Server::start(|_, mut stream| {
        read_request(&mut stream);
        for byte in b"HTTP/1.1 200 OK\r\nX: y\r\n".iter().cycle() {
            sleep(Duration::from_millis(100));
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
    });
    let url = proxy.base_url.clone();
    let environment = Environment::Custom("https://weseedo-auth.invalid".to_owned());
    let builder = Authenticator::builder(environment).timeout(TIMEOUT);
    let builder =
        builder.http(move |http| http.proxy(Proxy::new(&url).ok()).timeout_connect(Some(TIMEOUT)));
    let authenticator = builder.build().unwrap();
    assert_not_reached(&authenticator, TIMEOUT + MARGIN);
    let start = Instant::now();
    authenticator.agent(grant()).get("https://elsewhere.invalid/").call().unwrap_err();
    assert!(start.elapsed() < TIMEOUT + MARGIN, "{:?}", start.elapsed());
}

#[test]
fn reset_before_and_after_the_request() {
    // Closing a connection with unread input resets it.
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
fn answer_that_arrives_byte_by_byte_is_cut_off_at_the_timeout() {
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
fn transient_failures_are_retried_within_the_call() {
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
fn permanent_failures_are_not_retried() {
    for failure in ["400 Bad", "401 No", "404 Gone", "302 Found", "204 Nothing"] {
        let server = Server::answering(move |_| answer(failure, "Location: /x\r\n", ""));
        server.builder().build().unwrap().get_token(&grant()).unwrap_err();
        assert_eq!(server.connections(), 1, "{failure}");
    }
}

#[test]
fn silent_connection_is_given_up_and_the_request_retried() {
    let server = Server::stalling(|n| n == 0, token_answer("t", HOUR));
    let authenticator = server.builder().timeout(Duration::from_secs(2)).build().unwrap();
    authenticator.get_token(&grant()).unwrap();
    assert_eq!(server.connections(), 2);
}

#[test]
fn first_attempt_gets_half_of_the_timeout() {
    let server = Server::answering(|_| {
        sleep(Duration::from_millis(800));
        token_answer("t", HOUR)
    });
    let authenticator = server.builder().timeout(Duration::from_secs(4)).build().unwrap();
    authenticator.get_token(&grant()).unwrap();
    assert_eq!(server.connections(), 1);
}

#[test]
fn retries_end_where_the_timeout_leaves_no_room() {
    for text in ["", &answer("503 Busy", "", "")] {
        let text = text.to_owned();
        let server = Server::start(move |_, mut stream| {
            read_request(&mut stream);
            stream.write_all(text.as_bytes()).unwrap();
            stall(stream);
        });
        let builder = server.builder().timeout(TIMEOUT).retries(u32::MAX);
        let start = Instant::now();
        builder.build().unwrap().get_token(&grant()).unwrap_err();
        assert!(start.elapsed() < TIMEOUT + MARGIN);
        assert!(server.connections() >= 2, "the first attempt gets only half of the time");
    }
}

#[test]
fn last_answer_of_the_server_is_returned_if_a_retry_times_out() {
    let server = Server::stalling(|n| n > 0, answer("503 Busy", "Retry-After: 0\r\n", ""));
    let authenticator = server.builder().timeout(TIMEOUT).retries(1).build().unwrap();
    let error = authenticator.get_token(&grant()).unwrap_err();
    assert_eq!(server.connections(), 2);
    assert_eq!(error.status(), Some(503), "{error:?}");
    assert_eq!(error.retry_after(), None, "its Retry-After was waited for: {error:?}");
}

#[test]
fn longest_timeout_works() {
    let server = Server::answering(|n| match n {
        0 => answer("503 Busy", "", ""),
        _ => token_answer("t", HOUR),
    });
    let authenticator = server.builder().timeout(Duration::MAX).build().unwrap();
    authenticator.get_token(&grant()).unwrap();
    assert_eq!(server.connections(), 2);
}

#[test]
fn timeout_global_of_the_user_shortens_the_timeout() {
    let server = Server::start(|_, stream| stall(stream));
    let authenticator = server
        .builder()
        .timeout(Duration::from_secs(600))
        .retries(0)
        .http(|http| http.timeout_global(Some(TIMEOUT)))
        .build()
        .unwrap();
    assert_not_reached(&authenticator, TIMEOUT + MARGIN);
}

#[test]
fn failing_endpoint_gets_few_requests() {
    for (status, at_most) in [("401 No", 3), ("503 Busy", 15)] {
        let server = Server::answering(move |_| answer(status, "", ""));
        let authenticator = server.builder().build().unwrap();
        let end = Instant::now() + Duration::from_millis(500);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while Instant::now() < end {
                        authenticator.get_token(&grant()).unwrap_err();
                    }
                });
            }
        });
        assert!(server.connections() <= at_most, "{status}: {}", server.connections());
        authenticator.forget(&grant());
        let before = server.connections();
        authenticator.get_token(&grant()).unwrap_err();
        assert!(server.connections() > before, "forget ends the pause");
    }
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
                wait <= Duration::from_secs(132) && wait > Duration::from_secs(110),
                "{wait:?}"
            );
        }
        assert_eq!(server.connections(), 1);
        authenticator.clear();
        authenticator.get_token(&grant()).unwrap_err();
        assert_eq!(server.connections(), 2, "clear ends the pause");
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
fn token_requests_keep_no_connection() {
    // The server keeps connections open, so that a client could use them again.
    let server = Server::keeping(|_| token_answer("t", HOUR).replace("Connection: close\r\n", ""));
    let authenticator = server.builder().build().unwrap();
    for n in 1..=3 {
        authenticator.get_token(&grant()).unwrap();
        authenticator.forget(&grant());
        assert_eq!(server.connections(), n);
    }
}

#[test]
fn error_status_is_returned_although_its_body_breaks_off() {
    for (status, text) in [
        (401, "HTTP/1.1 401 No\r\nContent-Length: 99\r\n\r\nclient secret s3c"),
        (503, "HTTP/1.1 503 Busy\r\nContent-Length: 99\r\n\r\nx"),
    ] {
        let error = ask(&writing(text.to_owned(), drop)).unwrap_err();
        assert_eq!(error.status(), Some(status));
        assert!(
            !error.to_string().contains("s3c"),
            "half a secret would not be recognized, so nothing is quoted: {error}"
        );
    }
}
