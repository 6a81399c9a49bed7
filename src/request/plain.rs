//! The shapes without an envelope: `{"videoNo": …}`, `{"videoNos": […]}`, `[…]`.

use compact_str::CompactString;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess};
use smallvec::{SmallVec, smallvec};

use super::shape::{Names, Place, Seed, Shape};
use super::{Origin, Request};
use crate::id::{Id, Namespace};
use crate::text::cut;

/// A request in one of the three shapes.
pub(super) struct Plain {
    pub(super) place: Place,
    pub(super) ids_max: usize,
}

impl<'de> Shape<'de> for Plain {
    type Value = Request;
    const EXPECTED: &'static str = "an object or a list";

    fn place(&self) -> Place {
        self.place
    }

    fn list<A: SeqAccess<'de>>(self, items: A) -> Result<Request, A::Error> {
        let Self { place, ids_max } = self;
        let ids = Ids { place, ids_max }.list(items)?;
        Ok(Request { ids, namespace: None, origin: None })
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Request, A::Error> {
        let Self { place, ids_max } = self;
        let mut names = Names::default();
        let (mut one, mut many, mut namespace) = (None, None, None);
        let mut origin = Origin::default();
        while let Some(name) = names.next(place, &mut members)? {
            match name.as_ref() {
                "videoNo" => {
                    one = Some(members.next_value_seed(Seed(OneId(place.member("videoNo"))))?);
                }
                "videoNos" => {
                    let ids = Ids { place: place.member("videoNos"), ids_max };
                    many = Some(members.next_value_seed(Seed(ids))?);
                }
                "namespace" => {
                    namespace = members.next_value_seed(Seed(OneNamespace(place.member("namespace"))))?;
                }
                "requestId" => {
                    origin.request_id = members.next_value_seed(Seed(Text(place.member("requestId"))))?;
                }
                "requestedBy" => {
                    let text = Text(place.member("requestedBy"));
                    origin.requested_by = members.next_value_seed(Seed(text))?;
                }
                "reason" => {
                    origin.reason = members.next_value_seed(Seed(Text(place.member("reason"))))?;
                }
                _ => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        let hint = if names.contains("specversion") {
            "; an event needs the content type application/cloudevents+json"
        } else {
            ""
        };
        names.check_unique(place)?;
        let ids = match (one, many) {
            (Some(id), None) => smallvec![id],
            (None, Some(ids)) => ids,
            (Some(_), Some(_)) => {
                return Err(A::Error::custom(format_args!("{place} has both videoNo and videoNos")));
            }
            (None, None) => {
                return Err(A::Error::custom(format_args!("{place} has neither videoNo nor videoNos{hint}")));
            }
        };
        let origin = (origin != Origin::default()).then(|| Box::new(origin));
        Ok(Request { ids, namespace, origin })
    }
}

struct Ids {
    place: Place,
    ids_max: usize,
}

impl<'de> Shape<'de> for Ids {
    type Value = SmallVec<[Id; 1]>;
    const EXPECTED: &'static str = "a list";

    fn place(&self) -> Place {
        self.place
    }

    fn list<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let Self { place, ids_max } = self;
        let mut ids = SmallVec::new();
        while let Some(id) = items.next_element_seed(Seed(OneId(place.index(ids.len()))))? {
            if ids.len() == ids_max {
                return Err(A::Error::custom(format_args!("{place} has more than {ids_max} IDs")));
            }
            ids.push(id);
        }
        if ids.is_empty() {
            return Err(A::Error::custom(format_args!("{place} is an empty list")));
        }
        Ok(ids)
    }
}

struct OneId(Place);

impl Shape<'_> for OneId {
    type Value = Id;
    const EXPECTED: &'static str = "a string";

    fn place(&self) -> Place {
        self.0
    }

    fn string<E: Error>(self, text: &str) -> Result<Id, E> {
        Id::new(text).map_err(|unfit| E::custom(format_args!("{} {unfit}", self.0)))
    }
}

struct OneNamespace(Place);

impl Shape<'_> for OneNamespace {
    type Value = Option<Namespace>;
    const EXPECTED: &'static str = "a string or null";

    fn place(&self) -> Place {
        self.0
    }

    fn null<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn string<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Namespace::new(text).map(Some).map_err(|unfit| E::custom(format_args!("{} {unfit}", self.0)))
    }
}

struct Text(Place);

impl Shape<'_> for Text {
    type Value = Option<CompactString>;
    const EXPECTED: &'static str = "a string or null";

    fn place(&self) -> Place {
        self.0
    }

    fn null<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn string<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(cut(text, Origin::BYTES_MAX).into()))
    }
}
