//! Which call leaves next, and when.

use std::time::Duration;

use super::batch::{Batch, InFlight, Load, ProbeSource};
use super::item::{ItemKey, Slot};
use super::{Action, Call, CallId, Drain, Engine, Time, Trigger};
use crate::id::{Id, Namespace};

/// What could leave next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Candidate {
    Lane(Slot, Trigger),
    /// The place among the suspects.
    Suspect(usize),
}

impl Engine {
    /// Lets a call leave if one may.
    pub(super) fn advance_calls(&mut self, now: Time) -> bool {
        if self.calls.len() >= self.settings.concurrency_max || self.drain == Some(Drain::Done) {
            return false;
        }
        if !self.monitor.is_healthy() || self.ledger.is_none() {
            self.pace_wait = None;
            return !self.monitor.is_healthy() && self.drain.is_none() && self.advance_probe(now);
        }
        let Some(candidate) = self.candidate(now) else {
            self.pace_wait = None;
            return false;
        };
        if now < self.pace.opens_at() {
            self.pace_wait.get_or_insert(now);
            return false;
        }
        match candidate {
            Candidate::Lane(slot, trigger) => self.call_lane(slot, trigger, now),
            Candidate::Suspect(place) => self.call_suspect(place, now),
        }
        true
    }

    /// When the next call could leave or a probe is due.
    pub(super) fn calls_deadline(&self) -> Option<Time> {
        if self.calls.len() >= self.settings.concurrency_max || self.drain == Some(Drain::Done) {
            return None;
        }
        let opens_at = self.pace.opens_at();
        if !self.monitor.is_healthy() {
            let probe = self.monitor.next_probe().filter(|_| self.drain.is_none() && self.can_probe());
            return probe.map(|probe| probe.max(opens_at));
        }
        self.ledger.as_ref()?;
        let lanes = self.lanes.iter().map(|(slot, lane)| match self.lane_trigger(*slot, None) {
            Some(_) => Time::default(),
            None => self.items.since(lane[0]) + self.settings.linger,
        });
        let suspects = self.suspects_on_call().map(|(_, batch)| batch.due);
        let trial = (!self.condemned.is_empty()).then_some(self.trial_due);
        let trial = trial.filter(|due| self.is_trial_due(*due));
        lanes.chain(suspects).chain(trial).min().map(|ready| ready.max(opens_at))
    }

    /// Whether a call can leave before `end` if nothing changes.
    pub(super) fn can_call_before(&self, end: Time, now: Time) -> bool {
        // In a drain nobody waits for a backoff: what isn't due now is given back.
        let may_call = self.monitor.is_healthy() && self.ledger.is_some();
        may_call && self.candidate(now).is_some() && self.pace.opens_at() < end
    }

    /// The ready candidate that has waited longest; of halves of one batch the smallest, so that a culprit stands
    /// alone after a few calls, and is not one of hundreds of pieces.
    fn candidate(&self, now: Time) -> Option<Candidate> {
        let lanes = self.lanes.iter().filter_map(|(slot, lane)| {
            let trigger = self.lane_trigger(*slot, Some(now))?;
            Some((Candidate::Lane(*slot, trigger), self.items.since(lane[0]), usize::MAX))
        });
        let suspects = self.suspects_on_call().filter(|(_, batch)| batch.due <= now);
        let suspects =
            suspects.map(|(place, batch)| (Candidate::Suspect(place), batch.due, batch.items.len()));
        let first = lanes.chain(suspects).min_by_key(|(_, since, ids)| (*since, *ids));
        first.map(|(candidate, ..)| candidate)
    }

    /// The suspects that may be called once they are due, with their places.
    ///
    /// Of those that relapsed one at a time, until something is deleted: together their failures would prove
    /// nothing about any of them.
    pub(super) fn suspects_on_call(&self) -> impl Iterator<Item = (usize, &Batch)> {
        let called = self.calls.iter().find_map(|call| match &call.load {
            Load::Suspect(batch) if batch.relapsed => Some(batch.number),
            Load::Fresh(_) | Load::Suspect(_) | Load::Probe(..) | Load::Control => None,
        });
        let failed = || self.suspects.iter().find(|b| b.relapsed && self.monitor.implicates(b.number));
        let on_trial = called.or_else(|| failed().map(|batch| batch.number));
        let may =
            move |batch: &Batch| !batch.relapsed || on_trial.is_none_or(|number| number == batch.number);
        self.suspects.iter().enumerate().filter(move |(_, batch)| may(batch))
    }

    /// Why the lane is ready, if it is; without `now`, whether it is regardless of the time.
    fn lane_trigger(&self, slot: Slot, now: Option<Time>) -> Option<Trigger> {
        let lane = &self.lanes[&slot];
        if lane.len() >= self.batch_max() || self.is_window_exhausted() {
            return Some(Trigger::Full);
        }
        if self.drain.is_some() {
            return Some(Trigger::Drain);
        }
        let lingered = now.is_some_and(|now| now.since(self.items.since(lane[0])) >= self.settings.linger);
        lingered.then_some(Trigger::Linger)
    }

    /// The broker sends nothing more before something is settled, and nothing is under way that would settle it.
    fn is_window_exhausted(&self) -> bool {
        let in_hand = self.ledger.as_ref().map_or(0, super::Ledger::in_hand);
        self.calls.is_empty() && in_hand >= self.settings.prefetch
    }

    fn call_lane(&mut self, slot: Slot, trigger: Trigger, now: Time) {
        let batch_max = self.batch_max();
        let Some(lane) = self.lanes.get_mut(&slot) else { return };
        let items: Vec<_> = lane.drain(..lane.len().min(batch_max)).collect();
        if lane.is_empty() {
            self.lanes.remove(&slot);
        }
        let number = self.batch_number();
        let batch = Batch {
            number,
            slot,
            items,
            attempts: 1,
            failures: 0,
            strikes: 0,
            due: now,
            trigger,
            failed_at: None,
            failed_alone: false,
            relapsed: false,
            reviewed: false,
            last: None,
        };
        let call = self.describe(&batch, now);
        self.depart(call, Load::Fresh(batch), now);
    }

    fn call_suspect(&mut self, place: usize, now: Time) {
        let Some(mut batch) = self.suspects.remove(place) else { return };
        let unwanted = |key: &ItemKey| !self.items.is_wanted(*key);
        for key in batch.items.extract_if(.., |key| unwanted(key)).collect::<Vec<_>>() {
            if self.items.is_live(key) {
                self.items.remove(key);
            }
        }
        if batch.items.is_empty() {
            return;
        }
        batch.attempts += 1;
        if batch.trigger == Trigger::Retry {
            self.tally.retries += 1;
        }
        let call = self.describe(&batch, now);
        self.depart(call, Load::Suspect(batch), now);
    }

    /// Sends a probe if one is due and there is anything to send.
    fn advance_probe(&mut self, now: Time) -> bool {
        if self.monitor.next_probe().is_none_or(|due| now < due) || now < self.pace.opens_at() {
            return false;
        }
        self.probes += 1;
        // Every other probe is the control: what is in hand may be what fails.
        if (self.probes.is_multiple_of(2) || !self.has_payload()) && self.call_control(now) {
            self.monitor.probe_left();
            return true;
        }
        let Some((key, slot, source)) = self.take_probe() else { return self.resume_for_payload(now) };
        self.monitor.probe_left();
        let namespace = self.items.namespace(slot).cloned();
        let waited = now.since(self.items.since(key));
        let call = self.probe_call(namespace, self.items.id(key).clone(), 1, waited);
        self.depart(call, Load::Probe(key, source), now);
        true
    }

    /// Sends an ID that was deleted before, if there is one and a call may leave.
    pub(super) fn call_control(&mut self, now: Time) -> bool {
        let free = self.calls.len() < self.settings.concurrency_max && self.pace.opens_at() <= now;
        let over = self.drain == Some(Drain::Done);
        let Some((namespace, id)) = self.control().filter(|_| free && !over).cloned() else { return false };
        let call = self.probe_call(namespace, id, 1, Duration::ZERO);
        self.depart(call, Load::Control, now);
        true
    }

    /// Whether there is anything to probe with, or to be had for it.
    fn can_probe(&self) -> bool {
        self.control().is_some() || self.has_payload() || self.released
    }

    /// An ID deleted before, unless it was asked for anew and is under way.
    pub(super) fn control(&self) -> Option<&(Option<Namespace>, Id)> {
        let control = self.control.as_ref();
        control.filter(|(namespace, id)| {
            let same = |key: &ItemKey| {
                self.items.id(*key) == id && self.items.namespace_of(*key) == namespace.as_ref()
            };
            !self.calls.iter().any(|call| call.load.items().iter().any(same))
        })
    }

    fn has_payload(&self) -> bool {
        !self.lanes.is_empty() || self.suspects.iter().any(|batch| !batch.items.is_empty())
    }

    /// Takes one ID as a probe, from the sources in turn; a failed one goes to the end of where it came from.
    fn take_probe(&mut self) -> Option<(ItemKey, Slot, ProbeSource)> {
        let from_lane = |engine: &mut Self| {
            let turn = usize::try_from(engine.probes / 4).unwrap_or(0) % engine.lanes.len().max(1);
            let (slot, lane) = engine.lanes.iter_mut().nth(turn)?;
            let (slot, key) = (*slot, lane.pop_front()?);
            if lane.is_empty() {
                engine.lanes.remove(&slot);
            }
            Some((key, slot, ProbeSource::Lane(slot)))
        };
        let from_suspects = |engine: &mut Self| {
            let place = engine.suspects.iter().position(|batch| !batch.items.is_empty())?;
            engine.suspects.rotate_left(place);
            let batch = engine.suspects.front_mut()?;
            let (key, slot, number) = (batch.items.remove(0), batch.slot, batch.number);
            // An emptied batch stays for its history: the ID returns to it if the probe fails.
            engine.suspects.rotate_left(1);
            Some((key, slot, ProbeSource::Suspect(number)))
        };
        if (self.probes / 2).is_multiple_of(2) {
            from_lane(self).or_else(|| from_suspects(self))
        } else {
            from_suspects(self).or_else(|| from_lane(self))
        }
    }

    fn probe_call(&mut self, namespace: Option<Namespace>, id: Id, attempt: u32, waited: Duration) -> Call {
        Call { id: self.call_id(), namespace, ids: vec![id], trigger: Trigger::Probe, attempt, waited }
    }

    fn describe(&mut self, batch: &Batch, now: Time) -> Call {
        let oldest = batch.items.iter().map(|key| self.items.since(*key)).min();
        Call {
            id: self.call_id(),
            namespace: self.items.namespace(batch.slot).cloned(),
            ids: batch.items.iter().map(|key| self.items.id(*key).clone()).collect(),
            trigger: batch.trigger,
            attempt: batch.attempts,
            waited: oldest.map_or(Duration::ZERO, |oldest| now.since(oldest)),
        }
    }

    fn depart(&mut self, call: Call, load: Load, now: Time) {
        if let Some(since) = self.pace_wait.take() {
            self.tally.rate_limit_waits.push(now.since(since));
        }
        self.pace.depart(now);
        self.ids_in_flight += load.len();
        self.calls.push(InFlight { id: call.id, departed: now, load });
        self.actions.push_back(Action::Call(call));
    }

    fn call_id(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call - 1)
    }

    /// IDs a call may hold at present.
    pub(super) fn batch_max(&self) -> usize {
        self.shrunk.map_or(self.settings.batch_max, |(max, _)| max)
    }
}

impl Load {
    /// Items that are under way with it.
    pub(super) fn items(&self) -> &[ItemKey] {
        match self {
            Self::Fresh(batch) | Self::Suspect(batch) => &batch.items,
            Self::Probe(key, _) => std::slice::from_ref(key),
            Self::Control => &[],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items().len()
    }
}
