//! Whatever the sieve lets through, lapin's own parser reads.

use futures_util::{AsyncReadExt, FutureExt};
use lapin::protocol::basic::parse_properties;
use proptest::prelude::*;

use super::*;

/// A stream that gives its bytes in pieces.
struct Trickle {
    bytes: Vec<u8>,
    /// Where the pieces end.
    cuts: Vec<usize>,
    place: usize,
}

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let place = self.place;
        let cut = self.cuts.iter().copied().filter(|cut| *cut > place).min().unwrap_or(self.bytes.len());
        let count = buffer.len().min(cut.min(self.bytes.len()) - place);
        buffer[..count].copy_from_slice(&self.bytes[place..place + count]);
        self.place += count;
        Poll::Ready(Ok(count))
    }
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("less than 4 GiB").to_be_bytes();
    [&[kind, 0, 1][..], &size, payload, &[0xCE]].concat()
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("short")][..], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("less than 4 GiB").to_be_bytes()[..], bytes].concat()
}

fn deliver(tag: u64, routing_key: &[u8]) -> Vec<u8> {
    let payload =
        [&[0, 60, 0, 60][..], &short(b"c"), &tag.to_be_bytes(), &[0], &short(b"x"), &short(routing_key)];
    frame(METHOD, &payload.concat())
}

fn tune(frame_max: u32) -> Vec<u8> {
    frame(METHOD, &[&[0, 10, 0, 30, 0, 0][..], &frame_max.to_be_bytes(), &[0, 60]].concat())
}

/// A content header's payload.
fn content(body: u64, flags: u16, properties: &[u8]) -> Vec<u8> {
    [&[0, 60, 0, 0][..], &body.to_be_bytes(), &flags.to_be_bytes(), properties].concat()
}

/// One with nothing but this table of headers.
fn with_headers(table: &[u8]) -> Vec<u8> {
    content(2, 1 << 13, &long(table))
}

/// `depth` tables within each other, each under the name `n`.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(Vec::new(), |inner, _| [&short(b"n")[..], b"F", &long(&inner)].concat())
}

/// All that comes out, and the notes.
async fn sifted(bytes: &[u8], cuts: &[usize], buffer: usize) -> (io::Result<Vec<u8>>, Notes) {
    sifted_with(Notes::default(), bytes, cuts, buffer).await
}

async fn sifted_with(
    notes: Notes,
    bytes: &[u8],
    cuts: &[usize],
    buffer: usize,
) -> (io::Result<Vec<u8>>, Notes) {
    let stream = Trickle { bytes: bytes.to_vec(), cuts: cuts.to_vec(), place: 0 };
    let mut sieve = Sieve { stream, sifter: Sifter::new(notes.clone()) };
    let mut all = Vec::new();
    let mut buffer = vec![0; buffer];
    loop {
        match sieve.read(&mut buffer).await {
            Ok(0) => return (Ok(all), notes),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) => return (Err(error), notes),
        }
    }
}

async fn repaired(bytes: &[u8], tag: u64) -> (Vec<u8>, Option<String>) {
    let (all, notes) = sifted(bytes, &[], 4096).await;
    (all.expect("it goes on"), notes.take(Tag(tag)).and_then(|note| note.repaired()))
}

/// What lapin makes of a content header's payload.
fn readable(payload: &[u8]) -> bool {
    matches!(parse_properties(&payload[12..]), Ok((rest, _)) if rest.is_empty())
}

#[tokio::test]
async fn what_is_readable_passes_as_it_is() {
    let table = [&short(b"x-death")[..], b"A", &long(&[&b"F"[..], &long(&nested(3))].concat())].concat();
    let bytes = [
        &tune(131_072)[..],
        &deliver(1, b"delete"),
        &frame(HEADER, &with_headers(&table)),
        &frame(BODY, b"{}"),
        &frame(HEARTBEAT, b""),
        &frame(METHOD, &[0, 20, 0, 41]),
    ]
    .concat();
    assert_eq!(repaired(&bytes, 1).await, (bytes, None));
}

#[tokio::test]
async fn text_is_made_text_wherever_it_stands() {
    let entry = |name: &[u8]| [&short(name)[..], b"S", &long(b"\xff stays")].concat();
    let headers = |name: &[u8]| long(&[entry(b"ok"), entry(name)].concat());
    let flags = 1 << 15 | 1 << 13 | 1 << 7;
    let message = |text: &[u8], name: &[u8], key: &[u8]| {
        let properties = [short(text), headers(name), short(text)].concat();
        [deliver(1, key), frame(HEADER, &content(2, flags, &properties)), frame(BODY, b"\xff\xff")].concat()
    };
    let (bytes, note) = repaired(&message(b"text/\xff", b"na\xc3me", b"\xfe"), 1).await;
    assert_eq!(bytes, message(b"text/?", b"na?me", b"?"));
    assert_eq!(note.as_deref(), Some("bytes that are not UTF-8 became question marks"));
}

#[tokio::test]
async fn what_is_nested_too_deep_becomes_bytes() {
    for (depth, intact) in [(31, true), (32, false), (10_000, false)] {
        let payload = with_headers(&nested(depth));
        let bytes = [deliver(1, b"delete"), frame(HEADER, &payload)].concat();
        let (passed, note) = repaired(&bytes, 1).await;
        assert_eq!(passed == bytes, intact, "{depth}");
        assert_eq!(note.is_none(), intact, "{depth}");
        let differing = passed.iter().zip(&bytes).filter(|(passed, was)| passed != was).count();
        assert_eq!((passed.len(), differing), (bytes.len(), usize::from(!intact)), "one type alone differs");
        let start = deliver(1, b"delete").len() + FRAME_HEAD_BYTES;
        assert!(readable(&passed[start..start + payload.len()]), "{depth}");
    }
}

#[tokio::test]
async fn headers_beyond_a_frame_are_left_out_and_the_rest_stays() {
    let flags = 1 << 15 | 1 << 13 | 1 << 12;
    let table = [&short(b"big")[..], b"S", &long(&[b'x'; 4000])].concat();
    let properties = [short(b"application/json"), long(&table), vec![2]].concat();
    let whole = content(2, flags, &properties);
    let message = |header: &[u8]| {
        [&deliver(1, b"delete")[..], &frame(HEADER, header), &frame(BODY, b"{}"), &deliver(2, b"next")]
            .concat()
    };
    let limit = u32::try_from(whole.len() + 8).expect("small");
    let fits = [tune(limit), message(&whole)].concat();
    assert_eq!(repaired(&fits, 1).await, (fits, None));

    let cut = content(2, flags & !(1 << 13), &[short(b"application/json"), vec![2]].concat());
    let (passed, note) = repaired(&[tune(limit - 1), message(&whole)].concat(), 1).await;
    assert_eq!(passed, [tune(limit - 1), message(&cut)].concat());
    assert!(note.expect("noted").contains("do not fit a frame"));
    // A broker without a limit, or with a larger one, has to keep to ours.
    for limit in [0, 1 << 20] {
        let fits = [tune(limit), message(&whole)].concat();
        assert_eq!(repaired(&fits, 1).await, (fits, None));
        let table = [&short(b"big")[..], b"S", &long(&vec![b'x'; 131_072])].concat();
        let (_, note) = repaired(&[tune(limit), message(&with_headers(&table))].concat(), 1).await;
        assert!(note.expect("noted").contains("do not fit a frame"));
    }
}

#[tokio::test]
async fn headers_of_many_values_weigh_what_they_take_in_memory() {
    // A byte each on the wire.
    let table = [&short(b"many")[..], b"A", &long(&[b'V'; 100_000])].concat();
    let message = |tag| [deliver(tag, b""), frame(HEADER, &with_headers(&table))].concat();
    let eleven: Vec<u8> = (1..=11).flat_map(message).collect();
    let (passed, notes) = sifted(&eleven, &[], 1 << 16).await;
    assert!(passed.is_err());
    assert_eq!(notes.refused(), Some(Tag(11)));
}

#[tokio::test]
async fn what_is_garbled_is_left_out() {
    let unknown_type = with_headers(&[&short(b"n")[..], b"?what"].concat());
    let (passed, note) = repaired(&[deliver(1, b""), frame(HEADER, &unknown_type)].concat(), 1).await;
    assert_eq!(passed, [deliver(1, b""), frame(HEADER, &content(2, 0, b""))].concat());
    assert!(note.expect("noted").contains("garbled, were left out"));

    let too_short = content(2, 1 << 15, b"\x09short");
    let (passed, note) = repaired(&[deliver(1, b""), frame(HEADER, &too_short)].concat(), 1).await;
    assert_eq!(passed, [deliver(1, b""), frame(HEADER, &content(2, 0, b""))].concat());
    assert_eq!(note.as_deref(), Some("garbled properties were left out"));
}

#[tokio::test]
async fn other_protocols_and_endless_frames_are_lapins_to_refuse() {
    let other = b"HTTP/1.1 400 Bad Request\r\n\r\nno AMQP here, and quite a few bytes of it";
    assert_eq!(repaired(other, 1).await, (other.to_vec(), None));
    let endless = [&[METHOD, 0, 0, 0xff, 0xff, 0xff, 0xff][..], &[0; 100]].concat();
    let error = sifted(&endless, &[], 4096).await.0.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn more_than_may_be_in_hand_ends_the_stream_before_it_is_read() {
    let announced = |tag| [deliver(tag, b""), frame(HEADER, &content(40 << 20, 0, b""))].concat();
    let body = frame(BODY, &vec![b' '; 40 << 20]);
    let bytes = [&announced(1)[..], &body, &announced(2)].concat();
    let (error, notes) = sifted(&bytes, &[], 1 << 20).await;
    assert!(error.is_err());
    assert_eq!(notes.refused(), Some(Tag(2)));
}

#[tokio::test]
async fn whoever_is_patient_waits_for_room_instead() {
    let message = |tag| {
        let header = frame(HEADER, &content(40 << 20, 0, b""));
        [deliver(tag, b"\xff"), header, frame(BODY, &vec![b' '; 40 << 20])].concat()
    };
    let bytes = [message(1), message(2), frame(HEARTBEAT, b"")].concat();
    let expected = bytes.len();
    let notes = Notes::patient();
    let stream = Trickle { bytes, cuts: Vec::new(), place: 0 };
    let mut sieve = Sieve { stream, sifter: Sifter::new(notes.clone()) };
    let mut buffer = vec![0; 1 << 20];
    let mut passed = 0;
    // Up to the second one's announcement everything passes.
    while let Some(count) = sieve.read(&mut buffer).now_or_never() {
        passed += count.expect("it goes on");
    }
    assert_eq!(passed, message(1).len() + deliver(2, b"\xff").len());
    let first = notes.take(Tag(1)).expect("it is heavy");
    let rest = tokio::spawn(async move {
        let mut rest = 0;
        while let Ok(count @ 1..) = sieve.read(&mut buffer).await {
            rest += count;
        }
        rest
    });
    tokio::task::yield_now().await;
    assert!(!rest.is_finished(), "it waits");
    drop(first);
    assert_eq!(passed + rest.await.expect("it ends"), expected);
    assert!(notes.take(Tag(2)).and_then(|note| note.repaired()).is_some(), "what was found before is known");
    assert_eq!(notes.refused(), None);
}

#[tokio::test]
async fn properties_are_taken_off_deliveries_and_off_nothing_else() {
    let table = [&short(b"x-\xff")[..], b"S", &long(b"value")].concat();
    let properties = [short(b"text/plain"), long(&table), vec![7]].concat();
    let flags = 1 << 15 | 1 << 13 | 1 << 11;
    let full = frame(HEADER, &content(2, flags, &properties));
    let bare = frame(HEADER, &content(2, 0, b""));
    let (body, returned) = (frame(BODY, b"{}"), frame(METHOD, &[0, 60, 0, 50]));
    let message = |tag, header: &[u8]| [&deliver(tag, b"delete")[..], header, &body].concat();
    let bytes = [message(1, &full), returned.clone(), full.clone(), message(2, &bare)].concat();
    for cuts in [&[][..], &[60, 61, 90, 150]] {
        let (passed, notes) = sifted_with(Notes::keeping_properties(), &bytes, cuts, 50).await;
        let readable = String::from_utf8_lossy(&full).replace('\u{fffd}', "?");
        let start = message(1, &bare).len() + returned.len();
        let passed = passed.expect("it goes on");
        assert_eq!(passed[..start], [message(1, &bare), returned.clone()].concat());
        assert_eq!(passed[start..].len(), full.len() + message(2, &bare).len());
        assert!(readable.contains("x-?") && passed[start..].windows(3).any(|bytes| bytes == b"x-?"));
        let note = notes.take(Tag(1)).expect("each has one");
        let brief = note.properties().expect("kept").brief();
        assert_eq!((brief.content_type, brief.priority), (Some("text/plain"), Some(7)));
        let headers = note.properties().expect("kept").parse().headers().clone().expect("some");
        assert!(headers.inner().contains_key("x-?"));
        assert!(note.repaired().is_some());
        let note = notes.take(Tag(2)).expect("each has one");
        assert_eq!(note.properties().map(Properties::parse), Some(lapin::BasicProperties::default()));
    }
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop_oneof![
        Just(b"V".to_vec()),
        any::<u8>().prop_map(|byte| vec![b't', byte]),
        any::<u32>().prop_map(|number| [&b"I"[..], &number.to_be_bytes()].concat()),
        any::<u64>().prop_map(|number| [&b"l"[..], &number.to_be_bytes()].concat()),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| [&b"S"[..], &long(&bytes)].concat()),
    ];
    plain.prop_recursive(50, 100, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| [
                &b"A"[..],
                &long(&values.concat())
            ]
            .concat()),
            table(inner).prop_map(|table| [&b"F"[..], &long(&table)].concat()),
        ]
    })
}

fn table(value: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let entry = (prop::collection::vec(any::<u8>(), 0..12), value);
    let entry = entry.prop_map(|(name, value)| [short(&name), value].concat());
    prop::collection::vec(entry, 0..5).prop_map(|entries| entries.concat())
}

/// Content headers from well-formed to nonsense.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let text = || prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| short(&bytes));
    let formed = (text(), table(value()), any::<u64>(), text()).prop_map(|(kind, table, time, id)| {
        let flags = 1 << 15 | 1 << 13 | 1 << 7 | 1 << 6;
        content(9, flags, &[kind, long(&table), id, time.to_be_bytes().to_vec()].concat())
    });
    let noise = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (formed, noise, any::<u16>(), prop::bool::weighted(0.2)).prop_map(|(mut payload, noise, flags, other)| {
        for (place, byte) in noise {
            let place = 14 + place.index(payload.len() - 14);
            payload[place] = byte;
        }
        if other {
            payload[12..14].copy_from_slice(&flags.to_be_bytes());
        }
        payload
    })
}

proptest! {
    #[test]
    fn lapin_reads_whatever_is_let_through(mut payload in header(), room in 14_usize..2000) {
        let was_readable = readable(&payload) && payload.len() <= room;
        let before = payload.clone();
        let sifted = header::sift(&mut payload, room);
        prop_assert!(readable(&payload[..sifted.bytes]));
        prop_assert_eq!(sifted.body, 9);
        prop_assert!(sifted.bytes <= before.len());
        if was_readable && sifted.repair == Repair::NONE {
            prop_assert_eq!(&payload, &before);
        }
        prop_assert!(!was_readable || sifted.repair == Repair::NONE || sifted.repair == Repair::NESTING);
    }

    #[test]
    fn properties_that_are_kept_are_those_that_lapin_would_have_read(
        payload in header(),
        cuts in prop::collection::vec(0_usize..2000, 0..20),
        buffer in 1_usize..300,
    ) {
        let body = frame(BODY, b"nine byte");
        let bytes = [&deliver(1, b"key")[..], &frame(HEADER, &payload), &body].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (passed, _) = runtime.block_on(sifted(&bytes, &cuts, buffer));
        let (kept, notes) = runtime.block_on(sifted_with(Notes::keeping_properties(), &bytes, &cuts, buffer));
        let head = deliver(1, b"key").len() + FRAME_HEAD_BYTES;
        let passed = passed.expect("it goes on");
        let (_, expected) = parse_properties(&passed[head + 12..]).expect("readable");
        let bare = frame(HEADER, &content(9, 0, b""));
        prop_assert_eq!(kept.expect("it goes on"), [deliver(1, b"key"), bare, body].concat());
        let note = notes.take(Tag(1)).expect("each has one");
        let properties = note.properties().expect("kept");
        prop_assert_eq!(properties.parse(), expected.clone());
        let brief = properties.brief();
        prop_assert_eq!(brief.content_type, expected.content_type().as_ref().map(|text| text.as_str()));
        prop_assert_eq!(brief.content_encoding, expected.content_encoding().as_ref().map(|text| text.as_str()));
        prop_assert_eq!(brief.priority, *expected.priority());
        prop_assert_eq!(brief.expires, expected.expiration().is_some());
        prop_assert_eq!(brief.timestamp, *expected.timestamp());
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_arrive(
        payloads in prop::collection::vec(header(), 1..4),
        cuts in prop::collection::vec(0_usize..2000, 0..20),
        buffer in 1_usize..300,
    ) {
        let messages = payloads.iter().enumerate().map(|(place, payload)| {
            [deliver(place as u64 + 1, b"\xffkey"), frame(HEADER, payload), frame(BODY, b"nine byte")].concat()
        });
        let bytes = messages.collect::<Vec<_>>().concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (whole, _) = runtime.block_on(sifted(&bytes, &[], 1 << 16));
        let (pieces, notes) = runtime.block_on(sifted(&bytes, &cuts, buffer));
        prop_assert_eq!(whole.expect("it goes on"), pieces.expect("it goes on"));
        for place in 0..payloads.len() {
            prop_assert!(notes.take(Tag(place as u64 + 1)).is_some(), "the routing key is noted");
        }
    }
}
