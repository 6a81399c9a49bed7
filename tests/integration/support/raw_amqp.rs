//! Just enough AMQP 0-9-1 to publish what no client library will.

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A frame's type.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
/// Class and method.
const START: [u16; 2] = [10, 10];
const START_OK: [u16; 2] = [10, 11];
const TUNE: [u16; 2] = [10, 30];
const TUNE_OK: [u16; 2] = [10, 31];
const OPEN: [u16; 2] = [10, 40];
const OPEN_OK: [u16; 2] = [10, 41];
const CHANNEL_OPEN: [u16; 2] = [20, 10];
const CHANNEL_OPEN_OK: [u16; 2] = [20, 11];
const CHANNEL_CLOSE: [u16; 2] = [20, 40];
const CHANNEL_CLOSE_OK: [u16; 2] = [20, 41];
const PUBLISH: [u16; 2] = [60, 40];
const ACK: [u16; 2] = [60, 80];
const CONFIRM_SELECT: [u16; 2] = [85, 10];
const CONFIRM_SELECT_OK: [u16; 2] = [85, 11];
/// What we ask for, and what brokers offer.
const FRAME_MAX: usize = 131_072;

/// A content header's property flags.
pub(crate) const CONTENT_TYPE: u16 = 1 << 15;
pub(crate) const HEADERS: u16 = 1 << 13;
pub(crate) const DELIVERY_MODE: u16 = 1 << 12;

/// What is published: any bytes.
pub(crate) struct Raw<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a [u8],
    /// Which properties there are.
    pub(crate) flags: u16,
    /// The properties, as they lie on the wire.
    pub(crate) properties: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl<'a> Raw<'a> {
    /// To the exchange and with the routing key that publishers use, without any properties.
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { exchange: "deletions", routing_key: b"delete", flags: 0, properties: b"", body }
    }
}

/// Publishes as whoever `url` names; the broker has confirmed all of it when this returns. That it closed the channel
/// would prove nothing: a quorum queue may get what was published on it later, or never (RabbitMQ 3.10).
pub(crate) async fn publish(url: &str, messages: &[Raw<'_>]) {
    let url = url::Url::parse(url).expect("a URL");
    let host = (url.host_str().expect("a host"), url.port().unwrap_or(5672));
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let vhost = if url.path().len() > 1 { decode(&url.path()[1..]) } else { "/".to_owned() };
    let login = format!("\0{}\0{}", decode(url.username()), decode(url.password().unwrap_or("guest")));
    let mut stream = TcpStream::connect(host).await.expect("the broker listens");
    stream.write_all(b"AMQP\0\0\x09\x01").await.expect("open");
    expect(&mut stream, START).await;
    // No properties; PLAIN; the locale.
    let login = [&[0; 4][..], &short(b"PLAIN"), &long(login.as_bytes()), &short(b"en_US")].concat();
    send(&mut stream, METHOD, 0, &method(START_OK, &login)).await;
    expect(&mut stream, TUNE).await;
    // One channel, frames of 128 KiB, no heartbeats.
    send(&mut stream, METHOD, 0, &method(TUNE_OK, &[0, 1, 0, 2, 0, 0, 0, 0])).await;
    send(&mut stream, METHOD, 0, &method(OPEN, &[&short(vhost.as_bytes())[..], &[0, 0]].concat())).await;
    expect(&mut stream, OPEN_OK).await;
    send(&mut stream, METHOD, 1, &method(CHANNEL_OPEN, &[0])).await;
    expect(&mut stream, CHANNEL_OPEN_OK).await;
    send(&mut stream, METHOD, 1, &method(CONFIRM_SELECT, &[0])).await;
    expect(&mut stream, CONFIRM_SELECT_OK).await;
    for message in messages {
        send_message(&mut stream, message).await;
    }
    let mut unconfirmed: BTreeSet<u64> = (1..=messages.len() as u64).collect();
    while !unconfirmed.is_empty() {
        let ack = expect(&mut stream, ACK).await;
        let (tag, multiple) = ack.split_at(8);
        let tag = u64::from_be_bytes(tag.try_into().expect("eight bytes"));
        unconfirmed.retain(|other| *other != tag && (multiple[0] == 0 || *other > tag));
    }
    // Answered after everything before it.
    let close = [&200_u16.to_be_bytes()[..], &short(b"done"), &[0; 4]].concat();
    send(&mut stream, METHOD, 1, &method(CHANNEL_CLOSE, &close)).await;
    expect(&mut stream, CHANNEL_CLOSE_OK).await;
}

async fn send_message(stream: &mut TcpStream, message: &Raw<'_>) {
    let Raw { exchange, routing_key, flags, properties, body } = message;
    let publish = [&[0, 0][..], &short(exchange.as_bytes()), &short(routing_key), &[0]].concat();
    send(stream, METHOD, 1, &method(PUBLISH, &publish)).await;
    // Class 60, weight 0, the size.
    let size = (body.len() as u64).to_be_bytes();
    let header = [&[0, 60, 0, 0][..], &size, &flags.to_be_bytes(), properties].concat();
    send(stream, HEADER, 1, &header).await;
    for piece in body.chunks(FRAME_MAX - 8) {
        send(stream, BODY, 1, piece).await;
    }
}

/// A short string.
pub(crate) fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).expect("at most 255 bytes")], bytes].concat()
}

/// A long string, a table or an array: anything with its size before it.
pub(crate) fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("less than 4 GiB").to_be_bytes(), bytes].concat()
}

fn method([class, method]: [u16; 2], arguments: &[u8]) -> Vec<u8> {
    [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat()
}

async fn send(stream: &mut TcpStream, kind: u8, channel: u16, payload: &[u8]) {
    let frame = [&[kind][..], &channel.to_be_bytes(), &long(payload), &[0xCE]].concat();
    stream.write_all(&frame).await.expect("open");
}

/// Reads one frame, and sees that it is this method; returns its arguments, and the octet that ends the frame.
async fn expect(stream: &mut TcpStream, wanted: [u16; 2]) -> Vec<u8> {
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.expect("the broker answers");
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut payload = vec![0; size as usize + 1];
    stream.read_exact(&mut payload).await.expect("the broker answers");
    let text = String::from_utf8_lossy(&payload);
    assert!(head[0] == METHOD && payload.starts_with(&method(wanted, &[])), "unexpected answer: {text}");
    payload.split_off(4)
}
