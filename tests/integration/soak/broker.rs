//! Faults of the broker.

use deletion_worker::rabbitmq::Node;
use fastrand::Rng;
use serde_json::json;

use super::Soak;

/// One fault after another, with time to recover in between.
pub(super) async fn fail(soak: &Soak, node: &mut Node, mut rng: Rng) {
    while soak.rest(&mut rng, 5_000..25_000).await {
        match rng.u32(..6) {
            0 => {
                soak.struck("broker: stopped");
                node.stop().await.expect("it was running");
                soak.rest(&mut rng, 100..8_000).await;
                node.start_again().await.expect("its ports and files are its own");
            }
            1 => {
                soak.struck("broker: kill -9");
                node.kill().await.expect("it was running");
                soak.rest(&mut rng, 100..8_000).await;
                node.start_again().await.expect("its ports and files are its own");
            }
            2 => {
                soak.struck("broker: short of memory");
                ctl(node, &["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
                soak.rest(&mut rng, 1_000..10_000).await;
                ctl(node, &["set_vm_memory_high_watermark", "0.9"]).await;
            }
            3 => {
                soak.struck("broker: all connections closed");
                ctl(node, &["close_all_connections", "soak"]).await;
            }
            4 => {
                soak.struck("broker: dead-letter queue full");
                let full = json!({ "max-length": 1, "overflow": "reject-publish" });
                policy(soak, node, "^deletions.dead$", full, &mut rng).await;
            }
            _ => {
                soak.struck("broker: another policy");
                // Far more returns than anything here costs a message.
                policy(soak, node, "^deletions$", json!({ "delivery-limit": 100_000 }), &mut rng).await;
            }
        }
    }
}

/// A policy that comes and goes.
async fn policy(soak: &Soak, node: &Node, pattern: &str, definition: serde_json::Value, rng: &mut Rng) {
    let vhost = &soak.world.vhost;
    vhost.management.set_policy(&vhost.name, "soak", pattern, definition).await.expect("the node serves");
    soak.rest(rng, 1_000..10_000).await;
    ctl(node, &["clear_policy", "-p", &vhost.name, "soak"]).await;
}

async fn ctl(node: &Node, arguments: &[&str]) {
    node.ctl(arguments).await.expect("the node serves");
}
