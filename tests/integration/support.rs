//! What the integration tests share.
#![expect(dead_code, reason = "a toolbox: not every tool is in use at any time")]

pub(crate) mod amqp;
pub(crate) mod broker;
pub(crate) mod clock;
pub(crate) mod http;
pub(crate) mod letter;
pub(crate) mod names;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw_amqp;
pub(crate) mod scratch;
pub(crate) mod tls_front;
pub(crate) mod world;

use std::time::{Duration, Instant};

/// Longer than anything takes on a slow and busy machine; only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds; panics with `what` if it doesn't within `patience`.
pub(crate) async fn wait_for(what: &str, patience: Duration, mut condition: impl AsyncFnMut() -> bool) {
    wait_for_some(what, patience, async || condition().await.then_some(())).await;
}

/// Waits until `look` finds something; panics with `what` if it doesn't within `patience`.
pub(crate) async fn wait_for_some<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        // A look that hangs is a condition that doesn't hold.
        if let Ok(Some(found)) = tokio::time::timeout(patience, look()).await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
