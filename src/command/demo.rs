//! `deletion-worker demo`: the whole system on one machine.
//!
//! `load` plans what is published and what must come of it, `script` makes the mock endpoint misbehave along the
//! way, `stage` sets worker and broker up so that nothing of anybody's is touched, `cast` is the worker, `screen`
//! what the audience sees, `summary` holds what was seen against the plan.

mod cast;
pub mod load;
mod screen;
pub mod script;
pub mod stage;
pub mod summary;

use std::cell::Cell;
use std::convert::Infallible;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

use self::cast::Worker;
use self::load::Load;
use self::screen::Screen;
use self::script::{REQUESTS_PER_SECOND, Script, healthy};
use self::stage::{Stage, TOKEN};
use self::summary::Observed;
use crate::broker::desk::Desk;
use crate::mock::{Fate, Mock, MockHandle, Settings};
use crate::rabbitmq::Rabbitmq;

/// Who waits for the end longer than this, and [`PATIENCE_PER_MESSAGE`], waits in vain: 100,000 messages take
/// seconds.
const PATIENCE: Duration = Duration::from_secs(240);
const PATIENCE_PER_MESSAGE: Duration = Duration::from_millis(1);
/// How long the broker may take to bring its counts up to date.
const COUNT_PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to delete what is the demo's.
const STRIKE_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at the mock, to take the script's next step in time.
const CUE: Duration = Duration::from_millis(10);
/// Between two looks at everything.
const LOOK: Duration = Duration::from_millis(100);
/// IDs a call may hold on v1.0.
const IDS_PER_CALL: u64 = 500;

/// What is played.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Messages to publish
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    messages: u32,
    /// What the load is made from: the same number makes the same load
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Plays, shows the summary on standard output, and tidies up, also after SIGINT or SIGTERM; a second one stops the
/// tidying up.
///
/// # Errors
/// The summary doesn't hold, something went wrong on the way, or a signal came.
pub async fn run(args: &Args) -> Result<()> {
    let mut interrupts = Interrupts::listen().context("failed to listen for signals")?;
    let screen = Screen::new();
    let broker = tokio::select! {
        broker = Rabbitmq::provide(|sentence| screen.say(sentence)) => broker?,
        () = interrupts.next() => bail!("interrupted"),
    };
    let stage = Stage::build(&broker, |sentence| screen.say(sentence)).await;
    let end = tokio::select! {
        end = play(args, &stage, &screen) => end,
        () = interrupts.next() => Err(anyhow!("interrupted")),
    };
    screen.close();
    let struck = tokio::select! {
        struck = strike(&stage, &broker) => struck,
        () = interrupts.next() => Err(anyhow!("interrupted again")),
    };
    let struck = struck.with_context(|| format!("failed to delete {} on the broker", stage.name()));
    match (end, struck) {
        (end, Ok(())) => end,
        (Ok(()), struck) => struck,
        (Err(end), Err(error)) => Err(anyhow!("{end:#}; {error:#}")),
    }
}

/// From the first message to the summary.
async fn play(args: &Args, stage: &Stage, screen: &Screen) -> Result<()> {
    let load = Load::new(args.messages as usize, args.seed);
    let settings =
        Settings { token: Some(TOKEN.to_owned()), faults: healthy(), calls_kept: 0, ..Settings::default() };
    let mock = Mock::start(([127, 0, 0, 1], 0).into(), settings).await.context("failed to start the mock")?;
    let mut worker = Worker::start(&stage.environment(mock.addr))?;
    let patience = PATIENCE + PATIENCE_PER_MESSAGE * args.messages;
    let observed = timeout(patience, observe(&load, &mock, &mut worker, stage, screen)).await;
    screen.close();
    let observed = observed.unwrap_or_else(|_| bail!("the end did not come within {patience:?}"));
    let observed = observed.inspect_err(|_| screen.say(&worker.last_words()))?;

    let checks = summary::check(&load.expected, &observed);
    let table = summary::render(&load.expected, &observed, &checks, IDS_PER_CALL);
    write!(std::io::stdout(), "\n{table}").context("failed to print the summary")?;
    let wrong = checks.iter().filter(|check| !check.holds()).count();
    if wrong > 0 {
        screen.say(&worker.last_words());
    }
    ensure!(wrong == 0, "{wrong} of {} checks failed", checks.len());
    Ok(())
}

/// Plays, and notes what everybody counted.
async fn observe(
    load: &Load,
    mock: &MockHandle,
    worker: &mut Worker,
    stage: &Stage,
    screen: &Screen,
) -> Result<Observed> {
    worker.ready().await?;
    let mut desk = Desk::open(&stage.config()?).await?;
    screen.say(&format!(
        "Publishing {} messages that name {} different videos; the worker may call {REQUESTS_PER_SECOND} times a \
         second (the real quota is 5), with up to {IDS_PER_CALL} IDs each.",
        load.expected.messages,
        load.expected.ids.len()
    ));
    let began = Instant::now();
    let published = Cell::new(None);
    let publish = async {
        published.set(Some(desk.publish(&load.messages).await?));
        Ok(())
    };
    tokio::select! {
        settled = async { tokio::try_join!(publish, watch(load, mock, worker, screen, &published)) } => settled?,
        never = misbehave(load, mock, screen) => match never {},
    };
    let took = began.elapsed();
    let totals = worker.status().await?.totals;
    let worker_exit = worker.stop().await?;
    let left = left(&desk).await?;
    let dead = desk.take_dead_letters().await?;
    desk.close().await;
    let stats = mock.stats();
    let failed = stats.calls.iter().filter(|(fate, _)| **fate != Fate::Deleted);
    Ok(Observed {
        published: published.get().unwrap_or_default(),
        left,
        dead_letters: dead.iter().filter_map(|(reason, count)| Some(((*reason)?, *count))).collect(),
        dead_letters_strange: dead.get(&None).copied().unwrap_or_default(),
        deleted: mock.deleted(),
        calls: stats.calls.get(&Fate::Deleted).copied().unwrap_or_default(),
        calls_failed: failed.map(|(fate, count)| (*fate, *count)).collect(),
        calls_in_one_second: stats.peaks.in_one_second as u64,
        worker_ids_deleted: totals.ids_deleted,
        worker_calls: totals.calls,
        worker_dead_letters: totals.messages_dead_lettered,
        worker_exit,
        took,
    })
}

/// Lets the endpoint misbehave as the script has it.
async fn misbehave(load: &Load, mock: &MockHandle, screen: &Screen) -> Infallible {
    let all = load.expected.ids.len() as u64;
    let mut script = Script::new(all);
    loop {
        let stats = mock.stats();
        let failed = stats.calls.iter().filter(|(fate, _)| **fate != Fate::Deleted).map(|(_, count)| count);
        if let Some(step) = script.advance(stats.ids_deleted, failed.sum()) {
            mock.set_faults(step.faults);
            screen.say(&format!("{:3} %: {}", stats.ids_deleted * 100 / all, step.says));
        }
        sleep(CUE).await;
    }
}

/// Shows the progress, until all messages are published and, by the worker's word, settled.
async fn watch(
    load: &Load,
    mock: &MockHandle,
    worker: &mut Worker,
    screen: &Screen,
    published: &Cell<Option<u64>>,
) -> Result<()> {
    let all = load.expected.ids.len() as u64;
    loop {
        let status = worker.status().await?;
        screen.show(&mock.stats(), all, &status);
        let settled = status.totals.messages_deleted + status.totals.messages_dead_lettered;
        let is_idle = status.held.messages_unsettled == 0 && status.held.calls_in_flight == 0;
        if published.get().is_some_and(|published| settled >= published) && is_idle {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

/// How many messages the broker has left in the queue, now that nobody holds any.
async fn left(desk: &Desk) -> Result<u64> {
    let deadline = Instant::now() + COUNT_PATIENCE;
    loop {
        let left = desk.waiting().await?;
        if left == 0 || Instant::now() > deadline {
            return Ok(left);
        }
        sleep(LOOK).await;
    }
}

/// Leaves a broker that isn't ours as it was.
async fn strike(stage: &Stage, broker: &Rabbitmq) -> Result<()> {
    match broker {
        Rabbitmq::Given { .. } => timeout(STRIKE_PATIENCE, stage.strike(broker))
            .await
            .unwrap_or_else(|_| bail!("no answer within {STRIKE_PATIENCE:?}")),
        Rabbitmq::Container(_) | Rabbitmq::Node(_) => Ok(()),
    }
}

/// SIGINT and SIGTERM.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
