//! The stand-in's tokens expire soon, and its token endpoint is out of order for a while.

use std::time::Duration;

use mockito::Mock;

use crate::standin::{Standin, answer};

impl Standin {
    /// Gives tokens with this lifetime from now on.
    pub fn set_lifetime(&mut self, lifetime: Duration) {
        self.on_token_request(|_| true, 200, move |n| answer::token_body(n, lifetime));
    }

    /// Answers token requests with 503, until the mock is removed.
    pub fn outage(&mut self) -> Mock {
        self.on_token_request(|_| true, 503, |_| String::new())
    }
}
