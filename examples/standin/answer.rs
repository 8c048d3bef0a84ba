use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

pub const HOUR: Duration = Duration::from_secs(3600);

/// The `n`th token. Later ones are greater.
pub fn access_token(n: usize) -> String {
    format!("d33f00d{n:03}59b")
}

/// The body of the documented answer, with the `n`th token.
pub fn token_body(n: usize, lifetime: Duration) -> String {
    let token = access_token(n);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let expires = OffsetDateTime::UNIX_EPOCH + since + lifetime;
    let (date, (hour, minute, second)) = (expires.date(), expires.to_hms());
    format!(
        r#"{{"access_token":"{token}","expires":"{date}T{hour:02}:{minute:02}:{second:02}.000Z","token_type":"Bearer"}}"#
    )
}
