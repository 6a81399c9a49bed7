//! Keeps a session going.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::Event;
use super::connection::{Dialer, Line};
use super::fault::{Fault, Nature};
use super::pace::{Appetite, Pace};
use super::publisher::{self, Job};
use super::session::{self, End, Surroundings};
use super::topology::{self, Names};
use crate::config::{Amqp, Batch, DeadLetter, Declare};
use crate::retry::Pauses;

/// Pauses when trying again at once would not help.
const SLOW_MIN: Duration = Duration::from_secs(1);
const SLOW_MAX: Duration = Duration::from_secs(30);
/// Pause after a session that ended faster than that.
const BRIEF: Duration = Duration::from_secs(1);

/// Runs until the worker closes a session or drops `events`, or a fault at the start is lasting.
pub(super) async fn run(amqp: Amqp, dead_letter: DeadLetter, batch: Batch, events: mpsc::Sender<Event>) {
    let names = match Names::new(&amqp, &dead_letter) {
        Ok(names) => names,
        Err(fault) => return tell(&events, Event::Failed(fault.sentence)).await,
    };
    let (jobs_given, jobs) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel();
    let publisher = tokio::spawn(publisher::run(amqp.clone(), names.clone(), jobs, events.clone(), stopped));
    let mut supervisor = Supervisor {
        dialer: Dialer::keeping_properties(&amqp, "consume"),
        amqp,
        batch,
        names,
        events: events.clone(),
        jobs: jobs_given,
        pace: Pace::default(),
        settled_in: false,
    };
    tokio::select! {
        () = events.closed() => {}
        () = supervisor.keep_going() => {}
    }
    drop(stop);
    if let Err(error) = publisher.await {
        std::panic::resume_unwind(error.into_panic());
    }
}

struct Supervisor {
    dialer: Dialer,
    amqp: Amqp,
    batch: Batch,
    names: Names,
    events: mpsc::Sender<Event>,
    jobs: mpsc::UnboundedSender<Job>,
    pace: Pace,
    /// A consumer was confirmed once, so the configuration is right and a lasting fault is news.
    settled_in: bool,
}

/// What comes after an epoch.
enum Next {
    /// Another one.
    Again(Option<Fault>),
    /// Nothing: the worker is done.
    Nothing,
}

impl Supervisor {
    async fn keep_going(&mut self) {
        let mut slow = Pauses::new(SLOW_MIN, SLOW_MAX);
        loop {
            let started = Instant::now();
            let fault = match self.epoch().await {
                Next::Nothing => return,
                Next::Again(fault) => fault,
            };
            match fault {
                Some(fault) if fault.is_lasting() && !self.settled_in => {
                    return tell(&self.events, Event::Failed(fault.sentence)).await;
                }
                Some(fault) if fault.nature != Nature::Passing => {
                    let pause = slow.after_failure();
                    tracing::error!(?pause, "the broker session can't go on: {fault}");
                    sleep(pause).await;
                }
                Some(fault) => {
                    tracing::warn!("the broker session ended, reconnecting: {fault}");
                    slow.reset();
                    if started.elapsed() < BRIEF {
                        sleep(BRIEF.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    }
                }
                None => slow.reset(),
            }
        }
    }

    async fn epoch(&mut self) -> Next {
        let appetite = self.pace.appetite(self.amqp.prefetch);
        let prefetch = appetite.prefetch(self.amqp.prefetch, self.batch.max_ids);
        let (line, channel) = match self.set_up(prefetch).await {
            Ok(ready) => ready,
            Err(fault) => return Next::Again(Some(fault)),
        };
        if appetite != Appetite::Full {
            tracing::warn!(prefetch, "taking fewer messages at once: {}", appetite.reason());
        }
        let surroundings = Surroundings {
            names: &self.names,
            prefetch,
            is_exclusive: self.amqp.declare == Declare::Create && self.amqp.single_active_consumer,
            ids_per_message_max: self.batch.max_ids_per_message,
            events: &self.events,
            publisher: &self.jobs,
        };
        let ended = session::run(&line, channel, appetite, surroundings).await;
        self.settled_in |= ended.consumed;
        self.pace.record(ended.course);
        let (reason, next) = match ended.end {
            End::Closed => ("closed".to_owned(), Next::Nothing),
            End::Recovered => {
                ("progress after trouble: taking more messages at once again".to_owned(), Next::Again(None))
            }
            End::Broken(fault) => (fault.sentence.clone(), Next::Again(Some(fault))),
        };
        match next {
            // The goodbye is only waited for where the connection may still answer.
            Next::Nothing | Next::Again(None) => line.close().await,
            Next::Again(Some(_)) => drop(line),
        }
        tell(&self.events, Event::Down { reason, acks_lost: ended.acks_lost }).await;
        next
    }

    async fn set_up(&mut self, prefetch: u16) -> Result<(Line, lapin::Channel), Fault> {
        let line = self.dialer.dial().await?;
        topology::prepare(&line, &self.names, &self.amqp).await?;
        let channel = session::open(&line, prefetch).await?;
        Ok((line, channel))
    }
}

async fn tell(events: &mpsc::Sender<Event>, event: Event) {
    // Nobody listens any more only when the worker is gone.
    let _ = events.send(event).await;
}
