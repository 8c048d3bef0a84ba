//! A small stand-in for WeSeeDo on loopback: a token endpoint, and an API for who brings a token.
//!
//! What only some examples do to it stands beside it: `outage`, `reset`, `revoke`.

pub mod answer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mockito::{Mock, Request, Server, ServerGuard};

pub struct Standin {
    pub server: ServerGuard,
    token_requests: Arc<AtomicUsize>,
}

impl Standin {
    /// Gives tokens for an hour to anybody, and takes them.
    pub fn start() -> Self {
        let mut standin = Self { server: Server::new(), token_requests: Arc::default() };
        standin.on_token_request(|_| true, 200, |n| answer::token_body(n, answer::HOUR));
        for (path, body) in [("docs", r#"{"openapi":"3.0.0"}"#), ("personal/meetings", "[]")] {
            standin
                .server
                .mock("GET", format!("/api/v2/{path}").as_str())
                .match_request(|request| authorization(request).starts_with(b"Bearer d33f00d"))
                .with_body(body)
                .expect_at_least(0)
                .create();
        }
        standin
    }

    /// Sets the answer to token requests of one kind. `body` is told how many requests came before.
    pub fn on_token_request(
        &mut self,
        is_for: impl Fn(&Request) -> bool + Send + Sync + 'static,
        status: usize,
        body: impl Fn(usize) -> String + Send + Sync + 'static,
    ) -> Mock {
        let count = Arc::clone(&self.token_requests);
        self.server
            .mock("POST", "/api/v2/oauth2/token")
            .match_request(is_for)
            .with_status(status)
            .with_body_from_request(move |_| body(count.fetch_add(1, Ordering::SeqCst)).into())
            // Else mockito prefers what was not asked for yet to what was set last.
            .expect_at_least(0)
            .create()
    }

    pub fn base_url(&self) -> String {
        self.server.url()
    }

    pub fn token_requests(&self) -> usize {
        self.token_requests.load(Ordering::SeqCst)
    }
}

pub fn authorization(request: &Request) -> &[u8] {
    request.header("authorization").first().map_or(b"", |value| value.as_bytes())
}
