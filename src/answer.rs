//! What came of a call: the endpoint's answer and the class it falls into.

use std::time::Duration;

use compact_str::CompactString;

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
    /// The body's `code`, as text, where there was one.
    pub code: Option<CompactString>,
    /// The HTTP status, where there was an answer.
    pub http_status: Option<u16>,
    /// `Retry-After`, as sent; the engine applies the ceiling.
    pub retry_after: Option<Duration>,
    /// What happened, as a fragment that fits "the endpoint ...", for logs and dead letters; at most 256 bytes.
    pub detail: String,
}
