//! What the demonstration does on the broker beside its worker: publish, count, take.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicGetOptions, ExchangeDeleteOptions, QueueDeleteOptions};
use tokio::time::timeout;

use super::connection::{Dialer, Line};
use super::fault::Fault;
use super::press::{BARRIER_MAX, Letter, Press};
use super::sight::{Sight, silent};
use super::topology::Names;
use crate::config::Config;
use crate::delivery::Reason;

/// How long the broker may be away.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);

/// A connection of its own, and the names that the worker's configuration gives.
#[derive(Debug)]
pub(crate) struct Desk {
    line: Line,
    channel: Channel,
    press: Press,
    names: Names,
}

impl Desk {
    /// Connects.
    ///
    /// # Errors
    /// The broker won't let us in, or can't be reached within [`CONNECT_DEADLINE`].
    pub(crate) async fn open(config: &Config) -> Result<Self, Fault> {
        let names = Names::new(&config.amqp, &config.dead_letter)?;
        let mut dialer = Dialer::new(&config.amqp, "demo");
        let Ok(line) = timeout(CONNECT_DEADLINE, dialer.dial()).await else {
            let silence = || Fault::passing(format!("no broker answered within {CONNECT_DEADLINE:?}"));
            return Err(dialer.last.unwrap_or_else(silence));
        };
        let line = line?;
        let (channel, press) = (line.channel().await?, Press::open(&line).await?);
        Ok(Self { line, channel, press, names })
    }

    /// Publishes requests; returns how many the broker confirmed, which is all of them.
    ///
    /// # Errors
    /// One was refused, came back, or may be lost; no further ones are sent then.
    pub(crate) async fn publish(&mut self, bodies: &[String]) -> Result<u64, Fault> {
        let mut confirmed = 0;
        for (number, barrier) in bodies.chunks(BARRIER_MAX).enumerate() {
            let letters: Vec<_> = barrier
                .iter()
                .zip(number * BARRIER_MAX..)
                .map(|(body, place)| {
                    Letter::request(&self.names, body.clone().into_bytes(), &format!("demo-{place}"))
                })
                .collect();
            let letters: Vec<_> = letters.iter().collect();
            for placed in self.press.barrier(&self.line, &letters).await? {
                placed.map_err(|unplaced| {
                    Fault::passing(format!("after {confirmed} messages one is not stored: {unplaced}"))
                })?;
                confirmed += 1;
            }
        }
        Ok(confirmed)
    }

    /// Messages that wait in the queue.
    pub(crate) async fn waiting(&self) -> Result<u64, Fault> {
        let queue = &self.names.queue;
        let sight = self.line.ask("count messages", Sight::of(queue, &self.channel)).await?;
        Ok(sight.ok_or_else(|| silent(queue))?.ready.into())
    }

    /// Takes all dead letters, and counts them by reason; `None` is one that we don't know.
    pub(crate) async fn take_dead_letters(&self) -> Result<BTreeMap<Option<Reason>, u64>, Fault> {
        let mut reasons = BTreeMap::new();
        let options = BasicGetOptions { no_ack: true };
        loop {
            let get = self.channel.basic_get(self.names.dead_queue.clone(), options);
            let Some(letter) = self.line.ask("take a dead letter", get).await? else { return Ok(reasons) };
            let headers = letter.properties.headers().clone().unwrap_or_default();
            let header = headers.inner().get("x-deletion-reason").and_then(|value| value.as_long_string());
            let reason = header.and_then(|header| {
                Reason::ALL.into_iter().find(|reason| reason.as_str().as_bytes() == header.as_bytes())
            });
            *reasons.entry(reason).or_default() += 1;
        }
    }

    /// Deletes queues and exchanges with all that is in them; what isn't there is as good as deleted.
    pub(crate) async fn strike(&self) -> Result<(), Fault> {
        let Names { queue, exchange, dead_exchange, dead_queue, .. } = &self.names;
        for queue in [queue, dead_queue] {
            let delete = self.channel.queue_delete(queue.clone(), QueueDeleteOptions::default());
            self.line.ask("delete a queue", delete).await?;
        }
        for exchange in [exchange, dead_exchange] {
            let delete = self.channel.exchange_delete(exchange.clone(), ExchangeDeleteOptions::default());
            self.line.ask("delete an exchange", delete).await?;
        }
        Ok(())
    }

    /// Takes leave of the broker.
    pub(crate) async fn close(self) {
        self.line.close().await;
    }
}
