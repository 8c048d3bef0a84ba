//! The stand-in's client secret is reset.

use mockito::Mock;

use crate::standin::Standin;

impl Standin {
    /// Rejects token requests with any other secret, until the mock is removed.
    pub fn accept_only(&mut self, secret: &str) -> Mock {
        let field = format!(r#""client_secret":"{secret}""#);
        self.on_token_request(
            move |request| request.utf8_lossy_body().is_ok_and(|body| !body.contains(&field)),
            401,
            |_| r#"{"error":"invalid_client"}"#.to_owned(),
        )
    }
}
