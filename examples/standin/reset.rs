//! The stand-in's client secret is reset.

use crate::standin::{Standin, answer};

impl Standin {
    /// Takes this secret and no other from now on.
    pub fn reset_secret(&mut self, secret: &str) {
        let field = format!(r#""client_secret":"{secret}""#);
        self.on_token_request(|_| true, 401, |_| r#"{"error":"invalid_client"}"#.to_owned());
        self.on_token_request(
            move |request| request.utf8_lossy_body().is_ok_and(|body| body.contains(&field)),
            200,
            |n| answer::token_body(n, answer::HOUR),
        );
    }
}
