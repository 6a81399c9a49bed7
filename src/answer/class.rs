//! Which class an answer falls into, by its status and its code.
//!
//! Success is exactly HTTP 2xx **and** a success code in the body. Where status and code disagree, the class that
//! puts less blame on the messages wins; see [`milder`].

use std::time::Duration;

use compact_str::CompactString;

use super::reply;
use super::{Answer, Outcome, Rejection};
use crate::text::{Shown, cut, harmless, hushed};

/// The codes that have a meaning of their own, and are label values of `endpoint_response_codes_total`.
pub const KNOWN_CODES: [&str; 19] = [
    "0000", "0001", "0003", "0401", "0402", "0403", "0409", "0429", "9009", "200", "400", "401", "402",
    "403", "405", "409", "415", "429", "500",
];

/// What was read of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// More than [`Body::BYTES_MAX`]; the documented reply has about a hundred bytes.
    TooLong,
    /// It broke off, and why.
    Broken(&'a str),
}

impl Body<'_> {
    /// The longest body that is read.
    pub const BYTES_MAX: usize = 64 * 1024;
}

/// Puts an answer into its class.
///
/// `retry_after` is the header's value, whatever the status; on all but a success it means throttled. What the
/// endpoint says goes into logs and dead letters, and it may say back the `secret` it was sent: it is judged by its
/// words, and quoted without the secret.
#[must_use]
pub fn classify(
    status: u16,
    body: Body<'_>,
    retry_after: Option<Duration>,
    success_codes: &[String],
    secret: Option<&str>,
) -> Answer {
    let code = match body {
        Body::Whole(bytes) => reply::code(bytes),
        Body::TooLong | Body::Broken(_) => None,
    };
    let outcome = if is_success(status) {
        match (body, code.as_deref()) {
            (_, Some(code)) if success_codes.iter().any(|success| success == code) => Outcome::Deleted,
            (_, Some(code)) => by_code(code).unwrap_or(Outcome::Transient),
            (Body::Broken(_), None) => Outcome::Transient,
            (Body::Whole(_) | Body::TooLong, None) => Outcome::Blocked,
        }
    } else {
        let told = match body {
            // What the body would have said is unknown, so it can't be held against the messages.
            Body::Broken(_) => Some(Outcome::Transient),
            Body::Whole(_) | Body::TooLong => code.as_deref().and_then(by_code),
        };
        told.map_or(by_status(status), |told| milder(by_status(status), told))
    };
    let outcome = match retry_after {
        Some(_) if outcome != Outcome::Deleted => Outcome::Throttled,
        Some(_) | None => outcome,
    };
    let quote = |text: &str| hushed(text, secret.unwrap_or_default()).into_owned();
    let code = code.map(|code| {
        let code = quote(&code);
        CompactString::from(cut(&harmless(&code), Answer::CODE_BYTES_MAX))
    });
    let detail = detail(status, body, code.as_deref(), outcome, retry_after, quote);
    Answer { outcome, code, http_status: Some(status), retry_after, detail }
}

/// The label value for an answer's code: one of [`KNOWN_CODES`], `other`, or `none`.
#[must_use]
pub fn code_label(answer: &Answer) -> &'static str {
    match answer.code.as_deref() {
        None => "none",
        Some(code) => KNOWN_CODES.into_iter().find(|known| *known == code).unwrap_or("other"),
    }
}

/// The class of a documented code other than success, whether it came as a string or a number.
fn by_code(code: &str) -> Option<Outcome> {
    match code {
        "0001" | "0003" | "400" | "409" => Some(Outcome::Rejected(Rejection::Invalid)),
        "0409" => Some(Outcome::Rejected(Rejection::Duplicate)),
        "0429" | "429" => Some(Outcome::Throttled),
        "0401" | "9009" | "0402" | "0403" => Some(Outcome::Blocked),
        "401" | "402" | "403" | "405" | "415" => Some(Outcome::Blocked),
        "500" => Some(Outcome::Transient),
        _ => None,
    }
}

/// The class of an HTTP status other than 2xx.
fn by_status(status: u16) -> Outcome {
    match status {
        408 | 425 | 500..=599 => Outcome::Transient,
        429 => Outcome::Throttled,
        400 | 409 | 422 => Outcome::Rejected(Rejection::Invalid),
        413 => Outcome::Rejected(Rejection::TooLarge),
        // 401, 402, 403, 407: who we are. 3xx, 404, 405, 410 and the rest: the URL, or something in between.
        _ => Outcome::Blocked,
    }
}

/// Of what the status and the body say, the one that blames the messages less.
///
/// Between two ways to reject, the body knows about duplicates, and the status about everything else.
fn milder(status: Outcome, body: Outcome) -> Outcome {
    use Outcome::{Blocked, Deleted, Rejected, Throttled, Transient};
    match (status, body) {
        (Throttled, _) | (_, Throttled) => Throttled,
        (Blocked, _) | (_, Blocked) => Blocked,
        (Transient, _) | (_, Transient) => Transient,
        (Rejected(Rejection::Invalid), Rejected(Rejection::Duplicate)) => body,
        (Rejected(_), Rejected(_)) => status,
        // Neither table has it.
        (Deleted, _) | (_, Deleted) => Transient,
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

fn detail(
    status: u16,
    body: Body<'_>,
    code: Option<&str>,
    outcome: Outcome,
    retry_after: Option<Duration>,
    quote: impl Fn(&str) -> String,
) -> String {
    let mut detail = match code {
        // Harmless already.
        Some(code) => format!("answered code `{code}` with HTTP {status}"),
        None => format!("answered HTTP {status}"),
    };
    match body {
        Body::Whole(bytes) if outcome != Outcome::Deleted => match (reply::msg(bytes), code) {
            (Some(msg), Some(_)) => detail += &format!(": {}", Shown(&quote(&msg))),
            (_, Some(_)) => {}
            (_, None) if bytes.is_empty() => detail += " with an empty body",
            (_, None) => {
                let text = quote(&String::from_utf8_lossy(bytes));
                detail += &format!(" with a body that is not the documented JSON: {}", Shown(&text));
            }
        },
        Body::Whole(_) => {}
        Body::TooLong => detail += &format!(" with a body of more than {} bytes", Body::BYTES_MAX),
        Body::Broken(how) => detail += &format!(", but its body broke off: {}", harmless(how)),
    }
    // Last in writing, but not to be cut.
    let wait = retry_after.map(|wait| format!(" (Retry-After: {} s)", wait.as_secs())).unwrap_or_default();
    let room = Answer::DETAIL_BYTES_MAX - wait.len();
    format!("{}{wait}", cut(&detail, room))
}
