//! The stand-in's tokens end before they expire.

use mockito::Matcher;

use crate::standin::{Standin, answer, authorization};

impl Standin {
    /// Refuses the tokens that were given so far.
    pub fn revoke_tokens(&mut self) {
        let next = format!("Bearer {}", answer::access_token(self.token_requests()));
        self.server
            .mock("GET", Matcher::Any)
            .match_request(move |request| authorization(request) < next.as_bytes())
            .with_status(401)
            .expect_at_least(0)
            .create();
    }
}
