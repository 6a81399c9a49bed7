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

/// Reads a message.
///
/// # Errors
/// [`Malformed`] says what is wrong, and where.
pub fn parse(
    body: &[u8],
    _content_type: Option<&str>,
    _content_encoding: Option<&str>,
    ids_max: usize,
) -> Result<Request, Malformed> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Body {
        #[serde(rename_all = "camelCase")]
        One { video_no: String },
        #[serde(rename_all = "camelCase")]
        Many { video_nos: Vec<String> },
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| Malformed(error.to_string()))?;
    let ids = match body {
        Body::One { video_no } => vec![video_no],
        Body::Many { video_nos } => video_nos,
    };
    if ids.is_empty() || ids.len() > ids_max {
        return Err(Malformed(format!("holds {} IDs", ids.len())));
    }
    let ids = ids.iter().map(|id| Id::new(id).map_err(|unfit| Malformed(unfit.to_string())));
    Ok(Request { ids: ids.collect::<Result<_, _>>()?, namespace: None, origin: None })
}
