//! A small stand-in for WeSeeDo on loopback: a token endpoint, and the OpenAPI document for who brings a token.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use mockito::{Matcher, Server, ServerGuard};
use time::{Duration, OffsetDateTime};

pub struct Standin {
    server: ServerGuard,
    token_requests: Arc<AtomicUsize>,
}

impl Standin {
    pub fn start() -> Self {
        let mut server = Server::new();
        let token_requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&token_requests);
        server
            .mock("POST", "/api/v2/oauth/token")
            .with_body_from_request(move |_| {
                let n = count.fetch_add(1, Ordering::SeqCst);
                token_body(n).into()
            })
            .create();
        server
            .mock("GET", "/api/v2/docs")
            .match_header(
                "authorization",
                Matcher::Regex("^Bearer d33f00.59b$".into()),
            )
            .with_body(r#"{"openapi":"3.0.0"}"#)
            .create();
        Self {
            server,
            token_requests,
        }
    }

    pub fn base_url(&self) -> String {
        self.server.url()
    }

    pub fn token_requests(&self) -> usize {
        self.token_requests.load(Ordering::SeqCst)
    }
}

/// The documented answer, with a token that lives for an hour.
fn token_body(n: usize) -> String {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let t = OffsetDateTime::UNIX_EPOCH + since + Duration::HOUR;
    let (year, month, day) = t.to_calendar_date();
    let (hour, minute, second) = t.to_hms();
    let month = u8::from(month);
    format!(
        r#"{{"access_token":"d33f00{n}59b","expires":"{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z","token_type":"Bearer"}}"#
    )
}
