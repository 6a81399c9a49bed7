//! Batches, and the calls they are in.

use compact_str::CompactString;

use super::Time;
use super::item::{ItemKey, Slot};
use crate::answer::Answer;

/// Tells calls apart; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Tells batches apart; the halves of a split batch are new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BatchNumber(pub(super) u64);

/// Why a call left when it did: the `trigger` label of `batches_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trigger {
    /// It was full, or nothing could have joined it any more.
    Full,
    /// Its oldest ID had waited `batch.linger`.
    Linger,
    /// The worker is on its way out.
    Drain,
    /// A batch that failed is tried again.
    Retry,
    /// A part of a batch that was rejected, or failed too often.
    Split,
    /// To see whether the endpoint is back.
    Probe,
}

impl Trigger {
    /// Every trigger, in the order of the documentation.
    pub const ALL: [Self; 6] = [Self::Full, Self::Linger, Self::Drain, Self::Retry, Self::Split, Self::Probe];

    /// The metric label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Linger => "linger",
            Self::Drain => "drain",
            Self::Retry => "retry",
            Self::Split => "split",
            Self::Probe => "probe",
        }
    }
}

/// IDs of one namespace that share their next call, and their fate if it fails.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) number: BatchNumber,
    pub(super) slot: Slot,
    pub(super) items: Vec<ItemKey>,
    /// Calls that these IDs have been in together, those before a split included.
    pub(super) attempts: u32,
    /// Failures since it exists, for the backoff.
    pub(super) failures: u32,
    /// Failures charged to it.
    pub(super) strikes: u32,
    /// When it may be called again.
    pub(super) due: Time,
    /// Why it is called again: [`Trigger::Retry`] or [`Trigger::Split`]; for a fresh one, why it left.
    pub(super) trigger: Trigger,
    /// When it last came to nothing.
    pub(super) failed_at: Option<Time>,
    /// It was a lone ID then: strikes in company prove nothing about the one that is left.
    pub(super) failed_alone: bool,
    /// It came to nothing again although the endpoint had deleted others in between.
    pub(super) relapsed: bool,
    /// A lone ID that was rejected while the endpoint rejected everything: its second trial.
    pub(super) reviewed: bool,
    /// The latest answer about it.
    pub(super) last: Option<LastAnswer>,
}

/// What is told of an answer when its message is dead-lettered.
#[derive(Clone, Debug)]
pub(super) struct LastAnswer {
    pub(super) code: Option<CompactString>,
    pub(super) http_status: Option<u16>,
    pub(super) detail: String,
}

/// A lone ID that was rejected, awaiting proof that the endpoint does delete others.
#[derive(Debug)]
pub(super) struct Condemned {
    pub(super) batch: Batch,
    pub(super) key: ItemKey,
    /// When it was rejected.
    pub(super) since: Time,
}

/// A call under way.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: CallId,
    pub(super) departed: Time,
    pub(super) load: Load,
}

/// What a call carries, and where it came from.
#[derive(Debug)]
pub(super) enum Load {
    /// A batch that never failed.
    Fresh(Batch),
    /// One that did.
    Suspect(Batch),
    /// One ID, to see whether the endpoint is back.
    Probe(ItemKey, ProbeSource),
    /// One ID that was deleted before, to see whether the endpoint deletes at all.
    Control,
}

/// Where a probe's ID came from and returns to if the probe fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeSource {
    Lane(Slot),
    Suspect(BatchNumber),
}

impl From<&Answer> for LastAnswer {
    fn from(answer: &Answer) -> Self {
        Self { code: answer.code.clone(), http_status: answer.http_status, detail: answer.detail.clone() }
    }
}
