//! What follows from the endpoint's answers.

use super::batch::{Batch, BatchNumber, CallId, Condemned, InFlight, LastAnswer, Load, ProbeSource};
use super::item::ItemKey;
use super::{Engine, Time, Trigger, implicate};
use crate::answer::{Answer, Outcome, Rejection};
use crate::config::OnOutage;
use crate::delivery::{Obituary, Reason};

/// For how long a batch size that was too large is not tried again.
const SHRUNK_FOR: std::time::Duration = std::time::Duration::from_secs(600);

impl Engine {
    /// A call was answered, or came to nothing.
    pub fn handle_answer(&mut self, id: CallId, answer: Answer, now: Time) {
        let Some(place) = self.calls.iter().position(|call| call.id == id) else { return };
        let InFlight { departed, load, .. } = self.calls.swap_remove(place);
        self.ids_in_flight -= load.len();
        self.pace.ended(departed, answer.http_status.is_some(), now);
        if let Some(wait) = answer.retry_after {
            self.pace.pause(now, wait.min(self.settings.retry_after_max));
        }
        match answer.outcome {
            Outcome::Deleted => self.deleted(load, departed, now),
            Outcome::Rejected(Rejection::Duplicate) if load.is_lone() => self.deleted(load, departed, now),
            Outcome::Rejected(rejection) => self.rejected(load, rejection, &answer, now),
            Outcome::Throttled => self.throttled(load, departed, now),
            Outcome::Transient => self.failed(load, &answer, now),
            Outcome::Blocked => self.blocked(load, &answer, now),
        }
    }

    fn deleted(&mut self, load: Load, departed: Time, now: Time) {
        self.pace.succeeded(now);
        self.recovered(departed, now);
        for key in load.items() {
            self.delete(*key, now);
        }
    }

    /// The endpoint deletes: it did so at some time after `departed`.
    fn recovered(&mut self, departed: Time, now: Time) {
        let was_healthy = self.monitor.is_healthy();
        let charged = self.monitor.succeeded(departed);
        if !was_healthy {
            self.revive(now);
        }
        let convicted: Vec<_> =
            self.condemned.extract_if(.., |condemned| condemned.since <= departed).collect();
        for condemned in convicted {
            self.pronounce(condemned, now);
        }
        // Where outages count, each failure was charged at once.
        if self.settings.on_outage == OnOutage::Hold {
            for number in charged {
                self.charge(number, now);
            }
        }
    }

    /// The endpoint is back: nobody waits for a backoff that began before.
    fn revive(&mut self, now: Time) {
        for batch in &mut self.suspects {
            batch.failures = 0;
            batch.due = batch.due.min(now);
        }
    }

    fn delete(&mut self, key: ItemKey, now: Time) {
        if !self.items.is_live(key) {
            return;
        }
        if self.settings.dry_run {
            self.tally.ids_dry_run += 1;
        } else {
            self.tally.ids_deleted += 1;
        }
        self.control = Some((self.items.namespace_of(key).cloned(), self.items.id(key).clone()));
        let waiters = self.items.delete(key);
        self.strike_off(&waiters, now);
    }

    fn rejected(&mut self, load: Load, rejection: Rejection, answer: &Answer, now: Time) {
        self.pace.accepted();
        if rejection == Rejection::TooLarge && load.len() > 1 {
            // A larger batch that left earlier tells nothing new.
            let max = self.batch_max().min(load.len() / 2);
            self.shrunk = Some((max, now + SHRUNK_FOR));
        }
        match load {
            Load::Control | Load::Probe(..) if self.monitor.rejects_all() => {
                self.probe_failed(load, answer, now)
            }
            // Sent on behalf of the condemned, it clears them.
            Load::Control if self.monitor.is_healthy() => self.acquit_all(&answer.detail, now),
            Load::Control => {
                self.monitor.rejected();
                self.revive(now);
            }
            Load::Probe(key, source) => {
                self.monitor.rejected();
                self.revive(now);
                let mut batch = self.batch_of_probe(key, source, now);
                batch.last = Some(answer.into());
                self.rejected_alone(batch, key, answer, now);
            }
            Load::Fresh(mut batch) | Load::Suspect(mut batch) => {
                self.monitor.rejected();
                batch.last = Some(answer.into());
                match *batch.items {
                    [key] => self.rejected_alone(batch, key, answer, now),
                    _ => self.split(batch, 0, now),
                }
            }
        }
    }

    fn rejected_alone(&mut self, batch: Batch, key: ItemKey, answer: &Answer, now: Time) {
        let condemned = Condemned { batch, key, since: now };
        if self.monitor.rejects_all() {
            // It was under way when that was found out.
            return self.review(condemned, now);
        }
        if condemned.batch.reviewed {
            return self.pronounce(condemned, now);
        }
        self.condemned.push(condemned);
        self.monitor.rejected_alone(answer.code.as_ref());
        if self.monitor.is_suspect() && self.control().is_none() {
            self.acquit_all(&answer.detail, now);
        }
    }

    /// The endpoint rejects whatever it is asked: nobody is to blame, and all are tried again once it deletes.
    fn acquit_all(&mut self, cause: &str, now: Time) {
        self.monitor.rejects_everything(cause, now);
        for condemned in std::mem::take(&mut self.condemned) {
            self.review(condemned, now);
        }
    }

    fn throttled(&mut self, load: Load, departed: Time, now: Time) {
        self.pace.throttled(departed, now);
        self.monitor.throttled(now);
        let backoff = self.settings.retry.delay(self.pace.throttled_in_row(), &mut self.rng);
        self.pace.pause(now, backoff);
        self.put_back(load, now);
    }

    fn blocked(&mut self, load: Load, answer: &Answer, now: Time) {
        self.pace.accepted();
        self.monitor.blocked(&answer.detail, now);
        self.put_back(load, now);
    }

    fn failed(&mut self, load: Load, answer: &Answer, now: Time) {
        self.pace.accepted();
        let mut batch = match load {
            Load::Fresh(batch) | Load::Suspect(batch) => batch,
            Load::Probe(..) | Load::Control => return self.probe_failed(load, answer, now),
        };
        let hold = self.settings.on_outage == OnOutage::Hold;
        self.monitor.failed(batch.number, hold, &answer.detail, now);
        batch.failures += 1;
        batch.relapsed |= batch.failed_at.is_some_and(|failed| self.monitor.succeeded_since(failed));
        batch.failed_at = Some(now);
        let alone = batch.items.len() == 1;
        if alone && !batch.failed_alone {
            batch.strikes = 0;
        }
        batch.failed_alone = alone;
        batch.trigger = Trigger::Retry;
        batch.due = now + self.settings.retry.delay(batch.failures, &mut self.rng);
        batch.last = Some(answer.into());
        batch.strikes += u32::from(!hold);
        self.judge(batch, now);
    }

    fn probe_failed(&mut self, load: Load, answer: &Answer, now: Time) {
        self.monitor.still_out(&answer.detail);
        self.put_back(load, now);
    }

    /// Puts what a call carried back where it was: the call told nothing about it.
    fn put_back(&mut self, load: Load, now: Time) {
        match load {
            Load::Fresh(batch) => {
                for key in batch.items.into_iter().rev() {
                    if self.items.is_wanted(key) {
                        self.lanes.entry(batch.slot).or_default().push_front(key);
                    } else {
                        self.items.remove(key);
                    }
                }
            }
            Load::Suspect(mut batch) => {
                batch.due = now;
                self.judge(batch, now);
            }
            Load::Probe(key, source) => {
                let tells = source.batch().is_none_or(|number| !self.is_suspected(number));
                self.monitor.probe_failed(tells, now, &mut self.rng);
                self.return_probe(key, source, now);
            }
            Load::Control => {
                self.trial_due = now + self.settings.probe.ceiling(1);
                self.monitor.probe_failed(true, now, &mut self.rng);
            }
        }
    }

    /// Whether it would tell nothing about the endpoint if this batch failed again.
    fn is_suspected(&self, number: BatchNumber) -> bool {
        let relapsed = self.suspects.iter().any(|batch| batch.number == number && batch.relapsed);
        relapsed || self.monitor.implicates(number)
    }

    fn return_probe(&mut self, key: ItemKey, source: ProbeSource, now: Time) {
        match source {
            ProbeSource::Lane(slot) => self.lanes.entry(slot).or_default().push_back(key),
            ProbeSource::Suspect(number) => {
                if let Some(batch) = self.suspects.iter_mut().find(|batch| batch.number == number) {
                    batch.items.push(key);
                } else {
                    let batch = self.lone_batch(key, now);
                    self.suspects.push_back(batch);
                }
            }
        }
    }

    /// The batch that a rejected probe's ID stands in, alone.
    fn batch_of_probe(&mut self, key: ItemKey, source: ProbeSource, now: Time) -> Batch {
        let history = source.batch().and_then(|number| self.suspects.iter().find(|b| b.number == number));
        let (attempts, reviewed) = history.map_or((0, false), |batch| (batch.attempts, batch.reviewed));
        Batch { attempts: attempts + 1, reviewed, ..self.lone_batch(key, now) }
    }

    fn lone_batch(&mut self, key: ItemKey, now: Time) -> Batch {
        Batch {
            number: self.batch_number(),
            slot: self.items.slot_of(key),
            items: vec![key],
            attempts: 1,
            failures: 0,
            strikes: 0,
            due: now,
            trigger: Trigger::Retry,
            failed_at: None,
            failed_alone: false,
            relapsed: false,
            reviewed: false,
            last: None,
        }
    }

    /// Charges a strike to the batch `number`.
    fn charge(&mut self, number: BatchNumber, now: Time) {
        if let Some(place) = self.suspects.iter().position(|batch| batch.number == number) {
            let Some(mut batch) = self.suspects.remove(place) else { return };
            batch.strike();
            self.judge(batch, now);
            return;
        }
        for call in &mut self.calls {
            if let Load::Suspect(batch) = &mut call.load
                && batch.number == number
            {
                batch.strike();
            }
        }
    }

    /// Keeps a batch that failed for its next call, or, if it has too many strikes, splits it or gives it up.
    fn judge(&mut self, batch: Batch, now: Time) {
        if batch.strikes < self.settings.strikes_max {
            self.suspects.push_back(batch);
        } else if batch.items.len() <= 1 || self.is_outage_charged() {
            self.exhaust(batch, now);
        } else {
            // A half that holds the culprit is split again at its next strike.
            self.split(batch, self.settings.strikes_max - 1, now);
        }
    }

    /// Outages count as strikes, and this is one: a split would tell nothing.
    fn is_outage_charged(&self) -> bool {
        let failing = self.monitor.failures_in_row() >= self.monitor.threshold();
        self.settings.on_outage == OnOutage::DeadLetter && failing
    }

    fn split(&mut self, mut batch: Batch, strikes: u32, now: Time) {
        self.tally.batch_splits += 1;
        let second = batch.items.split_off(batch.items.len().div_ceil(2));
        for items in [std::mem::take(&mut batch.items), second] {
            let number = self.batch_number();
            self.suspects.push_back(Batch {
                number,
                slot: batch.slot,
                strikes: if items.len() > 1 { strikes } else { 0 },
                items,
                attempts: batch.attempts,
                failures: 0,
                // Ahead of what came later: a culprit is found before the next batch is asked for.
                due: batch.due.min(now),
                trigger: Trigger::Split,
                failed_at: None,
                failed_alone: false,
                relapsed: false,
                reviewed: false,
                last: batch.last.clone(),
            });
        }
    }

    /// A second trial, once the endpoint deletes again, for an ID that was rejected while everything was.
    fn review(&mut self, condemned: Condemned, now: Time) {
        let Condemned { mut batch, key, since: _ } = condemned;
        batch.items = vec![key];
        batch.reviewed = true;
        batch.due = now;
        batch.trigger = Trigger::Retry;
        self.suspects.push_back(batch);
    }

    /// Gives up a lone ID that was rejected.
    pub(super) fn pronounce(&mut self, condemned: Condemned, now: Time) {
        let Condemned { batch, key, since: _ } = condemned;
        let last = batch.last;
        let code = last.as_ref().and_then(|last| last.code.as_deref());
        let code = code.map_or_else(String::new, |code| format!(" with code {code}"));
        let said = last.as_ref().map_or("", |last| &last.detail);
        let detail = format!("the endpoint rejects this ID even alone{code}: it {said}");
        self.give_up(key, Reason::Rejected, detail, last, batch.attempts, now);
    }

    fn exhaust(&mut self, batch: Batch, now: Time) {
        let Batch { items, attempts, last, strikes, .. } = batch;
        let said = last.as_ref().map_or("", |last| &last.detail);
        let detail = format!("{strikes} strikes in {attempts} calls; the last time the endpoint {said}");
        for key in items {
            self.give_up(key, Reason::RetriesExhausted, detail.clone(), last.clone(), attempts, now);
        }
    }

    fn give_up(
        &mut self,
        key: ItemKey,
        reason: Reason,
        detail: String,
        last: Option<LastAnswer>,
        attempts: u32,
        now: Time,
    ) {
        if !self.items.is_live(key) {
            return;
        }
        let (id, waiters) = self.items.remove(key);
        let http_status = last.as_ref().and_then(|last| last.http_status);
        let code = last.and_then(|last| last.code);
        let obituary = Obituary { reason, detail, code, http_status, attempts, failed_ids: Vec::new() };
        for tag in &waiters {
            implicate(&mut self.failures, *tag, &id, &obituary);
        }
        self.strike_off(&waiters, now);
    }

    /// Sees to the condemned when nothing to try now could tell more, or when they are suspiciously many: if an ID
    /// deleted before is deleted again, they are to blame. A deletion just before counts as much, and if there has
    /// never been one, there is nothing to go by but their own word.
    pub(super) fn advance_condemned(&mut self, now: Time) -> bool {
        if !self.is_trial_due(now) {
            return false;
        }
        let lately = !self.monitor.is_suspect() && self.monitor.succeeded_lately(now);
        if !lately && self.control().is_some() {
            return self.call_control(now);
        }
        for condemned in std::mem::take(&mut self.condemned) {
            self.pronounce(condemned, now);
        }
        true
    }

    /// Whether the condemned should wait no longer.
    pub(super) fn is_trial_due(&self, now: Time) -> bool {
        if self.condemned.is_empty() || !self.monitor.is_healthy() || now < self.trial_due {
            return false;
        }
        // The control's ID may also be under way because somebody asks for it anew, and its answer tells as much.
        let anew = self.control.is_some() && self.control().is_none();
        let controlled = anew || self.calls.iter().any(|call| matches!(call.load, Load::Control));
        let untried = self.suspects_on_call().any(|(_, batch)| batch.due <= now);
        let idle = self.calls.is_empty() && self.lanes.is_empty() && !untried;
        idle || self.monitor.is_suspect() && !controlled
    }
}

impl Batch {
    /// Charges a strike, unless it is for a failure in company that is gone by now.
    fn strike(&mut self) {
        self.strikes += u32::from(self.items.len() > 1 || self.failed_alone);
    }
}

impl Load {
    fn is_lone(&self) -> bool {
        match self {
            Self::Fresh(batch) | Self::Suspect(batch) => batch.items.len() == 1,
            Self::Probe(..) | Self::Control => true,
        }
    }
}

impl ProbeSource {
    fn batch(self) -> Option<BatchNumber> {
        match self {
            Self::Suspect(number) => Some(number),
            Self::Lane(_) => None,
        }
    }
}
