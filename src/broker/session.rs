//! One epoch: a channel, its consumer, and the settling of what it delivered.
//!
//! Everything is carried out by one task, in order. Settlements are awaited, as an ack that is not awaited may not be
//! sent; meanwhile deliveries wait with lapin, whose buffer the prefetch bounds.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_util::future::{join_all, poll_fn};
use futures_util::{Stream, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::connection::{ANSWER_DEADLINE, Line};
use super::fault::{Fault, Nature, code, reply_code};
use super::muffle::Muffle;
use super::pace::{Appetite, Course};
use super::publisher::Job;
use super::settle::{Single, Verdict, cover, settle};
use super::shelf::{Parcel, Shelf};
use super::sieve::Note;
use super::sight::Sight;
use super::topology::{Names, Thing, attempt};
use super::unpack::unpack;
use super::watch::{Intake, Watch};
use super::{Command, Event, Extent, Session, dead_letter};
use crate::delivery::{Arrival, Obituary, Reason, Tag};

/// Messages in one chunk.
const CHUNK_MAX: usize = 512;
/// After a chunk that is smaller the next is let grow for so long: under load most of the price of a message is that of
/// waking up for it.
const REST: Duration = Duration::from_millis(1);
/// How long the next delivery of a queue that isn't empty takes at most, if we are the one who is served.
const PROMPT: Duration = Duration::from_secs(5);
/// Commands taken at once.
const COMMANDS_MAX: usize = 1024;
/// Acknowledging frames that a quorum queue's channel surely passes on at once: half of what was seen.
pub(super) const FRAMES_AT_ONCE: usize = 16;
/// How long it may take to replicate what came in more.
pub(super) const REPLICATION: Duration = Duration::from_millis(200);

/// What a session works with, beyond its connection.
pub(super) struct Surroundings<'a> {
    pub(super) names: &'a Names,
    pub(super) prefetch: u16,
    /// The queue is known to serve one consumer at a time.
    pub(super) is_exclusive: bool,
    pub(super) ids_per_message_max: usize,
    pub(super) events: &'a mpsc::Sender<Event>,
    pub(super) publisher: &'a mpsc::UnboundedSender<Job>,
}

/// How an epoch ended.
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) acks_lost: u64,
    pub(super) course: Course,
    /// The broker had confirmed a consumer.
    pub(super) consumed: bool,
}

/// What ended an epoch.
pub(super) enum End {
    /// The worker asked for it, or went away.
    Closed,
    /// Something was settled at a reduced [`Appetite`]: time for a session with a better one.
    Recovered,
    /// Something broke.
    Broken(Fault),
}

/// Opens the channel of a new epoch. Prefetch is set before anything is consumed, and per consumer: with the global
/// flag a quorum queue kills the connection.
pub(super) async fn open(line: &Line, prefetch: u16) -> Result<Channel, Fault> {
    let channel = line.channel().await?;
    let qos = channel.basic_qos(prefetch, BasicQosOptions { global: false });
    line.ask("set the prefetch", qos).await?;
    Ok(channel)
}

/// Runs an epoch to its end; of the line only [`Line::close`] is left to do.
pub(super) async fn run(
    line: &Line,
    channel: Channel,
    appetite: Appetite,
    surroundings: Surroundings<'_>,
) -> Ended {
    let (arrivals, arrivals_taken) = mpsc::channel(1);
    let (commands_given, commands) = mpsc::unbounded_channel();
    let (stored, stored_seen) = mpsc::unbounded_channel();
    let session = Session { arrivals: arrivals_taken, commands: commands_given };
    let mut epoch = Epoch {
        line,
        channel,
        appetite,
        surroundings,
        consumer: None,
        intake: Vec::new(),
        notes: VecDeque::new(),
        shelf: Shelf::new(),
        waiting: None,
        last_intake: Instant::now(),
        watch: Watch::new(Instant::now()),
        commands,
        queue: VecDeque::new(),
        stored,
        stored_seen,
        repairs: Muffle::default(),
        consumed: false,
        many_frames: None,
        acked: 0,
        acks_lost: 0,
    };
    // A send fails only when the worker is gone, and then the commands end as well.
    let _ = epoch.surroundings.events.send(Event::Up(session)).await;
    let end = epoch.run(&arrivals).await;
    epoch.ended(end)
}

struct Epoch<'a> {
    line: &'a Line,
    channel: Channel,
    appetite: Appetite,
    surroundings: Surroundings<'a>,
    consumer: Option<Consumer>,
    intake: Vec<Delivery>,
    /// On deliveries that are in the intake or will be.
    notes: VecDeque<(Tag, Note)>,
    shelf: Shelf,
    /// How much was in the queue before we began to consume, until the first of it comes.
    waiting: Option<u32>,
    /// When deliveries last came, or we looked into the queue to consume it.
    last_intake: Instant,
    watch: Watch,
    commands: mpsc::UnboundedReceiver<Command>,
    queue: VecDeque<Command>,
    stored: mpsc::UnboundedSender<(Tag, Reason)>,
    stored_seen: mpsc::UnboundedReceiver<(Tag, Reason)>,
    /// For the log about messages that had to be made readable.
    repairs: Muffle,
    consumed: bool,
    /// When acks last went out as many frames.
    many_frames: Option<Instant>,
    acked: u64,
    acks_lost: u64,
}

/// What happened; an arm of the loop only produces one of these.
enum Happening<'a> {
    /// Commands are in the queue.
    Commands,
    /// The worker dropped its end.
    WorkerGone,
    /// The worker takes another chunk.
    Room(mpsc::Permit<'a, Vec<Arrival>>),
    /// Dead letters are stored.
    Stored(Vec<(Tag, Reason)>),
    /// Deliveries are in the intake.
    Deliveries,
    /// The consumer's stream ended, which we had not asked for.
    StreamEnded(Option<lapin::Error>),
    /// Something about the connection.
    Signal(Option<lapin::Event>),
    /// Time to see whether deliveries still come.
    Watch,
}

impl Epoch<'_> {
    async fn run(&mut self, arrivals: &mpsc::Sender<Vec<Arrival>>) -> Result<End, Fault> {
        let mut signals = self.line.listen()?;
        let mut commands = Vec::new();
        let mut stored = Vec::new();
        let mut rest = Instant::now();
        loop {
            let happening = tokio::select! {
                biased;
                count = self.commands.recv_many(&mut commands, COMMANDS_MAX) => {
                    if count == 0 { Happening::WorkerGone } else { Happening::Commands }
                }
                Ok(permit) = arrivals.reserve(), if self.shelf.has_unhanded() => Happening::Room(permit),
                _ = self.stored_seen.recv_many(&mut stored, COMMANDS_MAX) => {
                    Happening::Stored(std::mem::take(&mut stored))
                }
                ended = async {
                    sleep_until(rest).await;
                    poll_fn(|context| take_in(&mut self.consumer, &mut self.intake, context)).await
                } => match ended {
                    Ok(()) => Happening::Deliveries,
                    Err(error) => Happening::StreamEnded(error),
                },
                signal = signals.next() => Happening::Signal(signal),
                () = sleep_until(self.watch.due()) => Happening::Watch,
            };
            match happening {
                Happening::Commands => {
                    self.queue.extend(commands.drain(..));
                    if let Some(end) = self.execute().await? {
                        return Ok(end);
                    }
                }
                Happening::WorkerGone => return Ok(End::Closed),
                Happening::Room(permit) => {
                    let ids_max = self.surroundings.ids_per_message_max;
                    let now = SystemTime::now();
                    let unpack = |tag, parcel: &Parcel| unpack(tag, parcel, ids_max, now);
                    permit.send(self.shelf.hand_over(CHUNK_MAX, unpack));
                }
                Happening::Stored(tags) => self.tell(Event::DeadLettered(tags)).await,
                Happening::Deliveries => {
                    if self.intake.len() < CHUNK_MAX {
                        rest = Instant::now() + REST;
                    }
                    self.keep()?;
                }
                Happening::StreamEnded(error) => return Err(self.stream_ended(error)),
                Happening::Signal(signal) => self.signalled(signal)?,
                Happening::Watch => self.look().await?,
            }
        }
    }

    /// Puts what came on the shelf.
    fn keep(&mut self) -> Result<(), Fault> {
        self.expect_waiting();
        self.line.notes().take_all(&mut self.notes);
        for delivery in self.intake.drain(..) {
            let note = self.notes.pop_front().filter(|(tag, _)| tag.0 == delivery.delivery_tag);
            let Some((_, note)) = note else {
                return Err(Fault::passing("a delivery came without its note: please report this"));
            };
            if let Some(repaired) = note.repaired()
                && let Some(kept) = self.repairs.speak(Instant::now())
            {
                let queue = self.surroundings.names.queue.as_str();
                tracing::warn!(
                    queue,
                    more_messages = kept,
                    "a message was published with properties that break AMQP: {repaired}; its body is untouched"
                );
            }
            self.shelf.put(delivery, note).map_err(|gap| Fault::passing(gap.to_string()))?;
        }
        Ok(())
    }

    /// Keeps up with whether what comes was in the queue when we began to consume.
    fn expect_waiting(&mut self) {
        if self.intake.is_empty() {
            return;
        }
        let waiting = self.waiting.take();
        if self.last_intake.elapsed() >= PROMPT {
            // What waits comes at once. So either all of it is gone, wherever it went, or somebody overtook us as we began
            // to consume, and was served instead of us.
            self.shelf.expect_waiting(0);
        } else if let Some(ready) = waiting {
            self.shelf.expect_waiting(ready);
        }
        self.last_intake = Instant::now();
    }

    /// Carries out what is in the queue, in order.
    async fn execute(&mut self) -> Result<Option<End>, Fault> {
        let mut singles = Vec::new();
        while let Some(command) = self.queue.pop_front() {
            // Singles go out together; whatever is not a single goes out after them.
            match command {
                Command::Ack(Extent::One(tag)) => self.pick(Verdict::Ack, tag, &mut singles),
                Command::GiveBack(Extent::One(tag)) => self.pick(Verdict::GiveBack, tag, &mut singles),
                Command::Ack(Extent::UpTo(tag)) => {
                    self.settle_singles(&mut singles).await?;
                    if !matches!(self.queue.front(), Some(Command::Ack(Extent::UpTo(next))) if *next >= tag) {
                        self.settle_up_to(Verdict::Ack, tag).await?;
                    }
                }
                Command::GiveBack(Extent::UpTo(tag)) => {
                    self.settle_singles(&mut singles).await?;
                    self.settle_up_to(Verdict::GiveBack, tag).await?;
                }
                Command::DeadLetter(tag, obituary) => self.dead_letter(tag, &obituary),
                Command::Consume => {
                    self.settle_singles(&mut singles).await?;
                    self.consume().await?;
                }
                Command::Cancel => {
                    self.settle_singles(&mut singles).await?;
                    self.cancel().await?;
                }
                Command::Close => {
                    self.settle_singles(&mut singles).await?;
                    self.close().await?;
                    return Ok(Some(End::Closed));
                }
            }
        }
        self.settle_singles(&mut singles).await?;
        if !self.appetite.is_stilled_by(self.acked) {
            return Ok(None);
        }
        self.close().await?;
        Ok(Some(End::Recovered))
    }

    fn pick(&mut self, verdict: Verdict, tag: Tag, singles: &mut Vec<Single>) {
        match self.shelf.take(tag) {
            Some(Parcel { acker, .. }) => singles.push(Single { verdict, tag, acker }),
            None => tracing::error!(tag = tag.0, "a delivery was settled twice: please report this"),
        }
    }

    /// Settles them together: as many as can be with one frame, and one each for those beyond a gap.
    async fn settle_singles(&mut self, singles: &mut Vec<Single>) -> Result<(), Fault> {
        let (covered, beyond) = cover(std::mem::take(singles), self.shelf.first());
        let last = covered.iter().max_by_key(|single| single.tag).into_iter();
        let settling = last
            .map(|single| (single, true))
            .chain(beyond.iter().map(|single| (single, false)))
            .map(|(single, multiple)| settle(&single.acker, single.verdict, multiple));
        let settling: Vec<_> = settling.collect();
        if settling.is_empty() {
            return Ok(());
        }
        if settling.len() > FRAMES_AT_ONCE {
            self.many_frames = Some(Instant::now());
        }
        let settled = self.line.within("take acknowledgements", ANSWER_DEADLINE, join_all(settling)).await;
        let acks = |singles: &[Single]| {
            singles.iter().filter(|single| single.verdict == Verdict::Ack).count() as u64
        };
        let mut settled =
            settled.inspect_err(|_| self.acks_lost += acks(&covered) + acks(&beyond))?.into_iter();
        let mut failure = None;
        let shares = (!covered.is_empty()).then_some(covered.as_slice()).into_iter().chain(beyond.chunks(1));
        for (share, settled) in shares.zip(&mut settled) {
            match settled {
                Ok(()) => self.acked += acks(share),
                Err(fault) => {
                    self.acks_lost += acks(share);
                    failure = failure.or(Some(fault));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn settle_up_to(&mut self, verdict: Verdict, tag: Tag) -> Result<(), Fault> {
        let (count, last) = self.shelf.take_up_to(tag);
        // The last one's acker stands for all before it; `tag` itself may have been settled before. Of the message
        // nothing is kept: the broker may send the next large one before we are back.
        let Some(acker) = last.map(|parcel| parcel.acker) else { return Ok(()) };
        let settling = settle(&acker, verdict, true);
        let settled = self.line.within("take an acknowledgement", ANSWER_DEADLINE, settling).await;
        let settled = settled.and_then(|settled| settled);
        match verdict {
            Verdict::Ack if settled.is_err() => self.acks_lost += count,
            Verdict::Ack => self.acked += count,
            Verdict::GiveBack => {}
        }
        settled
    }

    fn dead_letter(&mut self, tag: Tag, obituary: &Obituary) {
        let Some(parcel) = self.shelf.get(tag) else {
            tracing::error!(tag = tag.0, "a settled delivery was to be dead-lettered: please report this");
            return;
        };
        let letter = dead_letter::letter(parcel, obituary, self.surroundings.names, SystemTime::now());
        let job = Job { tag, reason: obituary.reason, letter, stored: self.stored.clone() };
        // The publisher lives longer than any session, and if it doesn't the original is not acked.
        let _ = self.surroundings.publisher.send(job);
    }

    async fn consume(&mut self) -> Result<(), Fault> {
        if self.consumer.is_none() {
            let queue = &self.surroundings.names.queue;
            let consume = self.channel.basic_consume(
                queue.clone(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            );
            self.shelf.expect_waiting(0);
            let before = match self.surroundings.is_exclusive {
                true => attempt(self.line, &Thing::Queue(queue), Sight::of(queue, &self.channel)).await?,
                false => None,
            };
            self.last_intake = Instant::now();
            self.consumer = Some(attempt(self.line, &Thing::Queue(queue), consume).await?);
            self.consumed = true;
            self.waiting = before.filter(|before| before.consumers == 0).map(|before| before.ready);
        }
        self.tell(Event::Consuming).await;
        Ok(())
    }

    /// Cancels the consumer and gives back what the worker has not been handed.
    async fn cancel(&mut self) -> Result<(), Fault> {
        if let Some(mut consumer) = self.consumer.take() {
            let cancel = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
            self.line.ask("cancel the consumer", cancel).await?;
            // What was on its way is in the stream, which then ends.
            let rest = async {
                while let Some(delivery) = consumer.next().await {
                    self.intake.push(delivery?);
                }
                lapin::Result::Ok(())
            };
            let drained = self.line.within("end the consumer", ANSWER_DEADLINE, rest).await?;
            drained.map_err(|error| Fault::amqp("end the consumer", &error))?;
            self.keep()?;
            let unhanded = self.shelf.take_unhanded();
            let give_back = |(tag, parcel): (Tag, Parcel)| Single {
                verdict: Verdict::GiveBack,
                tag,
                acker: parcel.acker,
            };
            self.settle_singles(&mut unhanded.into_iter().map(give_back).collect()).await?;
            self.waiting = None;
        }
        self.tell(Event::Cancelled).await;
        Ok(())
    }

    /// Asks about the queue if nothing comes any more.
    async fn look(&mut self) -> Result<(), Fault> {
        let has_room = self.consumer.is_some() && self.shelf.len() < usize::from(self.surroundings.prefetch);
        let intake = Intake { taken: self.shelf.taken(), has_room };
        if !self.watch.is_silent(intake, Instant::now()) {
            return Ok(());
        }
        let queue = &self.surroundings.names.queue;
        let sight = self.line.ask("tell about the queue", Sight::of(queue, &self.channel)).await?;
        match self.watch.judge(intake, sight.unwrap_or(Sight::NOTHING)) {
            Some(problem) => Err(Fault::passing(format!("queue `{queue}` has forgotten us: {problem}"))),
            None => Ok(()),
        }
    }

    /// The answer proves that the broker has seen all acks before it.
    ///
    /// Seen, but a quorum queue's channel passes on 32 acks and keeps the others back until those are replicated,
    /// and when it is closed it forgets them: of 2,000 single acks 1,968 messages came back (RabbitMQ 3.10).
    /// Nothing tells when it is through, so it is given a moment.
    async fn close(&mut self) -> Result<(), Fault> {
        if let Some(many_frames) = self.many_frames {
            sleep_until(many_frames + REPLICATION).await;
        }
        self.consumer = None;
        self.line.ask("close the channel", self.channel.close(200, "OK".into())).await
    }

    fn stream_ended(&self, error: Option<lapin::Error>) -> Fault {
        let queue = &self.surroundings.names.queue;
        match error {
            Some(error) => explain(queue.as_str(), &error),
            None => Fault::passing(format!(
                "the broker cancelled our consumer: queue `{queue}` was deleted or has no leader"
            )),
        }
    }

    fn signalled(&self, signal: Option<lapin::Event>) -> Result<(), Fault> {
        match signal {
            Some(lapin::Event::Error(error)) => Err(explain(self.surroundings.names.queue.as_str(), &error)),
            Some(lapin::Event::ConnectionBlocked(reason)) => {
                tracing::warn!(reason, "the broker blocks the consuming connection: acknowledgements wait");
                Ok(())
            }
            Some(lapin::Event::ConnectionUnblocked) => {
                tracing::info!("the broker unblocked the consuming connection");
                Ok(())
            }
            // Flow control of publishers, news of the connect, and what future versions tell.
            Some(_) => Ok(()),
            None => Err(Fault::passing("the connection is gone")),
        }
    }

    async fn tell(&self, event: Event) {
        // Without a worker the commands end as well, and with them the session.
        let _ = self.surroundings.events.send(event).await;
    }

    /// Counts what was commanded and can't be carried out any more.
    fn ended(mut self, end: Result<End, Fault>) -> Ended {
        let end = end.unwrap_or_else(End::Broken);
        let refused = self.line.notes().refused();
        let overload = refused.map(|tag| tag.0 - 1 - self.shelf.settled());
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            self.queue.push_back(command);
        }
        while let Some(command) = self.queue.pop_front() {
            if let Command::Ack(extent) = command {
                self.acks_lost += match extent {
                    Extent::One(tag) => u64::from(self.shelf.take(tag).is_some()),
                    Extent::UpTo(tag) => self.shelf.take_up_to(tag).0,
                };
            }
        }
        let unreadable = matches!(&end, End::Broken(fault) if fault.nature == Nature::Unreadable);
        let recovered = matches!(end, End::Recovered);
        let taken = self.shelf.taken();
        let course = Course { taken, acked: self.acked, unreadable, overload, recovered };
        Ended { end, acks_lost: self.acks_lost, course, consumed: self.consumed }
    }
}

/// Moves what the stream has ready, up to a chunk; pending only if that is nothing.
fn take_in(
    consumer: &mut Option<Consumer>,
    intake: &mut Vec<Delivery>,
    context: &mut Context<'_>,
) -> Poll<Result<(), Option<lapin::Error>>> {
    let Some(consumer) = consumer else { return Poll::Pending };
    while intake.len() < CHUNK_MAX {
        match Pin::new(&mut *consumer).poll_next(context) {
            Poll::Ready(Some(Ok(delivery))) => intake.push(delivery),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Some(error))),
            Poll::Ready(None) => return Poll::Ready(Err(None)),
            Poll::Pending => break,
        }
    }
    if intake.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
}

/// What ended the session, and what to look at.
fn explain(queue: &str, error: &lapin::Error) -> Fault {
    let mut fault = Fault::amqp("go on consuming", error);
    if fault.nature == Nature::Unreadable {
        fault.sentence = format!(
            "a message that the AMQP client library cannot read is in queue `{queue}` ({error}); if this goes on, \
             it has to be taken out by hand, or by a delivery limit"
        );
    } else if reply_code(error) == Some(code::PRECONDITION_FAILED) {
        // Nothing to wait for: a new channel starts with a clean slate.
        fault.nature = Nature::Passing;
        fault.sentence = format!(
            "the broker closed the channel on queue `{queue}`: {error}; if it was for an acknowledgement that timed \
             out, messages were held for longer than the broker's consumer_timeout: raise that, or lower \
             health.release_after and retry.max"
        );
    }
    fault
}

#[cfg(test)]
mod tests {
    use lapin::ErrorKind;
    use lapin::protocol::AMQPError;

    use super::*;

    fn said(code: u16) -> lapin::Error {
        let error = AMQPError::from_id(code, "the broker's words".into()).expect("a known code");
        ErrorKind::ProtocolError(error).into()
    }

    #[test]
    fn a_missed_consumer_timeout_is_named() {
        let fault = explain("deletions", &said(406));
        assert_eq!(fault.nature, Nature::Passing);
        assert!(fault.sentence.contains("consumer_timeout"), "{fault}");
    }

    #[test]
    fn an_unreadable_message_is_named_with_its_queue() {
        let fault = explain("deletions", &said(501));
        assert_eq!(fault.nature, Nature::Unreadable);
        assert!(fault.sentence.contains("cannot read is in queue `deletions`"), "{fault}");
    }

    #[test]
    fn a_lost_permission_is_lasting() {
        assert_eq!(explain("deletions", &said(403)).nature, Nature::Lasting);
        assert_eq!(explain("deletions", &said(320)).nature, Nature::Passing);
    }
}
