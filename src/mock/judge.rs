//! What becomes of a call.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use compact_str::CompactString;
use serde_json::json;

use super::faults::{Block, Down, Faults, Loss, Reply};
use super::ledger::{Fate, Ledger};
use crate::config::Api;

/// One call, as far as it concerns its fate.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) api: Api,
    /// The token is right.
    pub(super) is_authorized: bool,
    /// The IDs, or why there are none.
    pub(super) ids: Result<Vec<CompactString>, &'static str>,
}

/// What the connection does about a call.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Answer(Reply),
    /// Half of the body of this, and then the end of the connection.
    Truncate(Reply),
    /// Instead of an answer's body, white space without end.
    Endless,
    Reset,
    Hang,
}

/// The faults, and what they need to remember.
#[derive(Debug)]
pub(super) struct Judge {
    faults: Faults,
    random: fastrand::Rng,
    /// When the calls of the last second were accepted.
    accepted: VecDeque<Instant>,
}

impl Judge {
    pub(super) fn new(faults: Faults) -> Self {
        Self { random: fastrand::Rng::with_seed(faults.seed), faults, accepted: VecDeque::new() }
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        self.random.seed(faults.seed);
        self.faults = faults;
    }

    /// How long the next answer takes.
    pub(super) fn latency(&mut self) -> Duration {
        self.faults.latency + self.faults.jitter.mul_f64(self.random.f64())
    }

    /// Decides, and writes down the deletion if there is one.
    pub(super) fn decide(&mut self, call: &Call, ledger: &mut Ledger, now: Instant) -> (Fate, Act) {
        if let Some(decided) = self.broken(call, ledger) {
            return decided;
        }
        let answer = |code, msg| Act::Answer(documented(call.api, code, msg));
        if !call.is_authorized {
            return (Fate::Blocked, answer("0401", "authorization is invalid"));
        }
        if let Some(block) = self.faults.blocked {
            return (Fate::Blocked, Act::Answer(blocked(call.api, block)));
        }
        if !self.accepts(now) {
            return (Fate::Throttled, Act::Answer(self.throttled(call.api)));
        }
        let ids = match &call.ids {
            Ok(ids) => ids,
            Err(why) => return (Fate::Invalid, answer("0001", why)),
        };
        let Faults { bad_ids, bad_prefix, failing_ids, failing_prefix, .. } = &self.faults;
        if ids.iter().any(|id| is_among(id, bad_ids, bad_prefix.as_deref())) {
            return (Fate::Invalid, answer("0001", "a parameter is incorrect"));
        }
        if ids.iter().any(|id| is_among(id, failing_ids, failing_prefix.as_deref())) {
            return (Fate::Failed, failed());
        }
        if self.faults.duplicates_answer_0409 && ids.iter().any(|id| ledger.is_deleted(id)) {
            return (Fate::Duplicate, answer("0409", "duplicate request not allowed"));
        }
        ledger.delete(ids);
        if count_down(&mut self.faults.lose_next) {
            let act = match self.faults.lose_as {
                Loss::Reset => Act::Reset,
                Loss::Truncated => Act::Truncate(documented(call.api, "0000", "success")),
                Loss::Endless => Act::Endless,
            };
            return (Fate::Lost, act);
        }
        (Fate::Deleted, answer("0000", "success"))
    }

    /// The faults that don't look at what the call is.
    fn broken(&mut self, call: &Call, ledger: &mut Ledger) -> Option<(Fate, Act)> {
        match self.faults.down {
            None => {}
            Some(Down::Unavailable) => return Some((Fate::Unavailable, plain(503, "unavailable"))),
            Some(Down::Reset) => return Some((Fate::Reset, Act::Reset)),
            Some(Down::Hang) => return Some((Fate::Hung, Act::Hang)),
            Some(Down::ResetAfterApplying) => {
                ledger.delete(call.ids.as_deref().unwrap_or_default());
                return Some((Fate::Lost, Act::Reset));
            }
        }
        if let Some(reply) = self.faults.reply.clone() {
            let calls = self.faults.reply.as_mut().and_then(|reply| reply.calls.as_mut());
            // A reply for no calls at all is none.
            if calls.is_none_or(count_down) {
                if reply.applies {
                    ledger.delete(call.ids.as_deref().unwrap_or_default());
                }
                return Some((Fate::Scripted, Act::Answer(reply)));
            }
            self.faults.reply = None;
        }
        if count_down(&mut self.faults.fail_next) {
            return Some((Fate::Failed, failed()));
        }
        let ratio = self.faults.failure_ratio;
        (ratio > 0.0 && self.random.f64() < ratio).then(|| (Fate::Failed, failed()))
    }

    /// Whether the quota has room: so many calls in any one second, however they lie.
    fn accepts(&mut self, now: Instant) -> bool {
        let quota = self.faults.requests_per_second as usize;
        if quota == 0 {
            return true;
        }
        drop_old(&mut self.accepted, now);
        if self.accepted.len() >= quota {
            return false;
        }
        self.accepted.push_back(now);
        true
    }

    fn throttled(&self, api: Api) -> Reply {
        let mut reply = documented(api, "0429", "request too busy");
        if self.faults.throttle_by_status {
            reply.status = 429;
        }
        if let Some(seconds) = self.faults.retry_after {
            reply.headers.insert("retry-after".to_owned(), seconds.to_string());
        }
        reply
    }
}

/// Forgets what is a second old or older.
pub(super) fn drop_old(times: &mut VecDeque<Instant>, now: Instant) {
    while times.front().is_some_and(|time| now.duration_since(*time) >= Duration::from_secs(1)) {
        times.pop_front();
    }
}

/// The documented body of `api`, with HTTP 200.
pub(super) fn documented(api: Api, code: &str, msg: &str) -> Reply {
    let body = match api {
        Api::V1_0 => json!({ "code": code, "msg": msg }),
        Api::V1_2 => {
            let success = code == "0000";
            json!({ "code": code, "msg": msg, "data": null, "success": success, "failed": !success })
        }
    };
    let headers = [("content-type".to_owned(), "application/json".to_owned())].into();
    Reply { status: 200, headers, body: body.to_string(), calls: None, applies: false }
}

fn blocked(api: Api, block: Block) -> Reply {
    match block {
        Block::Unauthorized => documented(api, "0401", "authorization is invalid"),
        Block::OutOfCredits => documented(api, "0402", "out of credits"),
        Block::Disabled => documented(api, "0403", "account is disabled"),
        Block::Denied => documented(api, "9009", "permission denied"),
        Block::Http401 => reply(401, "<html>log in</html>"),
    }
}

fn failed() -> Act {
    plain(500, "internal server error")
}

fn plain(status: u16, body: &str) -> Act {
    Act::Answer(reply(status, body))
}

fn reply(status: u16, body: &str) -> Reply {
    Reply { status, headers: [].into(), body: body.to_owned(), calls: None, applies: false }
}

fn is_among(id: &str, ids: &BTreeSet<String>, prefix: Option<&str>) -> bool {
    ids.contains(id) || prefix.is_some_and(|prefix| id.starts_with(prefix))
}

fn count_down(left: &mut u32) -> bool {
    let has_any = *left > 0;
    *left = left.saturating_sub(1);
    has_any
}
