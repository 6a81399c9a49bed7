//! Content headers: a message's size and properties, the part that publishers can fill with anything.

use std::fmt;
use std::ops::BitOr;
use std::ops::Range;

use super::cursor::{Cursor, Garbled};

/// How deep tables and arrays may lie in each other, the headers themselves included; real ones lie three deep. lapin's
/// parser is recursive, and some thousands overflow the stack of its thread.
const NESTING_MAX: usize = 32;
/// What a value takes in memory, whatever it takes on the wire; a void one takes a single byte there.
pub(super) const VALUE_BYTES: usize = 64;

/// Class, weight, body size.
pub(super) const HEAD_BYTES: usize = 12;
/// The property flags after that.
pub(super) const FLAGS_BYTES: usize = 2;

/// What follows the flags: one property for each bit that is set, from the highest down.
pub(super) const PROPERTIES: [Property; 14] = {
    use Property::{Number, Octet, Table, Text};
    [Text, Text, Table, Octet, Octet, Text, Text, Text, Text, Number, Text, Text, Text, Text]
};
/// The bit of the headers.
const HEADERS_FLAG: u16 = 1 << 13;

#[derive(Clone, Copy, Debug)]
pub(super) enum Property {
    Text,
    Table,
    Octet,
    Number,
}

/// What had to be replaced to make a message readable: any of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct Repair(u8);

impl Repair {
    pub(super) const NONE: Self = Self(0);
    /// Bytes of a name or a short property that weren't UTF-8 are question marks now.
    pub(super) const TEXT: Self = Self(1);
    /// What was nested too deep is a byte array now, with the same bytes.
    pub(super) const NESTING: Self = Self(2);
    /// The headers were larger than a frame, or garbled: they are gone.
    pub(super) const HEADERS: Self = Self(4);
    /// The properties were garbled: they are all gone.
    pub(super) const PROPERTIES: Self = Self(8);

    fn holds(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Repair {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// For people, as a list of what was done.
impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (Self::TEXT, "bytes that are not UTF-8 became question marks"),
            (Self::NESTING, "headers nested more than 32 deep became byte arrays"),
            (Self::HEADERS, "headers that do not fit a frame, or are garbled, were left out"),
            (Self::PROPERTIES, "garbled properties were left out"),
        ];
        let mut done = parts.iter().filter(|(repair, _)| self.holds(*repair)).map(|(_, words)| *words);
        f.write_str(done.next().unwrap_or("nothing was replaced"))?;
        done.try_for_each(|words| write!(f, "; {words}"))
    }
}

/// What came of a content header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sifted {
    /// Of its payload so many are left, from the start.
    pub(super) bytes: usize,
    /// The body's size.
    pub(super) body: u64,
    /// Values in the headers.
    pub(super) values: usize,
    pub(super) repair: Repair,
}

/// Makes a content header's payload readable to lapin, and at most `room` bytes long as far as leaving out the
/// headers can do that.
pub(super) fn sift(payload: &mut [u8], room: usize) -> Sifted {
    let bytes = payload.len();
    let Some((body, flags)) = head(payload) else {
        // lapin will say what it thinks of that.
        return Sifted { bytes, body: 0, values: 0, repair: Repair::NONE };
    };
    let start = HEAD_BYTES + FLAGS_BYTES;
    let Ok(Walked { headers, garbled, values, repair }) = walk(&mut payload[start..], flags) else {
        payload[HEAD_BYTES..start].fill(0);
        return Sifted { bytes: start, body, values: 0, repair: Repair::PROPERTIES };
    };
    let headers = headers.start + start..headers.end + start;
    if headers.is_empty() || !garbled && bytes <= room {
        return Sifted { bytes, body, values, repair };
    }
    payload.copy_within(headers.end.., headers.start);
    payload[HEAD_BYTES..start].copy_from_slice(&(flags & !HEADERS_FLAG).to_be_bytes());
    Sifted { bytes: bytes - headers.len(), body, values: 0, repair: repair | Repair::HEADERS }
}

fn head(payload: &mut [u8]) -> Option<(u64, u16)> {
    let mut cursor = Cursor::new(payload);
    cursor.u32().ok()?;
    Some((cursor.u64().ok()?, cursor.u16().ok()?))
}

struct Walked {
    /// Where the headers are; empty if there are none.
    headers: Range<usize>,
    /// They are not what AMQP says they are.
    garbled: bool,
    /// How many values are in them, those in others included.
    values: usize,
    repair: Repair,
}

/// Goes through all properties, as lapin does.
fn walk(properties: &mut [u8], flags: u16) -> Result<Walked, Garbled> {
    let mut cursor = Cursor::new(properties);
    let mut walked = Walked { headers: 0..0, garbled: false, values: 0, repair: Repair::NONE };
    for (place, property) in PROPERTIES.into_iter().enumerate() {
        if flags & (1 << (15 - place)) == 0 {
            continue;
        }
        match property {
            Property::Text => {
                if cursor.short_text()? {
                    walked.repair = walked.repair | Repair::TEXT;
                }
            }
            Property::Octet => drop(cursor.u8()?),
            Property::Number => drop(cursor.u64()?),
            Property::Table => {
                let start = cursor.place();
                let table = cursor.long()?;
                let mut found = Found::default();
                walked.garbled = entries(table, Named::Yes, 1, &mut found).is_err();
                walked.values = found.values;
                walked.repair = walked.repair | found.repair;
                walked.headers = start..cursor.place();
            }
        }
    }
    if cursor.is_at_end() { Ok(walked) } else { Err(Garbled) }
}

/// Whether values have names: those of a table do, those of an array don't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Yes,
    No,
}

/// What was found in a table so far.
#[derive(Debug, Default)]
struct Found {
    values: usize,
    repair: Repair,
}

/// Goes through the values of a table or an array, which lies `depth` deep.
fn entries(bytes: &mut [u8], named: Named, depth: usize, found: &mut Found) -> Result<(), Garbled> {
    let mut cursor = Cursor::new(bytes);
    while !cursor.is_at_end() {
        if named == Named::Yes && cursor.short_text()? {
            found.repair = found.repair | Repair::TEXT;
        }
        value(&mut cursor, depth, found)?;
    }
    Ok(())
}

fn value(cursor: &mut Cursor<'_>, depth: usize, found: &mut Found) -> Result<(), Garbled> {
    found.values += 1;
    let kind = cursor.take(1)?;
    if depth == NESTING_MAX && matches!(kind[0], b'A' | b'F') {
        // A byte array lies on the wire just as a table does: its size, then its bytes.
        kind[0] = b'x';
        found.repair = found.repair | Repair::NESTING;
    }
    match kind[0] {
        b'V' => {}
        b't' | b'b' | b'B' => drop(cursor.take(1)?),
        b's' | b'U' | b'u' => drop(cursor.take(2)?),
        b'I' | b'i' | b'f' => drop(cursor.take(4)?),
        b'D' => drop(cursor.take(5)?),
        b'L' | b'l' | b'd' | b'T' => drop(cursor.take(8)?),
        b'S' | b'x' => drop(cursor.long()?),
        b'F' => entries(cursor.long()?, Named::Yes, depth + 1, found)?,
        b'A' => entries(cursor.long()?, Named::No, depth + 1, found)?,
        _ => return Err(Garbled),
    }
    Ok(())
}
