use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};
use ureq::http::header::{DATE, HeaderName, LOCATION, RETRY_AFTER};
use ureq::http::{HeaderMap, Uri};
use zeroize::Zeroizing;

use crate::clock::{Moment, Span};
use crate::endpoint::json::{self, Found};
use crate::endpoint::quote::Private;
use crate::error::{Error, InvalidResponse};
use crate::grant::Grant;
use crate::token::Token;

/// The longest body that is read, in bytes.
pub(crate) const MAX_BODY: usize = 16 * 1024;
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
const DATE_RESOLUTION: Duration = Duration::from_secs(1);

/// Reads the answer to a token request that was sent at `sent`.
///
/// `body` has one byte more than [`MAX_BODY`] if the server's body is too large. The grant's texts
/// must not be quoted.
pub(crate) fn parse(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    sent: Moment,
    grant: &Grant,
) -> Result<Token, Error> {
    // The server's clock decides, so that a wrong local one does no harm.
    let date = http_date(headers, DATE).unwrap_or_else(|| utc(sent.wall));
    match status {
        200..=299 if !is_error(body) => token(body, date, sent).map_err(Error::InvalidResponse),
        300..=399 => Err(Error::InvalidResponse(InvalidResponse::Redirect {
            status,
            to: redirect_target(headers, grant),
        })),
        408 | 425 | 429 | 500 | 502..=504 | 520..=599 => {
            let (code, description) = quoted(body, grant);
            let retry_after = retry_after(headers, date);
            Err(Error::Unavailable { status, code, description, retry_after })
        }
        200..=299 | 400..=599 => {
            let (code, mut description) = quoted(body, grant);
            if let Some(name) = grant.secret_with_stray_end() {
                let strays = "white space, an invisible character or a quotation mark";
                add(&mut description, &format!("{name} starts or ends with {strays}"));
            }
            Err(Error::Rejected { status, code, description })
        }
        _ => Err(Error::InvalidResponse(InvalidResponse::Status(status))),
    }
}

/// Whether a body with a success status is an error (RFC 6749 section 5.2) and not a token.
fn is_error(body: &[u8]) -> bool {
    let text = str::from_utf8(body).unwrap_or_default();
    match json::object(text, ["access_token", "error"]) {
        Some([Found::Missing | Found::Once("null"), Found::Once(error)]) => error != "null",
        _ => false,
    }
}

/// The scheme and host that a redirect points to; `None` if the host shows a piece of a private
/// text.
fn redirect_target(headers: &HeaderMap, grant: &Grant) -> Option<String> {
    let uri = headers.get(LOCATION)?.to_str().ok()?.parse::<Uri>().ok()?;
    let (scheme, host) = (uri.scheme_str()?, uri.host()?);
    let is_private = Private(grant.private_texts()).is_shown_in(host);
    (!is_private).then(|| format!("{scheme}://{host}"))
}

fn token(body: &[u8], date: OffsetDateTime, sent: Moment) -> Result<Token, InvalidResponse> {
    let text = str::from_utf8(body).map_err(|_| InvalidResponse::Body("is not UTF-8"))?;
    if body.len() > MAX_BODY {
        return Err(InvalidResponse::Body("is larger than 16 KiB"));
    }
    let [access_token, expires, token_type] =
        json::object(text, ["access_token", "expires", "token_type"]).ok_or_else(|| {
            InvalidResponse::Body(match text.trim_ascii_start().chars().next() {
                None => "is empty",
                Some('\u{feff}') => "starts with a byte order mark",
                Some('<') => "is HTML or XML, not JSON",
                Some(_) => "is not a whole JSON object",
            })
        })?;

    // RFC 6749 section 7.1: a client must not use a token whose type it does not understand.
    let token_type = string("token_type", token_type)?;
    if !token_type.eq_ignore_ascii_case("bearer") {
        return Err(invalid_field("token_type", "is not Bearer"));
    }

    let access_token = string("access_token", access_token)?;
    if access_token.is_empty() || !access_token.bytes().all(|b| b.is_ascii_graphic()) {
        let reason = "can't stand in an HTTP header: it must be visible ASCII characters";
        return Err(invalid_field("access_token", reason));
    }

    let expires = string("expires", expires)?;
    let expires = OffsetDateTime::parse(&expires, &Rfc3339)
        .map_err(|_| invalid_field("expires", "is not an RFC 3339 date and time"))?;
    // `Date` is cut to whole seconds, so the server's clock may be up to a second ahead of it.
    match Duration::try_from(expires - date).unwrap_or_default().checked_sub(DATE_RESOLUTION) {
        Some(lifetime) if !lifetime.is_zero() => {
            Ok(Token::new(&access_token, expires, Span::new(sent, lifetime)))
        }
        _ => Err(InvalidResponse::Expired),
    }
}

fn string(name: &'static str, found: Found<'_>) -> Result<Zeroizing<String>, InvalidResponse> {
    match found {
        Found::Missing => Err(invalid_field(name, "is missing")),
        Found::Repeated => Err(invalid_field(name, "stands there twice")),
        Found::Once(raw) => json::string(raw).ok_or(invalid_field(name, "is not a valid string")),
    }
}

fn invalid_field(name: &'static str, reason: &'static str) -> InvalidResponse {
    InvalidResponse::Field { name, reason }
}

/// Adds a hint of this crate to the server's words.
pub(super) fn add(description: &mut Option<String>, hint: &str) {
    let said = description.take().map(|text| format!("{text}: ")).unwrap_or_default();
    *description = Some(format!("{said}{hint}"));
}

/// The `code` and `description` of an error.
fn quoted(body: &[u8], grant: &Grant) -> (Option<String>, Option<String>) {
    let private = Private(grant.private_texts());
    // A body that is too large was not read whole, so no part of it is quoted either.
    let Some(text) = str::from_utf8(body).ok().filter(|text| text.len() <= MAX_BODY) else {
        return (None, None);
    };
    let names = ["error", "error_description", "message"];
    if let Some([code, descriptions @ ..]) = json::object(text, names) {
        let string = |found| if let Found::Once(raw) = found { json::string(raw) } else { None };
        let mut descriptions = descriptions.into_iter().filter_map(string);
        let code = string(code).and_then(|text| private.code(&text));
        return (code, descriptions.find_map(|text| private.description(&text)));
    }
    let text = text.trim_start_matches('\u{feff}').trim_ascii();
    let description = match text.chars().next() {
        // Incomplete objects and other JSON are not quoted, because they are not meant for people.
        Some('{' | '[') => None,
        Some('"') => json::string(text).and_then(|text| private.description(&text)),
        _ => private.description(text),
    };
    (None, description)
}

/// RFC 9110 section 10.2.3: seconds or a date.
fn retry_after(headers: &HeaderMap, date: OffsetDateTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // A number that doesn't fit is a long time.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        // A date in the past asks for no wait.
        Duration::try_from(http_date(headers, RETRY_AFTER)? - date).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// A date in one of the three forms of RFC 9110 section 5.6.7.
fn http_date(headers: &HeaderMap, name: HeaderName) -> Option<OffsetDateTime> {
    let text = headers.get(name)?.to_str().ok()?;
    let words: Vec<_> = text.split([' ', '-']).filter(|word| !word.is_empty()).collect();
    // All forms are rewritten to the first one, because the parser for RFC 2822 reads that one,
    // also with a year of two digits:
    // Sun, 06 Nov 1994 08:49:37 GMT · Sunday, 06-Nov-94 08:49:37 GMT · Sun Nov  6 08:49:37 1994
    let ([_, day, month, year, time, "GMT"] | [_, month, day, time, year]) = words[..] else {
        return None;
    };
    let rfc2822 = format!("{day} {month} {year} {time} GMT");
    OffsetDateTime::parse(&rfc2822, &Rfc2822).ok()
}

/// A clock that is set to a time before 1970 counts as 1970.
fn utc(wall: SystemTime) -> OffsetDateTime {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let since = since.try_into().unwrap_or(time::Duration::MAX);
    OffsetDateTime::UNIX_EPOCH.saturating_add(since)
}

#[cfg(test)]
mod tests {
    use ureq::http::HeaderValue;

    use super::*;
    use crate::endpoint::quote::WITHHELD;

    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: Duration = Duration::from_secs(1);
    const EXPIRES: &str = "2021-12-31T23:59:59.999Z";
    /// An hour and 999 ms before `EXPIRES`.
    const DATE_HEADER: (&str, &str) = ("date", "Fri, 31 Dec 2021 22:59:59 GMT");

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text| HeaderValue::from_str(text).unwrap();
        pairs.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    fn parse_at(
        sent: Moment,
        status: u16,
        pairs: &[(&'static str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Result<Token, Error> {
        let grant = Grant::password("id", "s3cr3t", "jan", "p4ss");
        parse(status, &headers(pairs), body.as_ref(), sent, &grant)
    }

    fn body(access_token: &str, expires: &str, token_type: &str) -> String {
        format!(
            r#"{{"access_token":"{access_token}","expires":"{expires}","token_type":"{token_type}"}}"#
        )
    }

    #[track_caller]
    fn accepted(body: impl AsRef<[u8]>) -> Token {
        parse_at(Moment::now(), 200, &[DATE_HEADER], body).unwrap()
    }

    #[track_caller]
    fn invalid(body: impl AsRef<[u8]>) -> InvalidResponse {
        match parse_at(Moment::now(), 200, &[DATE_HEADER], body) {
            Err(Error::InvalidResponse(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn field(body: impl AsRef<[u8]>) -> (&'static str, &'static str) {
        match invalid(body) {
            InvalidResponse::Field { name, reason } => (name, reason),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn rejected(body: impl AsRef<[u8]>) -> (Option<String>, Option<String>) {
        match parse_at(Moment::now(), 400, &[DATE_HEADER], body) {
            Err(Error::Rejected { status: 400, code, description }) => (code, description),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn retry_after(pairs: &[(&'static str, &str)]) -> Option<Duration> {
        match parse_at(Moment::now(), 503, pairs, "") {
            Err(Error::Unavailable { status: 503, retry_after, .. }) => retry_after,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn documented_answer_is_a_token() {
        let token = accepted(body("d33.59b", EXPIRES, "Bearer"));
        assert_eq!(token.access_token(), "d33.59b");
        assert_eq!(token.expires_at().to_string(), "2021-12-31 23:59:59.999 +00:00:00");
    }

    #[test]
    fn any_success_status_and_unknown_fields_are_fine() {
        let body = r#" {"scope":[{}],"token_type":"bEARER","x":1e999,"expires":"2021-12-31T23:59:59Z","access_token":"a"} "#;
        assert_eq!(parse_at(Moment::now(), 201, &[DATE_HEADER], body).unwrap().access_token(), "a");
    }

    #[test]
    fn escapes_are_resolved() {
        let token =
            accepted(body(r"a\/b\u002bc\u003D", r"2021-12-31T23\u003a59:59Z", r"\u0042earer"));
        assert_eq!(token.authorization(), "Bearer a/b+c=");
    }

    /// <https://www.rfc-editor.org/rfc/rfc3339#section-5.6>,
    /// <https://www.rfc-editor.org/rfc/rfc3339#section-5.8>
    #[test]
    fn expires_is_read_in_every_form() {
        for (text, utc) in [
            ("2021-12-31T23:59:59Z", "2021-12-31 23:59:59.0"),
            ("2021-12-31t23:59:59z", "2021-12-31 23:59:59.0"),
            ("2021-12-31 23:59:59Z", "2021-12-31 23:59:59.0"),
            ("2022-01-01T01:29:59.5+01:30", "2021-12-31 23:59:59.5"),
            ("2021-12-31T15:59:59.123456789012-08:00", "2021-12-31 23:59:59.123456789"),
            ("2021-12-31T23:59:59-00:00", "2021-12-31 23:59:59.0"),
            ("2021-12-31T23:59:60Z", "2021-12-31 23:59:59.999999999"),
            ("9999-12-31T23:59:59Z", "9999-12-31 23:59:59.0"),
        ] {
            let expires = accepted(body("a", text, "Bearer")).expires_at();
            let expires = expires.to_offset(time::UtcOffset::UTC).to_string();
            assert_eq!(expires.strip_suffix(" +00:00:00"), Some(utc), "{text}");
        }
        for text in [
            "",
            "2021-12-31",
            "1640995199",
            "2021-12-31T23:59:59",
            "2021-12-31T24:00:00Z",
            "2021-02-29T00:00:00Z",
            "2021-12-31T23:59:59ZZ",
            "Fri, 31 Dec 2021 23:59:59 GMT",
        ] {
            let reason = "is not an RFC 3339 date and time";
            assert_eq!(field(body("a", text, "Bearer")), ("expires", reason), "{text}");
        }
    }

    #[test]
    fn lifetime_is_counted_by_the_servers_clock_from_the_sending() {
        let token = |pairs: &[_], sent, expires| {
            parse_at(sent, 200, pairs, body("a", expires, "Bearer")).unwrap()
        };
        let sent = Moment::now();
        let remaining = token(&[DATE_HEADER], sent, EXPIRES).lifetime().remaining(sent);
        assert_eq!(
            remaining,
            HOUR - Duration::from_millis(1),
            "an hour and 999 ms, minus a second"
        );

        // 2021-12-31T23:00:00Z by the local clock.
        let sent =
            Moment { wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_640_991_600), ..sent };
        for unreadable in [&[][..], &[("date", "yesterday")], &[("date", "1640991600")]] {
            let remaining =
                token(unreadable, sent, "2022-01-01T00:00:00Z").lifetime().remaining(sent);
            assert_eq!(remaining, HOUR - SECOND, "{unreadable:?}");
        }
    }

    #[test]
    fn one_second_is_always_taken_off_the_lifetime() {
        let sent = Moment::now();
        for (expires, lifetime) in [
            ("2021-12-31T23:00:09Z", SECOND * 9),
            ("2021-12-31T23:00:01Z", SECOND),
            ("2021-12-31T23:00:00.001Z", Duration::from_millis(1)),
        ] {
            let body = body("a", expires, "Bearer");
            let token = parse_at(sent, 200, &[DATE_HEADER], body).unwrap();
            assert_eq!(token.lifetime().remaining(sent), lifetime, "{expires}");
        }
    }

    #[test]
    fn token_with_less_than_a_second_left_has_expired_on_arrival() {
        for expires in [
            "2021-12-31T23:00:00Z",
            "2021-12-31T22:59:59.5Z",
            "2021-12-31T22:59:58.999Z",
            "1970-01-01T00:00:00Z",
        ] {
            let reason = invalid(body("a", expires, "Bearer"));
            assert_eq!(reason, InvalidResponse::Expired, "{expires}");
            assert!(Error::InvalidResponse(reason).is_transient(), "a new one may come soon");
        }
    }

    #[test]
    fn wall_clock_beyond_all_calendars_does_no_harm() {
        for wall in [
            SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(1 << 60)),
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(1 << 60)),
        ] {
            let sent = Moment { wall: wall.unwrap(), ..Moment::now() };
            let _ = parse_at(sent, 200, &[], body("a", EXPIRES, "Bearer"));
            let token = parse_at(sent, 200, &[DATE_HEADER], body("a", EXPIRES, "Bearer")).unwrap();
            assert!(!token.lifetime().has_ended(sent));
        }
    }

    #[test]
    fn unusable_fields_are_named() {
        let whole = body("a", EXPIRES, "Bearer");
        for name in ["access_token", "expires", "token_type"] {
            assert_eq!(field(whole.replace(name, "x")), (name, "is missing"));
            let twice = format!(r#"{{"{name}":"Bearer",{}"#, &whole[1..]);
            assert_eq!(field(twice), (name, "stands there twice"));
            for value in ["null", "1", "true", "[]", "{}", r#"["Bearer"]"#, r#""\ud800""#] {
                let text = format!(r#"{{"{name}":{value},{}"#, whole[1..].replace(name, "x"));
                assert_eq!(field(text), (name, "is not a valid string"), "{value}");
            }
        }
    }

    /// <https://www.rfc-editor.org/rfc/rfc6749#section-7.1>
    #[test]
    fn token_type_must_be_bearer() {
        for token_type in ["", "mac", "Bearer ", "bearerx", "DPoP"] {
            assert_eq!(field(body("a", EXPIRES, token_type)), ("token_type", "is not Bearer"));
        }
    }

    #[test]
    fn access_token_must_fit_into_a_header() {
        for token in ["", "a b", "a\\r\\nX: y", "a\\u0000", "a\\u007f", "\u{e9}", " a", "a\\t"] {
            let reason = "can't stand in an HTTP header: it must be visible ASCII characters";
            assert_eq!(field(body(token, EXPIRES, "Bearer")), ("access_token", reason), "{token}");
        }
        let odd = "!#$%&'()*+,-./:;<=>?@[]^_`{|}~";
        assert_eq!(accepted(body(odd, EXPIRES, "Bearer")).access_token(), odd);
    }

    #[test]
    fn unusable_bodies_say_why() {
        let whole = body("a", EXPIRES, "Bearer");
        let long = whole.clone() + &" ".repeat(MAX_BODY + 1 - whole.len());
        assert_eq!(invalid(&long), InvalidResponse::Body("is larger than 16 KiB"));
        accepted(&long[..MAX_BODY]);

        for (text, reason) in [
            ("", "is empty"),
            (" \r\n", "is empty"),
            ("<!doctype html><html></html>", "is HTML or XML, not JSON"),
            ("\u{feff}{}", "starts with a byte order mark"),
            ("null", "is not a whole JSON object"),
            ("[]", "is not a whole JSON object"),
            ("\"a\"", "is not a whole JSON object"),
            (&whole[..whole.len() - 1], "is not a whole JSON object"),
            (&format!("{whole}{whole}"), "is not a whole JSON object"),
            (&format!("{{\"a\":{}", "[".repeat(16_000)), "is not a whole JSON object"),
            (&whole.replace(':', "="), "is not a whole JSON object"),
        ] {
            assert_eq!(invalid(text), InvalidResponse::Body(reason), "{text}");
        }
        assert_eq!(invalid(b"{\"a\":\"\xff\"}"), InvalidResponse::Body("is not UTF-8"));
    }

    #[test]
    fn statuses_are_classified() {
        for status in [100, 199, 600, 999] {
            let error =
                parse_at(Moment::now(), status, &[DATE_HEADER], body("a", EXPIRES, "Bearer"))
                    .unwrap_err();
            assert!(
                matches!(error, Error::InvalidResponse(InvalidResponse::Status(s)) if s == status),
                "{error:?}"
            );
            assert_eq!(error.status(), Some(status));
        }
        for status in [400, 401, 403, 404, 405, 407, 409, 428, 430, 499, 501, 505, 511, 519] {
            let error = parse_at(Moment::now(), status, &[], "").unwrap_err();
            assert!(matches!(error, Error::Rejected { status: s, .. } if s == status), "{error:?}");
            assert!(!error.is_transient());
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 520, 599] {
            let error = parse_at(Moment::now(), status, &[], "").unwrap_err();
            assert!(
                matches!(error, Error::Unavailable { status: s, .. } if s == status),
                "{error:?}"
            );
            assert!(error.is_transient());
        }
    }

    /// <https://www.rfc-editor.org/rfc/rfc6749#section-5.2>
    #[test]
    fn rejection_is_quoted() {
        let some = |text: &str| Some(text.to_owned());
        for (body, code, description) in [
            (
                r#"{"error":"invalid_client","error_description":"no \u0063lient"}"#,
                some("invalid_client"),
                some("no client"),
            ),
            (r#"{"error":"invalid_grant"}"#, some("invalid_grant"), None),
            (
                r#"{"error":{"x":1},"message":"Invalid login","name":"NotAuthenticated"}"#,
                None,
                some("Invalid login"),
            ),
            (r#"{"name":"NotAuthenticated","code":401}"#, None, None),
            (r#"{"message":"<pre>Cannot POST</pre>","name":"NotFound"}"#, None, None),
            (r#"{"x":"y"}"#, None, None),
            (r#"{"error":"a""#, None, None),
            (r#"["a"]"#, None, None),
            ("Invalid\ncredentials", None, some("Invalid credentials")),
            ("\"Invalid \\u0063redentials\"", None, some("Invalid credentials")),
            ("\"no such client", None, None),
            (" <html><body>x</body></html>", None, None),
            ("", None, None),
        ] {
            assert_eq!(rejected(body), (code, description), "{body}");
        }
        assert_eq!(rejected(b"\xff"), (None, None));
        assert_eq!(rejected("x".repeat(MAX_BODY + 1)), (None, None));
    }

    #[test]
    fn unavailable_server_is_quoted_too() {
        let body = r#"{"error":"temporarily_unavailable","error_description":"maintenance"}"#;
        match parse_at(Moment::now(), 503, &[], body) {
            Err(Error::Unavailable {
                code: Some(code), description: Some(description), ..
            }) => {
                assert_eq!((&*code, &*description), ("temporarily_unavailable", "maintenance"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rejection_quotes_nothing_private() {
        let withheld = || Some(WITHHELD.to_owned());
        let body = r#"{"error":"s3cr3t","error_description":"client s\u0033cr3t: no p4ss"}"#;
        assert_eq!(rejected(body), (None, withheld()));
        let body = r#"{"error":"invalid_client","message":"user JAN","name":"NotAuthenticated"}"#;
        assert_eq!(rejected(body), (Some("invalid_client".to_owned()), withheld()));
        assert_eq!(rejected("user 'jan'"), (None, withheld()));
    }

    #[test]
    fn stray_characters_around_a_secret_are_reported() {
        let described = |grant: &Grant, body: &str| match parse(
            401,
            &headers(&[]),
            body.as_bytes(),
            Moment::now(),
            grant,
        ) {
            Err(Error::Rejected { description, .. }) => description.unwrap_or_default(),
            other => panic!("{other:?}"),
        };
        let spaced = "starts or ends with white space, an invisible character or a quotation mark";
        let grant = Grant::client_credentials("id", "s3cr3t\n");
        assert_eq!(described(&grant, ""), format!("client_secret {spaced}"));
        assert_eq!(
            described(&grant, "No such client"),
            format!("No such client: client_secret {spaced}")
        );
        let grant = Grant::password("id", "s3cr3t", "jan", " p4ss");
        assert_eq!(described(&grant, ""), format!("password {spaced}"));
        assert_eq!(described(&Grant::password("id", "s3cr3t", "jan ", "p4 ss"), ""), "");
        for stray in ["\u{feff}s3cr3t", "s3cr3t\u{200b}", "s3cr3t\0", "\"s3cr3t\"", "'s3cr3t"] {
            let grant = Grant::client_credentials("id", stray);
            assert_eq!(described(&grant, ""), format!("client_secret {spaced}"), "{stray:?}");
        }
    }

    #[test]
    fn redirect_names_the_scheme_and_host_that_it_points_to() {
        for (location, to) in [
            ("https://login.example.nl/oauth2?secret=s3cr3t", Some("https://login.example.nl")),
            ("http://127.0.0.1:8080/", Some("http://127.0.0.1")),
            ("https://[::1]/", Some("https://[::1]")),
            ("/oauth2/token", None),
            ("https://s3cr3t.example.nl/", None),
            ("no url", None),
        ] {
            let error = parse_at(Moment::now(), 308, &[("location", location)], "").unwrap_err();
            let expected = InvalidResponse::Redirect { status: 308, to: to.map(Into::into) };
            assert!(matches!(&error, Error::InvalidResponse(reason) if *reason == expected));
            assert_eq!(error.status(), Some(308));
            assert!(!error.is_transient());
        }
    }

    #[test]
    fn success_with_an_error_is_a_rejection() {
        for body in [
            r#"{"error":"invalid_client"}"#,
            r#"{"error":{"code":1},"expires":"x"}"#,
            r#"{"error":"invalid_client","access_token":null}"#,
        ] {
            let error = parse_at(Moment::now(), 200, &[DATE_HEADER], body).unwrap_err();
            assert!(matches!(error, Error::Rejected { status: 200, .. }), "{error:?}");
        }
        let error = parse_at(Moment::now(), 200, &[], r#"{"error":"invalid_client"}"#).unwrap_err();
        assert!(error.to_string().ends_with("200: invalid_client"), "{error}");
        let whole = body("a", EXPIRES, "Bearer").replace('{', r#"{"error":"x","#);
        accepted(whole);
        assert_eq!(field(r#"{"error":null}"#), ("token_type", "is missing"));
    }

    /// <https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7>
    #[test]
    fn dates_are_read_in_all_three_forms() {
        for date in [
            "Fri, 31 Dec 2021 22:59:59 GMT",
            "Friday, 31-Dec-21 22:59:59 GMT",
            "Fri Dec 31 22:59:59 2021",
        ] {
            let sent = Moment::now();
            let body = body("a", EXPIRES, "Bearer");
            let token = parse_at(sent, 200, &[("date", date)], body).unwrap();
            assert_eq!(token.lifetime().remaining(sent), HOUR - Duration::from_millis(1), "{date}");
        }
        for (date, wait) in [
            ("Sunday, 02-Jan-22 00:00:09 GMT", 9),
            ("Sun Jan  2 00:00:09 2022", 9),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ] {
            let now = ("date", "Sun, 02 Jan 2022 00:00:00 GMT");
            let wait = Some(Duration::from_secs(wait));
            assert_eq!(retry_after(&[now, ("retry-after", date)]), wait, "{date}");
        }
    }

    /// <https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3>
    #[test]
    fn retry_after_is_read_in_both_forms() {
        let seconds = |n| Some(Duration::from_secs(n));
        for (value, wait) in [
            ("120", seconds(120)),
            (" 0 ", seconds(0)),
            ("3601", seconds(3600)),
            ("99999999999", seconds(3600)),
            ("99999999999999999999999999", seconds(3600)),
            ("Fri, 31 Dec 2021 23:01:59 GMT", seconds(120)),
            ("Fri, 31 Dec 2021 22:00:00 GMT", seconds(0)),
            ("Sat, 31 Dec 2022 22:00:00 GMT", seconds(3600)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(&[DATE_HEADER, ("retry-after", value)]), wait, "{value}");
        }
        assert_eq!(retry_after(&[DATE_HEADER]), None);
    }
}
