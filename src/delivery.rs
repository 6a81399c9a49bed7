//! What passes between the broker shell and the engine.

use std::time::Duration;

use compact_str::CompactString;

use crate::id::Id;
use crate::request::{Malformed, Request};

/// A delivery tag: they count up from 1 on each channel, in delivery order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// A delivery as the engine sees it. The message itself stays with the broker shell until it is settled.
#[derive(Debug)]
pub struct Arrival {
    /// The delivery's tag in the current epoch.
    pub tag: Tag,
    /// The broker has delivered this message before, to us or to someone else.
    pub redelivered: bool,
    /// It was in the queue already when we began to consume. An ID that was deleted for another delivery since was
    /// deleted for this one too.
    pub waited: bool,
    /// How old the message was on arrival, by its timestamp property.
    pub age: Option<Duration>,
    /// What it asks for.
    pub request: Result<Request, Malformed>,
}

/// Why a message is dead-lettered: the `x-deletion-reason` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The body is not a deletion request.
    Malformed,
    /// The endpoint rejects an ID of it, alone.
    Rejected,
    /// An ID of it failed alone `retry.max_strikes` times while others went through.
    RetriesExhausted,
}

impl Reason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Malformed, Self::Rejected, Self::RetriesExhausted];

    /// The header's and the metric label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Rejected => "rejected",
            Self::RetriesExhausted => "retries_exhausted",
        }
    }
}

/// What the engine knows about a message it dead-letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obituary {
    /// `x-deletion-reason`.
    pub reason: Reason,
    /// `x-deletion-detail`: a sentence for a person.
    pub detail: String,
    /// `x-deletion-code`: the endpoint's last answer about a failed ID, where there was one.
    pub code: Option<CompactString>,
    /// `x-deletion-http-status`: likewise.
    pub http_status: Option<u16>,
    /// `x-deletion-attempts`: in how many calls the failed ID took part; 0 for a malformed message.
    pub attempts: u32,
    /// `x-deletion-failed-ids`; the header may be cut short, this is not.
    pub failed_ids: Vec<Id>,
}

/// Which deliveries a settlement covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// This one.
    One(Tag),
    /// This one and every unsettled one before it.
    UpTo(Tag),
}
