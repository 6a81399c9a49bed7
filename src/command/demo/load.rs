//! What the demo publishes, and what must come of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::delivery::Reason;

/// IDs that begin like this are rejected by the demo's endpoint. No documented ID does.
pub const BAD_PREFIX: &str = "VIBAD";
/// What the other IDs of a [`Flow`] begin with: they are nobody's videos, wherever it is sent.
pub const FLOW_PREFIX: &str = "VILOAD";

/// The messages that are no requests: one of each kind that publishers get wrong.
const MALFORMED: [&str; 6] = [
    "{\"videoNo\": \"VI1\"",
    "{\"videoNos\": []}",
    "{\"videoNo\": 625239098370850816}",
    "{\"videoNo\": \"VI1\", \"videoNos\": [\"VI2\"]}",
    "VI625239098370850816",
    "",
];
/// Messages with a bad ID among good ones; fewer than it takes to put the blame on the endpoint.
const BAD: usize = 5;
/// Of so many messages one repeats an ID.
const DUPLICATE_EVERY: u32 = 10;
/// Of so many messages one has many IDs.
const MULTIPLE_EVERY: u32 = 12;
/// IDs in such a message, up to.
const IDS_MAX: u32 = 40;
/// How far back a repeated ID may lie, in IDs: some repetitions meet their ID before it is deleted, some after.
const DUPLICATE_REACH: u64 = 20_000;
/// Of so many messages of a [`Flow`] one is malformed, and one has a bad ID: often enough to be seen soon, and seldom
/// enough for the calls that a bad ID costs to be had from the quota.
const FLOW_MALFORMED_EVERY: usize = 500;
const FLOW_BAD_EVERY: usize = 2000;

/// A load, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Load {
    /// Bodies in the order of publishing.
    pub messages: Vec<String>,
    /// What must come of it.
    pub expected: Expected,
}

/// What must come of a load, whatever the endpoint does meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Messages published.
    pub messages: u64,
    /// IDs named by well-formed messages, repetitions counted, bad ones not.
    pub mentions: u64,
    /// The IDs to be deleted.
    pub ids: BTreeSet<String>,
    /// Messages to be dead-lettered.
    pub dead_letters: BTreeMap<Reason, u64>,
}

impl Load {
    /// Plans `count` messages, at least a hundred.
    #[must_use]
    pub fn new(count: usize, seed: u64) -> Self {
        let count = count.max(100);
        let mut random = fastrand::Rng::with_seed(seed);
        // Where the few bad messages stand: anywhere, but each at a place of its own.
        let mut places = random.choose_multiple(0..count, MALFORMED.len() + BAD);
        random.shuffle(&mut places);
        let (malformed, bad) = places.split_at(MALFORMED.len());
        let malformed: BTreeMap<usize, &str> = malformed.iter().copied().zip(MALFORMED).collect();
        let bad: BTreeSet<usize> = bad.iter().copied().collect();

        let mut numbers = Numbers { prefix: "VI".to_owned(), random, next: 0, mentions: 0 };
        let mut messages = Vec::with_capacity(count);
        for place in 0..count {
            messages.push(match malformed.get(&place) {
                Some(body) => (*body).to_owned(),
                None if bad.contains(&place) => numbers.with_a_bad_one(place),
                None => numbers.request(place),
            });
        }
        let dead_letters = BTreeMap::from([
            (Reason::Malformed, malformed.len() as u64),
            (Reason::Rejected, bad.len() as u64),
        ]);
        let ids = (0..numbers.next).map(|number| numbers.id(number)).collect();
        let expected = Expected { messages: count as u64, mentions: numbers.mentions, ids, dead_letters };
        Self { messages, expected }
    }
}

/// The same kinds of messages without an end, for a system that is watched rather than checked.
#[derive(Debug)]
pub struct Flow {
    numbers: Numbers,
    place: usize,
}

impl Flow {
    /// Its IDs begin with [`FLOW_PREFIX`] and the seed.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        let random = fastrand::Rng::with_seed(seed.into());
        let prefix = format!("{FLOW_PREFIX}{seed:08x}-");
        Self { numbers: Numbers { prefix, random, next: 0, mentions: 0 }, place: 0 }
    }
}

impl Iterator for Flow {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.place += 1;
        let is_turn = |every| self.place % every == every / 2;
        Some(if is_turn(FLOW_MALFORMED_EVERY) {
            MALFORMED[self.place / FLOW_MALFORMED_EVERY % MALFORMED.len()].to_owned()
        } else if self.place % FLOW_BAD_EVERY == 1 {
            self.numbers.with_a_bad_one(self.place)
        } else {
            self.numbers.request(self.place)
        })
    }
}

/// IDs are handed out by number, without a gap.
#[derive(Debug)]
struct Numbers {
    prefix: String,
    random: fastrand::Rng,
    next: u64,
    mentions: u64,
}

impl Numbers {
    /// A well-formed message, in one of the shapes that the contract has.
    fn request(&mut self, place: usize) -> String {
        if self.random.u32(0..MULTIPLE_EVERY) == 0 {
            let count = self.random.u32(2..=IDS_MAX);
            let list = self.list(count);
            return match self.random.bool() {
                true => format!("[{list}]"),
                false => format!("{{\"videoNos\": [{list}], \"requestId\": \"demo-{place}\"}}"),
            };
        }
        let number = if self.next > 0 && self.random.u32(0..DUPLICATE_EVERY) == 0 {
            self.mentions += 1;
            self.random.u64(self.next.saturating_sub(DUPLICATE_REACH)..self.next)
        } else {
            self.fresh()
        };
        format!("{{\"videoNo\": \"{}\"}}", self.id(number))
    }

    fn with_a_bad_one(&mut self, place: usize) -> String {
        let list = self.list(3);
        format!("{{\"videoNos\": [{list}, \"{BAD_PREFIX}{place}\"], \"requestedBy\": \"demo\"}}")
    }

    fn list(&mut self, count: u32) -> String {
        let ids: Vec<String> = (0..count)
            .map(|_| {
                let number = self.fresh();
                format!("\"{}\"", self.id(number))
            })
            .collect();
        ids.join(", ")
    }

    fn fresh(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.mentions += 1;
        number
    }

    /// The ID with this number: with the prefix `VI`, of the documented form, with 18 digits that look like nothing.
    fn id(&self, number: u64) -> String {
        const RANGE: u64 = 900_000_000_000_000_000;
        // Odd, no multiple of 3 or 5: prime to the range, so different numbers give different IDs.
        const STEP: u64 = 618_033_988_749_894_853;
        let spread = (u128::from(number) * u128::from(STEP)) % u128::from(RANGE);
        format!("{}{}", self.prefix, 100_000_000_000_000_000 + spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request;

    #[test]
    fn the_plan_is_what_the_contract_makes_of_the_messages() {
        let load = Load::new(5000, 7);
        let mut found = Expected { messages: load.messages.len() as u64, ..Expected::default() };
        for body in &load.messages {
            let Ok(request) = request::parse(body.as_bytes(), None, None, 10_000) else {
                *found.dead_letters.entry(Reason::Malformed).or_default() += 1;
                continue;
            };
            let (bad, good): (Vec<_>, Vec<_>) =
                request.ids.iter().partition(|id| id.as_str().starts_with(BAD_PREFIX));
            if !bad.is_empty() {
                *found.dead_letters.entry(Reason::Rejected).or_default() += 1;
            }
            found.mentions += good.len() as u64;
            found.ids.extend(good.into_iter().map(|id| id.as_str().to_owned()));
        }
        assert_eq!(found, load.expected);
        assert!(found.mentions > found.ids.len() as u64, "no duplicates");
    }

    #[test]
    fn a_seed_gives_one_load() {
        assert_eq!(Load::new(1000, 1).messages, Load::new(1000, 1).messages);
        assert_ne!(Load::new(1000, 1).messages, Load::new(1000, 2).messages);
    }

    #[test]
    fn the_smallest_load_has_everything() {
        let expected = Load::new(0, 3).expected;
        assert_eq!(expected.messages, 100);
        assert_eq!(expected.dead_letters[&Reason::Malformed], MALFORMED.len() as u64);
        assert_eq!(expected.dead_letters[&Reason::Rejected], BAD as u64);
    }

    #[test]
    fn ids_are_of_the_documented_form() {
        let is_documented = |id: &String| id.len() == 20 && id[2..].bytes().all(|byte| byte.is_ascii_digit());
        assert!(Load::new(1000, 5).expected.ids.iter().all(is_documented));
    }

    #[test]
    fn a_flow_has_everything_soon_and_names_nobodys_videos() {
        let (mut ids, mut mentions, mut malformed, mut bad) = (BTreeSet::new(), 0, 0, 0);
        for body in Flow::new(9).take(2000) {
            let Ok(request) = request::parse(body.as_bytes(), None, None, 10_000) else {
                malformed += 1;
                continue;
            };
            mentions += request.ids.len();
            bad += request.ids.iter().filter(|id| id.as_str().starts_with(BAD_PREFIX)).count();
            ids.extend(request.ids.into_iter().map(|id| id.as_str().to_owned()));
        }
        assert_eq!((malformed, bad), (4, 1));
        assert!(
            ids.iter().all(|id| id.starts_with("VILOAD00000009-") || id.starts_with(BAD_PREFIX)),
            "{ids:?}"
        );
        assert!(mentions > ids.len(), "no duplicates");
        assert!(ids.len() > 2500, "no messages of many IDs");
    }
}
