//! What a dead letter is about: why it died, when, whose it was, and what it asked for.

use std::borrow::Cow;

use crate::broker::corpse::Corpse;
use crate::delivery::Reason;
use crate::request::{self, Request};

/// IDs that a message is read with here: what the worker takes is its own affair.
const IDS_MAX: usize = 1_000_000;
/// The reason of a letter that says none.
const UNKNOWN: &str = "unknown";
/// A consumer of the queue rejected it; the worker's own rejections have the worker's headers.
const BY_CONSUMER: &str = "rejected_by_consumer";

/// Why it died: the worker's reason, or the broker's.
pub(super) fn reason(corpse: &Corpse) -> String {
    if let Some(reason) = corpse.word("reason") {
        return reason;
    }
    match corpse.last_death() {
        Some(death) if death.reason == Reason::Rejected.as_str() => BY_CONSUMER.to_owned(),
        Some(death) if !death.reason.is_empty() => death.reason,
        _ => UNKNOWN.to_owned(),
    }
}

/// What is wrong with a malformed one, without the place where and the text that are its own.
pub(super) fn kind(corpse: &Corpse) -> Option<String> {
    let is_malformed = corpse.word("reason").as_deref() == Some(Reason::Malformed.as_str());
    is_malformed.then(|| corpse.word("detail").as_deref().map(generalize)).flatten()
}

/// Seconds since 1970.
pub(super) fn died(corpse: &Corpse) -> Option<u64> {
    corpse.number("at").or_else(|| corpse.last_death()?.time)
}

/// What it asks for, if it can be read.
pub(super) fn request(corpse: &Corpse) -> Option<Request> {
    let (content_type, encoding) = corpse.content();
    request::parse(&corpse.body, content_type, encoding, IDS_MAX).ok()
}

/// Who published it: the application, the broker's user, or whom the message itself names.
pub(super) fn publisher(corpse: &Corpse) -> Option<String> {
    corpse.publisher().or_else(|| {
        let requested_by = request(corpse)?.origin?.requested_by?;
        Some(requested_by.to_string())
    })
}

/// An ID to look for: the first that failed, or the first of all.
pub(super) fn example(corpse: &Corpse) -> String {
    let failed = corpse.failed_ids().into_iter().next();
    let asked = || Some(request(corpse)?.ids.first()?.as_str().to_owned());
    failed.or_else(asked).unwrap_or_else(|| {
        let beginning = corpse.body.iter().take(40).copied().collect::<Vec<_>>();
        String::from_utf8_lossy(&beginning).into_owned()
    })
}

/// A sentence on one message as one on many: numbers become `N`, quoted text `…`.
fn generalize(detail: &str) -> String {
    let mut general = String::with_capacity(detail.len());
    let mut quoted = false;
    for char in detail.chars() {
        match char {
            '`' if quoted => quoted = false,
            '`' => {
                quoted = true;
                general.push('…');
            }
            _ if quoted => {}
            '0'..='9' if general.ends_with('N') => {}
            '0'..='9' => general.push('N'),
            _ => general.push(char),
        }
    }
    general
}

/// `2026-01-02T03:04:05Z`.
pub(super) fn moment(seconds: u64) -> Cow<'static, str> {
    // Beyond the year 9999 there is no such form.
    const SECONDS_MAX: u64 = 253_402_300_799;
    if seconds > SECONDS_MAX {
        return "?".into();
    }
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_one_kind_read_alike() {
        for (detail, kind) in [
            (
                "the body is not JSON at byte 17: expected value",
                "the body is not JSON at byte N: expected value",
            ),
            ("videoNos[30] has white space at character 2", "videoNos[N] has white space at character N"),
            ("videoNo is `a 1`, expected a string", "videoNo is …, expected a string"),
            ("ends with `open", "ends with …"),
        ] {
            assert_eq!(generalize(detail), kind);
        }
    }

    #[test]
    fn any_number_of_seconds_is_a_moment() {
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment(253_402_300_799), "9999-12-31T23:59:59Z");
        assert_eq!(moment(u64::MAX), "?");
    }
}
