//! The envelope: a CloudEvents 1.0 structured event in the JSON format.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>

use serde::de::{Error, IgnoredAny, MapAccess};

use super::Request;
use super::plain::Plain;
use super::shape::{Names, Place, Seed, Shape};

/// An event whose `data` is a plain request.
pub(super) struct Event {
    pub(super) ids_max: usize,
}

impl<'de> Shape<'de> for Event {
    type Value = Request;
    const EXPECTED: &'static str = "an event (an object)";

    fn place(&self) -> Place {
        Place::BODY
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Request, A::Error> {
        let mut names = Names::default();
        let mut request = None;
        while let Some(name) = names.next(Place::BODY, &mut members)? {
            match name.as_ref() {
                "specversion" => members.next_value_seed(Seed(Version))?,
                "id" => members.next_value_seed(Seed(Attribute("id")))?,
                "source" => members.next_value_seed(Seed(Attribute("source")))?,
                "type" => members.next_value_seed(Seed(Attribute("type")))?,
                "data" => {
                    let data = Plain { place: Place::DATA, ids_max: self.ids_max };
                    request = Some(members.next_value_seed(Seed(data))?);
                }
                "data_base64" => return Err(A::Error::custom("data_base64 is not supported, expected data")),
                _ => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        for attribute in ["specversion", "id", "source", "type"] {
            if !names.contains(attribute) {
                return Err(A::Error::custom(format_args!("the event has no {attribute}")));
            }
        }
        names.check_unique(Place::BODY)?;
        request.ok_or_else(|| A::Error::custom("the event has no data"))
    }
}

struct Version;

impl Shape<'_> for Version {
    type Value = ();
    const EXPECTED: &'static str = "the string 1.0";

    fn place(&self) -> Place {
        Place::BODY.member("specversion")
    }

    fn string<E: Error>(self, text: &str) -> Result<(), E> {
        if text == "1.0" { Ok(()) } else { Err(self.unexpected("another string")) }
    }
}

struct Attribute(&'static str);

impl Shape<'_> for Attribute {
    type Value = ();
    const EXPECTED: &'static str = "a string that is not empty";

    fn place(&self) -> Place {
        Place::BODY.member(self.0)
    }

    fn string<E: Error>(self, text: &str) -> Result<(), E> {
        if text.is_empty() { Err(self.unexpected("empty")) } else { Ok(()) }
    }
}
