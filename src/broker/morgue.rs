//! The dead-letter queue as an operator works on it: read in its order, removed from letter by letter, and given back
//! in its order.
//!
//! Nothing can be read from a queue without being taken. So letters are taken by a chain of consumers on one channel,
//! each with a prefetch: when one has its fill of letters that stay, it is cancelled, which leaves it what it holds, and
//! the next one begins. The broker keeps all letters; here is kept what is on its way to one consumer, and of that no
//! more than the sieve lets in.
//!
//! When the channel is closed, or its owner killed, all letters return in their order: to a classic queue because each
//! knows its place, to a quorum queue because it takes them back consumer by consumer, by their tags, as long as these
//! are so few that Erlang keeps them sorted. A channel ("bay") has [`CONSUMERS_MAX`] at most; a second bay is needed
//! beyond two million letters.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions,
    QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer, ExchangeKind};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connection::{Dialer, Line};
use super::corpse::Corpse;
use super::fault::{Fault, code, reply_code};
use super::session::{FRAMES_AT_ONCE, REPLICATION};
use super::sight::{Sight, silent};
use super::topology::{self, Names, Thing, attempt};
use crate::config::{Amqp, Config, Declare, QueueType};
use crate::delivery::Tag;

/// How long the broker may be away.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Letters that a consumer holds at least.
const HELD_MIN: u64 = 1_000;
/// What a prefetch can be.
const HELD_MAX: u64 = u16::MAX as u64;
/// Consumers of one channel: Erlang keeps maps of up to 32 keys sorted.
const CONSUMERS_MAX: u64 = 30;
/// Of these, so many hold few letters, if there is room for all others in the rest: often hardly any stay.
const SMALL_CONSUMERS: u64 = 10;
/// How long letters may take to be back, and how much longer for each that we held.
const RETURN_DEADLINE: Duration = Duration::from_secs(2);
const RETURN_DEADLINE_EACH: Duration = Duration::from_micros(30);
/// Between two looks whether they are.
const COUNT_INTERVAL: Duration = Duration::from_millis(20);
/// After this long without a letter we ask the broker whether there is one.
const LULL: Duration = Duration::from_millis(200);
/// After so many of these in a row without one that is ready, what is missing isn't waited for.
const LULLS_MAX: u32 = 25;
/// How often letters may have been given back if nothing is known of the queue's delivery limit, which is 20 if
/// nobody set one and RabbitMQ is 4.0 or later.
pub(crate) const RETURNS_MAX: u64 = 10;

/// The dead-letter queue, opened for work.
#[derive(Debug)]
pub(crate) struct Morgue {
    pub(crate) line: Line,
    /// For questions whose answers must not come behind all that is on its way.
    aside: Line,
    pub(crate) names: Names,
    /// Letters that waited when it was opened. No more than these are read, however many come.
    pub(crate) waiting: u64,
    /// Others that read the queue: what they hold can't be seen.
    pub(crate) readers: u64,
    amqp: Amqp,
    returns_max: u64,
    returns_are_certain: bool,
    taken: u64,
    removed: u64,
    /// When letters were last removed by many acks at once.
    many_acks: Option<Instant>,
    /// The last letter that was taken had been given back before.
    was_returned: bool,
    bays: Vec<Bay>,
}

/// A channel, the letters it holds, and the last of its consumers.
#[derive(Debug)]
struct Bay {
    channel: Channel,
    held: u64,
    consumers: u64,
    consumer: Option<Consumer>,
    /// The last letter's tag.
    last: u32,
    /// The first letter that the last consumer may hold, and how many it does.
    first: u32,
    held_last: u64,
    /// How many it may hold.
    held_max: u64,
}

/// Where a letter is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slip {
    bay: u32,
    tag: u32,
}

/// Slips in the order of their letters; a bit for each letter of the queue, so 125 KB for a million.
#[derive(Debug, Default)]
pub(crate) struct Slips {
    /// By bay and tag.
    bits: Vec<Vec<u64>>,
    pub(crate) letters: u64,
}

impl Slips {
    /// Adds `slip`, which isn't there yet.
    pub(crate) fn insert(&mut self, slip: Slip) {
        let (bay, word) = (slip.bay as usize, (slip.tag / u64::BITS) as usize);
        self.bits.resize_with(self.bits.len().max(bay + 1), Vec::new);
        let words = &mut self.bits[bay];
        words.resize(words.len().max(word + 1), 0);
        words[word] |= 1 << (slip.tag % u64::BITS);
        self.letters += 1;
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Slip> {
        (0..).zip(&self.bits).flat_map(|(bay, words)| {
            let tags = (0..).zip(words).flat_map(|(place, word): (u32, &u64)| {
                let bits = (0..u64::BITS).filter(move |bit| word >> bit & 1 == 1);
                bits.map(move |bit| place * u64::BITS + bit)
            });
            tags.map(move |tag| Slip { bay, tag })
        })
    }
}

/// Connects, as `purpose` in the broker's list.
///
/// # Errors
/// The broker refuses us, or can't be reached within [`CONNECT_DEADLINE`].
pub(crate) async fn dial(config: &Config, purpose: &str) -> Result<Line, Fault> {
    let mut dialer = Dialer::patient(&config.amqp, purpose);
    if let Ok(line) = timeout(CONNECT_DEADLINE, dialer.dial()).await {
        return line;
    }
    let last = dialer.last.map_or_else(|| "no answer".to_owned(), |fault| fault.sentence);
    Err(Fault::passing(format!("the broker can't be reached within {CONNECT_DEADLINE:?}: {last}")))
}

impl Morgue {
    /// Connects, and counts; nothing is taken yet. With `returns_max` the operator vouches for the delivery limit.
    ///
    /// # Errors
    /// The broker is away or refuses us; there is no such queue.
    pub(crate) async fn open(config: &Config, returns_max: Option<u64>) -> Result<Self, Fault> {
        let names = Names::new(&config.amqp, &config.dead_letter)?;
        let aside = dial(config, "dead-letters").await?;
        let seen = look(&aside, &names).await?.ok_or_else(|| silent(&names.dead_queue))?;
        Ok(Self {
            line: dial(config, "dead-letters").await?,
            aside,
            names,
            waiting: seen.ready.into(),
            readers: seen.consumers.into(),
            amqp: config.amqp.clone(),
            returns_max: returns_max.unwrap_or(RETURNS_MAX),
            returns_are_certain: returns_max.is_some(),
            taken: 0,
            removed: 0,
            many_acks: None,
            was_returned: false,
            bays: Vec::new(),
        })
    }

    /// The next letter; `None` when all that waited at the start have been seen, or nobody leaves us any more.
    ///
    /// # Errors
    /// The connection is lost, the queue is gone, or a letter was given back so often that to go on may lose it.
    pub(crate) async fn next(&mut self) -> Result<Option<(Slip, Corpse)>, Fault> {
        let mut lulls = 0;
        while self.taken < self.waiting {
            let at = self.consume().await?;
            let bay = &mut self.bays[at];
            let consumer = bay.consumer.as_mut().expect("the last bay consumes");
            match timeout(LULL, consumer.next()).await {
                Ok(Some(delivery)) => {
                    let delivery = delivery.map_err(|error| Fault::amqp("read dead letters", &error))?;
                    bay.held += 1;
                    bay.held_last += 1;
                    bay.last = delivery.delivery_tag as u32;
                    self.taken += 1;
                    let slip = Slip { bay: at as u32, tag: bay.last };
                    // Bays are filled one after the other, so a tag stands for one delivery.
                    let note = self.line.notes().take(Tag(delivery.delivery_tag));
                    let corpse = Corpse::new(delivery, note.and_then(|note| note.repaired()));
                    self.was_returned = corpse.returns() > 0;
                    self.guard(&corpse).await?;
                    return Ok(Some((slip, corpse)));
                }
                Ok(None) => {
                    return Err(Fault::passing(format!(
                        "the broker ended our reading of queue `{}`: it was deleted, or its node is gone",
                        self.names.dead_queue
                    )));
                }
                // None is ready: either others took the rest, or it is on its way, however slowly.
                Err(_) => match look(&self.aside, &self.names).await? {
                    Some(sight) if sight.ready > 0 => lulls = 0,
                    _ if lulls < LULLS_MAX => lulls += 1,
                    // We are one of its consumers.
                    None | Some(Sight::NOTHING) => return Err(silent(&self.names.dead_queue)),
                    Some(_) => break,
                },
            }
        }
        Ok(None)
    }

    /// Removes letters for good; when this returns the broker has done it, unless so large letters are on their way that
    /// its word can't be waited for.
    ///
    /// # Errors
    /// The channel is gone: some may be removed, the others are in the queue again.
    pub(crate) async fn remove(&mut self, slips: &[Slip]) -> Result<(), Fault> {
        // Raw acks are safe here: a channel of ours is never recovered, so a tag can't mean another delivery.
        // Where all that we took goes one ack does for it; a quorum queue's channel keeps back what are too many at once,
        // and forgets them when it ends.
        let last = slips.iter().max_by_key(|slip| (slip.bay, slip.tag));
        let whole = last.filter(|last| {
            let bay = &self.bays[last.bay as usize];
            bay.held == slips.len() as u64 && slips.iter().all(|slip| slip.bay == last.bay)
        });
        let acks = whole.map_or(slips, std::slice::from_ref).iter().map(|slip| {
            let bay = &self.bays[slip.bay as usize];
            bay.channel.basic_ack(slip.tag.into(), BasicAckOptions { multiple: whole.is_some() })
        });
        let acks: Vec<_> = acks.collect();
        if acks.len() > FRAMES_AT_ONCE {
            self.many_acks = Some(Instant::now());
        }
        for acked in self.line.within("take acknowledgements", CONNECT_DEADLINE, join_all(acks)).await? {
            acked.map_err(|error| Fault::amqp("remove dead letters", &error))?;
        }
        let mut touched: Vec<u32> = slips.iter().map(|slip| slip.bay).collect();
        for slip in slips {
            let bay = &mut self.bays[slip.bay as usize];
            bay.held -= 1;
            bay.held_last -= u64::from(slip.tag >= bay.first);
            self.removed += 1;
        }
        touched.dedup();
        let _leeway = self.line.notes().leeway();
        for bay in touched {
            tokio::select! {
                // An ack has no answer. This has one, and it comes after them.
                done = self.prefetch(bay as usize) => done?,
                // It comes behind more than there is room for, and so after letters that have yet to be read.
                () = self.line.notes().flooded() => {}
            }
        }
        Ok(())
    }

    /// Gives back, in their order, all letters that were not removed; they are ready when this returns.
    ///
    /// # Errors
    /// The connection was lost, by which the broker has them back too.
    pub(crate) async fn release(mut self) -> Result<(), Fault> {
        // What a quorum queue takes back it puts behind all that it took back before, and before what it never gave
        // away: so everything is taken that was ever given back.
        while self.was_returned && matches!(self.next().await, Ok(Some(_))) {}
        if let Some(many_acks) = self.many_acks {
            // Nothing tells when a quorum queue's channel has passed them on.
            sleep_until(many_acks + REPLICATION).await;
        }
        let held: u64 = self.bays.iter().map(|bay| bay.held).sum();
        let Self { line, aside, bays, names, waiting, taken, removed, readers, .. } = self;
        if held == 0 && taken == waiting {
            line.close().await;
            aside.close().await;
            return Ok(());
        }
        let back = if readers == 0 { waiting - removed } else { ready(&aside, &names).await? + held };
        // Without a goodbye: a quorum queue puts what a cancelled consumer had on its way, or gives back itself, behind
        // all others, but what a lost consumer held before them.
        drop(bays);
        drop(line);
        // If somebody else takes them at once the order is in their hands.
        let patience = RETURN_DEADLINE_EACH.saturating_mul(u32::try_from(held).unwrap_or(u32::MAX));
        let deadline = Instant::now() + RETURN_DEADLINE + patience;
        while ready(&aside, &names).await? < back && Instant::now() < deadline {
            sleep(COUNT_INTERVAL).await;
        }
        aside.close().await;
        Ok(())
    }

    /// The bay that letters come to next, with a consumer that has room.
    async fn consume(&mut self) -> Result<usize, Fault> {
        if let Some(bay) = self.bays.last_mut()
            && let Some(consumer) = &bay.consumer
        {
            if bay.held_last < bay.held_max {
                return Ok(self.bays.len() - 1);
            }
            // It has no room, so nothing is on its way; and it shall get none when some of its letters are removed.
            let cancel = bay.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
            self.line.ask("stop sending", cancel).await?;
            bay.consumer = None;
        }
        if self.bays.last().is_none_or(|bay| bay.consumers == CONSUMERS_MAX) {
            let channel = self.line.channel().await?;
            self.bays.push(Bay {
                channel,
                held: 0,
                consumers: 0,
                consumer: None,
                last: 0,
                first: 1,
                held_last: 0,
                held_max: 0,
            });
        }
        let at = self.bays.len() - 1;
        self.bays[at].held_max = held_max(self.waiting - self.taken, self.bays[at].consumers);
        self.prefetch(at).await?;
        let bay = &mut self.bays[at];
        let (queue, tag) = (&self.names.dead_queue, format!("dead-letters-{:02}", bay.consumers));
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consume = bay.channel.basic_consume(queue.clone(), tag.into(), options, none);
        bay.consumer = Some(attempt(&self.line, &Thing::Queue(queue), consume).await?);
        bay.consumers += 1;
        bay.first = bay.last + 1;
        bay.held_last = 0;
        Ok(at)
    }

    async fn prefetch(&self, at: usize) -> Result<(), Fault> {
        let bay = &self.bays[at];
        let qos = bay.channel.basic_qos(bay.held_max as u16, BasicQosOptions { global: false });
        self.line.ask("set the prefetch", qos).await
    }

    /// Each look is a return, and a queue with a delivery limit throws away what is returned too often.
    async fn guard(&mut self, corpse: &Corpse) -> Result<(), Fault> {
        let returns = corpse.returns();
        if returns < self.returns_max {
            return Ok(());
        }
        if !self.returns_are_certain && self.limit_is_ours().await {
            self.returns_are_certain = true;
            self.returns_max = u64::from(self.amqp.delivery_limit) / 10 * 9;
            if returns < self.returns_max {
                return Ok(());
            }
        }
        Err(Fault::lasting(format!(
            "a letter in queue `{}` has been given back {returns} times (x-delivery-count), and each look at it, this \
             one too, gives it back once more: a queue with a delivery limit (20 by default from RabbitMQ 4.0 on) \
             throws it away in the end; if the limit is larger, say so with --returns-max, else raise it first with a \
             policy, delivery-limit",
            self.names.dead_queue
        )))
    }

    /// Whether the queue was created with the configured arguments, the delivery limit among them.
    async fn limit_is_ours(&self) -> bool {
        if self.amqp.declare != Declare::Create || self.amqp.queue_type != QueueType::Quorum {
            return false;
        }
        let Ok(channel) = self.aside.channel().await else { return false };
        let arguments = topology::dead_queue_arguments(&self.amqp);
        let queue = self.names.dead_queue.clone();
        // The queue exists, as letters come from it; so this only compares.
        let declare = channel.queue_declare(queue, QueueDeclareOptions::durable(), arguments);
        self.aside.ask("compare the dead-letter queue", declare).await.is_ok()
    }
}

/// Whether there is an exchange of this name, as far as we may know.
///
/// # Errors
/// The connection is lost.
pub(crate) async fn has_exchange(line: &Line, name: &str) -> Result<bool, Fault> {
    let Ok(name) = ShortString::try_new(name) else { return Ok(false) };
    let channel = line.channel().await?;
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    // The kind is not compared.
    let kind = ExchangeKind::Direct;
    let declare = channel.exchange_declare(name, kind, options, FieldTable::default());
    let declared = line.within("look for an exchange", CONNECT_DEADLINE, declare).await?;
    Ok(match declared {
        Ok(()) => true,
        Err(error) => reply_code(&error) != Some(code::NOT_FOUND),
    })
}

/// How many letters the next consumer of a channel may hold, with `letters` to come and so many `consumers` before it.
fn held_max(letters: u64, consumers: u64) -> u64 {
    let others = CONSUMERS_MAX - consumers - 1;
    if consumers < SMALL_CONSUMERS && letters <= HELD_MIN + others * HELD_MAX {
        return HELD_MIN;
    }
    letters.div_ceil(others + 1).clamp(HELD_MIN, HELD_MAX)
}

/// How many letters are ready, as far as the broker can tell.
async fn ready(line: &Line, names: &Names) -> Result<u64, Fault> {
    Ok(look(line, names).await?.unwrap_or(Sight::NOTHING).ready.into())
}

/// How many letters are ready, and how many consumers there are.
async fn look(line: &Line, names: &Names) -> Result<Option<Sight>, Fault> {
    // A missing queue costs the channel.
    let channel = line.channel().await?;
    let queue = &names.dead_queue;
    let sight = attempt(line, &Thing::Queue(queue), Sight::of(queue, &channel)).await?;
    line.ask("close a channel", channel.close(200, "OK".into())).await?;
    Ok(sight)
}

/// Whether `line` may publish in the name of `user`.
pub(crate) fn is_user(line: &Line, user: &ShortString) -> bool {
    line.whereabouts().0 == format!("user `{user}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_letters_find_room_in_one_channel_even_if_all_stay() {
        for waiting in [0, 1, 999, 1_000, 25_000, 300_000, 1_000_000, 1_900_000, CONSUMERS_MAX * HELD_MAX] {
            let (mut left, mut consumers) = (waiting, 0);
            while left > 0 && consumers < CONSUMERS_MAX {
                let held = held_max(left, consumers);
                assert!((HELD_MIN..=HELD_MAX).contains(&held), "{held}");
                left = left.saturating_sub(held);
                consumers += 1;
            }
            assert_eq!(left, 0, "of {waiting}");
        }
    }

    #[test]
    fn slips_come_in_their_order() {
        let all: Vec<Slip> = [(0, 1), (0, 63), (0, 64), (0, 1_000), (1, 7), (3, 128)]
            .map(|(bay, tag)| Slip { bay, tag })
            .into();
        let mut slips = Slips::default();
        all.iter().for_each(|slip| slips.insert(*slip));
        assert_eq!(slips.iter().collect::<Vec<_>>(), all);
        assert_eq!(slips.letters, 6);
    }
}
