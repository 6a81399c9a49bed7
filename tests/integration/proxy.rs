//! The fault proxy itself: a fault test proves nothing if its fault doesn't happen.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::proxy::{Mode, Proxy};
use crate::support::{PATIENCE, wait_for};

/// The address of a server that echoes.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = client.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

async fn round_trip(client: &mut TcpStream, text: &[u8]) {
    client.write_all(text).await.expect("an open connection");
    let mut answer = vec![0; text.len()];
    tokio::time::timeout(PATIENCE, client.read_exact(&mut answer)).await.expect("an echo").expect("an echo");
    assert_eq!(answer, text);
}

async fn is_silent(client: &mut TcpStream) -> bool {
    tokio::time::timeout(Duration::from_millis(200), client.read_u8()).await.is_err()
}

#[tokio::test]
async fn a_pause_holds_bytes_and_new_connections_without_losing_any() {
    let mut proxy = Proxy::start(&echo().await).await;
    let mut old = TcpStream::connect(proxy.address).await.expect("listening");
    round_trip(&mut old, b"before").await;
    proxy.set(Mode::Pause).await;
    old.write_all(b"held").await.expect("the proxy's end is open");
    let mut new = TcpStream::connect(proxy.address).await.expect("listening");
    new.write_all(b"held too").await.expect("the proxy's end is open");
    assert!(is_silent(&mut old).await);
    assert!(is_silent(&mut new).await);
    proxy.set(Mode::Pass).await;
    for (client, text) in [(&mut old, &b"held"[..]), (&mut new, b"held too")] {
        let mut answer = vec![0; text.len()];
        client.read_exact(&mut answer).await.expect("an echo");
        assert_eq!(answer, text);
    }
    assert_eq!((proxy.accepted(), proxy.open()), (2, 2));
    drop((old, new));
    wait_for("both connections are closed", PATIENCE, async || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_reset_hits_open_and_new_connections() {
    let mut proxy = Proxy::start(&echo().await).await;
    let mut old = TcpStream::connect(proxy.address).await.expect("listening");
    round_trip(&mut old, b"before").await;
    proxy.set(Mode::Reset).await;
    let error = old.read_u8().await.expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let mut new = TcpStream::connect(proxy.address).await.expect("listening");
    assert_eq!(new.read_u8().await.expect_err("reset").kind(), ErrorKind::ConnectionReset);
    proxy.set(Mode::Pass).await;
    let mut next = TcpStream::connect(proxy.address).await.expect("listening");
    round_trip(&mut next, b"after").await;
}

#[tokio::test]
async fn refusing_spares_open_connections() {
    let mut proxy = Proxy::start(&echo().await).await;
    let mut old = TcpStream::connect(proxy.address).await.expect("listening");
    round_trip(&mut old, b"before").await;
    proxy.set(Mode::Refuse).await;
    let refused = TcpStream::connect(proxy.address).await.expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    round_trip(&mut old, b"meanwhile").await;
    proxy.set(Mode::Pass).await;
    let mut new = TcpStream::connect(proxy.address).await.expect("listening again");
    round_trip(&mut new, b"after").await;
}

#[tokio::test]
async fn a_trickle_takes_its_time() {
    let mut proxy = Proxy::start(&echo().await).await;
    let mut client = TcpStream::connect(proxy.address).await.expect("listening");
    proxy.set(Mode::Trickle(1000)).await;
    let start = Instant::now();
    round_trip(&mut client, &[7; 500]).await;
    // There and back overlap, but neither is faster than half a second.
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_end_of_file_passes_one_way_only() {
    let proxy = Proxy::start(&echo().await).await;
    let mut client = TcpStream::connect(proxy.address).await.expect("listening");
    client.write_all(b"last words").await.expect("open");
    client.shutdown().await.expect("open");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("an echo");
    assert_eq!(answer, b"last words");
}

#[tokio::test]
async fn a_delay_holds_up_bytes_each_way() {
    const DELAY: Duration = Duration::from_millis(200);
    let mut proxy = Proxy::start(&echo().await).await;
    let mut client = TcpStream::connect(proxy.address).await.expect("listening");
    round_trip(&mut client, b"before").await;
    proxy.set(Mode::Delay(DELAY)).await;
    let start = Instant::now();
    round_trip(&mut client, b"there and back").await;
    assert!(start.elapsed() >= 2 * DELAY, "{:?}", start.elapsed());
}

#[tokio::test]
async fn lost_segments_come_later_and_in_order() {
    let mut proxy = Proxy::start(&echo().await).await;
    let mut client = TcpStream::connect(proxy.address).await.expect("listening");
    round_trip(&mut client, b"before").await;
    proxy.set(Mode::Lossy(100)).await;
    let start = Instant::now();
    let text: Vec<u8> = (0..3000_u32).flat_map(u32::to_be_bytes).take(3000).collect();
    round_trip(&mut client, &text).await;
    // Three segments, each way.
    assert!(start.elapsed() >= Duration::from_millis(600), "{:?}", start.elapsed());
    proxy.set(Mode::Lossy(0)).await;
    round_trip(&mut client, &text).await;
}

#[tokio::test]
async fn a_hang_up_lets_an_answer_pass_and_nothing_after_it() {
    let mut proxy = Proxy::start(&echo().await).await;
    let mut client = TcpStream::connect(proxy.address).await.expect("listening");
    round_trip(&mut client, b"before").await;
    proxy.set(Mode::HangUp).await;
    round_trip(&mut client, b"the last").await;
    // Whether this still gets onto the connection is left to chance; an answer it has not.
    let _ = client.write_all(b"nobody cares").await;
    let end = tokio::time::timeout(PATIENCE, client.read_u8()).await.expect("the connection ends");
    let kind = end.expect_err("nothing comes").kind();
    assert!(matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{kind:?}");
    // Others are served, and left likewise.
    let mut other = TcpStream::connect(proxy.address).await.expect("listening");
    round_trip(&mut other, b"hello").await;
    wait_for("both connections are closed", PATIENCE, async || proxy.open() == 0).await;
}
