//! Places dead letters, for as long as it takes, on a connection of its own.
//!
//! Of its own, because under a memory alarm the broker stops reading from connections that publish, and then no ack
//! would pass either.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::connection::{Dialer, Line};
use super::fault::Fault;
use super::muffle::Muffle;
use super::press::{BARRIER_MAX, Letter, Press, Unplaced, barrier_len};
use super::{Event, topology};
use crate::config::Amqp;
use crate::delivery::{Reason, Tag};
use crate::retry::Pauses;

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A dead letter to place.
#[derive(Debug)]
pub(super) struct Job {
    /// The original's.
    pub(super) tag: Tag,
    pub(super) reason: Reason,
    pub(super) letter: Letter,
    /// Where its epoch listens; closed with the epoch, and then there is nothing to place it for.
    pub(super) stored: mpsc::UnboundedSender<(Tag, Reason)>,
}

/// Places what comes through `jobs` until `stop` is dropped.
pub(super) async fn run(
    amqp: Amqp,
    names: topology::Names,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    events: mpsc::Sender<Event>,
    stop: oneshot::Receiver<()>,
) {
    let mut publisher = Publisher {
        dialer: Dialer::new(&amqp, "publish"),
        names,
        amqp,
        events,
        line: None,
        press: None,
        pending: VecDeque::new(),
        barrier_max: BARRIER_MAX,
        muffle: Muffle::default(),
    };
    tokio::select! {
        _ = stop => {}
        () = publisher.place_all(&mut jobs) => {}
    }
    if let Some(line) = publisher.line.take() {
        line.close().await;
    }
}

struct Publisher {
    dialer: Dialer,
    names: topology::Names,
    amqp: Amqp,
    events: mpsc::Sender<Event>,
    line: Option<Line>,
    press: Option<Press>,
    pending: VecDeque<Job>,
    /// One after a failure and growing with each success: a letter that can't be placed must not take the others
    /// down with it for ever.
    barrier_max: usize,
    muffle: Muffle,
}

impl Publisher {
    async fn place_all(&mut self, jobs: &mut mpsc::UnboundedReceiver<Job>) {
        let mut pauses = Pauses::new(PAUSE_MIN, PAUSE_MAX);
        let mut taken = Vec::new();
        loop {
            let is_idle = self.pending.is_empty() && taken.is_empty();
            if is_idle && jobs.recv_many(&mut taken, usize::MAX).await == 0 {
                return;
            }
            while let Ok(job) = jobs.try_recv() {
                taken.push(job);
            }
            self.pending.extend(taken.drain(..));
            self.pending.retain(|job| !job.stored.is_closed());
            if self.pending.is_empty() {
                continue;
            }
            match self.place_beside(jobs, &mut taken).await {
                Ok(()) => {
                    pauses.reset();
                    if self.muffle.reset() {
                        let exchange = self.names.dead_exchange.as_str();
                        tracing::info!(exchange, "dead letters are stored again");
                    }
                }
                Err(problem) => {
                    self.lament(&problem);
                    // A press that was refused once may be refused ever after (RabbitMQ 3.10, quorum queue).
                    self.press = None;
                    sleep(pauses.after_failure()).await;
                }
            }
        }
    }

    /// Publishes one barrier, which may take as long as the broker is short of memory, and meanwhile takes jobs: those
    /// of epochs that ended would pile up with their bodies.
    async fn place_beside(
        &mut self,
        jobs: &mut mpsc::UnboundedReceiver<Job>,
        taken: &mut Vec<Job>,
    ) -> Result<(), String> {
        let mut placing = pin!(self.place_some());
        loop {
            tokio::select! {
                placed = &mut placing => return placed,
                1.. = jobs.recv_many(taken, usize::MAX) => taken.retain(|job| !job.stored.is_closed()),
            }
        }
    }

    /// Publishes one barrier, and reports what of it is stored.
    async fn place_some(&mut self) -> Result<(), String> {
        let len = barrier_len(self.pending.iter().map(|job| job.letter.body.len()), self.barrier_max);
        let len = len.min(self.pending.len());
        if let Err(fault) = self.connect().await {
            self.report_refused(len).await;
            return Err(fault.sentence);
        }
        let (Some(line), Some(press)) = (&self.line, &mut self.press) else { return Ok(()) };
        let letters: Vec<_> = self.pending.iter().take(len).map(|job| &job.letter).collect();
        let placed = match press.barrier(line, &letters).await {
            Ok(placed) => placed,
            Err(fault) => {
                self.line = None;
                vec![Err(Unplaced::Unknown(fault.sentence)); len]
            }
        };
        self.report_refused(placed.iter().filter(|placed| placed.is_err()).count()).await;
        let mut problem = None;
        for placed in placed {
            let Some(job) = self.pending.pop_front() else { break };
            match placed {
                // An epoch that is over by now takes no report, and its message comes back.
                Ok(()) => drop(job.stored.send((job.tag, job.reason))),
                Err(unplaced) => {
                    problem.get_or_insert(unplaced.to_string());
                    self.pending.push_back(job);
                }
            }
        }
        self.barrier_max = if problem.is_some() { 1 } else { (self.barrier_max * 2).min(BARRIER_MAX) };
        problem.map_or(Ok(()), Err)
    }

    /// Opens what is missing. The topology is seen to each time, as a deleted exchange closes the channel.
    async fn connect(&mut self) -> Result<(), Fault> {
        if self.press.is_some() {
            return Ok(());
        }
        let line = match self.line.take() {
            Some(line) => line,
            None => self.dialer.dial().await?,
        };
        topology::prepare(&line, &self.names, &self.amqp).await?;
        self.press = Some(Press::open(&line).await?);
        self.line = Some(line);
        Ok(())
    }

    async fn report_refused(&self, count: usize) {
        if count > 0 {
            // Without a worker nobody counts.
            let _ = self.events.send(Event::DeadLettersRefused(count as u64)).await;
        }
    }

    fn lament(&mut self, problem: &str) {
        if let Some(kept) = self.muffle.speak(Instant::now()) {
            tracing::error!(
                exchange = self.names.dead_exchange.as_str(),
                queue = self.names.dead_queue.as_str(),
                waiting = self.pending.len(),
                more_failures = kept,
                "dead letters can't be stored, the originals stay unacknowledged: {problem}"
            );
        }
    }
}
