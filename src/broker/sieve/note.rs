//! What the sieve tells of deliveries, from lapin's thread to ours.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use super::header::Repair;
use crate::delivery::Tag;

/// A delivery above this is accounted for; the prefetch bounds the others well enough.
const LIGHT_BYTES_MAX: u64 = 4 * 1024;
/// What the heavy deliveries in hand may add up to, unless it is a single one.
const HEAVY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Something about a delivery that isn't in it.
#[derive(Debug)]
pub(in crate::broker) struct Note {
    repair: Repair,
    /// Freed with the note.
    _load: Option<Load>,
}

/// The notes on the deliveries of one connection; clones share them.
#[derive(Clone, Debug, Default)]
pub(in crate::broker) struct Notes(Arc<Pad>);

#[derive(Debug, Default)]
struct Pad {
    notes: Mutex<BTreeMap<Tag, Note>>,
    /// How many notes there are, as most often there are none.
    count: AtomicUsize,
    account: Arc<Account>,
    /// What comes when there is no room for it waits, instead of ending the connection.
    is_patient: bool,
    /// The tag of the delivery that would have been too much; 0 if there was none.
    refused: AtomicU64,
}

/// What the heavy deliveries in hand add up to.
#[derive(Debug, Default)]
struct Account {
    bytes: AtomicU64,
    /// Who waits for room.
    waiting: AtomicWaker,
}

/// A heavy delivery's share in that, until it is dropped.
#[derive(Debug)]
struct Load {
    bytes: u64,
    account: Arc<Account>,
}

impl Note {
    /// What was replaced in the delivery, for people, if anything was.
    pub(in crate::broker) fn repaired(&self) -> Option<String> {
        (self.repair != Repair::NONE).then(|| self.repair.to_string())
    }

    #[cfg(test)]
    pub(in crate::broker) fn specimen() -> Self {
        Self { repair: Repair::TEXT | Repair::HEADERS, _load: None }
    }
}

impl Account {
    /// Whether so many more `bytes` are too much; a single delivery never is.
    fn is_full_for(&self, bytes: u64) -> bool {
        let before = self.bytes.load(Ordering::Acquire);
        before > 0 && before.saturating_add(bytes) > HEAVY_BYTES_MAX
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.account.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.account.waiting.wake();
    }
}

impl Notes {
    /// Notes for whoever lets go of deliveries as fast as they come: what is too much in hand waits. Not for longer than
    /// some seconds, as brokers close connections that don't read.
    pub(in crate::broker) fn patient() -> Self {
        Self(Arc::new(Pad { is_patient: true, ..Pad::default() }))
    }

    /// Whether a delivery of so many `bytes` has to wait until others are let go.
    pub(super) fn has_to_wait(&self, bytes: u64) -> bool {
        self.0.is_patient && bytes > LIGHT_BYTES_MAX && self.0.account.is_full_for(bytes)
    }

    /// Wakes `waker` when others are let go from now on.
    pub(super) fn wait(&self, waker: &Waker) {
        self.0.account.waiting.register(waker);
    }

    /// Notes what is remarkable about a delivery of so many `bytes` that is about to come.
    ///
    /// # Errors
    /// If that is more than may be in hand: the connection has to end before it is read.
    pub(super) fn take_down(&self, tag: Tag, repair: Repair, bytes: u64) -> io::Result<()> {
        let load = if bytes > LIGHT_BYTES_MAX { Some(self.load(tag, bytes)?) } else { None };
        if repair != Repair::NONE || load.is_some() {
            let mut notes = self.lock();
            notes.insert(tag, Note { repair, _load: load });
            self.0.count.store(notes.len(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes the note on a delivery that has come.
    pub(in crate::broker) fn take(&self, tag: Tag) -> Option<Note> {
        // The delivery came through a channel, and this count is as old as the delivery at most.
        if self.0.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut notes = self.lock();
        let note = notes.remove(&tag);
        self.0.count.store(notes.len(), Ordering::Relaxed);
        note
    }

    /// The delivery that ended the connection by being too much, if one did.
    pub(in crate::broker) fn refused(&self) -> Option<Tag> {
        let tag = self.0.refused.load(Ordering::Relaxed);
        (tag > 0).then_some(Tag(tag))
    }

    fn load(&self, tag: Tag, bytes: u64) -> io::Result<Load> {
        let account = &self.0.account;
        // Only this thread adds to it.
        if account.is_full_for(bytes) {
            let before = account.bytes.load(Ordering::Relaxed);
            self.0.refused.store(tag.0, Ordering::Relaxed);
            return Err(io::Error::other(format!(
                "a message of {bytes} bytes came while there were {before} bytes of large messages in hand"
            )));
        }
        account.bytes.fetch_add(bytes, Ordering::AcqRel);
        Ok(Load { bytes, account: Arc::clone(account) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Tag, Note>> {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn only_what_is_remarkable_is_noted_and_it_is_taken_once() {
        let notes = Notes::default();
        notes.take_down(Tag(1), Repair::NONE, 200).expect("light");
        notes.take_down(Tag(2), Repair::TEXT, 200).expect("light");
        notes.take_down(Tag(3), Repair::NONE, MIB).expect("the only one");
        assert!(notes.take(Tag(1)).is_none());
        let repaired = notes.take(Tag(2)).and_then(|note| note.repaired());
        assert_eq!(repaired.as_deref(), Some("bytes that are not UTF-8 became question marks"));
        assert!(notes.take(Tag(2)).is_none());
        assert_eq!(notes.take(Tag(3)).map(|note| note.repaired()), Some(None));
    }

    #[test]
    fn heavy_deliveries_are_bounded_by_what_is_in_hand() {
        let notes = Notes::default();
        for tag in 1..=4 {
            notes.take_down(Tag(tag), Repair::NONE, 16 * MIB).expect("64 MiB are fine");
        }
        assert_eq!(notes.refused(), None);
        drop(notes.take(Tag(1)));
        notes.take_down(Tag(5), Repair::NONE, 16 * MIB).expect("one was settled");
        let held = notes.take(Tag(2));
        assert!(notes.take_down(Tag(6), Repair::NONE, 5000).is_err());
        assert_eq!(notes.refused(), Some(Tag(6)));
        drop(held);
    }

    #[test]
    fn a_single_one_may_be_of_any_size() {
        let notes = Notes::default();
        notes.take_down(Tag(1), Repair::NONE, 128 * MIB).expect("alone");
        notes.take_down(Tag(2), Repair::NONE, 4096).expect("light ones aren't counted");
        assert!(notes.take_down(Tag(3), Repair::NONE, 5000).is_err());
        assert_eq!(notes.refused(), Some(Tag(3)));
    }

    #[test]
    fn a_refused_delivery_weighs_nothing() {
        let notes = Notes::default();
        notes.take_down(Tag(1), Repair::NONE, 128 * MIB).expect("alone");
        assert!(notes.take_down(Tag(2), Repair::NONE, MIB).is_err());
        drop(notes.take(Tag(1)));
        assert_eq!(notes.0.account.bytes.load(Ordering::Relaxed), 0);
    }
}
