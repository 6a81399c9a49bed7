//! The loop: carries events into the [`Engine`] and its actions out to the shells.
//!
//! One turn: wait for one input, feed it, drain the engine's actions, carry them out, report. Nothing in a turn
//! waits; what takes time is a task whose end is an input.

mod report;
mod signal;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::report::Report;
use self::signal::Signals;
use crate::admin::{self, Admin, Question};
use crate::answer::{Answer, Outcome};
use crate::broker::{self, Broker, Command, Event, Session};
use crate::config::{Api, Config, SecretSource};
use crate::delivery::Arrival;
use crate::endpoint::{Client, Token};
use crate::engine::{Action, Call, Engine, Settings, Time};
use crate::id::Namespace;
use crate::metrics::Metrics;
use crate::retry::Ladder;

/// The part of the grace that closing may take: acks on their way, channel, connections.
const CLOSING: Duration = Duration::from_secs(2);

/// Growth of the intervals between probes.
const PROBE_MULTIPLIER: f64 = 2.0;

/// Why the worker ended otherwise than by a drain.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The admin server can't listen.
    #[error("failed to {0}")]
    Admin(#[from] admin::Error),
    /// The endpoint's client can't be made, for want of a token for instance.
    #[error("{0:#}")]
    Endpoint(anyhow::Error),
    /// The system refuses to tell us of signals.
    #[error("failed to listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    /// Trying again won't mend it.
    #[error("{0}")]
    Broker(String),
    /// The second signal.
    #[error("stopped by a second signal; what was not settled yet comes again from the broker")]
    Hurried,
}

/// Runs the worker until it has drained.
///
/// # Errors
/// [`Fault`] is what trying again won't mend.
pub async fn run(config: &Config) -> Result<(), Fault> {
    let signals = Signals::listen().map_err(Fault::Signals)?;
    let metrics = Arc::new(Metrics::new());
    let endpoint = match &config.endpoint.token {
        Some(source) if !config.dry_run => Some(endpoint(config, source).map_err(Fault::Endpoint)?),
        Some(_) | None => None,
    };
    let report = Report::new(config, Arc::clone(&metrics));
    let (questions_in, questions) = mpsc::channel(4);
    let admin = Admin::start(config.admin_listen, metrics, report.readiness(), questions_in)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        queue = config.amqp.queue,
        url = %config.endpoint.url,
        admin = %admin.address(),
        dry_run = config.dry_run,
        "started"
    );
    let worker = Worker {
        engine: Engine::new(settings(config), fastrand::u64(..)),
        origin: Instant::now(),
        grace: config.shutdown_grace,
        broker: broker::start(config),
        session: None,
        backlog: VecDeque::new(),
        endpoint,
        calls: JoinSet::new(),
        questions,
        signals,
        report,
        exit_by: None,
        drained: false,
        closing: false,
    };
    let end = worker.run().await;
    admin.stop();
    end
}

struct Worker {
    engine: Engine,
    /// The engine's time zero.
    origin: Instant,
    grace: Duration,
    broker: Broker,
    session: Option<Session>,
    /// Deliveries that the engine has no room for yet.
    backlog: VecDeque<Arrival>,
    /// `None` in a dry run.
    endpoint: Option<(Arc<Client>, Token)>,
    calls: JoinSet<Answered>,
    questions: mpsc::Receiver<Question>,
    signals: Signals,
    report: Report,
    /// Set by the first signal: when to leave, come what may.
    exit_by: Option<Instant>,
    /// The engine is done.
    drained: bool,
    /// The session was asked to close.
    closing: bool,
}

/// A call that came to its end.
struct Answered {
    call: Call,
    answer: Answer,
    took: Duration,
}

/// What a turn begins with.
enum Input {
    Signal,
    Question(Question),
    Broker(Option<Event>),
    Answered(Answered),
    Credentials,
    Arrivals(Option<Vec<Arrival>>),
    Due,
}

impl Worker {
    async fn run(mut self) -> Result<(), Fault> {
        loop {
            let input = self.next().await;
            let now = Time::after_start(self.origin.elapsed());
            if let ControlFlow::Break(end) = self.handle(input, now) {
                return end;
            }
            self.feed(now);
            while let Some(action) = self.engine.poll(now) {
                self.execute(action);
            }
            self.report.turn(&mut self.engine);
            if self.drained && !self.close() {
                return Ok(());
            }
        }
    }

    async fn next(&mut self) -> Input {
        let due = self.engine.deadline().map(|deadline| self.origin + deadline.elapsed());
        let due = due.into_iter().chain(self.exit_by).min();
        let arrivals = self.session.as_mut().map(|session| &mut session.arrivals);
        let arrivals = arrivals.filter(|_| self.backlog.is_empty());
        tokio::select! {
            biased;
            () = self.signals.next() => Input::Signal,
            Some(question) = self.questions.recv() => Input::Question(question),
            event = self.broker.events.recv() => Input::Broker(event),
            Some(end) = self.calls.join_next() => {
                Input::Answered(end.expect("a call's task neither panics nor is aborted"))
            }
            () = changed(self.endpoint.as_mut()) => Input::Credentials,
            () = until(due) => Input::Due,
            chunk = receive(arrivals) => Input::Arrivals(chunk),
        }
    }

    fn handle(&mut self, input: Input, now: Time) -> ControlFlow<Result<(), Fault>> {
        match input {
            Input::Signal => return self.handle_signal(now),
            Input::Question(Question::Ping(pong)) => drop(pong.send(())),
            Input::Question(Question::Status(reply)) => {
                drop(reply.send(self.report.status(&self.engine.snapshot(), now)));
            }
            Input::Broker(event) => return self.handle_broker(event, now),
            Input::Answered(Answered { call, answer, took }) => {
                self.report.answered(&call, &answer, took);
                self.engine.handle_answer(call.id, answer, now);
            }
            Input::Credentials => {
                tracing::info!("the endpoint's token was replaced");
                self.engine.handle_credentials_changed(now);
            }
            Input::Arrivals(chunk) => self.backlog.extend(chunk.into_iter().flatten()),
            Input::Due => {
                if self.exit_by.is_some_and(|exit_by| exit_by <= Instant::now()) {
                    tracing::warn!("the broker did not confirm the end within the grace");
                    return ControlFlow::Break(Ok(()));
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn handle_signal(&mut self, now: Time) -> ControlFlow<Result<(), Fault>> {
        if self.exit_by.is_some() {
            return ControlFlow::Break(Err(Fault::Hurried));
        }
        tracing::info!(grace = ?self.grace, "draining; a second signal stops at once");
        self.exit_by = Some(Instant::now() + self.grace);
        self.report.draining();
        self.engine.handle_drain(now);
        ControlFlow::Continue(())
    }

    fn handle_broker(&mut self, event: Option<Event>, now: Time) -> ControlFlow<Result<(), Fault>> {
        let Some(event) = event else {
            return ControlFlow::Break(match self.exit_by {
                Some(_) => Ok(()),
                None => Err(Fault::Broker("the broker shell ended unasked".into())),
            });
        };
        self.report.broker(&event);
        match event {
            Event::Up(session) => {
                self.session = Some(session);
                self.closing = false;
                self.engine.handle_connected(now);
            }
            Event::Cancelled => {
                // Nothing is accepted any more, so there is room for what is left: it is given back.
                while let Some(chunk) = self.session.as_mut().and_then(|s| s.arrivals.try_recv().ok()) {
                    self.backlog.extend(chunk);
                }
                self.feed(now);
                self.engine.handle_cancelled();
            }
            Event::DeadLettered(letters) => {
                let tags: Vec<_> = letters.iter().map(|(tag, _)| *tag).collect();
                self.engine.handle_dead_lettered(&tags, now);
            }
            Event::Down { .. } => {
                self.session = None;
                self.backlog.clear();
                self.engine.handle_disconnected();
            }
            Event::Failed(sentence) => return ControlFlow::Break(Err(Fault::Broker(sentence))),
            Event::Consuming => self.engine.handle_consuming(now),
            Event::DeadLettersRefused(_) => {}
        }
        ControlFlow::Continue(())
    }

    /// Hands the engine as many deliveries as it has room for.
    fn feed(&mut self, now: Time) {
        while self.engine.has_room()
            && let Some(arrival) = self.backlog.pop_front()
        {
            self.report.arrived(&arrival);
            self.engine.handle_arrival(arrival, now);
        }
    }

    fn execute(&mut self, action: Action) {
        let command = match action {
            Action::Call(call) => {
                self.report.calling(&call);
                return self.call(call);
            }
            Action::Drained => {
                self.drained = true;
                return;
            }
            Action::Ack(extent) => Command::Ack(extent),
            Action::GiveBack(extent) => Command::GiveBack(extent),
            Action::DeadLetter(tag, obituary) => {
                self.report.dead_lettering(&obituary);
                Command::DeadLetter(tag, obituary)
            }
            Action::Consume => {
                self.report.consume(true);
                Command::Consume
            }
            Action::Cancel => {
                self.report.consume(false);
                Command::Cancel
            }
        };
        if let Some(session) = &self.session {
            // A session that is gone reports itself, and what it could not do any more.
            let _ = session.commands.send(command);
        }
    }

    fn call(&mut self, call: Call) {
        let client = self.endpoint.as_ref().map(|(client, _)| Arc::clone(client));
        self.calls.spawn(async move {
            let departed = Instant::now();
            let answer = match client {
                Some(client) => client.call(call.namespace.as_ref(), &call.ids).await,
                None => dry_run(&call),
            };
            Answered { call, answer, took: departed.elapsed() }
        });
    }

    /// Asks the session to close, once; `false` if there is none, or none any more.
    fn close(&mut self) -> bool {
        let Some(session) = &self.session else { return false };
        self.closing || {
            self.closing = true;
            session.commands.send(Command::Close).is_ok()
        }
    }
}

/// The engine's settings, from the configuration.
fn settings(config: &Config) -> Settings {
    let Config { amqp, batch, endpoint, retry, health, shutdown_grace, dry_run, .. } = config;
    let default = || Namespace::new("default").expect("within the bounds");
    Settings {
        batch_max: batch.max_ids,
        linger: batch.linger,
        concurrency_max: endpoint.max_concurrency,
        rate_max: endpoint.requests_per_second,
        retry: Ladder::of(retry),
        strikes_max: retry.max_strikes,
        retry_after_max: retry.max_retry_after,
        failure_threshold: health.failure_threshold,
        probe: Ladder::new(health.probe_initial, health.probe_max, PROBE_MULTIPLIER),
        release_after: health.release_after,
        on_outage: health.on_outage,
        prefetch: usize::from(amqp.prefetch),
        namespace: match endpoint.api {
            Api::V1_0 => None,
            Api::V1_2 => Some(endpoint.namespace.clone().unwrap_or_else(default)),
        },
        grace: shutdown_grace.saturating_sub(CLOSING.min(*shutdown_grace / 4)),
        dry_run: *dry_run,
    }
}

fn endpoint(config: &Config, source: &SecretSource) -> anyhow::Result<(Arc<Client>, Token)> {
    let token = Token::open(source)?;
    let client = Client::new(&config.endpoint, token.clone())?;
    Ok((Arc::new(client), token))
}

/// Everything but the call.
fn dry_run(call: &Call) -> Answer {
    tracing::info!(ids = call.ids.len(), trigger = call.trigger.as_str(), "dry run: would delete");
    let detail = "was not called".into();
    Answer { outcome: Outcome::Deleted, code: None, http_status: None, retry_after: None, detail }
}

async fn changed(endpoint: Option<&mut (Arc<Client>, Token)>) {
    match endpoint {
        Some((_, token)) => token.changed().await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

async fn receive(arrivals: Option<&mut mpsc::Receiver<Vec<Arrival>>>) -> Option<Vec<Arrival>> {
    match arrivals {
        Some(arrivals) => match arrivals.recv().await {
            Some(chunk) => Some(chunk),
            // The session is over; its end comes as an event.
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
