//! What the sieve tells of deliveries, from lapin's thread to ours.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use tokio::sync::watch;

use super::header::Repair;
use super::properties::Properties;
use crate::delivery::Tag;

/// A delivery above this is accounted for; the prefetch bounds the others well enough.
const LIGHT_BYTES_MAX: u64 = 4 * 1024;
/// What the heavy deliveries in hand may add up to, unless it is a single one.
const HEAVY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The same for whoever is patient, where every delivery counts.
const FLOW_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// And while nothing is taken for a reason: an answer comes behind deliveries, or the output is slow.
const FLOOD_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// What a delivery takes besides its header and body.
const DELIVERY_BYTES: u64 = 512;

/// Something about a delivery that isn't in it.
#[derive(Debug)]
pub(in crate::broker) struct Note {
    pub(super) repair: Repair,
    /// What was taken off it.
    pub(super) properties: Option<Properties>,
    /// Freed with the note.
    #[expect(dead_code, reason = "it only has to live as long as the note")]
    pub(super) load: Option<Load>,
}

/// The notes on the deliveries of one connection; clones share them.
#[derive(Clone, Debug, Default)]
pub(in crate::broker) struct Notes(Arc<Pad>);

#[derive(Debug)]
struct Pad {
    /// In the order in which the deliveries come.
    notes: Mutex<VecDeque<(Tag, Note)>>,
    account: Arc<Account>,
    /// What comes when there is no room for it waits, instead of ending the connection.
    is_patient: bool,
    /// Properties are kept here instead of being read.
    keeps_properties: bool,
    /// Whether not even a [`Leeway`] helps what waits.
    is_flooded: watch::Sender<bool>,
    /// The tag of the delivery that would have been too much; 0 if there was none.
    refused: AtomicU64,
}

/// What the deliveries in hand add up to: all if we are patient, else the heavy ones.
#[derive(Debug, Default)]
struct Account {
    bytes: AtomicU64,
    /// What may be in hand beyond the limit, until somebody has caught up.
    slack: AtomicU64,
    /// How many [`Leeway`]s there are.
    leeways: AtomicUsize,
    /// Who waits for room.
    waiting: AtomicWaker,
}

/// While it lives what is on its way doesn't wait for room, up to [`FLOOD_BYTES_MAX`].
#[derive(Debug)]
pub(in crate::broker) struct Leeway(Arc<Account>);

/// A delivery's share in the account, until it is dropped.
#[derive(Debug)]
pub(super) struct Load {
    bytes: u64,
    account: Arc<Account>,
}

impl Note {
    /// What was replaced in the delivery, for people, if anything was.
    pub(in crate::broker) fn repaired(&self) -> Option<String> {
        (self.repair != Repair::NONE).then(|| self.repair.to_string())
    }

    /// The properties that were taken off the delivery, if they were.
    pub(in crate::broker) fn properties(&self) -> Option<&Properties> {
        self.properties.as_ref()
    }

    /// On a delivery with these properties, in which something had to be replaced or not.
    #[cfg(test)]
    pub(in crate::broker) fn specimen(properties: &lapin::BasicProperties, is_repaired: bool) -> Self {
        let repair = if is_repaired { Repair::TEXT | Repair::HEADERS } else { Repair::NONE };
        Self { repair, properties: Some(Properties::of(properties)), load: None }
    }
}

impl Default for Pad {
    fn default() -> Self {
        Self {
            notes: Mutex::default(),
            account: Arc::default(),
            is_patient: false,
            keeps_properties: false,
            is_flooded: watch::Sender::new(false),
            refused: AtomicU64::default(),
        }
    }
}

impl Account {
    /// Whether so many more `bytes` are more than `max`; a single delivery never is.
    fn is_full_for(&self, bytes: u64, max: u64) -> bool {
        let before = self.bytes.load(Ordering::Acquire);
        before > 0 && before.saturating_add(bytes) > max
    }

    fn flow_max(&self) -> u64 {
        if self.leeways.load(Ordering::Acquire) > 0 {
            return FLOOD_BYTES_MAX;
        }
        FLOW_BYTES_MAX.saturating_add(self.slack.load(Ordering::Acquire)).min(FLOOD_BYTES_MAX)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let left = self.account.bytes.fetch_sub(self.bytes, Ordering::AcqRel) - self.bytes;
        // Not for each: waking a thread takes longer than a delivery does.
        if left <= FLOW_BYTES_MAX / 2 {
            self.account.slack.store(0, Ordering::Release);
            self.account.waiting.wake();
        }
    }
}

impl Drop for Leeway {
    fn drop(&mut self) {
        self.0.leeways.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Notes {
    /// Notes for whoever lets go of deliveries about as fast as they come: what is too much in hand waits at the socket.
    /// Not for longer than some seconds, as brokers close connections that don't read: see [`Self::leeway`] and
    /// [`Self::relent`].
    pub(in crate::broker) fn patient() -> Self {
        Self(Arc::new(Pad { is_patient: true, ..Pad::default() }))
    }

    /// Notes for whoever hardly ever wants to know a delivery's properties: they stand here, and lapin sees none.
    pub(in crate::broker) fn keeping_properties() -> Self {
        Self(Arc::new(Pad { keeps_properties: true, ..Pad::default() }))
    }

    /// For as long as an answer is awaited: it comes behind deliveries that nobody takes meanwhile.
    pub(in crate::broker) fn leeway(&self) -> Leeway {
        let account = &self.0.account;
        account.leeways.fetch_add(1, Ordering::AcqRel);
        account.waiting.wake();
        Leeway(Arc::clone(account))
    }

    /// Lets in so many `bytes` beyond the limit, until whoever takes deliveries has caught up.
    pub(in crate::broker) fn relent(&self, bytes: u64) {
        let account = &self.0.account;
        // Only whoever takes deliveries does this, and so nobody resets it meanwhile.
        let slack = account.slack.load(Ordering::Acquire).saturating_add(bytes);
        account.slack.store(slack.min(FLOOD_BYTES_MAX), Ordering::Release);
        account.waiting.wake();
    }

    /// Waits until something is on its way for which even with leeway there is no room.
    pub(in crate::broker) async fn flooded(&self) {
        let mut flooded = self.0.is_flooded.subscribe();
        flooded.wait_for(|flooded| *flooded).await.expect("the sender lives in self");
    }

    /// Whether a delivery of so many `bytes` has to wait until others are let go.
    pub(super) fn has_to_wait(&self, bytes: u64) -> bool {
        if !self.0.is_patient {
            return false;
        }
        let account = &self.0.account;
        let bytes = bytes.saturating_add(DELIVERY_BYTES);
        let flooded = account.is_full_for(bytes, FLOOD_BYTES_MAX);
        self.0.is_flooded.send_if_modified(|before| std::mem::replace(before, flooded) != flooded);
        account.is_full_for(bytes, account.flow_max())
    }

    /// Wakes `waker` when others are let go from now on.
    pub(super) fn wait(&self, waker: &Waker) {
        self.0.account.waiting.register(waker);
    }

    /// Whether properties are to be noted instead of passed on.
    pub(super) fn keep_properties(&self) -> bool {
        self.0.keeps_properties
    }

    /// Takes a delivery of so many `bytes`, which is about to come, into account if it counts.
    ///
    /// # Errors
    /// If that is more than may be in hand: the connection has to end before it is read.
    pub(super) fn weigh(&self, tag: Tag, bytes: u64) -> io::Result<Option<Load>> {
        if self.0.is_patient {
            Ok(Some(self.count(bytes.saturating_add(DELIVERY_BYTES))))
        } else if bytes > LIGHT_BYTES_MAX {
            self.load(tag, bytes).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Adds notes on deliveries that are about to come, in this order.
    pub(super) fn add(&self, fresh: &mut VecDeque<(Tag, Note)>) {
        if !fresh.is_empty() {
            self.lock().append(fresh);
        }
    }

    /// Takes the note on a delivery that has come; those on deliveries before it are dropped.
    pub(in crate::broker) fn take(&self, tag: Tag) -> Option<Note> {
        let mut notes = self.lock();
        let place = notes.iter().position(|(noted, _)| *noted == tag)?;
        notes.drain(..=place).next_back().map(|(_, note)| note)
    }

    /// Appends all notes to `taken`.
    pub(in crate::broker) fn take_all(&self, taken: &mut VecDeque<(Tag, Note)>) {
        taken.append(&mut self.lock());
    }

    /// The delivery that ended the connection by being too much, if one did.
    pub(in crate::broker) fn refused(&self) -> Option<Tag> {
        let tag = self.0.refused.load(Ordering::Relaxed);
        (tag > 0).then_some(Tag(tag))
    }

    fn load(&self, tag: Tag, bytes: u64) -> io::Result<Load> {
        let account = &self.0.account;
        // Only this thread adds to it.
        if account.is_full_for(bytes, HEAVY_BYTES_MAX) {
            let before = account.bytes.load(Ordering::Relaxed);
            self.0.refused.store(tag.0, Ordering::Relaxed);
            return Err(io::Error::other(format!(
                "a message of {bytes} bytes came while there were {before} bytes of large messages in hand"
            )));
        }
        Ok(self.count(bytes))
    }

    fn count(&self, bytes: u64) -> Load {
        let account = Arc::clone(&self.0.account);
        account.bytes.fetch_add(bytes, Ordering::AcqRel);
        Load { bytes, account }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Tag, Note)>> {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn take_down(notes: &Notes, tag: u64, repair: Repair, bytes: u64) -> io::Result<()> {
        let load = notes.weigh(Tag(tag), bytes)?;
        if repair != Repair::NONE || load.is_some() {
            notes.add(&mut [(Tag(tag), Note { repair, properties: None, load })].into());
        }
        Ok(())
    }

    #[test]
    fn only_what_is_remarkable_is_noted_and_it_is_taken_once() {
        let notes = Notes::default();
        take_down(&notes, 1, Repair::NONE, 200).expect("light");
        take_down(&notes, 2, Repair::TEXT, 200).expect("light");
        take_down(&notes, 3, Repair::NONE, MIB).expect("the only one");
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
            take_down(&notes, tag, Repair::NONE, 16 * MIB).expect("64 MiB are fine");
        }
        assert_eq!(notes.refused(), None);
        drop(notes.take(Tag(1)));
        take_down(&notes, 5, Repair::NONE, 16 * MIB).expect("one was settled");
        let held = notes.take(Tag(2));
        assert!(take_down(&notes, 6, Repair::NONE, 5000).is_err());
        assert_eq!(notes.refused(), Some(Tag(6)));
        drop(held);
    }

    #[test]
    fn a_single_one_may_be_of_any_size() {
        let notes = Notes::default();
        take_down(&notes, 1, Repair::NONE, 128 * MIB).expect("alone");
        take_down(&notes, 2, Repair::NONE, 4096).expect("light ones aren't counted");
        assert!(take_down(&notes, 3, Repair::NONE, 5000).is_err());
        assert_eq!(notes.refused(), Some(Tag(3)));
    }

    #[test]
    fn a_refused_delivery_weighs_nothing() {
        let notes = Notes::default();
        take_down(&notes, 1, Repair::NONE, 128 * MIB).expect("alone");
        assert!(take_down(&notes, 2, Repair::NONE, MIB).is_err());
        drop(notes.take(Tag(1)));
        assert_eq!(notes.0.account.bytes.load(Ordering::Relaxed), 0);
    }

    /// Lets deliveries of 1 MiB come until one has to wait; says how many came.
    fn come(notes: &Notes, from: u64) -> u64 {
        (from..)
            .take_while(|tag| {
                let comes = !notes.has_to_wait(MIB);
                if comes {
                    take_down(notes, *tag, Repair::NONE, MIB).expect("nothing ends it");
                }
                comes
            })
            .count() as u64
    }

    #[test]
    fn the_patient_bound_all_deliveries_and_each_exception() {
        let notes = Notes::patient();
        let light = |tag| take_down(&notes, tag, Repair::NONE, 100).expect("nothing ends it");
        let mut tag = 0;
        while !notes.has_to_wait(100) {
            tag += 1;
            light(tag);
        }
        assert_eq!(tag, FLOW_BYTES_MAX / (100 + DELIVERY_BYTES), "light ones count too");
        (1..=tag).for_each(|tag| drop(notes.take(Tag(tag))));
        assert_eq!(come(&notes, 1), 3);
        notes.relent(2 * MIB);
        assert_eq!(come(&notes, 4), 2);
        let leeway = notes.leeway();
        assert_eq!(come(&notes, 6), 127 - 5);
        drop(leeway);
        (1..=124).for_each(|tag| drop(notes.take(Tag(tag))));
        assert_eq!(come(&notes, 200), 2, "three are there");
        (125..=201).for_each(|tag| drop(notes.take(Tag(tag))));
        assert_eq!(come(&notes, 300), 3, "who has caught up has to keep up");
        assert_eq!(notes.refused(), None);
    }

    #[tokio::test]
    async fn a_flood_is_what_no_leeway_helps() {
        let notes = Notes::patient();
        assert!(!notes.has_to_wait(200 * MIB), "alone");
        take_down(&notes, 1, Repair::NONE, 127 * MIB).expect("nothing ends it");
        assert!(notes.has_to_wait(1000));
        assert!(notes.flooded().now_or_never().is_none(), "it is only too much without leeway");
        assert!(notes.has_to_wait(MIB));
        notes.flooded().await;
        drop(notes.take(Tag(1)));
        assert!(!notes.has_to_wait(MIB));
        assert!(notes.flooded().now_or_never().is_none());
    }
}
