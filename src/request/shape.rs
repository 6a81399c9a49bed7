//! What a JSON value may be, and the sentence when it is something else.
//!
//! One [`Visitor`] for all: a [`Shape`] says which kinds it takes, every other kind becomes "… is …, expected …".
//! Values go straight into what they are to become; no tree of them is built.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use crate::text::Shown;

/// Where in the message a value stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    in_data: bool,
    member: Option<&'static str>,
    index: Option<usize>,
}

impl Place {
    pub(super) const BODY: Self = Self { in_data: false, member: None, index: None };
    pub(super) const DATA: Self = Self { in_data: true, member: None, index: None };

    pub(super) fn member(self, name: &'static str) -> Self {
        Self { member: Some(name), ..self }
    }

    pub(super) fn index(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.in_data, self.member) {
            (false, None) if self.index.is_none() => f.write_str("the body")?,
            (false, None) => {}
            (false, Some(member)) => f.write_str(member)?,
            (true, None) => f.write_str("data")?,
            (true, Some(member)) => write!(f, "data.{member}")?,
        }
        self.index.map_or(Ok(()), |index| write!(f, "[{index}]"))
    }
}

/// The kinds of JSON value that are taken at a place; none, unless implemented.
pub(super) trait Shape<'de>: Sized {
    /// What the value becomes.
    type Value;
    /// What is taken, for the sentence when it is something else.
    const EXPECTED: &'static str;

    fn place(&self) -> Place;

    fn null<E: Error>(self) -> Result<Self::Value, E> {
        Err(self.unexpected("null"))
    }

    fn string<E: Error>(self, _text: &str) -> Result<Self::Value, E> {
        Err(self.unexpected("a string"))
    }

    fn list<A: SeqAccess<'de>>(self, _items: A) -> Result<Self::Value, A::Error> {
        Err(self.unexpected("a list"))
    }

    fn object<A: MapAccess<'de>>(self, _members: A) -> Result<Self::Value, A::Error> {
        Err(self.unexpected("an object"))
    }

    fn unexpected<E: Error>(&self, kind: &str) -> E {
        E::custom(format_args!("{} is {kind}, expected {}", self.place(), Self::EXPECTED))
    }
}

/// Makes a [`Shape`] what serde drives.
pub(super) struct Seed<S>(pub(super) S);

impl<'de, S: Shape<'de>> DeserializeSeed<'de> for Seed<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Shape<'de>> Visitor<'de> for Seed<S> {
    type Value = S::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(S::EXPECTED)
    }

    fn visit_unit<E: Error>(self) -> Result<S::Value, E> {
        self.0.null()
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<S::Value, E> {
        Err(self.0.unexpected("a boolean"))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<S::Value, E> {
        Err(self.0.unexpected("a number"))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<S::Value, E> {
        Err(self.0.unexpected("a number"))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<S::Value, E> {
        Err(self.0.unexpected("a number"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<S::Value, E> {
        self.0.string(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<S::Value, A::Error> {
        self.0.list(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<S::Value, A::Error> {
        self.0.object(members)
    }
}

/// Members that an object may have: all their names are kept until its end, and a few KiB, compressed, may hold
/// millions.
pub(super) const MEMBERS_MAX: usize = 1000;

/// The names of an object's members, borrowed from the body where they hold no escapes.
#[derive(Default)]
pub(super) struct Names<'de>(SmallVec<[Cow<'de, str>; 4]>);

impl<'de> Names<'de> {
    /// The name of the next member of `object`; its value has to be taken next.
    pub(super) fn next<A: MapAccess<'de>>(
        &mut self,
        object: Place,
        members: &mut A,
    ) -> Result<Option<&Cow<'de, str>>, A::Error> {
        let Some(name) = members.next_key_seed(Name)? else { return Ok(None) };
        if self.0.len() == MEMBERS_MAX {
            return Err(A::Error::custom(format_args!("{object} has more than {MEMBERS_MAX} members")));
        }
        self.0.push(name);
        Ok(self.0.last())
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|seen| seen == name)
    }

    /// Refuses an object that names a member twice: which of the two counts is anybody's guess (RFC 8259, 4).
    pub(super) fn check_unique<E: Error>(mut self, object: Place) -> Result<(), E> {
        self.0.sort_unstable();
        match self.0.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(E::custom(format_args!("{object} has the member {} twice", Shown(&pair[0])))),
            None => Ok(()),
        }
    }
}

struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}
