//! What the mock remembers: deletions, the last calls, the numbers.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use compact_str::CompactString;
use serde::{Serialize, Serializer};

use super::judge::drop_old;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// `0000`.
    Deleted,
    /// Deleted, but the answer was lost: see [`Loss`](super::Loss).
    Lost,
    /// `0001`.
    Invalid,
    /// `0409`.
    Duplicate,
    /// `0429`.
    Throttled,
    /// A wrong token, or [`Block`](super::Block).
    Blocked,
    /// HTTP 500.
    Failed,
    /// HTTP 503.
    Unavailable,
    /// The connection was reset.
    Reset,
    /// No answer.
    Hung,
    /// The answer was [`Faults::reply`](super::Faults::reply).
    Scripted,
    /// HTTP 413: a body beyond the mock's own bound.
    TooLarge,
    /// HTTP 404 or 405: not one of the API's paths, or not its method.
    NotFound,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordedCall {
    /// When it came in.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// Its HTTP method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// Its headers, without the token.
    pub headers: BTreeMap<String, String>,
    /// `unique_id`, where the query has it.
    pub namespace: Option<String>,
    /// How many IDs it had; 0 if the body wasn't a list of IDs.
    pub size: usize,
    /// What became of it.
    pub outcome: Fate,
    /// The IDs, if they are kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<CompactString>,
}

/// The numbers. Calls that hold a list of IDs count in [`Self::sizes`], whatever became of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// How many calls ended how.
    pub calls: BTreeMap<Fate, u64>,
    /// Different IDs that were deleted.
    pub ids_deleted: u64,
    /// Those of them that were deleted more than once.
    pub ids_deleted_again: u64,
    /// How large calls were.
    pub sizes: Sizes,
    /// How dense calls were.
    pub peaks: Peaks,
    /// Calls that wait for their answer now.
    pub concurrent: usize,
}

/// How many IDs the calls held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sizes {
    /// Calls.
    pub count: u64,
    /// IDs in all of them.
    pub sum: u64,
    /// IDs in the largest.
    pub max: u64,
    /// What part of the API's limit a call used on average.
    pub mean_fill: f64,
}

/// The most calls at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peaks {
    /// In any one second.
    pub in_one_second: usize,
    /// At once.
    pub concurrent: usize,
}

/// Everything that is remembered.
#[derive(Debug)]
pub(super) struct Ledger {
    calls_kept: usize,
    keep_ids: bool,
    started: (Instant, SystemTime),
    deleted: BTreeMap<CompactString, u32>,
    calls: VecDeque<RecordedCall>,
    stats: Stats,
    /// The most IDs that the calls in `stats.sizes` could have held.
    room: u64,
    last_second: VecDeque<Instant>,
}

impl Ledger {
    pub(super) fn new(calls_kept: usize, keep_ids: bool, now: Instant) -> Self {
        Self {
            calls_kept,
            keep_ids,
            started: (now, SystemTime::now()),
            deleted: BTreeMap::new(),
            calls: VecDeque::new(),
            stats: Stats::default(),
            room: 0,
            last_second: VecDeque::new(),
        }
    }

    pub(super) fn reset(&mut self, now: Instant) {
        let concurrent = self.stats.concurrent;
        *self = Self::new(self.calls_kept, self.keep_ids, now);
        self.stats.concurrent = concurrent;
    }

    pub(super) fn is_deleted(&self, id: &str) -> bool {
        self.deleted.contains_key(id)
    }

    pub(super) fn delete(&mut self, ids: &[CompactString]) {
        for id in ids {
            let times = self.deleted.entry(id.clone()).or_default();
            *times += 1;
            match times {
                1 => self.stats.ids_deleted += 1,
                2 => self.stats.ids_deleted_again += 1,
                _ => {}
            }
        }
    }

    /// Counts a call in; [`Self::leave`] counts it out.
    pub(super) fn enter(&mut self, now: Instant) {
        drop_old(&mut self.last_second, now);
        self.last_second.push_back(now);
        self.stats.concurrent += 1;
        let peaks = &mut self.stats.peaks;
        peaks.in_one_second = peaks.in_one_second.max(self.last_second.len());
        peaks.concurrent = peaks.concurrent.max(self.stats.concurrent);
    }

    pub(super) fn leave(&mut self) {
        self.stats.concurrent -= 1;
    }

    /// Writes a call down; `limit` is what its API takes, where it is a call of one.
    pub(super) fn record(&mut self, mut call: RecordedCall, limit: Option<usize>) {
        *self.stats.calls.entry(call.outcome).or_default() += 1;
        if let Some(limit) = limit
            && call.size > 0
        {
            let sizes = &mut self.stats.sizes;
            sizes.count += 1;
            sizes.sum += call.size as u64;
            sizes.max = sizes.max.max(call.size as u64);
            self.room += limit as u64;
            sizes.mean_fill = sizes.sum as f64 / self.room as f64;
        }
        if !self.keep_ids {
            call.ids = Vec::new();
        }
        if self.calls.len() >= self.calls_kept {
            self.calls.pop_front();
        }
        if self.calls_kept > 0 {
            self.calls.push_back(call);
        }
    }

    /// The time of day, by a clock that doesn't jump.
    pub(super) fn time_of(&self, now: Instant) -> SystemTime {
        self.started.1 + now.saturating_duration_since(self.started.0).max(Duration::ZERO)
    }

    pub(super) fn deleted(&self) -> &BTreeMap<CompactString, u32> {
        &self.deleted
    }

    pub(super) fn calls(&self) -> impl Iterator<Item = &RecordedCall> {
        self.calls.iter()
    }

    pub(super) fn stats(&self) -> Stats {
        self.stats.clone()
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_micros(*time))
}
