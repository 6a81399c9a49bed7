//! Between the socket and lapin: makes readable what lapin can't read, and bounds what is in hand.
//!
//! A broker passes on messages that lapin chokes on, and would deliver them again and again: a byte that isn't UTF-8
//! in a name or a property ends the connection, headers that grew beyond a frame do too, and tables nested thousands
//! deep overflow the stack and abort the process. None of that is a reason to stop deleting: the body is as it was
//! published. So every frame that holds such things is looked at before lapin sees it, and what is unreadable in it
//! is replaced, in place wherever that is possible. What was replaced is noted under the delivery's tag, for the log
//! and for a dead letter.
//!
//! Whoever consumes by the thousand has the properties taken off the deliveries and put into the notes, as they are:
//! hardly any is ever read, and for lapin they are most of a delivery's price, in time and in memory.
//!
//! The sieve is also the one place that sees how large a message is before it is in memory: the prefetch counts
//! messages, and a few thousand of 16 MiB would be too many. Whoever reads dead letters has all deliveries bounded so,
//! the small ones too, and leaves the rest in the socket.

mod cursor;
mod header;
mod method;
mod note;
mod properties;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{AsyncRead, AsyncWrite};

use self::header::{FLAGS_BYTES, HEAD_BYTES, Repair, VALUE_BYTES};
use self::method::Method;
pub(super) use self::note::{Note, Notes};
pub(super) use self::properties::{Brief, Properties};
use super::address;
use crate::delivery::Tag;

/// What is read at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// A frame that has to be seen whole before lapin sees any of it is at most this large.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Type, channel, size.
const FRAME_HEAD_BYTES: usize = 7;
/// The octet that ends every frame.
const FRAME_TAIL_BYTES: usize = 1;

/// A frame's type.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// A stream from a broker, sifted; what is written passes as it is.
pub(super) struct Sieve<S> {
    stream: S,
    sifter: Sifter,
}

impl<S> Sieve<S> {
    /// A sieve over `stream`, of which not a byte has been read, that tells `notes` what it finds.
    pub(super) fn new(stream: S, notes: Notes) -> Self {
        Self { stream, sifter: Sifter::new(notes) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sieve<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, sifter } = self.get_mut();
        loop {
            let taken = sifter.take(buffer);
            if taken > 0 || buffer.is_empty() {
                return Poll::Ready(Ok(taken));
            }
            if sifter.is_parked {
                // In this order, or what is let go in between is missed.
                sifter.notes.wait(context.waker());
                sifter.fill(0)?;
                if sifter.is_parked {
                    return Poll::Pending;
                }
                continue;
            }
            let read = ready!(Pin::new(&mut *stream).poll_read(context, sifter.room()))?;
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
            sifter.fill(read)?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sieve<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(context)
    }
}

/// Follows the frames of one connection. The buffer holds, from front to back: what was taken, what is sifted, a gap
/// for what was left out, and the begin of a frame that isn't whole yet.
struct Sifter {
    buffer: Vec<u8>,
    taken: usize,
    sifted: usize,
    seen: usize,
    filled: usize,
    /// Bytes to come that need no look: the rest of a body.
    passing: usize,
    /// The largest frame that lapin takes: what the broker announced, or what we agree to at most.
    frame_max: usize,
    /// The delivery whose content header comes next, and what had to be replaced in it so far.
    delivery: Option<(Tag, Repair)>,
    /// It has to wait, and everything behind it.
    is_parked: bool,
    /// On deliveries that nobody has seen yet.
    fresh: VecDeque<(Tag, Note)>,
    notes: Notes,
}

impl Sifter {
    fn new(notes: Notes) -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES],
            taken: 0,
            sifted: 0,
            seen: 0,
            filled: 0,
            passing: 0,
            frame_max: address::FRAME_BYTES_MAX as usize,
            delivery: None,
            is_parked: false,
            fresh: VecDeque::new(),
            notes,
        }
    }

    /// Hands out what is sifted, as much as fits; says how much.
    fn take(&mut self, into: &mut [u8]) -> usize {
        let count = into.len().min(self.sifted - self.taken);
        into[..count].copy_from_slice(&self.buffer[self.taken..self.taken + count]);
        self.taken += count;
        count
    }

    /// Where to read to; at least one byte. Everything sifted has been taken.
    fn room(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.seen..self.filled, 0);
        self.filled -= self.seen;
        (self.taken, self.sifted, self.seen) = (0, 0, 0);
        if self.filled == self.buffer.len() {
            self.buffer.resize(2 * self.filled, 0);
        } else if self.filled == 0 && self.buffer.len() > BUFFER_BYTES {
            self.buffer = vec![0; BUFFER_BYTES];
        }
        &mut self.buffer[self.filled..]
    }

    /// Takes note of `count` bytes that were read into the room, and sifts what is whole.
    ///
    /// # Errors
    /// If the connection can't go on.
    fn fill(&mut self, count: usize) -> io::Result<()> {
        self.filled += count;
        let sifted = self.sift();
        // Before any of it is handed out, so that no delivery comes without its note.
        self.notes.add(&mut self.fresh);
        sifted
    }

    fn sift(&mut self) -> io::Result<()> {
        self.is_parked = false;
        while !self.is_parked {
            let passing = self.passing.min(self.filled - self.seen);
            self.pass(passing);
            self.passing -= passing;
            let waiting = &self.buffer[self.seen..self.filled];
            let Some(&[kind, _, _, a, b, c, d]) = waiting.first_chunk::<FRAME_HEAD_BYTES>() else {
                return Ok(());
            };
            let payload = u32::from_be_bytes([a, b, c, d]) as usize;
            let frame = FRAME_HEAD_BYTES + payload + FRAME_TAIL_BYTES;
            match kind {
                METHOD | HEADER if frame > FRAME_BYTES_MAX => return Err(too_large(frame)),
                METHOD | HEADER if frame > waiting.len() => return Ok(()),
                METHOD => self.method(payload),
                HEADER => self.header(payload)?,
                BODY | HEARTBEAT => self.passing = frame,
                // Not AMQP 0-9-1, which lapin will say.
                _ => self.passing = usize::MAX,
            }
        }
        Ok(())
    }

    /// Lets the next `bytes` through.
    fn pass(&mut self, bytes: usize) {
        if self.sifted < self.seen {
            self.buffer.copy_within(self.seen..self.seen + bytes, self.sifted);
        }
        self.sifted += bytes;
        self.seen += bytes;
    }

    /// Makes the next frame shorter: of its `payload` only the first `kept` bytes remain.
    fn shorten(&mut self, payload: usize, kept: usize) {
        let (start, cut) = (self.seen + FRAME_HEAD_BYTES, payload - kept);
        if cut == 0 {
            return;
        }
        let size = u32::try_from(kept).expect("less than it was");
        self.buffer[start - size_of::<u32>()..start].copy_from_slice(&size.to_be_bytes());
        self.buffer.copy_within(self.seen..start + kept, self.seen + cut);
        self.seen += cut;
    }

    fn method(&mut self, payload: usize) {
        let start = self.seen + FRAME_HEAD_BYTES;
        match method::sift(&mut self.buffer[start..start + payload]) {
            // No limit of its own.
            Some(Method::Tune { frame_max: 0 }) | None => {}
            Some(Method::Tune { frame_max }) => self.frame_max = self.frame_max.min(frame_max as usize),
            Some(Method::Deliver { tag, repair }) => self.delivery = Some((tag, repair)),
        }
        self.pass(FRAME_HEAD_BYTES + payload + FRAME_TAIL_BYTES);
    }

    fn header(&mut self, payload: usize) -> io::Result<()> {
        let start = self.seen + FRAME_HEAD_BYTES;
        let room = self.frame_max.saturating_sub(FRAME_HEAD_BYTES + FRAME_TAIL_BYTES);
        let sifted = header::sift(&mut self.buffer[start..start + payload], room);
        self.shorten(payload, sifted.bytes);
        // Only deliveries are taken in hand; other contents are what the broker returns to us.
        let Some((tag, repair)) = self.delivery.take() else {
            self.pass(FRAME_HEAD_BYTES + sifted.bytes + FRAME_TAIL_BYTES);
            return Ok(());
        };
        let repair = repair | sifted.repair;
        let header = sifted.bytes + VALUE_BYTES * sifted.values;
        let bytes = (header as u64).saturating_add(sifted.body);
        if self.notes.has_to_wait(bytes) {
            // It is readable by now, and comes by here again.
            self.delivery = Some((tag, repair));
            self.is_parked = true;
            return Ok(());
        }
        let load = self.notes.weigh(tag, bytes)?;
        let properties = if self.notes.keep_properties() { self.take_properties(sifted.bytes) } else { None };
        if properties.is_none() {
            self.pass(FRAME_HEAD_BYTES + sifted.bytes + FRAME_TAIL_BYTES);
        }
        if repair != Repair::NONE || properties.is_some() || load.is_some() {
            self.fresh.push_back((tag, Note { repair, properties, load }));
        }
        Ok(())
    }

    /// Lets the next content header through without its properties, which it returns, unless it is too short for any.
    fn take_properties(&mut self, payload: usize) -> Option<Properties> {
        let start = self.seen + FRAME_HEAD_BYTES;
        let (flags, bare) = (start + HEAD_BYTES, HEAD_BYTES + FLAGS_BYTES);
        let properties =
            Properties::new(self.buffer.get(flags..start + payload).filter(|_| payload >= bare)?);
        self.buffer[flags..start + bare].fill(0);
        self.shorten(payload, bare);
        self.pass(FRAME_HEAD_BYTES + bare + FRAME_TAIL_BYTES);
        Some(properties)
    }
}

fn too_large(frame: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the broker sends a frame of {frame} bytes"))
}

#[cfg(test)]
mod tests;
