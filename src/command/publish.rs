//! The `publish` command: deletion requests, sent with confirms.

mod source;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use self::source::{Problems, Reader, Source};
use crate::broker::connection::{Dialer, Line};
use crate::broker::press::{BARRIER_MAX, Letter, Press, Unplaced, barrier_len};
use crate::broker::topology::{self, Names};
use crate::config::{Amqp, Config};
use crate::id::{Id, Namespace};
use crate::text::harmless;

/// How long the broker may be away.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a barrier may still take after an interrupt.
const INTERRUPT_GRACE: Duration = Duration::from_secs(2);

/// What to publish, and how.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "what", required = true, multiple = true, args = ["ids", "file"])]
pub struct Args {
    /// IDs of the videos to delete
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Read IDs from this file, one a line; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// IDs in each message
    #[arg(long, value_name = "N", default_value = "1")]
    pub per_message: NonZeroUsize,
    /// The namespace (`unique_id`) that the IDs belong to
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Why the videos are deleted; carried into logs and dead letters
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Who wants it; carried into logs and dead letters
    #[arg(long, value_name = "WHO")]
    pub requested_by: Option<String>,
    /// Leave out what is not an ID instead of sending nothing at all
    #[arg(long)]
    pub skip_invalid: bool,
}

/// Why the command ends with something else than 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// What was asked for makes no sense (exit code 2); nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// Something went wrong on the way (exit code 1).
    #[error("{0}")]
    Fault(String),
}

/// Runs the command; the summary goes to `out`, the progress bar to the terminal.
///
/// # Errors
/// See [`Failure`]; a fault says how much was confirmed before it.
pub async fn run(args: Args, config: &Config, out: &mut impl Write) -> Result<(), Failure> {
    let template = Template::new(&args, config)?;
    let source = Source::new(&args.ids, args.file.as_deref())?;
    let census = source.census()?;
    if !census.problems.is_empty() && !args.skip_invalid {
        return Err(Failure::Usage(format!("{}; nothing was sent", census.problems)));
    }
    if census.ids == 0 {
        return Err(Failure::Usage("there is no ID to publish".to_owned()));
    }
    let names =
        Names::new(&config.amqp, &config.dead_letter).map_err(|fault| Failure::Usage(fault.sentence))?;
    let mut interrupts = Interrupts::new()?;
    let line = tokio::select! {
        line = connect(&config.amqp, &names) => line?,
        () = interrupts.wait() => return Err(Failure::Fault("interrupted; nothing was sent".to_owned())),
    };
    let mut run = Run {
        template,
        names,
        per_message: args.per_message.get(),
        skip_invalid: args.skip_invalid,
        progress: progress(census.ids),
        sent: Sent::default(),
    };
    let ended = run.send(&line, source.open(), &mut interrupts).await;
    run.progress.finish_and_clear();
    line.close().await;
    let Sent { messages, ids, .. } = run.sent;
    let exchange = &config.amqp.exchange;
    match ended {
        Ok(()) => {
            report(out, &format!("published {messages} messages with {ids} IDs to exchange `{exchange}`"))?;
            report_skipped(out, &census.problems)
        }
        Err(sentence) => Err(Failure::Fault(format!("{sentence}; {}", run.sent))),
    }
}

async fn connect(amqp: &Amqp, names: &Names) -> Result<Line, Failure> {
    let mut dialer = Dialer::new(amqp, "publish");
    let Ok(dialled) = timeout(CONNECT_DEADLINE, dialer.dial()).await else {
        let last = dialer.last.map_or_else(|| "no answer".to_owned(), |fault| fault.sentence);
        return Err(Failure::Fault(format!(
            "the broker can't be reached within {CONNECT_DEADLINE:?}: {last}; nothing was sent"
        )));
    };
    let fault = |fault: crate::broker::fault::Fault| Failure::Fault(format!("{fault}; nothing was sent"));
    let line = dialled.map_err(fault)?;
    if amqp.declare == crate::config::Declare::Create {
        topology::prepare(&line, names, amqp).await.map_err(fault)?;
    }
    Ok(line)
}

struct Run {
    template: Template,
    names: Names,
    per_message: usize,
    skip_invalid: bool,
    progress: ProgressBar,
    sent: Sent,
}

/// What the broker has confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sent {
    messages: u64,
    ids: u64,
    /// Sent, and never heard of again: stored or not.
    unknown: u64,
    /// All IDs up to this one, in the order given, are confirmed.
    ids_in_order: u64,
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { messages, ids, unknown, ids_in_order } = self;
        write!(
            f,
            "{messages} messages with {ids} IDs are confirmed, among them the first {ids_in_order} IDs"
        )?;
        if *unknown > 0 {
            write!(f, "; {unknown} more messages were sent and may be stored or not")?;
        }
        write!(f, "; to publish an ID twice does no harm")
    }
}

/// A message and how many IDs it has.
type Message = (Letter, u64);

impl Run {
    async fn send(
        &mut self,
        line: &Line,
        mut ids: Reader,
        interrupts: &mut Interrupts,
    ) -> Result<(), String> {
        let mut press = Press::open(line).await.map_err(|fault| fault.sentence)?;
        let mut waiting: Vec<Message> = Vec::new();
        loop {
            while waiting.len() < BARRIER_MAX {
                let Some(message) = self.message(&mut ids)? else { break };
                waiting.push(message);
            }
            if waiting.is_empty() {
                return Ok(());
            }
            let sizes = waiting.iter().map(|(letter, _)| letter.body.len());
            let len = barrier_len(sizes, BARRIER_MAX);
            let rest = waiting.split_off(len);
            self.barrier(line, &mut press, &waiting, interrupts).await?;
            waiting = rest;
        }
    }

    async fn barrier(
        &mut self,
        line: &Line,
        press: &mut Press,
        messages: &[Message],
        interrupts: &mut Interrupts,
    ) -> Result<(), String> {
        let letters: Vec<&Letter> = messages.iter().map(|(letter, _)| letter).collect();
        let mut work = std::pin::pin!(press.barrier(line, &letters));
        let (done, interrupted) = tokio::select! {
            done = &mut work => (Some(done), false),
            () = interrupts.wait() => (timeout(INTERRUPT_GRACE, work).await.ok(), true),
        };
        let placed = match done {
            Some(Ok(placed)) => placed,
            Some(Err(fault)) => {
                self.sent.unknown += messages.len() as u64;
                return Err(fault.sentence);
            }
            None => {
                self.sent.unknown += messages.len() as u64;
                return Err("interrupted".to_owned());
            }
        };
        let whole = placed.iter().take_while(|placed| placed.is_ok()).count();
        self.sent.ids_in_order += messages[..whole].iter().map(|(_, ids)| ids).sum::<u64>();
        let mut problem = interrupted.then(|| "interrupted".to_owned());
        for ((_, ids), placed) in messages.iter().zip(placed) {
            match placed {
                Ok(()) => {
                    self.sent.messages += 1;
                    self.sent.ids += ids;
                }
                Err(unplaced) => {
                    self.sent.unknown += u64::from(matches!(unplaced, Unplaced::Unknown(_)));
                    problem.get_or_insert_with(|| {
                        format!("a message to exchange `{}` is not stored: {unplaced}", self.names.exchange)
                    });
                }
            }
        }
        self.progress.set_position(self.sent.ids);
        problem.map_or(Ok(()), Err)
    }

    fn message(&mut self, reader: &mut Reader) -> Result<Option<Message>, String> {
        let mut ids = Vec::new();
        while ids.len() < self.per_message {
            match reader.next().map_err(|error| format!("failed to read IDs: {error}"))? {
                Some(Ok(id)) => ids.push(id),
                Some(Err(_)) if self.skip_invalid => {}
                Some(Err(problem)) => return Err(format!("the file changed while it was read: {problem}")),
                None => break,
            }
        }
        if ids.is_empty() {
            return Ok(None);
        }
        let letter = Letter::request(&self.names, self.template.body(&ids), &self.template.message_id());
        Ok(Some((letter, ids.len() as u64)))
    }
}

/// What all messages of a run have in common.
struct Template {
    one_each: bool,
    namespace: Option<Namespace>,
    reason: Option<String>,
    requested_by: Option<String>,
    /// Begins every message ID of this run.
    run: u64,
    messages: u64,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    video_no: Option<&'a Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    video_nos: Option<&'a [Id]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Template {
    fn new(args: &Args, config: &Config) -> Result<Self, Failure> {
        let max = config.batch.max_ids_per_message;
        if args.per_message.get() > max {
            return Err(Failure::Usage(format!(
                "--per-message {} is more than batch.max_ids_per_message, {max}: the worker would dead-letter it",
                args.per_message
            )));
        }
        let namespace = args.namespace.as_deref().map(Namespace::new).transpose();
        Ok(Self {
            one_each: args.per_message.get() == 1,
            namespace: namespace.map_err(|unfit| Failure::Usage(format!("--namespace {unfit}")))?,
            reason: args.reason.clone(),
            requested_by: args.requested_by.clone(),
            run: fastrand::u64(..),
            messages: 0,
        })
    }

    fn body(&self, ids: &[Id]) -> Vec<u8> {
        let (video_no, video_nos) = if self.one_each { (ids.first(), None) } else { (None, Some(ids)) };
        let body = Body {
            video_no,
            video_nos,
            namespace: self.namespace.as_ref().map(Namespace::as_str),
            requested_by: self.requested_by.as_deref(),
            reason: self.reason.as_deref(),
        };
        serde_json::to_vec(&body).expect("strings in a struct always serialize")
    }

    fn message_id(&mut self) -> String {
        self.messages += 1;
        format!("{:016x}-{}", self.run, self.messages)
    }
}

/// SIGINT and SIGTERM.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::Fault(format!("failed to listen for signals: {error}")))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Shown on a terminal only.
fn progress(ids: u64) -> ProgressBar {
    let style = super::bar_style("{bar:40} {human_pos}/{human_len} IDs, {rate}, {eta} left");
    ProgressBar::with_draw_target(Some(ids), ProgressDrawTarget::stderr()).with_style(style)
}

fn report_skipped(out: &mut impl Write, problems: &Problems) -> Result<(), Failure> {
    if problems.is_empty() { Ok(()) } else { report(out, &format!("left out: {problems}")) }
}

fn report(out: &mut impl Write, sentence: &str) -> Result<(), Failure> {
    writeln!(out, "{}", harmless(sentence))
        .map_err(|error| Failure::Fault(format!("failed to write the summary: {error}")))
}
