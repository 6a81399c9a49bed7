//! The IDs in hand, each once, with the deliveries that wait for it.

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use smallvec::SmallVec;

use super::Time;
use crate::delivery::Tag;
use crate::id::{Id, Namespace};

/// Refers to an item; stale once the item is gone, even if its place is taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ItemKey {
    index: u32,
    generation: u32,
}

/// Refers to a namespace for as long as an item of it exists. IDs of different slots never share a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(u32);

/// What an ID met when a delivery asked for its deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// Nobody had asked: it needs a call.
    New(ItemKey),
    /// Its deletion is pending or in flight, and now also this delivery waits for it.
    Waiting,
    /// This very delivery names it twice.
    Twice,
    /// It was deleted since this message was published.
    Deleted,
}

/// Every ID that is pending, in flight, or was deleted recently enough for its ack to have been lost.
#[derive(Debug)]
pub(super) struct Items {
    items: Vec<Item>,
    vacant: Vec<u32>,
    /// Indices into `items`, by (slot, ID).
    index: HashTable<u32>,
    hasher: FixedState,
    /// Deleted items in the order of their deletion; stale keys among them are skipped.
    deleted: VecDeque<ItemKey>,
    deleted_max: usize,
    live: usize,
    /// Waiters of all items.
    waiting: usize,
    namespaces: Vec<NamespaceSlot>,
    slots: BTreeMap<Option<Namespace>, Slot>,
    free_slots: Vec<Slot>,
}

#[derive(Debug)]
struct Item {
    id: Id,
    waiters: SmallVec<[Tag; 2]>,
    since: Time,
    slot: Slot,
    generation: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Deleted,
    Vacant,
}

#[derive(Debug)]
struct NamespaceSlot {
    namespace: Option<Namespace>,
    items: usize,
}

impl Items {
    /// Remembers up to `deleted_max` deleted IDs; `seed` keeps publishers from choosing IDs that collide.
    pub(super) fn new(deleted_max: usize, seed: u64) -> Self {
        Self {
            items: Vec::new(),
            vacant: Vec::new(),
            index: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            deleted: VecDeque::new(),
            deleted_max,
            live: 0,
            waiting: 0,
            namespaces: Vec::new(),
            slots: BTreeMap::new(),
            free_slots: Vec::new(),
        }
    }

    /// IDs pending or in flight.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// How many times a delivery waits for an ID.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The slot of `namespace`, made if there is none. It stays valid while items of it exist.
    pub(super) fn slot(&mut self, namespace: Option<&Namespace>) -> Slot {
        if let Some(slot) = self.slots.get(&namespace.cloned()) {
            return *slot;
        }
        let fresh = NamespaceSlot { namespace: namespace.cloned(), items: 0 };
        let slot = if let Some(slot) = self.free_slots.pop() {
            self.namespaces[slot.0 as usize] = fresh;
            slot
        } else {
            self.namespaces.push(fresh);
            Slot(u32::try_from(self.namespaces.len() - 1).expect("there are fewer namespaces than items"))
        };
        self.slots.insert(namespace.cloned(), slot);
        slot
    }

    /// The namespace of `slot`.
    pub(super) fn namespace(&self, slot: Slot) -> Option<&Namespace> {
        self.namespaces[slot.0 as usize].namespace.as_ref()
    }

    /// Lets `tag` wait for the deletion of `id`. If that has happened already, `suffices` says of the time at which it
    /// was asked for whether it counts for this message too; if not, it is asked for anew.
    pub(super) fn join(
        &mut self,
        slot: Slot,
        id: Id,
        tag: Tag,
        suffices: impl FnOnce(Time) -> bool,
        now: Time,
    ) -> Joined {
        let hash = self.hasher.hash_one((slot, &id));
        let items = &mut self.items;
        let same = |index: &u32| items[*index as usize].slot == slot && items[*index as usize].id == id;
        let hasher = |index: &u32| {
            let item = &items[*index as usize];
            self.hasher.hash_one((item.slot, &item.id))
        };
        match self.index.entry(hash, same, hasher) {
            Entry::Occupied(found) => {
                let index = *found.get();
                let item = &mut items[index as usize];
                match item.state {
                    State::Live if item.waiters.last() == Some(&tag) => Joined::Twice,
                    State::Live => {
                        item.waiters.push(tag);
                        self.waiting += 1;
                        Joined::Waiting
                    }
                    State::Deleted if suffices(item.since) => Joined::Deleted,
                    State::Deleted => {
                        item.state = State::Live;
                        item.since = now;
                        item.waiters.push(tag);
                        self.live += 1;
                        self.waiting += 1;
                        Joined::New(ItemKey { index, generation: item.generation })
                    }
                    State::Vacant => unreachable!("vacant items are not in the index"),
                }
            }
            Entry::Vacant(place) => {
                let waiters = SmallVec::from_slice(&[tag]);
                self.live += 1;
                self.waiting += 1;
                self.namespaces[slot.0 as usize].items += 1;
                let key = if let Some(index) = self.vacant.pop() {
                    let item = &mut items[index as usize];
                    let generation = item.generation;
                    *item = Item { id, waiters, since: now, slot, generation, state: State::Live };
                    ItemKey { index, generation }
                } else {
                    let index = u32::try_from(items.len()).expect("IDs in hand are bounded");
                    items.push(Item { id, waiters, since: now, slot, generation: 0, state: State::Live });
                    ItemKey { index, generation: 0 }
                };
                place.insert(key.index);
                Joined::New(key)
            }
        }
    }

    /// The ID of a live item.
    pub(super) fn id(&self, key: ItemKey) -> &Id {
        &self.live_item(key).id
    }

    /// The slot of a live item.
    pub(super) fn slot_of(&self, key: ItemKey) -> Slot {
        self.live_item(key).slot
    }

    /// The namespace of a live item.
    pub(super) fn namespace_of(&self, key: ItemKey) -> Option<&Namespace> {
        self.namespace(self.slot_of(key))
    }

    /// Since when a live item has been pending.
    pub(super) fn since(&self, key: ItemKey) -> Time {
        self.live_item(key).since
    }

    /// Whether the item is live.
    pub(super) fn is_live(&self, key: ItemKey) -> bool {
        let item = &self.items[key.index as usize];
        item.generation == key.generation && item.state == State::Live
    }

    /// Whether the item is live and somebody waits for it.
    pub(super) fn is_wanted(&self, key: ItemKey) -> bool {
        self.is_live(key) && !self.items[key.index as usize].waiters.is_empty()
    }

    /// Marks a live item as deleted and remembers it; returns those who waited for it.
    pub(super) fn delete(&mut self, key: ItemKey) -> SmallVec<[Tag; 2]> {
        debug_assert!(self.is_live(key));
        let item = &mut self.items[key.index as usize];
        item.state = State::Deleted;
        let waiters = std::mem::take(&mut item.waiters);
        self.live -= 1;
        self.waiting -= waiters.len();
        self.deleted.push_back(key);
        while self.deleted.len() > self.deleted_max {
            self.forget_oldest();
        }
        waiters
    }

    /// Removes a live item; returns its ID and those who waited for it.
    pub(super) fn remove(&mut self, key: ItemKey) -> (Id, SmallVec<[Tag; 2]>) {
        debug_assert!(self.is_live(key));
        self.live -= 1;
        let waiters = std::mem::take(&mut self.items[key.index as usize].waiters);
        self.waiting -= waiters.len();
        (self.vacate(key.index), waiters)
    }

    /// Forgets who waits for what: the epoch is over, or everything was given back.
    pub(super) fn clear_waiters(&mut self) {
        for item in &mut self.items {
            item.waiters.clear();
        }
        self.waiting = 0;
    }

    fn forget_oldest(&mut self) {
        let Some(key) = self.deleted.pop_front() else { return };
        let item = &self.items[key.index as usize];
        if item.generation == key.generation && item.state == State::Deleted {
            self.vacate(key.index);
        }
    }

    fn vacate(&mut self, index: u32) -> Id {
        let item = &mut self.items[index as usize];
        let hash = self.hasher.hash_one((item.slot, &item.id));
        item.state = State::Vacant;
        item.generation = item.generation.wrapping_add(1);
        let id = item.id.clone();
        let slot = item.slot;
        let namespace = &mut self.namespaces[slot.0 as usize];
        namespace.items -= 1;
        if namespace.items == 0 {
            self.slots.remove(&namespace.namespace);
            self.free_slots.push(slot);
        }
        if let Ok(found) = self.index.find_entry(hash, |candidate| *candidate == index) {
            found.remove();
        }
        self.vacant.push(index);
        id
    }

    fn live_item(&self, key: ItemKey) -> &Item {
        debug_assert!(self.is_live(key));
        &self.items[key.index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `id` be asked for and removed in `namespace`; where its slot is.
    fn pass(items: &mut Items, namespace: &str, id: &str) -> Slot {
        let slot = items.slot(Namespace::new(namespace).ok().as_ref());
        let joined = items.join(slot, Id::new(id).expect("fit"), Tag(1), |_| false, Time::default());
        let Joined::New(key) = joined else { panic!("{joined:?}") };
        items.remove(key);
        slot
    }

    #[test]
    fn namespaces_that_nobody_uses_any_more_take_no_room() {
        let mut items = Items::new(0, 7);
        let first = pass(&mut items, "n0", "a");
        for n in 1..100 {
            assert_eq!(pass(&mut items, &format!("n{n}"), "a"), first);
        }
        // Not before the last of its items is gone.
        let slot = items.slot(Namespace::new("kept").ok().as_ref());
        items.join(slot, Id::new("a").expect("fit"), Tag(1), |_| false, Time::default());
        assert_eq!(pass(&mut items, "kept", "b"), slot);
        assert_ne!(pass(&mut items, "other", "a"), slot);
        assert_eq!(items.namespace(slot).map(Namespace::as_str), Some("kept"));
    }
}
