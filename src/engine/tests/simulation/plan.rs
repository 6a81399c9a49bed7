//! Everything about one schedule that is known beforehand, as data: drawn from a seed, shrunk, written down.

use std::time::Duration;

use crate::config::OnOutage;
use crate::engine::{Settings, Time};
use crate::id::{Id, Namespace};
use crate::retry::Ladder;

/// Workers there can be.
pub(super) const WORKERS_MAX: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Decides everything that is left to chance while the schedule runs.
    pub(super) seed: u64,
    pub(super) workers: usize,
    pub(super) queue: Queue,
    /// Every worker's.
    pub(super) settings: Settings,
    /// What happens when, in order.
    pub(super) schedule: Vec<(Time, Occurrence)>,
    pub(super) spells: Vec<Spell>,
    pub(super) temper: Temper,
    /// From here on nothing fails any more but bad IDs.
    pub(super) faults_end: Time,
    /// Good messages keep coming after the faults: a lone ID that always fails is only found out beside others.
    pub(super) company: bool,
}

/// What kind of queue it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    /// One consumer at a time, the next in line when it goes.
    pub(super) single_active: bool,
    /// What comes back goes to the tail instead of where it was: both are seen, by version and delivery limit.
    pub(super) returns_to_tail: bool,
}

/// What a publisher publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    /// Tells messages apart.
    pub(super) number: usize,
    pub(super) ids: Vec<Id>,
    pub(super) namespace: Option<Namespace>,
    pub(super) malformed: bool,
}

/// Something that happens from outside, some of it to the worker with this number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Occurrence {
    Publish(Letter),
    /// Its connection to the broker is lost.
    Cut(usize),
    /// It is asked to go; another one follows.
    Drain(usize),
    /// It is killed; another one follows.
    Crash(usize),
    /// It does nothing for so long, though everything around it goes on.
    Freeze(usize, Duration),
    /// Its token is replaced.
    Credentials(usize),
    /// The broker restarts: all connections are lost.
    Restart,
}

/// A time in which something fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spell {
    pub(super) from: Time,
    pub(super) to: Time,
    pub(super) kind: SpellKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpellKind {
    /// The endpoint fails each call; a few of them do delete.
    Outage,
    /// It refuses us.
    Blocked,
    /// It rejects whatever it is asked.
    RejectsAll,
    /// It throttles each call.
    Throttles,
    /// It fails every other second.
    Flaps,
    /// Nothing passes between the broker and the workers.
    BrokerStalls,
    /// No dead letter is stored.
    LettersRefused,
}

/// How the endpoint behaves; the first three, in calls of a thousand, only while faults last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Temper {
    pub(super) transient: u32,
    /// Deleted, but the answer is lost.
    pub(super) unheard: u32,
    pub(super) throttled: u32,
    pub(super) latency_max: Duration,
    /// Calls of the account that it accepts in any one second.
    pub(super) quota: Option<usize>,
    /// Answers 0409 to a call that holds a deleted ID.
    pub(super) refuses_duplicates: bool,
    /// IDs beyond which it answers 413.
    pub(super) ids_max: Option<usize>,
}

/// What the endpoint thinks of an ID, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    Good,
    /// A call that holds it is rejected.
    Bad,
    /// A call that holds it fails with 500.
    Poison,
}

impl Nature {
    pub(super) fn of(id: &Id) -> Self {
        match id.as_str() {
            name if name.starts_with("bad") => Self::Bad,
            name if name.starts_with("poison") => Self::Poison,
            _ => Self::Good,
        }
    }
}

impl Default for Temper {
    /// Always well, and at once.
    fn default() -> Self {
        Self {
            transient: 0,
            unheard: 0,
            throttled: 0,
            latency_max: Duration::from_millis(1),
            quota: None,
            refuses_duplicates: false,
            ids_max: None,
        }
    }
}

impl SpellKind {
    pub(super) fn is_endpoints(self) -> bool {
        match self {
            Self::Outage | Self::Blocked | Self::RejectsAll | Self::Throttles | Self::Flaps => true,
            Self::BrokerStalls | Self::LettersRefused => false,
        }
    }
}

impl Plan {
    /// Whether the endpoint ever rejects what is good.
    pub(super) fn rejects_all(&self) -> bool {
        self.spells.iter().any(|spell| spell.kind == SpellKind::RejectsAll)
    }
}

/// The settings that no plan changes, and a start for the others.
pub(super) fn settings() -> Settings {
    Settings {
        batch_max: 3,
        linger: Duration::from_secs(1),
        concurrency_max: 4,
        rate_max: None,
        retry: Ladder::new(Duration::from_millis(500), Duration::from_secs(60), 2.0),
        strikes_max: 8,
        retry_after_max: Duration::from_secs(20),
        failure_threshold: 5,
        probe: Ladder::new(Duration::from_secs(1), Duration::from_secs(60), 2.0),
        release_after: Duration::from_secs(300),
        on_outage: OnOutage::Hold,
        prefetch: 27,
        namespace: None,
        grace: Duration::from_secs(25),
        dry_run: false,
    }
}

pub(super) fn at(ms: u64) -> Time {
    Time::after_start(Duration::from_millis(ms))
}
