//! The two methods the sieve has to know.

use super::cursor::{Cursor, Garbled};
use super::header::Repair;
use crate::delivery::Tag;

/// Class and method.
const TUNE: (u16, u16) = (10, 30);
const DELIVER: (u16, u16) = (60, 60);

/// A method that says something about frames to come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// `connection.tune`: the largest frame, in bytes; 0 is no limit.
    Tune { frame_max: u32 },
    /// `basic.deliver`: content follows.
    Deliver { tag: Tag, repair: Repair },
}

/// Makes a method's payload readable, and says what it is if that matters. What is garbled is left for lapin.
pub(super) fn sift(payload: &mut [u8]) -> Option<Method> {
    let mut cursor = Cursor::new(payload);
    match (cursor.u16().ok()?, cursor.u16().ok()?) {
        TUNE => tune(&mut cursor).ok(),
        DELIVER => deliver(&mut cursor).ok(),
        _ => None,
    }
}

fn tune(cursor: &mut Cursor<'_>) -> Result<Method, Garbled> {
    let _channel_max = cursor.u16()?;
    Ok(Method::Tune { frame_max: cursor.u32()? })
}

fn deliver(cursor: &mut Cursor<'_>) -> Result<Method, Garbled> {
    cursor.short_text()?; // our consumer's tag
    let tag = Tag(cursor.u64()?);
    let _redelivered = cursor.u8()?;
    let exchange = cursor.short_text()?;
    let routing_key = cursor.short_text()?;
    let repair = if exchange | routing_key { Repair::TEXT } else { Repair::NONE };
    Ok(Method::Deliver { tag, repair })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(routing_key: &[u8]) -> Vec<u8> {
        let mut payload = b"\0\x3c\0\x3c\x03ctag\0\0\0\0\0\0\0\x07\x01\x02ex".to_vec();
        payload[4] = 4;
        payload.push(u8::try_from(routing_key.len()).expect("short"));
        payload.extend(routing_key);
        payload
    }

    #[test]
    fn a_delivery_is_told_with_its_tag_and_its_routing_key_made_readable() {
        let mut payload = delivery(b"delete");
        assert_eq!(sift(&mut payload), Some(Method::Deliver { tag: Tag(7), repair: Repair::NONE }));
        assert_eq!(payload, delivery(b"delete"));
        let mut payload = delivery(b"de\xfflete");
        assert_eq!(sift(&mut payload), Some(Method::Deliver { tag: Tag(7), repair: Repair::TEXT }));
        assert_eq!(payload, delivery(b"de?lete"));
    }

    #[test]
    fn the_frame_limit_is_told() {
        let mut payload = [0, 10, 0, 30, 7, 255, 0, 2, 0, 0, 0, 60];
        assert_eq!(sift(&mut payload), Some(Method::Tune { frame_max: 131_072 }));
    }

    #[test]
    fn other_methods_and_cut_ones_are_left_alone() {
        assert_eq!(sift(&mut [0, 60, 0, 21, 0]), None);
        assert_eq!(sift(&mut [0, 60, 0]), None);
        let mut payload = delivery(b"delete");
        for end in 0..payload.len() {
            assert_eq!(sift(&mut payload[..end]), None, "{end}");
        }
    }
}
