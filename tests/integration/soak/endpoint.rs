//! Faults of the endpoint.

use std::time::Duration;

use deletion_worker::mock::{Block, Down, Faults, Loss, Reply};
use fastrand::Rng;

use super::{Soak, healthy};

/// One fault after another, with time to recover in between.
pub(super) async fn fail(soak: &Soak, mut rng: Rng) {
    while soak.rest(&mut rng, 1_000..8_000).await {
        let mut faults = Faults { seed: rng.u64(..), ..healthy() };
        let fault = draw(&mut rng, &mut faults);
        soak.struck(fault);
        soak.world.mock.set_faults(faults);
        soak.rest(&mut rng, 500..9_000).await;
        soak.world.mock.set_faults(healthy());
    }
}

fn draw(rng: &mut Rng, faults: &mut Faults) -> &'static str {
    match rng.u32(..11) {
        0 => {
            faults.down = Some(Down::Unavailable);
            "endpoint: 503"
        }
        1 => {
            faults.down = Some(Down::Reset);
            "endpoint: connections reset"
        }
        2 => {
            faults.down = Some(Down::ResetAfterApplying);
            "endpoint: connections reset once it has deleted"
        }
        3 => {
            faults.down = Some(Down::Hang);
            "endpoint: no answer"
        }
        4 => {
            let blocks =
                [Block::Unauthorized, Block::OutOfCredits, Block::Disabled, Block::Denied, Block::Http401];
            faults.blocked = rng.choice(blocks);
            "endpoint: account refused"
        }
        5 => {
            faults.requests_per_second = rng.u32(1..10);
            faults.throttle_by_status = rng.bool();
            faults.retry_after = rng.bool().then_some(1);
            "endpoint: throttles"
        }
        6 => {
            faults.failure_ratio = 0.05;
            "endpoint: one call in 20 fails"
        }
        7 => {
            faults.latency = Duration::from_millis(rng.u64(200..2_000));
            faults.jitter = Duration::from_millis(500);
            "endpoint: slow"
        }
        8 => {
            faults.lose_next = rng.u32(1..10);
            faults.lose_as = rng.choice([Loss::Reset, Loss::Truncated, Loss::Endless]).unwrap_or_default();
            "endpoint: answers lost"
        }
        9 => {
            faults.fail_next = rng.u32(1..10);
            "endpoint: a few calls fail"
        }
        _ => {
            let body = "<html>Bad gateway</html>".to_owned();
            faults.reply = Some(Reply { status: 502, headers: [].into(), body, calls: None, applies: false });
            "endpoint: 502 of a proxy"
        }
    }
}
