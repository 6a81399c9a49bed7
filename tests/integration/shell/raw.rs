//! AMQP by hand, for what no client library sends.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use url::Url;

/// Publishes one message whose content type is the byte `FF`.
pub(crate) fn publish(broker: &Url, exchange: &str, routing_key: &str) -> io::Result<()> {
    let host = broker.host_str().expect("a host");
    let password = broker.password().unwrap_or("guest");
    let mut socket = TcpStream::connect((host, broker.port().unwrap_or(5672)))?;
    socket.write_all(b"AMQP\x00\x00\x09\x01")?;
    answer(&mut socket)?; // connection.start
    let mut start_ok = vec![0, 0, 0, 0]; // no client properties
    start_ok.extend(short("PLAIN"));
    start_ok.extend(long(format!("\0{}\0{password}", broker.username()).as_bytes()));
    start_ok.extend(short("en_US"));
    method(&mut socket, 0, 10, 11, &start_ok)?;
    let tune = answer(&mut socket)?;
    method(&mut socket, 0, 10, 31, &tune[4..])?; // as the broker wishes
    method(&mut socket, 0, 10, 40, &[short(&broker.path()[1..]), short(""), vec![0]].concat())?;
    answer(&mut socket)?; // connection.open-ok
    method(&mut socket, 1, 20, 10, &short(""))?;
    answer(&mut socket)?; // channel.open-ok
    let publish = [vec![0, 0], short(exchange), short(routing_key), vec![0]].concat();
    method(&mut socket, 1, 60, 40, &publish)?;
    let body = b"{\"videoNo\":\"VI1\"}";
    let mut header = vec![0, 60, 0, 0];
    header.extend((body.len() as u64).to_be_bytes());
    header.extend([0x80, 0, 1, 0xff]); // content type only: one byte, not UTF-8
    frame(&mut socket, 2, 1, &header)?;
    frame(&mut socket, 3, 1, body)?;
    method(&mut socket, 1, 20, 40, &[vec![0, 200], short("OK"), vec![0; 4]].concat())?;
    answer(&mut socket)?; // channel.close-ok: the message is taken
    Ok(())
}

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

fn method(socket: &mut TcpStream, channel: u16, class: u16, method: u16, arguments: &[u8]) -> io::Result<()> {
    let payload = [&class.to_be_bytes()[..], &method.to_be_bytes()[..], arguments].concat();
    frame(socket, 1, channel, &payload)
}

fn frame(socket: &mut TcpStream, kind: u8, channel: u16, payload: &[u8]) -> io::Result<()> {
    let mut frame = vec![kind];
    frame.extend(channel.to_be_bytes());
    frame.extend(long(payload));
    frame.push(0xce);
    socket.write_all(&frame)
}

/// The payload of the next frame.
fn answer(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = [0; 7];
    socket.read_exact(&mut head)?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let mut payload = vec![0; size + 1];
    socket.read_exact(&mut payload)?;
    payload.pop();
    Ok(payload)
}
