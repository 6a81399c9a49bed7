//! Inputs: the corpus, mutations of it, and JSON built from fragments.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Bytes whose `Debug` can be pasted into a Rust literal, or into `printf`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Input(pub(crate) Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// Every file below `tests/corpus/{folder}`, in the order of their names.
pub(crate) fn corpus(folder: &str) -> Vec<Input> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let entries = std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    assert!(files.len() >= 5, "a corpus in {}", path.display());
    files.iter().map(|file| Input(std::fs::read(file).expect("readable"))).collect()
}

/// Up to a few changes to a file of the corpus.
pub(crate) fn mutated(folder: &str) -> impl Strategy<Value = Input> + use<> {
    let corpus = corpus(folder);
    let others = corpus.clone();
    (select(corpus), vec(change(), 0..6)).prop_map(move |(Input(mut bytes), changes)| {
        for change in changes {
            change.apply(&mut bytes, &others);
        }
        Input(bytes)
    })
}

/// Pieces that get past the first checks more often than noise does.
const PIECES: [&str; 44] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\u2028",
    "\\\"",
    "null",
    "true",
    "-",
    "0",
    "1e999",
    "-0",
    "1.5",
    "99999999999999999999999999",
    " ",
    "\n",
    "\r",
    "\u{feff}",
    "\u{0}",
    "\u{1b}[31m",
    "\u{9b}",
    "\u{202e}",
    "\u{2028}",
    "\u{a0}",
    "ä",
    "\u{10ffff}",
    "\"videoNo\":",
    "\"videoNos\":[",
    "\"VI1\"",
    "\"namespace\":",
    "\"data\":",
    "\"specversion\":\"1.0\",",
    "\"code\":",
    "\"0000\"",
    "\"msg\":",
    "200",
    " at line 9 column 9",
    " at byte 9",
];

/// One change; positions are shares of the length.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Put(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
    Cut(Index),
    /// The rest comes from another file.
    Splice(Index, Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = || any::<Index>();
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, 1 << bit)),
        (at(), select(PIECES.to_vec())).prop_map(|(at, piece)| Change::Put(at, piece.into())),
        (at(), vec(any::<u8>(), 1..4)).prop_map(|(at, bytes)| Change::Put(at, bytes)),
        (at(), 1..16_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        (at(), 1..8_usize, 1..2000_usize).prop_map(|(at, count, times)| Change::Repeat(at, count, times)),
        at().prop_map(Change::Cut),
        (at(), at(), at()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ]
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>, others: &[Input]) {
        let place = |index: Index, length: usize| index.index(length + 1);
        match self {
            Self::Flip(at, bits) => {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] ^= bits;
                }
            }
            Self::Put(at, piece) => {
                let at = place(at, bytes.len());
                bytes.splice(at..at, piece);
            }
            Self::Remove(at, count) => {
                let at = place(at, bytes.len());
                bytes.drain(at..bytes.len().min(at + count));
            }
            Self::Repeat(at, count, times) => {
                let at = place(at, bytes.len());
                let part = bytes[at..bytes.len().min(at + count)].repeat(times);
                bytes.splice(at..at, part);
            }
            Self::Cut(at) => bytes.truncate(place(at, bytes.len())),
            Self::Splice(at, other, from) => {
                let Input(other) = other.get(others);
                bytes.truncate(place(at, bytes.len()));
                bytes.extend_from_slice(&other[place(from, other.len())..]);
            }
        }
    }
}

/// An object with these members' names among others, each with any value, and now and then one of them twice.
pub(crate) fn object(names: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    let name = prop_oneof![
        8 => select(names.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    vec((name, value()), 0..6).prop_map(|members| {
        let members: Vec<_> =
            members.into_iter().map(|(name, value)| format!("{}:{value}", json(&name))).collect();
        format!("{{{}}}", members.join(","))
    })
}

/// Any JSON value.
pub(crate) fn value() -> impl Strategy<Value = String> + Clone {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        select(vec!["0", "200", "400", "429", "-0", "1e999", "1.0", "99999999999999999999999"])
            .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        1 => select(vec!["null", "true", "false"]).prop_map(str::to_owned),
        1 => number,
        6 => string(),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            3 => vec(inner.clone(), 0..7).prop_map(|items| format!("[{}]", items.join(","))),
            1 => vec((any::<String>(), inner), 0..3).prop_map(|members| {
                let members: Vec<_> =
                    members.into_iter().map(|(name, value)| format!("{}:{value}", json(&name))).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// A string that might be an ID, a code, a version, or nothing of the kind.
pub(crate) fn string() -> impl Strategy<Value = String> + Clone {
    let text = prop_oneof![
        4 => "[!-~]{1,24}",
        2 => select(vec!["VI1", "VI2", "1.0", "0000", "0001", "0409", "0429", "9009", "200", "429", "x", ""])
            .prop_map(str::to_owned),
        1 => "[ -~ä\u{a0}\u{85}\u{180e}\u{200b}\u{2028}\u{202e}\u{3000}\\n]{0,6}",
        1 => any::<String>(),
        1 => (120..136_usize).prop_map(|length| "ä".repeat(length)),
    ];
    text.prop_map(|text| json(&text))
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether an object anywhere in the JSON text `body` names a member twice; `false` if it's no JSON.
pub(crate) fn names_twice(body: &[u8]) -> bool {
    serde_json::from_slice::<Twice>(body).is_ok_and(|Twice(twice)| twice)
}

struct Twice(bool);

impl<'de> Deserialize<'de> for Twice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TwiceVisitor)
    }
}

struct TwiceVisitor;

impl<'de> Visitor<'de> for TwiceVisitor {
    type Value = Twice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Twice, E> {
        Ok(Twice(false))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Twice, E> {
        Ok(Twice(false))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Twice, E> {
        Ok(Twice(false))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Twice, E> {
        Ok(Twice(false))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Twice, E> {
        Ok(Twice(false))
    }

    fn visit_str<E>(self, _: &str) -> Result<Twice, E> {
        Ok(Twice(false))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Twice, A::Error> {
        let mut any = false;
        while let Some(Twice(twice)) = items.next_element()? {
            any |= twice;
        }
        Ok(Twice(any))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Twice, A::Error> {
        let (mut any, mut names) = (false, BTreeSet::new());
        while let Some((name, Twice(twice))) = members.next_entry::<String, _>()? {
            any |= twice || !names.insert(name);
        }
        Ok(Twice(any))
    }
}
