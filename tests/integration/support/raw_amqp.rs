//! Just enough AMQP 0-9-1 to publish what no client library will.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::broker::Vhost;

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
const CLOSE: [u16; 2] = [10, 50];
const CLOSE_OK: [u16; 2] = [10, 51];
const CHANNEL_OPEN: [u16; 2] = [20, 10];
const CHANNEL_OPEN_OK: [u16; 2] = [20, 11];
const PUBLISH: [u16; 2] = [60, 40];

/// Publishes `body` with these bytes for its content type, be they UTF-8 or not, as `guest`; the broker has it when
/// this returns.
pub(crate) async fn publish(
    vhost: &Vhost,
    exchange: &str,
    routing_key: &str,
    content_type: &[u8],
    body: &[u8],
) {
    let mut stream = TcpStream::connect(vhost.address()).await.expect("the broker listens");
    stream.write_all(b"AMQP\0\0\x09\x01").await.expect("open");
    expect(&mut stream, START).await;
    // No properties; PLAIN; the locale.
    let login = [&[0; 4][..], &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")].concat();
    send(&mut stream, METHOD, 0, &method(START_OK, &login)).await;
    expect(&mut stream, TUNE).await;
    // One channel, frames of 128 KiB, no heartbeats.
    send(&mut stream, METHOD, 0, &method(TUNE_OK, &[0, 1, 0, 2, 0, 0, 0, 0])).await;
    let open = [&short(vhost.name.as_bytes())[..], &[0, 0]].concat();
    send(&mut stream, METHOD, 0, &method(OPEN, &open)).await;
    expect(&mut stream, OPEN_OK).await;
    send(&mut stream, METHOD, 1, &method(CHANNEL_OPEN, &[0])).await;
    expect(&mut stream, CHANNEL_OPEN_OK).await;

    let publish = [&[0, 0][..], &short(exchange.as_bytes()), &short(routing_key.as_bytes()), &[0]].concat();
    send(&mut stream, METHOD, 1, &method(PUBLISH, &publish)).await;
    // Class 60, weight 0, the size; of the properties content type and delivery mode, which is persistent.
    let size = (body.len() as u64).to_be_bytes();
    let header = [&[0, 60, 0, 0][..], &size, &[0b1001_0000, 0], &short(content_type), &[2]].concat();
    send(&mut stream, HEADER, 1, &header).await;
    send(&mut stream, BODY, 1, body).await;

    // Answered after everything before it.
    let close = [&200_u16.to_be_bytes()[..], &short(b"done"), &[0; 4]].concat();
    send(&mut stream, METHOD, 0, &method(CLOSE, &close)).await;
    expect(&mut stream, CLOSE_OK).await;
}

fn method([class, method]: [u16; 2], arguments: &[u8]) -> Vec<u8> {
    [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat()
}

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).expect("at most 255 bytes")], bytes].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("less than 4 GiB").to_be_bytes(), bytes].concat()
}

async fn send(stream: &mut TcpStream, kind: u8, channel: u16, payload: &[u8]) {
    let frame = [&[kind][..], &channel.to_be_bytes(), &long(payload), &[0xCE]].concat();
    stream.write_all(&frame).await.expect("open");
}

/// Reads one frame, and sees that it is this method.
async fn expect(stream: &mut TcpStream, wanted: [u16; 2]) {
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.expect("the broker answers");
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut payload = vec![0; size as usize + 1];
    stream.read_exact(&mut payload).await.expect("the broker answers");
    let text = String::from_utf8_lossy(&payload);
    assert!(head[0] == METHOD && payload.starts_with(&method(wanted, &[])), "unexpected answer: {text}");
}
