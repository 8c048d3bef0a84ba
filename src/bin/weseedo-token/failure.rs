use std::fmt::Display;

use weseedo_auth::Error;

/// The exit status and error text of a failed run.
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) text: String,
}

impl Failure {
    /// A mistake in the arguments or settings.
    pub(crate) fn usage(text: &dyn Display) -> Self {
        Self { status: 2, text: format!("{text} (see --help)") }
    }

    pub(crate) fn other(text: &dyn Display) -> Self {
        Self { status: 1, text: text.to_string() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Config(_) | Error::Grant(_) | Error::Rejected { status: 404 | 405, .. } => 2,
            Error::Rejected { .. } => 3,
            error if error.is_transient() => 4,
            _ => 1,
        };
        // The library's texts name its own settings.
        let text = error.to_string();
        let text = text.replace("Builder::token_path", "--token-path or WESEEDO_TOKEN_PATH");
        let text = text.replace(
            ": to trust your own certification authority, use Builder::http",
            ": this tool trusts only the certification authorities of Mozilla's list",
        );
        Self { status, text }
    }
}
