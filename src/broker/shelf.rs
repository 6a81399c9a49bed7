//! The deliveries in hand: what the broker still counts as unsettled on one channel.

use std::collections::BTreeMap;
use std::sync::Arc;

use lapin::Acker;
use lapin::message::Delivery;
use lapin::types::ShortString;

use super::sieve::{Brief, Note, Properties};
use crate::delivery::Tag;

/// IDs that are opened at once, give or take one message's: a small compressed body may hold thousands.
const WEIGHT_MAX: usize = 10_000;

/// One channel's unsettled deliveries, by tag.
///
/// A map and not a ring: one message may stay for hours while millions pass it by.
#[derive(Debug)]
pub(super) struct Shelf {
    parcels: BTreeMap<Tag, Parcel>,
    /// The tag of the next delivery to arrive.
    next: Tag,
    /// The first tag not yet handed over to the worker.
    unhanded: Tag,
    /// The first tag that may belong to a message which was not in the queue when consuming began.
    newcomer: Tag,
    /// The last message's route: as good as all messages share it.
    route: Arc<Route>,
}

/// A delivery without what is only needed to receive it, as thousands of them are kept.
#[derive(Debug)]
pub(super) struct Parcel {
    /// Settles it; the only way to, as lapin's raw acks know no epoch.
    pub(super) acker: Acker,
    /// The body, as it came.
    pub(super) body: Vec<u8>,
    /// Where it was published to.
    pub(super) route: Arc<Route>,
    /// It was delivered before.
    pub(super) redelivered: bool,
    /// It was in the queue when consuming began.
    pub(super) waited: bool,
    /// What the sieve had to say of it, and its properties.
    pub(super) note: Note,
}

impl Parcel {
    /// Its properties, if it has any.
    pub(super) fn brief(&self) -> Brief<'_> {
        self.note.properties().map(Properties::brief).unwrap_or_default()
    }
}

/// What a message was published to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
}

/// Deliveries of a channel have to count up by one; these did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("delivery tag {} came where {} was due", .got.0, .due.0)]
pub(super) struct Gap {
    got: Tag,
    due: Tag,
}

impl Shelf {
    pub(super) fn new() -> Self {
        Self {
            parcels: BTreeMap::new(),
            next: Tag(1),
            unhanded: Tag(1),
            newcomer: Tag(1),
            route: Arc::default(),
        }
    }

    /// The next `ready` deliveries, and no others, are those that are in the queue now: nobody else consumes, and a queue
    /// hands out its messages in the order in which they came.
    pub(super) fn expect_waiting(&mut self, ready: u32) {
        self.newcomer = Tag(self.next.0 + u64::from(ready));
    }

    /// Keeps `delivery` until it is settled.
    pub(super) fn put(&mut self, delivery: Delivery, note: Note) -> Result<(), Gap> {
        let tag = Tag(delivery.delivery_tag);
        if tag != self.next {
            return Err(Gap { got: tag, due: self.next });
        }
        self.next = Tag(tag.0 + 1);
        let route = Route { exchange: delivery.exchange, routing_key: delivery.routing_key };
        if *self.route != route {
            self.route = Arc::new(route);
        }
        let mut parcel = Parcel {
            acker: delivery.acker,
            body: delivery.data,
            route: Arc::clone(&self.route),
            redelivered: delivery.redelivered,
            waited: tag < self.newcomer,
            note,
        };
        if parcel.waited && parcel.brief().is_fickle() {
            self.newcomer = tag;
            parcel.waited = false;
        }
        self.parcels.insert(tag, parcel);
        Ok(())
    }

    /// How many deliveries there have been.
    pub(super) fn taken(&self) -> u64 {
        self.next.0 - 1
    }

    /// How many of them are not here any more.
    pub(super) fn settled(&self) -> u64 {
        self.taken() - self.parcels.len() as u64
    }

    /// Whether there is something the worker has not been handed.
    pub(super) fn has_unhanded(&self) -> bool {
        self.unhanded < self.next
    }

    /// Passes up to `max` deliveries through `open` on their way to the worker, in tag order, and fewer if they turn
    /// out heavy: what was opened has a weight, and no more is opened once that adds up to [`WEIGHT_MAX`].
    pub(super) fn hand_over<T>(
        &mut self,
        max: usize,
        mut open: impl FnMut(Tag, &Parcel) -> (T, usize),
    ) -> Vec<T> {
        let mut handed = Vec::with_capacity(max.min((self.next.0 - self.unhanded.0) as usize));
        let mut weight = 0;
        for (tag, parcel) in self.parcels.range(self.unhanded..).take(max) {
            let (opened, more) = open(*tag, parcel);
            handed.push(opened);
            self.unhanded = Tag(tag.0 + 1);
            weight += more;
            if weight >= WEIGHT_MAX {
                break;
            }
        }
        handed
    }

    /// Takes down all that was not handed over.
    pub(super) fn take_unhanded(&mut self) -> BTreeMap<Tag, Parcel> {
        let unhanded = self.parcels.split_off(&self.unhanded);
        self.unhanded = self.next;
        unhanded
    }

    /// The first that is still here.
    pub(super) fn first(&self) -> Option<Tag> {
        self.parcels.first_key_value().map(|(tag, _)| *tag)
    }

    /// How many are in hand.
    pub(super) fn len(&self) -> usize {
        self.parcels.len()
    }

    /// What is kept under `tag`.
    pub(super) fn get(&self, tag: Tag) -> Option<&Parcel> {
        self.parcels.get(&tag)
    }

    /// Takes down one.
    pub(super) fn take(&mut self, tag: Tag) -> Option<Parcel> {
        self.parcels.remove(&tag)
    }

    /// Takes down everything up to `tag`: how many, and the last of them, whose acker covers them all.
    pub(super) fn take_up_to(&mut self, tag: Tag) -> (u64, Option<Parcel>) {
        let mut count = 0;
        let mut last = None;
        while let Some(first) = self.parcels.first_entry() {
            if *first.key() > tag {
                break;
            }
            last = Some(first.remove());
            count += 1;
        }
        (count, last)
    }
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;

    use super::*;

    fn shelf(deliveries: u64) -> Shelf {
        let mut shelf = Shelf::new();
        for tag in 1..=deliveries {
            shelf.put(delivery(tag), note()).expect("contiguous");
        }
        shelf
    }

    fn note() -> Note {
        Note::specimen(&BasicProperties::default(), false)
    }

    fn delivery(tag: u64) -> Delivery {
        Delivery::mock(tag, "exchange".into(), "key".into(), false, vec![b'x'; tag as usize])
    }

    #[test]
    fn tags_must_count_up_by_one() {
        let mut shelf = shelf(2);
        assert_eq!(shelf.put(delivery(4), note()), Err(Gap { got: Tag(4), due: Tag(3) }));
        assert_eq!(shelf.put(delivery(2), note()), Err(Gap { got: Tag(2), due: Tag(3) }));
        assert_eq!(shelf.put(delivery(3), note()), Ok(()));
        assert_eq!(shelf.taken(), 3);
    }

    #[test]
    fn deliveries_are_handed_over_once_and_in_order() {
        let mut shelf = shelf(5);
        assert_eq!(shelf.hand_over(2, |tag, parcel| ((tag.0, parcel.body.len()), 1)), [(1, 1), (2, 2)]);
        assert_eq!(shelf.hand_over(9, |tag, _| (tag.0, 1)), [3, 4, 5]);
        assert!(!shelf.has_unhanded());
        shelf.put(delivery(6), note()).expect("contiguous");
        assert!(shelf.has_unhanded());
        assert_eq!(shelf.hand_over(9, |tag, _| (tag.0, 1)), [6]);
    }

    #[test]
    fn heavy_ones_are_handed_over_a_few_at_a_time() {
        let mut shelf = shelf(5);
        assert_eq!(shelf.hand_over(9, |tag, _| (tag.0, WEIGHT_MAX / 2)), [1, 2]);
        assert_eq!(shelf.hand_over(9, |tag, _| (tag.0, WEIGHT_MAX * 2)), [3], "one goes whatever it weighs");
    }

    #[test]
    fn what_was_not_handed_over_is_taken_down_apart() {
        let mut shelf = shelf(5);
        shelf.hand_over(2, |_, _| ((), 1));
        assert_eq!(shelf.take_unhanded().len(), 3);
        assert!(!shelf.has_unhanded());
        assert_eq!(shelf.take_up_to(Tag(5)).0, 2);
        shelf.put(delivery(6), note()).expect("tags go on after a consumer was cancelled");
        assert_eq!(shelf.hand_over(9, |tag, _| (tag.0, 1)), [6]);
    }

    #[test]
    fn up_to_covers_what_is_left_and_names_its_last() {
        let mut shelf = shelf(5);
        assert!(shelf.take(Tag(4)).is_some());
        assert!(shelf.take(Tag(4)).is_none());
        let (count, last) = shelf.take_up_to(Tag(4));
        assert_eq!(count, 3);
        assert_eq!(last.map(|parcel| parcel.body.len()), Some(3), "4 is settled, so 3 stands for the rest");
        let (count, last) = shelf.take_up_to(Tag(4));
        assert_eq!((count, last.is_none()), (0, true));
        assert!(shelf.get(Tag(5)).is_some());
    }

    #[test]
    fn as_many_as_were_ready_have_waited() {
        let mut shelf = shelf(2);
        shelf.expect_waiting(2);
        for tag in 3..=5 {
            shelf.put(delivery(tag), note()).expect("contiguous");
        }
        let waited = |shelf: &Shelf, tag| shelf.get(Tag(tag)).expect("kept").waited;
        assert_eq!([1, 2, 3, 4, 5].map(|tag| waited(&shelf, tag)), [false, false, true, true, false]);
    }

    #[test]
    fn nobody_has_waited_for_sure_where_messages_overtake_or_expire() {
        let plain = || BasicProperties::default().with_priority(0);
        for fickle in [plain().with_priority(1), plain().with_expiration("60000".into())] {
            let mut shelf = shelf(0);
            shelf.expect_waiting(4);
            for (tag, properties) in [(1, plain()), (2, fickle), (3, plain())] {
                shelf.put(delivery(tag), Note::specimen(&properties, false)).expect("contiguous");
            }
            assert_eq!([1, 2, 3].map(|tag| shelf.get(Tag(tag)).expect("kept").waited), [true, false, false]);
        }
    }

    #[test]
    fn one_route_is_kept_for_all() {
        let mut shelf = shelf(2);
        let first = shelf.take(Tag(1)).expect("kept");
        let second = shelf.take(Tag(2)).expect("kept");
        assert!(Arc::ptr_eq(&first.route, &second.route));
    }
}
