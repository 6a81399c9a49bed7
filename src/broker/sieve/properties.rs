//! A message's properties as they lay on the wire.

use lapin::BasicProperties;
use lapin::protocol::basic::parse_properties;

use super::header::{PROPERTIES, Property};

/// Properties that lapin can read, but hasn't: thousands of them are kept, and hardly any is needed.
///
/// They are what follows the body's size in a content header: flags, then a value for each that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Properties(Box<[u8]>);

/// The properties that matter to whoever reads the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct Brief<'a> {
    pub(in crate::broker) content_type: Option<&'a str>,
    pub(in crate::broker) content_encoding: Option<&'a str>,
    pub(in crate::broker) priority: Option<u8>,
    pub(in crate::broker) expires: bool,
    /// Seconds since 1970.
    pub(in crate::broker) timestamp: Option<u64>,
}

impl Properties {
    /// Keeps `bytes`, which have been sifted.
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Reads what stands before and between the rest, and skips that.
    pub(in crate::broker) fn brief(&self) -> Brief<'_> {
        let mut brief = Brief::default();
        // What is cut ends the reading; but what was sifted is whole.
        let _ = brief.read(&self.0);
        brief
    }

    /// All of them.
    pub(in crate::broker) fn parse(&self) -> BasicProperties {
        parse_properties(&self.0[..]).map(|(_, properties)| properties).unwrap_or_default()
    }

    #[cfg(test)]
    pub(in crate::broker) fn of(properties: &BasicProperties) -> Self {
        use lapin::protocol::basic::gen_properties;
        let written = gen_properties(properties)(Vec::new().into()).expect("a vector has room");
        Self(written.into_inner().0.into())
    }
}

impl<'a> Brief<'a> {
    /// A queue with such messages doesn't hand all of them out in the order in which they came: where there are
    /// priorities the last may be first, and what expires may never come.
    pub(in crate::broker) fn is_fickle(&self) -> bool {
        self.expires || self.priority.is_some_and(|priority| priority > 0)
    }

    fn read(&mut self, bytes: &'a [u8]) -> Option<()> {
        let (flags, mut rest) = bytes.split_first_chunk()?;
        let flags = u16::from_be_bytes(*flags);
        for (place, property) in PROPERTIES.into_iter().enumerate() {
            if flags & (1 << (15 - place)) == 0 {
                continue;
            }
            match property {
                Property::Text => {
                    let (length, after) = rest.split_first()?;
                    let (text, after) = after.split_at_checked(usize::from(*length))?;
                    match place {
                        0 => self.content_type = str::from_utf8(text).ok(),
                        1 => self.content_encoding = str::from_utf8(text).ok(),
                        7 => self.expires = true,
                        _ => {}
                    }
                    rest = after;
                }
                Property::Table => {
                    let (length, after) = rest.split_first_chunk()?;
                    rest = after.get(u32::from_be_bytes(*length) as usize..)?;
                }
                Property::Octet => {
                    let (octet, after) = rest.split_first()?;
                    if place == 4 {
                        self.priority = Some(*octet);
                    }
                    rest = after;
                }
                Property::Number => {
                    // The last that matters, and the only one of its kind.
                    let (number, _) = rest.split_first_chunk()?;
                    self.timestamp = Some(u64::from_be_bytes(*number));
                    return Some(());
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::{AMQPValue, FieldTable};

    use super::*;

    #[test]
    fn what_matters_is_found_whatever_else_is_there() {
        let mut headers = FieldTable::default();
        headers.insert("x-death".into(), AMQPValue::LongString("long ago".into()));
        let all = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("gzip".into())
            .with_headers(headers)
            .with_delivery_mode(2)
            .with_priority(7)
            .with_correlation_id("c".into())
            .with_reply_to("r".into())
            .with_expiration("1000".into())
            .with_message_id("m".into())
            .with_timestamp(1_700_000_000)
            .with_type("t".into())
            .with_user_id("u".into())
            .with_app_id("a".into())
            .with_cluster_id("c".into());
        let kept = Properties::of(&all);
        let expected = Brief {
            content_type: Some("application/json"),
            content_encoding: Some("gzip"),
            priority: Some(7),
            expires: true,
            timestamp: Some(1_700_000_000),
        };
        assert_eq!(kept.brief(), expected);
        assert_eq!(kept.parse(), all);
        let few = BasicProperties::default().with_delivery_mode(2).with_timestamp(3);
        assert_eq!(Properties::of(&few).brief(), Brief { timestamp: Some(3), ..Brief::default() });
        assert_eq!(Properties::of(&BasicProperties::default()).brief(), Brief::default());
    }
}
