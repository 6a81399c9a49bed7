//! Publishing that knows what became of each message.
//!
//! Messages go out in barriers: all of them, then every confirm is awaited, and only then is judged. lapin attaches a
//! returned message to whichever confirm comes next, so a confirm by itself proves nothing: each message carries a
//! mark of its own, and exactly those whose marks come back are returned. Where a mark would be in the way, as in a
//! message that has to be what it was, those are that are like a returned one.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};

use super::connection::Line;
use super::fault::{Fault, words};
use super::topology::Names;

/// Messages in one barrier: with 500 a publish costs a third of what it costs alone.
pub(crate) const BARRIER_MAX: usize = 500;
/// Bytes of bodies in one barrier, unless its first message alone has more.
const BARRIER_BYTES_MAX: usize = 8 << 20;
/// How long the confirms of a barrier may take; a replicated queue under load takes its time.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(30);
/// The header that holds a message's mark.
pub(crate) const MARK: &str = "x-deletion-publish";

/// A message to publish: mandatory, and persistent if its properties say so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Letter {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

impl Letter {
    /// A deletion request, as a publisher sends it; `message_id` has at most 255 bytes.
    pub(crate) fn request(names: &Names, body: Vec<u8>, message_id: &str) -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_timestamp(seconds)
            .with_message_id(message_id.into())
            .with_app_id(concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).into());
        Self { exchange: names.exchange.clone(), routing_key: names.routing_key.clone(), properties, body }
    }
}

/// Why a message is not stored, as far as we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unplaced {
    /// It came back.
    #[error("no queue is bound to the exchange for it ({0})")]
    Returned(String),
    /// The broker said no.
    #[error("the broker refused it: a queue is full, or can't store it")]
    Refused,
    /// The channel died first; it may be stored all the same.
    #[error("{0}")]
    Unknown(String),
}

/// A channel in confirm mode and its only publisher: publishes that run side by side may swap their confirms.
#[derive(Debug)]
pub(crate) struct Press {
    channel: Channel,
    marks: i64,
    is_marking: bool,
}

impl Press {
    pub(crate) async fn open(line: &Line) -> Result<Self, Fault> {
        let channel = line.channel().await?;
        let confirm = channel.confirm_select(ConfirmSelectOptions::default());
        line.ask("turn on publisher confirms", confirm).await?;
        Ok(Self { channel, marks: 0, is_marking: true })
    }

    /// A press that publishes its letters exactly as they are.
    pub(crate) async fn open_unmarked(line: &Line) -> Result<Self, Fault> {
        Ok(Self { is_marking: false, ..Self::open(line).await? })
    }

    /// Publishes `letters` and awaits what becomes of each; of any but `Ok(())` for all, the press is broken.
    ///
    /// # Errors
    /// The deadline passed, and nothing is known of any of them.
    pub(crate) async fn barrier(
        &mut self,
        line: &Line,
        letters: &[&Letter],
    ) -> Result<Vec<Result<(), Unplaced>>, Fault> {
        let first = self.marks;
        self.marks += letters.len() as i64;
        let publishes = letters.iter().zip(first..).map(async |(letter, mark)| {
            let publish = self.channel.basic_publish(
                letter.exchange.clone(),
                letter.routing_key.clone(),
                BasicPublishOptions { mandatory: true, immediate: false },
                &letter.body,
                if self.is_marking { marked(&letter.properties, mark) } else { letter.properties.clone() },
            );
            publish.await?.await
        });
        let confirmed =
            line.within("confirm what was published", CONFIRM_DEADLINE, join_all(publishes)).await?;
        let mut words = Vec::with_capacity(confirmed.len());
        let mut returned = Returned { first, ..Returned::default() };
        let letters = if self.is_marking { &[] } else { letters };
        for confirmation in confirmed {
            words.push(match confirmation {
                Ok(Confirmation::Ack(message)) => {
                    returned.extend(message, letters);
                    Ok(())
                }
                Ok(Confirmation::Nack(message)) => {
                    returned.extend(message, letters);
                    Err(Unplaced::Refused)
                }
                Ok(Confirmation::NotRequested) => {
                    Err(Unplaced::Unknown("publisher confirms are off".to_owned()))
                }
                Err(error) => Err(Unplaced::Unknown(self::words(&error))),
            });
        }
        if words.iter().all(|word| !matches!(word, Err(Unplaced::Unknown(_)))) {
            let rest = line.ask("confirm what was published", self.channel.wait_for_confirms()).await?;
            returned.extend(rest, letters);
        }
        Ok(judge(words, first, &returned))
    }
}

/// How many of `sizes`, in order, make the next barrier of at most `max`: at least one.
pub(crate) fn barrier_len(sizes: impl Iterator<Item = usize>, max: usize) -> usize {
    let mut bytes = 0;
    let fits = |size: &usize| {
        bytes += size;
        bytes <= BARRIER_BYTES_MAX
    };
    sizes.take(max).take_while(fits).count().max(1)
}

/// What came back in a barrier.
#[derive(Debug, Default)]
struct Returned {
    marks: BTreeSet<i64>,
    /// The mark of the barrier's first message.
    first: i64,
    /// The broker's words, of the last one.
    reason: String,
    /// Something came back that carries no mark, so it may be any.
    unmarked: bool,
}

impl Returned {
    /// Takes note of `messages`, which are told by their marks, or by being like one of `letters` if there are any.
    fn extend(&mut self, messages: impl IntoIterator<Item = BasicReturnMessage>, letters: &[&Letter]) {
        for message in messages {
            self.reason = format!("{} {}", message.reply_code, message.reply_text);
            let marks: Vec<i64> = if letters.is_empty() {
                mark(&message.delivery.properties).into_iter().collect()
            } else {
                let alike = |(letter, _): &(&&Letter, i64)| is_alike(letter, &message);
                letters.iter().zip(self.first..).filter(alike).map(|(_, mark)| mark).collect()
            };
            self.unmarked |= marks.is_empty();
            self.marks.extend(marks);
        }
    }
}

/// Whether `message` may be `letter`, come back; of two that can't be told apart both are.
fn is_alike(letter: &Letter, message: &BasicReturnMessage) -> bool {
    let delivery = &message.delivery;
    letter.exchange == delivery.exchange
        && letter.routing_key == delivery.routing_key
        && letter.properties.message_id() == delivery.properties.message_id()
        && letter.body == delivery.data
}

/// Confirmed and not returned is stored; anything else is not.
fn judge(words: Vec<Result<(), Unplaced>>, first: i64, returned: &Returned) -> Vec<Result<(), Unplaced>> {
    let came_back = |mark| returned.unmarked || returned.marks.contains(&mark);
    let judged = words.into_iter().zip(first..).map(|(word, mark)| match word {
        Ok(()) if came_back(mark) => Err(Unplaced::Returned(returned.reason.clone())),
        word => word,
    });
    judged.collect()
}

fn marked(properties: &BasicProperties, mark: i64) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(MARK.into(), AMQPValue::LongLongInt(mark));
    properties.clone().with_headers(headers)
}

fn mark(properties: &BasicProperties) -> Option<i64> {
    let headers: &FieldTable = properties.headers().as_ref()?;
    headers.inner().get(MARK)?.as_long_long_int()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn returned(marks: &[i64]) -> Returned {
        Returned {
            marks: marks.iter().copied().collect(),
            first: 10,
            reason: "312 NO_ROUTE".to_owned(),
            unmarked: false,
        }
    }

    #[test]
    fn a_return_counts_against_its_own_mark() {
        let words = vec![Ok(()), Ok(()), Err(Unplaced::Refused), Ok(())];
        let judged = judge(words, 10, &returned(&[11, 12, 99]));
        let back = Unplaced::Returned("312 NO_ROUTE".to_owned());
        assert_eq!(judged, [Ok(()), Err(back), Err(Unplaced::Refused), Ok(())]);
    }

    #[test]
    fn a_return_that_cannot_be_told_counts_against_all() {
        let returned = Returned { unmarked: true, ..returned(&[]) };
        assert!(judge(vec![Ok(()), Ok(())], 0, &returned).iter().all(Result::is_err));
    }

    #[test]
    fn a_mark_survives_among_other_headers_and_is_not_kept_twice() {
        let mut headers = FieldTable::default();
        headers.insert("other".into(), AMQPValue::Boolean(true));
        let properties = marked(&BasicProperties::default().with_headers(headers), 7);
        assert_eq!(mark(&properties), Some(7));
        let properties = marked(&properties, 8);
        assert_eq!(mark(&properties), Some(8));
        assert_eq!(properties.headers().as_ref().map(|headers| headers.inner().len()), Some(2));
        assert_eq!(mark(&BasicProperties::default()), None);
    }

    #[test]
    fn a_barrier_is_bounded_by_count_and_by_bytes_but_never_empty() {
        assert_eq!(barrier_len([1; 600].into_iter(), BARRIER_MAX), 500);
        assert_eq!(barrier_len([1; 3].into_iter(), BARRIER_MAX), 3);
        assert_eq!(barrier_len([3 << 20; 9].into_iter(), BARRIER_MAX), 2);
        assert_eq!(barrier_len([100 << 20; 2].into_iter(), BARRIER_MAX), 1);
        assert_eq!(barrier_len([1; 9].into_iter(), 1), 1);
    }
}
