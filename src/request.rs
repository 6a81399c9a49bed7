//! The message contract: what a publisher may send.

use compact_str::CompactString;
use smallvec::SmallVec;

use crate::id::{Id, Namespace};

/// A well-formed deletion request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// At least one; in the message's order, duplicates included.
    pub ids: SmallVec<[Id; 1]>,
    /// The v1.2 namespace, where the message names one.
    pub namespace: Option<Namespace>,
    /// What the message says about itself, for logs; absent when it says nothing.
    pub origin: Option<Box<Origin>>,
}

/// The optional members that are carried along for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// `requestId`.
    pub request_id: Option<CompactString>,
    /// `requestedBy`.
    pub requested_by: Option<CompactString>,
    /// `reason`.
    pub reason: Option<CompactString>,
}

/// Why a message is not a deletion request, as a sentence its publisher can act on; names the position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);
