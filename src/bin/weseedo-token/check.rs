use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use weseedo_auth::ureq::SendBody;
use weseedo_auth::ureq::http::Request;
use weseedo_auth::ureq::http::header::DATE;
use weseedo_auth::ureq::middleware::MiddlewareNext;
use weseedo_auth::{Error, Grant, InvalidResponse, Token};

use crate::arguments::Settings;
use crate::failure::Failure;
use crate::{builder, print, rfc3339};

/// Facts about the token request that the middleware has seen.
#[derive(Default)]
struct Seen {
    url: Option<String>,
    status: Option<u16>,
    /// How far the server's clock is ahead of the local one, in seconds.
    clock: Option<i64>,
}

/// Tries the token endpoint once and prints what it finds.
pub(crate) fn run(settings: Settings) -> Result<(), Failure> {
    let (environment, grant) = (settings.environment.clone(), Grant::from_env()?);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shared = Arc::clone(&seen);
    let builder = builder(Settings { store: None, ..settings }).retries(0).http(move |http| {
        let seen = Arc::clone(&shared);
        http.middleware(move |request: Request<SendBody>, next: MiddlewareNext<'_>| {
            let url = request.uri().to_string();
            let answer = next.handle(request);
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.url = Some(url);
            if let Ok(answer) = &answer {
                seen.status = Some(answer.status().as_u16());
                let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
                seen.clock = date.and_then(clock_difference);
            }
            answer
        })
    });
    let start = Instant::now();
    let outcome = builder.build()?.get_token(&grant);
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    print(&report(&seen, &outcome, start.elapsed(), &environment.to_string()))?;
    let docs = format!("{}/api/v2/docs", environment.base_url());
    print(&format!("next:     {}\n", advice(&outcome, &docs)))?;
    outcome.map(drop).map_err(Failure::from)
}

fn report(
    seen: &Seen,
    outcome: &Result<Token, Error>,
    elapsed: Duration,
    environment: &str,
) -> String {
    let mut lines = vec![format!("environment: {environment}")];
    if let Some(url) = &seen.url {
        lines.push(format!("asked:    POST {url}"));
    }
    if let Some(status) = seen.status {
        lines.push(format!("answer:   status {status} after {elapsed:.0?}"));
    }
    lines.extend(seen.clock.map(|ahead| match ahead {
        0 => "clock:    the server's clock agrees with the local one".to_owned(),
        1.. => format!("clock:    the server's is {ahead} s ahead"),
        _ => format!("clock:    the server's is {} s behind", -ahead),
    }));
    lines.push(match outcome {
        Ok(token) => {
            let (seconds, expires) = (token.remaining().as_secs(), rfc3339(token.expires_at()));
            format!("token:    valid for {seconds} s, until {expires} by the server's clock")
        }
        Err(error) => format!("error:    {}", Failure::from(error.clone()).text),
    });
    lines.join("\n") + "\n"
}

fn advice(outcome: &Result<Token, Error>, docs: &str) -> String {
    match outcome {
        Ok(_) => "all is well: run weseedo-token to print a token".to_owned(),
        Err(Error::Rejected { code: Some(code), .. }) if code == "invalid_grant" => {
            "check WESEEDO_USERNAME and the password".to_owned()
        }
        Err(Error::Rejected { status: 400 | 401 | 403, .. }) => {
            "check WESEEDO_CLIENT_ID and the client secret: sandbox and production have different \
             ones, and a lost secret can only be reset in the administrative interface"
                .to_owned()
        }
        Err(Error::Rejected { .. }) => format!(
            "look for tokenUrl in the OpenAPI document at {docs}, and set its path with --token-path"
        ),
        Err(Error::InvalidResponse(InvalidResponse::Redirect { .. })) => {
            "set --environment to the URL that the server redirects to".to_owned()
        }
        Err(Error::InvalidResponse(_)) => {
            "something other than the token endpoint answered: check --environment, --token-path \
             and any proxy"
                .to_owned()
        }
        Err(Error::Transport(error)) if error.is_certificate() => {
            "check the local clock, and whether a proxy replaces certificates".to_owned()
        }
        Err(Error::Unavailable { .. }) => "the server is reachable: try again later".to_owned(),
        Err(error) if error.is_transient() => "try again later; check network and proxy".to_owned(),
        Err(_) => "check the settings, and any proxy".to_owned(),
    }
}

/// How far a `Date` is ahead of the local clock, in whole seconds.
fn clock_difference(date: &str) -> Option<i64> {
    let date = OffsetDateTime::parse(date, &Rfc2822).ok()?;
    let local = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(date.unix_timestamp() - i64::try_from(local.as_secs()).ok()?)
}
