//! The labels: closed sets of values, each an index into series resolved at the start.

use crate::answer::Outcome;
use crate::delivery::Reason;
use crate::engine::Trigger;
use crate::status::EndpointState;

/// A label whose every value is known.
pub trait Label: Copy {
    /// The label's name.
    const NAME: &'static str;

    /// Every value it can have.
    fn values() -> Vec<&'static str>;

    /// Where this value stands in [`values`](Label::values).
    fn index(self) -> usize;
}

/// How a message was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Acknowledged: every ID of it is deleted.
    Deleted,
    /// Acknowledged: it is in the dead-letter queue.
    DeadLettered,
    /// Given back to the queue.
    Released,
}

/// The `code` of an answer's body, folded into a bounded set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(usize);

/// The documented codes of both API families.
const DOCUMENTED: [&str; 19] = [
    "0000", "0001", "0003", "0401", "0402", "0403", "0409", "0429", "9009", "200", "400", "401", "402",
    "403", "405", "409", "415", "429", "500",
];
/// After the documented codes: any other code, and no code.
const OTHER: usize = DOCUMENTED.len();
const NONE: usize = OTHER + 1;

impl Settled {
    /// Every way, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Deleted, Self::DeadLettered, Self::Released];

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::DeadLettered => "dead_lettered",
            Self::Released => "released",
        }
    }
}

impl Code {
    /// Finds the place of an answer's code; `None` is an answer without a usable body, or no answer at all.
    #[must_use]
    pub fn of(code: Option<&str>) -> Self {
        let Some(code) = code else { return Self(NONE) };
        Self(DOCUMENTED.iter().position(|documented| *documented == code).unwrap_or(OTHER))
    }
}

impl Label for Settled {
    const NAME: &'static str = "outcome";

    fn values() -> Vec<&'static str> {
        Self::ALL.map(Self::as_str).to_vec()
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for Trigger {
    const NAME: &'static str = "trigger";

    fn values() -> Vec<&'static str> {
        Self::ALL.map(Self::as_str).to_vec()
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for Reason {
    const NAME: &'static str = "reason";

    fn values() -> Vec<&'static str> {
        Self::ALL.map(Self::as_str).to_vec()
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for EndpointState {
    const NAME: &'static str = "state";

    fn values() -> Vec<&'static str> {
        Self::ALL.map(Self::as_str).to_vec()
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for Outcome {
    const NAME: &'static str = "outcome";

    fn values() -> Vec<&'static str> {
        vec!["deleted", "rejected", "throttled", "transient", "blocked"]
    }

    fn index(self) -> usize {
        match self {
            Self::Deleted => 0,
            Self::Rejected(_) => 1,
            Self::Throttled => 2,
            Self::Transient => 3,
            Self::Blocked => 4,
        }
    }
}

impl Label for Code {
    const NAME: &'static str = "code";

    fn values() -> Vec<&'static str> {
        let mut values = DOCUMENTED.to_vec();
        values.extend(["other", "none"]);
        values
    }

    fn index(self) -> usize {
        self.0
    }
}
