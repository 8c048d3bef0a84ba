use std::time::SystemTime;

use time::{Duration, OffsetDateTime};

/// The body of the documented answer, with the `n`th token, which lives for an hour.
pub fn token_body(n: usize) -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let expires = OffsetDateTime::UNIX_EPOCH + since + Duration::HOUR;
    let (date, (hour, minute, second)) = (expires.date(), expires.to_hms());
    format!(
        r#"{{"access_token":"d33f00d{n:03}59b","expires":"{date}T{hour:02}:{minute:02}:{second:02}.000Z","token_type":"Bearer"}}"#
    )
}
