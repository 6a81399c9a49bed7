//! The faults that can be switched on, alone or together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is wrong with the endpoint; by default nothing. In JSON, what is missing is as by default.
///
/// Where several apply to a call, the first in this order decides: `down`, `reply`, `fail_next`, `failure_ratio`,
/// then the token and `blocked`, the quota, the body, `bad_*`, `failing_*`, `duplicates_answer_0409`,
/// `lose_next`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// How long each answer takes; in JSON like `"50ms"`.
    #[serde(with = "duration")]
    pub latency: Duration,
    /// Up to this much more, at random.
    #[serde(with = "duration")]
    pub jitter: Duration,
    /// Calls accepted within any one second, `0429` for the rest; 0: no quota. Refused calls don't count.
    pub requests_per_second: u32,
    /// The quota answers HTTP 429 instead of 200.
    pub throttle_by_status: bool,
    /// The quota adds `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// A call with one of these answers `0001`.
    pub bad_ids: BTreeSet<String>,
    /// So does a call with an ID that begins like this.
    pub bad_prefix: Option<String>,
    /// A call with one of these answers HTTP 500.
    pub failing_ids: BTreeSet<String>,
    /// So does a call with an ID that begins like this.
    pub failing_prefix: Option<String>,
    /// A call with an ID that is deleted already answers `0409`, instead of deleting it once more.
    pub duplicates_answer_0409: bool,
    /// Nothing works.
    pub down: Option<Down>,
    /// The account is refused.
    pub blocked: Option<Block>,
    /// This is the answer, whatever the call.
    pub reply: Option<Reply>,
    /// As many calls from now on answer HTTP 500.
    pub fail_next: u32,
    /// Of all calls, this part answers HTTP 500; 0 to 1, by `seed`.
    pub failure_ratio: f64,
    /// For all that is random.
    pub seed: u64,
    /// As many successful calls from now on delete, but their answer is lost.
    pub lose_next: u32,
    /// How it is lost.
    pub lose_as: Loss,
}

/// How an answer is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The connection is reset in its place.
    #[default]
    Reset,
    /// The connection is closed in the middle of its body.
    Truncated,
    /// Its body never ends.
    Endless,
}

/// How the endpoint is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Down {
    /// HTTP 503.
    Unavailable,
    /// The connection is reset once the call is read.
    Reset,
    /// The same, but the IDs are deleted.
    ResetAfterApplying,
    /// No answer, while the connection stays open.
    Hang,
}

/// How the account is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Block {
    /// Code `0401`: authorization invalid.
    #[serde(rename = "0401")]
    #[value(name = "0401")]
    Unauthorized,
    /// Code `0402`: out of credits.
    #[serde(rename = "0402")]
    #[value(name = "0402")]
    OutOfCredits,
    /// Code `0403`: account disabled.
    #[serde(rename = "0403")]
    #[value(name = "0403")]
    Disabled,
    /// Code `9009`: permission denied.
    #[serde(rename = "9009")]
    #[value(name = "9009")]
    Denied,
    /// HTTP 401 without the documented body, as from a proxy.
    #[serde(rename = "http_401")]
    #[value(name = "http-401")]
    Http401,
}

/// An answer, word for word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The HTTP status, 200 to 999.
    pub status: u16,
    /// Besides `content-length` and `date`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// As it is.
    #[serde(default)]
    pub body: String,
    /// For so many calls; `None`: until the faults change.
    #[serde(default)]
    pub calls: Option<u32>,
    /// The IDs are deleted all the same.
    #[serde(default)]
    pub applies: bool,
}

impl Faults {
    /// Checks what the types can't say.
    ///
    /// # Errors
    /// A sentence that names the member.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.failure_ratio) {
            return Err(format!("failure_ratio is {}, expected 0 to 1", self.failure_ratio));
        }
        let Some(reply) = &self.reply else { return Ok(()) };
        if !(200..=999).contains(&reply.status) {
            return Err(format!("reply.status is {}, expected 200 to 999", reply.status));
        }
        for (name, value) in &reply.headers {
            if name.parse::<axum::http::HeaderName>().is_err()
                || value.parse::<axum::http::HeaderValue>().is_err()
            {
                return Err(format!("reply.headers has {name:?}: {value:?}, which is no header"));
            }
        }
        Ok(())
    }
}

mod duration {
    use std::borrow::Cow;
    use std::time::Duration;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(D::Error::custom)
    }
}
