//! Faults of the network between the workers and the broker.

use fastrand::Rng;

use super::Soak;
use crate::support::proxy::{Mode, Proxy};

/// Two ways to the broker, so that not everybody is cut off at the same time.
pub(super) struct Network {
    pub(super) for_elder: Proxy,
    pub(super) for_others: Proxy,
}

/// One fault after another, with time to recover in between.
pub(super) async fn fail(soak: &Soak, network: &mut Network, mut rng: Rng) {
    while soak.rest(&mut rng, 2_000..12_000).await {
        let (mode, fault) = match rng.u32(..4) {
            0 => (Mode::Reset, "network: connections reset"),
            1 => (Mode::Pause, "network: nothing passes"),
            2 => (Mode::Refuse, "network: connections refused"),
            _ => (Mode::Trickle(rng.usize(500..50_000)), "network: slow"),
        };
        soak.struck(fault);
        let (elder, others) = rng.choice([(true, false), (false, true), (true, true)]).unwrap_or_default();
        network.set(elder, others, mode).await;
        if mode == Mode::Refuse {
            // Otherwise the open ones would go on as if nothing were.
            network.set(elder, others, Mode::Reset).await;
            network.set(elder, others, Mode::Refuse).await;
        }
        soak.rest(&mut rng, 200..15_000).await;
        network.set(true, true, Mode::Pass).await;
    }
}

impl Network {
    async fn set(&mut self, elder: bool, others: bool, mode: Mode) {
        if elder {
            self.for_elder.set(mode).await;
        }
        if others {
            self.for_others.set(mode).await;
        }
    }
}
