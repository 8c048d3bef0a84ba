//! Answers of a malicious endpoint.

use std::io::Write;
use std::time::{Duration, Instant};

use weseedo_auth::{Error, Grant, InvalidResponse};

use crate::support::{DATE, HOUR, Server, answer, grant, read_request, token_answer, token_body};

/// Returns the error of one call, which must end within 3 s.
#[track_caller]
fn error(server: &Server) -> Error {
    let start = Instant::now();
    let error = server.builder().retries(0).build().unwrap().get_token(&grant()).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    error
}

fn is_body(error: &Error, reason: &str) -> bool {
    matches!(error, Error::InvalidResponse(InvalidResponse::Body(text)) if *text == reason)
}

#[test]
fn redirects_are_refused_whatever_the_settings() {
    for status in [301, 302, 303, 307, 308] {
        let target = Server::answering(|_| token_answer("t", HOUR));
        let location = format!("Location: {}/\r\n", target.base_url);
        let server =
            Server::answering(move |_| answer(&format!("{status} Elsewhere"), &location, ""));
        let authenticator = server.builder().http(|http| http.max_redirects(5)).build().unwrap();
        match authenticator.get_token(&grant()).unwrap_err() {
            Error::InvalidResponse(InvalidResponse::Redirect { status: s, .. }) => {
                assert_eq!(s, status);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((server.connections(), target.connections()), (1, 0));
    }
}

#[test]
fn settings_do_not_turn_statuses_into_other_errors() {
    let server = Server::answering(|_| answer("401 No", "", r#"{"error":"invalid_client"}"#));
    let authenticator =
        server.builder().http(|http| http.http_status_as_error(true)).build().unwrap();
    let error = authenticator.get_token(&grant()).unwrap_err();
    assert!(matches!(error, Error::Rejected { status: 401, code: Some(_), .. }), "{error:?}");
}

#[test]
fn endless_and_huge_bodies_are_read_to_their_limit() {
    for head in ["Transfer-Encoding: chunked", "Content-Length: 10000000000", "Connection: close"] {
        for (status, is_expected) in [
            ("200 OK", (|e| is_body(e, "is larger than 16 KiB")) as fn(&Error) -> bool),
            ("400 Bad", |e| matches!(e, Error::Rejected { description: None, .. })),
        ] {
            let server = Server::start(move |_, mut stream| {
                read_request(&mut stream);
                let _ = write!(stream, "HTTP/1.1 {status}\r\n{head}\r\n\r\n");
                let block = if head.ends_with("chunked") { "400\r\n" } else { "" }.to_owned()
                    + &"x".repeat(1024);
                let block = if head.ends_with("chunked") { block + "\r\n" } else { block };
                while stream.write_all(block.as_bytes()).is_ok() {}
            });
            let error = error(&server);
            assert!(is_expected(&error), "{head}: {error:?}");
        }
    }
}

#[test]
fn endless_headers_are_read_to_their_limit() {
    for line in ["X: y\r\n".to_owned(), format!("X: {}\r\n", "y".repeat(4000)), "y".repeat(1000)] {
        let is_long = line.len() > 100;
        let server = Server::start(move |_, mut stream| {
            read_request(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            while stream.write_all(line.as_bytes()).is_ok() {}
        });
        let error = error(&server);
        assert!(matches!(error, Error::Transport(_)), "{error:?}");
        assert_eq!(error.to_string().contains("response header is too big"), is_long, "{error}");
        assert_ne!(
            error.is_transient(),
            is_long,
            "a header that is too large is a permanent error: {error}"
        );
    }
}

#[test]
fn compressed_answer_is_not_accepted() {
    // gzip starts with the byte 0x8b in second place, which a string can't hold.
    let server =
        Server::answering(|_| answer("200 OK", "Content-Encoding: gzip\r\n", "\u{1f}\u{8}"));
    let error = error(&server);
    assert!(matches!(error, Error::InvalidResponse(_) | Error::Transport(_)), "{error:?}");
}

const WITHHELD: &str =
    "withheld: the server's words are not plain, or too close to a secret or user name";

#[test]
fn error_text_is_harmless() {
    for (description, quoted) in [
        (r"\u001b[2Jinvalid\r\nfake log line \u202e", WITHHELD),
        (r"invalid\r\nfake log line", "invalid fake log line"),
        ("s3cr3t", WITHHELD),
        ("no aWQ6czNjcjN0, no s%33cr3t", WITHHELD),
    ] {
        let body = format!(r#"{{"error":"\u001b[2J","error_description":"{description}"}}"#);
        let server = Server::answering(move |_| answer("400 Bad", "", &body));
        let text = format!("token request rejected with status 400: {quoted}");
        assert_eq!(error(&server).to_string(), text);
    }
}

#[test]
fn echo_that_is_slow_to_search_delays_no_call() {
    // A search that starts again at each character would take minutes.
    let name = "ab".repeat(2000);
    let echo = "ab".repeat(8000);
    let server = Server::answering(move |_| answer("400 Bad", "", &echo));
    let authenticator = server.builder().retries(0).build().unwrap();
    let grant = Grant::password("id", "a".repeat(4000), name, "b".repeat(4000));
    let start = Instant::now();
    let error = authenticator.get_token(&grant).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(error.to_string().ends_with(WITHHELD), "{error}");
}

#[test]
fn token_that_would_split_a_header_is_refused() {
    let server = Server::answering(|_| token_answer(r"t\r\nX-Injected: y", HOUR));
    let error = error(&server);
    let Error::InvalidResponse(InvalidResponse::Field { name, .. }) = error else {
        panic!("{error:?}")
    };
    assert_eq!(name, "access_token");
}

#[test]
fn token_of_the_far_future_is_cached_and_an_expired_one_is_not() {
    let answer_until = |expires: &'static str| {
        Server::answering(move |_| {
            let body = token_body("t", HOUR).replace("2021-12-31T01:00:00.000Z", expires);
            answer("200 OK", &format!("Date: {DATE}\r\n"), &body)
        })
    };
    let server = answer_until("9999-12-31T23:59:59Z");
    let authenticator = server.builder().build().unwrap();
    for _ in 0..3 {
        assert_eq!(authenticator.get_token(&grant()).unwrap().expires_at().year(), 9999);
    }
    assert_eq!(server.connections(), 1);

    let server = answer_until("2021-12-30T23:59:59Z");
    let authenticator = server.builder().retries(0).build().unwrap();
    for n in 1..=2 {
        let error = authenticator.get_token(&grant()).unwrap_err();
        assert!(matches!(error, Error::InvalidResponse(InvalidResponse::Expired)), "{error:?}");
        assert_eq!(server.connections(), n, "an expired token is not cached");
    }
}

#[test]
fn date_ten_years_off_neither_hangs_nor_panics() {
    for (date, is_usable) in
        [("Sat, 31 Dec 2011 00:00:00 GMT", true), ("Thu, 31 Dec 2031 00:00:00 GMT", false)]
    {
        let server = Server::answering(move |_| token_answer("t", HOUR).replace(DATE, date));
        assert_eq!(server.builder().build().unwrap().get_token(&grant()).is_ok(), is_usable);
    }
}

#[test]
fn retry_after_is_capped_at_an_hour() {
    let server = Server::answering(|_| answer("503 Busy", "Retry-After: 99999999999\r\n", ""));
    assert_eq!(error(&server).retry_after(), Some(HOUR));
}

#[test]
fn user_names_are_in_no_error() {
    let server = Server::answering(|_| {
        answer("400 Bad", "", "user jan@example.nl (jan%40example.nl) has no p4ss")
    });
    let authenticator = server.builder().build().unwrap();
    let grant = Grant::password("id", "s3cr3t", "jan@example.nl", "p4ss");
    let error = authenticator.get_token(&grant).unwrap_err();
    assert_eq!(error.to_string(), format!("token request rejected with status 400: {WITHHELD}"));
    assert!(!format!("{error:?}").contains("jan"));
}
