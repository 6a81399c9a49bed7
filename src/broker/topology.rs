//! Exchanges, queues and bindings: created, or looked for.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use super::connection::Line;
use super::fault::{Fault, code, reply_code, words};
use crate::config::{Amqp, DeadLetter, Declare, QueueType};

/// How long the broker may take about a queue: a replicated one first has to find a leader.
const DEADLINE: Duration = Duration::from_secs(15);

/// The names on the broker, fit for AMQP.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) queue: ShortString,
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) dead_exchange: ShortString,
    pub(crate) dead_queue: ShortString,
}

impl Names {
    /// # Errors
    /// A name of more than 255 bytes.
    pub(crate) fn new(amqp: &Amqp, dead_letter: &DeadLetter) -> Result<Self, Fault> {
        let short = |key: &str, name: &str| {
            ShortString::try_new(name)
                .map_err(|_| Fault::lasting(format!("{key} has {} bytes, more than 255", name.len())))
        };
        Ok(Self {
            queue: short("amqp.queue", &amqp.queue)?,
            exchange: short("amqp.exchange", &amqp.exchange)?,
            routing_key: short("amqp.routing_key", &amqp.routing_key)?,
            dead_exchange: short("dead_letter.exchange", &dead_letter.exchange)?,
            dead_queue: short("dead_letter.queue", &dead_letter.queue)?,
        })
    }
}

/// Does what `amqp.declare` says, on a channel of its own, as a refusal closes the channel.
///
/// # Errors
/// A sentence that names the queue or exchange, and what to do about it.
pub(crate) async fn prepare(line: &Line, names: &Names, amqp: &Amqp) -> Result<(), Fault> {
    let work = async |channel: &Channel| match amqp.declare {
        Declare::Create => create(line, channel, names, amqp).await,
        Declare::Verify => verify(line, channel, names).await,
        Declare::Skip => Ok(()),
    };
    if amqp.declare == Declare::Skip {
        return Ok(());
    }
    let channel = line.channel().await?;
    work(&channel).await?;
    line.ask("close a channel", channel.close(200, "OK".into())).await
}

async fn create(line: &Line, channel: &Channel, names: &Names, amqp: &Amqp) -> Result<(), Fault> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    // A dead letter keeps its routing key, and so does what the broker dead-letters: a fanout takes everything.
    for (exchange, kind) in
        [(&names.dead_exchange, ExchangeKind::Fanout), (&names.exchange, ExchangeKind::Direct)]
    {
        let declare = channel.exchange_declare(exchange.clone(), kind, durable, FieldTable::default());
        attempt(line, &Thing::Exchange(exchange), declare).await?;
    }
    for (queue, arguments, exchange, routing_key) in [
        (&names.dead_queue, dead_queue_arguments(amqp), &names.dead_exchange, ShortString::default()),
        (&names.queue, queue_arguments(amqp, names), &names.exchange, names.routing_key.clone()),
    ] {
        let declare = channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), arguments);
        attempt(line, &Thing::Queue(queue), declare).await?;
        let bind = channel.queue_bind(
            queue.clone(),
            exchange.clone(),
            routing_key,
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        attempt(line, &Thing::Binding(queue, exchange), bind).await?;
    }
    Ok(())
}

async fn verify(line: &Line, channel: &Channel, names: &Names) -> Result<(), Fault> {
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    for exchange in [&names.dead_exchange, &names.exchange] {
        // The kind is not compared.
        let kind = ExchangeKind::Direct;
        let declare = channel.exchange_declare(exchange.clone(), kind, passive, FieldTable::default());
        attempt(line, &Thing::Exchange(exchange), declare).await?;
    }
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    for queue in [&names.dead_queue, &names.queue] {
        let declare = channel.queue_declare(queue.clone(), passive, FieldTable::default());
        attempt(line, &Thing::Queue(queue), declare).await?;
    }
    Ok(())
}

/// The broker accepts arguments it does not know in silence, so nothing here is proved by its answer.
fn queue_arguments(amqp: &Amqp, names: &Names) -> FieldTable {
    let mut arguments = dead_queue_arguments(amqp);
    arguments.insert("x-dead-letter-exchange".into(), text(names.dead_exchange.as_str()));
    if amqp.single_active_consumer {
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    }
    match amqp.queue_type {
        QueueType::Quorum => {
            arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
            // Without it the strategy falls back to at-most-once, and nobody is told.
            arguments.insert("x-overflow".into(), text("reject-publish"));
        }
        QueueType::Classic => {}
    }
    arguments
}

pub(super) fn dead_queue_arguments(amqp: &Amqp) -> FieldTable {
    let mut arguments = FieldTable::default();
    match amqp.queue_type {
        QueueType::Quorum => {
            arguments.insert("x-queue-type".into(), text("quorum"));
            // Never -1: a broker older than 4.0 then throws a message away at its first return.
            let limit = AMQPValue::LongLongInt(amqp.delivery_limit.into());
            arguments.insert("x-delivery-limit".into(), limit);
        }
        QueueType::Classic => {
            arguments.insert("x-queue-type".into(), text("classic"));
        }
    }
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// What stands on the broker.
pub(crate) enum Thing<'a> {
    Exchange(&'a ShortString),
    Queue(&'a ShortString),
    Binding(&'a ShortString, &'a ShortString),
}

impl std::fmt::Display for Thing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exchange(name) => write!(f, "exchange `{name}`"),
            Self::Queue(name) => write!(f, "queue `{name}`"),
            Self::Binding(queue, exchange) => {
                write!(f, "the binding of queue `{queue}` to exchange `{exchange}`")
            }
        }
    }
}

/// Awaits `work` on `thing`; a refusal says what to do about it.
pub(crate) async fn attempt<T>(
    line: &Line,
    thing: &Thing<'_>,
    work: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Fault> {
    let done = line.within(&format!("answer about {thing}"), DEADLINE, work).await?;
    done.map_err(|error| refusal(line.whereabouts(), thing, &error))
}

fn refusal((who, vhost): (String, String), thing: &Thing<'_>, error: &lapin::Error) -> Fault {
    let words = words(error);
    match reply_code(error) {
        Some(code::PRECONDITION_FAILED) => Fault::lasting(format!(
            "{thing} in vhost `{vhost}` exists, but not as configured: {words}; delete it, or change the \
             configuration to match, or set amqp.declare to `verify` to take it as it is"
        )),
        Some(code::NOT_FOUND) => Fault::lasting(format!(
            "{thing} does not exist in vhost `{vhost}`: {words}; create it, or set amqp.declare to `create`"
        )),
        Some(code::ACCESS_REFUSED) => Fault::lasting(format!(
            "{who} has no permission for {thing} in vhost `{vhost}`: {words}; grant it, or create \
             everything beforehand and set amqp.declare to `verify` or `skip`"
        )),
        _ => Fault::amqp(&format!("set up {thing} in vhost `{vhost}`"), error),
    }
}

#[cfg(test)]
mod tests {
    use lapin::ErrorKind;
    use lapin::protocol::AMQPError;

    use super::*;

    fn refused(code: u16) -> Fault {
        let error = AMQPError::from_id(code, "the broker's words".into()).expect("a known code");
        let error = ErrorKind::ProtocolError(error).into();
        refusal(("user `worker`".to_owned(), "video".to_owned()), &Thing::Queue(&"deletions".into()), &error)
    }

    #[test]
    fn a_refusal_names_the_thing_the_broker_s_words_and_a_way_out() {
        for (code, rest) in [
            (406, "exists, but not as configured: the broker's words; delete it"),
            (404, "does not exist in vhost `video`: the broker's words; create it"),
            (
                403,
                "user `worker` has no permission for queue `deletions` in vhost `video`: the broker's words",
            ),
        ] {
            let fault = refused(code);
            assert!(fault.is_lasting());
            assert!(fault.sentence.contains("queue `deletions`"), "{fault}");
            assert!(fault.sentence.contains(rest), "{fault}");
        }
        assert!(!refused(541).is_lasting());
    }
}
