//! Free ports for a private node.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Where ports are looked for: below the range from which systems take the local ports of connections, so that
/// no connection sits on a port between a node's stop and its next start.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// The ports of one node, on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) amqp: u16,
    pub(super) management: u16,
    /// Erlang's distribution: `rabbitmqctl` comes this way.
    pub(super) distribution: u16,
    /// Erlang's port mapper.
    pub(super) epmd: u16,
}

impl Ports {
    /// Four ports nobody listens on at this moment. Somebody else may be faster than the node, so a failed start
    /// asks [`Self::are_free`] whether that was the reason.
    pub(super) fn find() -> io::Result<Self> {
        let [ports] = Self::find_several()?;
        Ok(ports)
    }

    /// The same for several nodes.
    pub(super) fn find_several<const N: usize>() -> io::Result<[Self; N]> {
        // All are held at once, so they differ.
        let mut held = Vec::new();
        let mut found = [Self { amqp: 0, management: 0, distribution: 0, epmd: 0 }; N];
        for ports in &mut found {
            let Self { amqp, management, distribution, epmd } = ports;
            for port in [amqp, management, distribution, epmd] {
                let listener = listen()?;
                *port = listener.local_addr()?.port();
                held.push(listener);
            }
        }
        Ok(found)
    }

    /// Nobody listens on any of them; only meaningful when the node's processes are gone.
    pub(super) fn are_free(self) -> bool {
        [self.amqp, self.management, self.distribution, self.epmd]
            .into_iter()
            .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
    }
}

fn listen() -> io::Result<TcpListener> {
    let mut refusal = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..100 {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(RANGE))) {
            Ok(listener) => return Ok(listener),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_noticed() {
        let ports = Ports::find().expect("free ports");
        assert!(ports.are_free());
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.epmd)).expect("still free");
        assert!(!ports.are_free());
    }
}
