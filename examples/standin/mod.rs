//! A small stand-in for WeSeeDo on loopback: a token endpoint, and an API for who brings a token.

mod answer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mockito::{Matcher, Server, ServerGuard};

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
            .mock("POST", "/api/v2/oauth2/token")
            .with_body_from_request(move |_| {
                answer::token_body(count.fetch_add(1, Ordering::SeqCst)).into()
            })
            .create();
        for (path, body) in [("docs", r#"{"openapi":"3.0.0"}"#), ("personal/meetings", "[]")] {
            server
                .mock("GET", format!("/api/v2/{path}").as_str())
                .match_header("authorization", Matcher::Regex("^Bearer d33f00d...59b$".into()))
                .with_body(body)
                .create();
        }
        Self { server, token_requests }
    }

    pub fn base_url(&self) -> String {
        self.server.url()
    }

    pub fn token_requests(&self) -> usize {
        self.token_requests.load(Ordering::SeqCst)
    }
}
