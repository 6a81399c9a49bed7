//! A model of the publisher of dead letters: late, refused for a time, and outliving every session.

use std::time::Duration;

use super::plan::{Spell, SpellKind};
use crate::delivery::Tag;
use crate::engine::Time;

#[derive(Debug)]
pub(super) struct Publisher {
    rng: fastrand::Rng,
    jobs: Vec<Job>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    /// When it is tried next.
    due: Time,
    /// The epoch of the original.
    pub(super) epoch: u64,
    pub(super) tag: Tag,
    /// The message's number.
    pub(super) number: usize,
}

impl Publisher {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), jobs: Vec::new() }
    }

    pub(super) fn store(&mut self, epoch: u64, tag: Tag, number: usize, now: Time) {
        let slow = self.rng.u8(..10) == 0;
        let wait = Duration::from_millis(if slow { self.rng.u64(..60_000) } else { self.rng.u64(..50) });
        self.jobs.push(Job { due: now + wait, epoch, tag, number });
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.jobs.iter().map(|job| job.due).min()
    }

    /// The dead letters that are stored by now; those that are refused will be tried again.
    pub(super) fn stored(&mut self, spells: &[Spell], now: Time) -> Vec<Job> {
        let refuses = spells
            .iter()
            .find(|spell| spell.kind == SpellKind::LettersRefused && spell.from <= now && now < spell.to);
        if refuses.is_some() {
            for job in self.jobs.iter_mut().filter(|job| job.due <= now) {
                job.due = now + Duration::from_millis(self.rng.u64(500..10_000));
            }
        }
        self.jobs.extract_if(.., |job| job.due <= now).collect()
    }

    /// The worker was killed: of what was under way, this is stored all the same, and nobody hears of it.
    pub(super) fn killed(&mut self) -> Vec<Job> {
        let rng = &mut self.rng;
        std::mem::take(&mut self.jobs).into_iter().filter(|_| rng.bool()).collect()
    }
}
