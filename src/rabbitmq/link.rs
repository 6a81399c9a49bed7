//! The ways between the members of a cluster, which can be cut.
//!
//! Each member has a port mapper of its own, and in it the others are registered under ports of ours: whatever
//! members say to one another passes through here. A cut is silence, as on a network that loses everything:
//! nothing is reset, and what was on its way waits until the way is open again or one of its ends gives up.

use std::io;
use std::net::Ipv4Addr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::ports::Ports;

/// From a port mapper's start until it listens.
const MAPPER_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// The links between all members, open until they are cut. Dropping them closes them for good.
#[derive(Debug)]
pub(super) struct Links {
    isolated: watch::Sender<Option<usize>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Links {
    /// Links members with these names and ports, in both directions; their port mappers run, or soon will.
    pub(super) async fn open(members: Vec<(String, Ports)>) -> Result<Self> {
        let (isolated, watched) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let (opened, ready) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // A thread, as members have to hear from one another also while a test blocks its runtime.
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let mut relays = JoinSet::new();
                let linked = link_all(&members, &watched, &mut relays).await;
                // Nobody waits for it only if the cluster was given up meanwhile.
                let _ = opened.send(linked);
                let _ = stopped.await;
            });
        });
        let links = Self { isolated, stop: Some(stop), thread: Some(thread) };
        ready.await.context("the thread of the links ended")??;
        Ok(links)
    }

    /// Cuts one member off from the others, who keep one another; or nobody.
    pub(super) fn isolate(&self, member: Option<usize>) {
        self.isolated.send_replace(member);
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A way from one member to another. Either may be the one that connects, so there are two between any two.
#[derive(Clone, Debug)]
struct Way {
    ends: [usize; 2],
    /// Where the one at its end listens.
    port: u16,
    isolated: watch::Receiver<Option<usize>>,
}

async fn link_all(
    members: &[(String, Ports)],
    isolated: &watch::Receiver<Option<usize>>,
    relays: &mut JoinSet<()>,
) -> Result<()> {
    for (from, (_, Ports { epmd, .. })) in members.iter().enumerate() {
        for (to, (name, Ports { distribution: port, .. })) in members.iter().enumerate() {
            if from == to {
                continue;
            }
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let name = name.split('@').next().unwrap_or_default();
            let registration = register(*epmd, name, listener.local_addr()?.port()).await;
            let registration =
                registration.with_context(|| format!("failed to register {name} in a port mapper"))?;
            let way = Way { ends: [from, to], port: *port, isolated: isolated.clone() };
            relays.spawn(async move {
                way.relay(listener).await;
                // The port mapper forgets whoever hangs up.
                drop(registration);
            });
        }
    }
    Ok(())
}

/// Tells the port mapper at `epmd` that the node `name` listens at `port`: ALIVE2_REQ of Erlang's distribution
/// protocol. It is believed for as long as the connection is kept.
async fn register(epmd: u16, name: &str, port: u16) -> Result<TcpStream> {
    const ALIVE2_REQ: u8 = 120;
    const HIDDEN: u8 = 72;
    let deadline = Instant::now() + MAPPER_PATIENCE;
    let mut mapper = loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, epmd)).await {
            Ok(mapper) => break mapper,
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    };
    let mut request = vec![ALIVE2_REQ];
    request.extend(port.to_be_bytes());
    // A kind that nobody looks at, TCP, and the versions of the distribution protocol that are in use.
    request.extend([HIDDEN, 0, 0, 6, 0, 5]);
    request.extend((name.len() as u16).to_be_bytes());
    request.extend(name.as_bytes());
    request.extend([0, 0]);
    mapper.write_u16(request.len() as u16).await?;
    mapper.write_all(&request).await?;
    let [_, refusal] = [mapper.read_u8().await?, mapper.read_u8().await?];
    ensure!(refusal == 0, "the name is taken");
    Ok(mapper)
}

impl Way {
    async fn relay(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        // Dropped with the links, and with it every connection.
        while let Ok((near, _)) = listener.accept().await {
            connections.spawn(self.clone().carry(near));
            while connections.try_join_next().is_some() {}
        }
    }

    /// Carries one connection until either end closes it, and a cut has let that through.
    async fn carry(mut self, mut near: TcpStream) {
        if self.opened().await.is_err() {
            return;
        }
        // A member that doesn't run refuses; its peer sees a connection that is closed at once.
        let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await else { return };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let ((from_near, to_near), (from_far, to_far)) = (near.split(), far.split());
        tokio::select! {
            _ = self.clone().pump(from_near, to_far) => {}
            _ = self.clone().pump(from_far, to_near) => {}
        }
    }

    async fn pump(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = from.read(&mut buffer).await;
            if self.opened().await.is_err() {
                return Ok(());
            }
            match read? {
                0 => return Ok(()),
                count => to.write_all(&buffer[..count]).await?,
            }
        }
    }

    /// Waits until neither of its ends is cut off; fails when the links are gone.
    async fn opened(&mut self) -> Result<(), watch::error::RecvError> {
        let is_open = |isolated: &Option<usize>| isolated.is_none_or(|member| !self.ends.contains(&member));
        self.isolated.wait_for(is_open).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A way from member 0 to member 1, a listener in the place of the latter, and what cuts it.
    async fn way() -> (u16, TcpListener, watch::Sender<Option<usize>>) {
        let far = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let near = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let (isolate, isolated) = watch::channel(None);
        let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
        let way = Way { ends: [0, 1], port: port(&far), isolated };
        let near_port = port(&near);
        tokio::spawn(way.relay(near));
        (near_port, far, isolate)
    }

    async fn connect(port: u16) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("it listens")
    }

    #[tokio::test]
    async fn what_is_said_over_a_cut_waits_and_what_concerns_others_does_not_cut() {
        let (port, listener, isolate) = way().await;
        let mut near = connect(port).await;
        let (mut far, _) = listener.accept().await.expect("the way is open");
        near.write_u8(1).await.expect("open");
        assert_eq!(far.read_u8().await.expect("open"), 1);
        isolate.send_replace(Some(2));
        far.write_u8(2).await.expect("open");
        assert_eq!(near.read_u8().await.expect("the two keep one another"), 2);
        for member in [0, 1] {
            isolate.send_replace(Some(member));
            near.write_u8(3).await.expect("the cut is not noticed");
            let heard = tokio::time::timeout(Duration::from_millis(100), far.read_u8()).await;
            assert!(heard.is_err(), "nothing passes");
            isolate.send_replace(None);
            assert_eq!(far.read_u8().await.expect("open again"), 3);
        }
    }

    #[tokio::test]
    async fn a_cut_hides_that_a_connection_was_closed_and_holds_up_new_ones() {
        let (port, listener, isolate) = way().await;
        let near = connect(port).await;
        let (mut far, _) = listener.accept().await.expect("the way is open");
        isolate.send_replace(Some(0));
        drop(near);
        let _new = connect(port).await;
        let heard = tokio::time::timeout(Duration::from_millis(100), far.read_u8()).await;
        assert!(heard.is_err(), "no end is seen");
        let accepted = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(accepted.is_err(), "nobody gets through");
        isolate.send_replace(None);
        assert!(far.read_u8().await.is_err(), "the end is seen");
        listener.accept().await.expect("it gets through");
    }

    #[tokio::test]
    async fn whoever_is_not_there_hangs_up() {
        let (port, listener, _isolate) = way().await;
        drop(listener);
        let mut near = connect(port).await;
        assert!(near.read_u8().await.is_err());
    }
}
