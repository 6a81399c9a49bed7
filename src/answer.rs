//! What came of a call: the endpoint's answer and the class it falls into.

mod class;
mod reply;

use std::time::Duration;

use compact_str::CompactString;

use crate::text::{cut, harmless};

pub use class::{Body, KNOWN_CODES, classify, code_label};

/// The class of an answer; everything the engine decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// HTTP 2xx and a success code: every ID of the call is deleted.
    Deleted,
    /// Something in this batch is bad.
    Rejected(Rejection),
    /// Over the rate limit, or asked to wait.
    Throttled,
    /// No usable answer this time; trying again may help.
    Transient,
    /// Refused whatever the IDs: token, credit, account, URL, or something in between.
    Blocked,
}

/// What a rejected batch tells beyond "something in it is bad".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rejection {
    /// A parameter is incorrect.
    Invalid,
    /// Code `0409`: for a single ID it means "already deleted".
    Duplicate,
    /// HTTP 413: a smaller batch passes.
    TooLarge,
}

/// One call's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its class.
    pub outcome: Outcome,
    /// The body's `code`, as text, where there was one: harmless, and at most 64 bytes. The documented ones have 3
    /// or 4 characters.
    pub code: Option<CompactString>,
    /// The HTTP status, where there was an answer.
    pub http_status: Option<u16>,
    /// `Retry-After`, as sent; the engine applies the ceiling.
    pub retry_after: Option<Duration>,
    /// What happened, as a fragment that fits "the endpoint ...", for logs and dead letters; at most 256 bytes.
    pub detail: String,
}

impl Answer {
    /// The longest [`Self::code`].
    pub const CODE_BYTES_MAX: usize = 64;
    /// The longest [`Self::detail`].
    pub const DETAIL_BYTES_MAX: usize = 256;

    /// What stands for an answer that never came: transient, and `detail` says why.
    #[must_use]
    pub fn lost(detail: &str) -> Self {
        Self {
            outcome: Outcome::Transient,
            code: None,
            http_status: None,
            retry_after: None,
            detail: cut(&harmless(detail), Self::DETAIL_BYTES_MAX).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
