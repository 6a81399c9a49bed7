//! A place in the bytes of a frame, which may be changed but not moved.

/// Reads on from a place in `bytes`.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a mut [u8],
    place: usize,
}

/// The bytes are not what AMQP 0-9-1 says they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, place: 0 }
    }

    /// How many bytes are behind it.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.place == self.bytes.len()
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&mut [u8], Garbled> {
        let end = self.place.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or(Garbled)?;
        let taken = &mut self.bytes[self.place..end];
        self.place = end;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Garbled> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Garbled> {
        self.chunk().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Garbled> {
        self.chunk().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Garbled> {
        self.chunk().map(u64::from_be_bytes)
    }

    /// The bytes of a long string, a byte array, a table or an array.
    pub(super) fn long(&mut self) -> Result<&mut [u8], Garbled> {
        let count = self.u32()?;
        self.take(count as usize)
    }

    /// Reads a short string and makes it text: each byte that isn't UTF-8 becomes a `?`. Says whether it had to.
    pub(super) fn short_text(&mut self) -> Result<bool, Garbled> {
        let count = self.u8()?;
        Ok(make_text(self.take(count.into())?))
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Garbled)
    }
}

fn make_text(bytes: &mut [u8]) -> bool {
    // As good as all names are, and each delivery has half a dozen.
    if bytes.is_ascii() {
        return false;
    }
    let mut replaced = false;
    let mut place = 0;
    while let Err(error) = std::str::from_utf8(&bytes[place..]) {
        let start = place + error.valid_up_to();
        place = error.error_len().map_or(bytes.len(), |bad| start + bad);
        bytes[start..place].fill(b'?');
        replaced = true;
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_utf_8_becomes_question_marks_and_nothing_moves() {
        for (before, after) in [
            (&b"plain"[..], "plain"),
            (b"", ""),
            ("gr\u{fc}n \u{1f980}".as_bytes(), "gr\u{fc}n \u{1f980}"),
            (b"\xff", "?"),
            (b"a\xffb\xfe\xfdc", "a?b??c"),
            (b"cut \xf0\x9f\xa6", "cut ???"),
            (b"\xe2\x28\xa1", "?(?"),
        ] {
            let mut bytes = before.to_vec();
            assert_eq!(make_text(&mut bytes), before != after.as_bytes());
            assert_eq!(bytes, after.as_bytes(), "{before:?}");
        }
    }

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let mut bytes = [0, 0, 0, 2, b'a', b'b', 3, b'c'];
        let mut cursor = Cursor::new(&mut bytes);
        assert_eq!(cursor.long().map(|bytes| bytes.to_vec()), Ok(b"ab".to_vec()));
        assert_eq!(cursor.place(), 6);
        assert_eq!(cursor.short_text(), Err(Garbled));
        let mut cursor = Cursor::new(&mut bytes[..4]);
        assert_eq!(cursor.u64(), Err(Garbled));
        assert_eq!(cursor.long().map(|_| ()), Err(Garbled));
    }
}
