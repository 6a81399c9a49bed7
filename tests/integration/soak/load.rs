//! What is published, at a bounded rate, each message until the broker has confirmed it.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection, ConnectionProperties};

use super::Soak;
use crate::support::amqp;

/// How the IDs begin that the endpoint rejects.
pub(super) const BAD: &str = "BAD";

/// Messages published at once, and how often.
const CHUNK: u64 = 40;
const EVERY: Duration = Duration::from_millis(100);
/// So far behind may the workers be before the publisher waits for them.
const BEHIND_MAX: u64 = 50_000;
/// Longer than any fault: only a broker that never confirms reaches it.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(60);

/// All that was published, and what has to come of it.
#[derive(Default)]
pub(super) struct Load {
    pub(super) messages: u64,
    /// Published once more, as the broker had not confirmed them when the connection was lost.
    pub(super) again: u64,
    /// The IDs to be deleted, and how often that was asked for.
    pub(super) ids: BTreeMap<String, u32>,
    /// The bodies to be dead-lettered, why, and how often they were published.
    pub(super) letters: BTreeMap<String, (&'static str, u32)>,
}

/// One message and what has to come of it.
struct Message {
    body: String,
    ids: Vec<String>,
    reason: Option<&'static str>,
}

/// Publishes until the end, and then until everything is confirmed.
pub(super) async fn publish(soak: &Soak, mut rng: Rng) {
    let mut unconfirmed: Vec<Message> = Vec::new();
    while !(soak.is_over() && unconfirmed.is_empty()) {
        // Not through a proxy: what is tested is the worker.
        let connected = Connection::connect(&soak.world.vhost.url, ConnectionProperties::default()).await;
        if let Ok(connection) = connected {
            let _ = publish_on(&connection, soak, &mut rng, &mut unconfirmed).await;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// The same until the connection breaks.
async fn publish_on(
    connection: &Connection,
    soak: &Soak,
    rng: &mut Rng,
    unconfirmed: &mut Vec<Message>,
) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        if unconfirmed.is_empty() {
            if soak.is_over() {
                return Ok(());
            }
            ticks.tick().await;
            let mut load = soak.load.borrow_mut();
            if load.ids.len() as u64 > soak.world.mock.stats().ids_deleted + BEHIND_MAX {
                continue;
            }
            *unconfirmed = (0..CHUNK).map(|_| load.next(rng)).collect();
        } else {
            soak.load.borrow_mut().again += unconfirmed.len() as u64;
        }
        soak.load.borrow_mut().ask(unconfirmed);
        let Ok(published) = tokio::time::timeout(CONFIRM_PATIENCE, store(&channel, unconfirmed)).await else {
            return Ok(());
        };
        if published? {
            unconfirmed.clear();
        }
    }
}

/// Publishes all, and says whether the broker has all of them.
async fn store(channel: &Channel, messages: &[Message]) -> lapin::Result<bool> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let mut confirms = Vec::new();
    for message in messages {
        let (exchange, key, body) = ("deletions".into(), "delete".into(), message.body.as_bytes());
        confirms.push(channel.basic_publish(exchange, key, options, body, amqp::persistent()).await?);
    }
    let mut all = true;
    for confirm in confirms {
        all &= matches!(confirm.await?, Confirmation::Ack(None));
    }
    Ok(all)
}

impl Load {
    /// Mostly single IDs; some messages with three, some that repeat an ID of a moment or of long ago, and a few whose
    /// dead letter belongs there.
    fn next(&mut self, rng: &mut Rng) -> Message {
        let place = self.messages;
        self.messages += 1;
        let id = format!("VI{place}");
        let message = |body, ids: &[&String], reason| Message {
            body,
            ids: ids.iter().map(|id| (*id).clone()).collect(),
            reason,
        };
        match rng.u32(..1000) {
            0..4 => message(format!(r#"{{"videoNo":{place}"#), &[], Some("malformed")),
            4..6 => message(format!(r#"{{"videoNo":"{BAD}{place}"}}"#), &[], Some("rejected")),
            6..8 => message(format!(r#"["{id}","{BAD}{place}"]"#), &[&id], Some("rejected")),
            8..60 => {
                let [second, third] = ["b", "c"].map(|part| format!("{id}{part}"));
                let body = format!(r#"{{"videoNos":["{id}","{second}","{third}"]}}"#);
                message(body, &[&id, &second, &third], None)
            }
            60..110 => {
                let far = if rng.bool() { 50 } else { 20_000 };
                let back = rng.u64(..far);
                let again = format!("VI{}", place.saturating_sub(back));
                message(format!(r#"["{again}"]"#), &[&again], None)
            }
            _ => message(format!(r#"{{"videoNo":"{id}"}}"#), &[&id], None),
        }
    }

    fn ask(&mut self, messages: &[Message]) {
        for message in messages {
            for id in &message.ids {
                *self.ids.entry(id.clone()).or_default() += 1;
            }
            if let Some(reason) = message.reason {
                self.letters.entry(message.body.clone()).or_insert((reason, 0)).1 += 1;
            }
        }
    }
}
