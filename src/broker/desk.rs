//! What the demonstration does on the broker beside its worker: publish, count, take.

use std::collections::BTreeMap;

use lapin::Channel;
use lapin::options::{
    BasicGetOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;

use super::connection::{Dialer, Line};
use super::fault::Fault;
use super::press::{BARRIER_MAX, Letter, Press};
use super::topology::Names;
use crate::config::Config;
use crate::delivery::Reason;

/// A connection of its own, and the names that the worker's configuration gives.
pub(crate) struct Desk {
    line: Line,
    channel: Channel,
    press: Press,
    names: Names,
}

impl Desk {
    /// Connects, however long it takes.
    pub(crate) async fn open(config: &Config) -> Result<Self, Fault> {
        let names = Names::new(&config.amqp, &config.dead_letter)?;
        let line = Dialer::new(&config.amqp, "demo").dial().await?;
        let (channel, press) = (line.channel().await?, Press::open(&line).await?);
        Ok(Self { line, channel, press, names })
    }

    /// Publishes requests; returns how many the broker confirmed.
    pub(crate) async fn publish(&mut self, bodies: &[String]) -> Result<u64, Fault> {
        let mut confirmed = 0;
        for barrier in bodies.chunks(BARRIER_MAX) {
            let letters: Vec<_> = barrier
                .iter()
                .map(|body| Letter::request(&self.names, body.clone().into_bytes(), "demo"))
                .collect();
            let letters: Vec<_> = letters.iter().collect();
            let placed = self.press.barrier(&self.line, &letters).await?;
            confirmed += placed.iter().filter(|placed| placed.is_ok()).count() as u64;
        }
        Ok(confirmed)
    }

    /// Messages that wait in the queue and in the dead-letter queue.
    pub(crate) async fn ready(&self) -> Result<(u64, u64), Fault> {
        let count = async |queue: &lapin::types::ShortString| {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let declare = self.channel.queue_declare(queue.clone(), options, FieldTable::default());
            let queue = self.line.ask("count messages", declare).await?;
            Ok::<_, Fault>(u64::from(queue.message_count()))
        };
        Ok((count(&self.names.queue).await?, count(&self.names.dead_queue).await?))
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

    /// Deletes queues and exchanges with all that is in them.
    pub(crate) async fn strike(&self) -> Result<(), Fault> {
        let Names { queue, exchange, dead_exchange, dead_queue, .. } = &self.names;
        for queue in [queue, dead_queue] {
            let purge = self.channel.queue_purge(queue.clone(), QueuePurgeOptions::default());
            self.line.ask("empty a queue", purge).await?;
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
