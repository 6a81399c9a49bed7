//! The `Retry-After` header (RFC 9110, 10.2.3).

use std::time::{Duration, SystemTime};

/// Reads seconds or a date; a date that has passed is no wait. `None` for anything else.
pub(super) fn parse(value: &[u8], now: SystemTime) -> Option<Duration> {
    let value = str::from_utf8(value).ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits only: what doesn't fit is too large, and the ceiling applies.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 90);
        let rows: [(&[u8], Option<u64>); 14] = [
            (b"120", Some(120)),
            (b" 0 ", Some(0)),
            (b"99999999999999999999999999", Some(u64::MAX)),
            (b"Sun, 06 Nov 1994 08:49:37 GMT", Some(90)),
            (b"Sunday, 06-Nov-94 08:49:37 GMT", Some(90)),
            (b"Sun Nov  6 08:49:37 1994", Some(90)),
            (b"Sat, 05 Nov 1994 08:49:37 GMT", Some(0)),
            (b"", None),
            (b"-1", None),
            (b"+1", None),
            (b"1.5", None),
            (b"soon", None),
            (b"Sun, 06 Nov 1994 08:49:37 CET", None),
            (b"\xff", None),
        ];
        for (value, seconds) in rows {
            let text = String::from_utf8_lossy(value);
            assert_eq!(parse(value, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
