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

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use self::cast::Worker;
use self::load::Load;
use self::screen::Screen;
use self::script::{REQUESTS_PER_SECOND, Script, healthy};
use self::stage::{Stage, TOKEN};
use self::summary::Observed;
use crate::broker::desk::Desk;
use crate::config::{Config, Need};
use crate::mock::{Fate, Mock, MockHandle, Settings, Stats};
use crate::rabbitmq::Rabbitmq;

/// The whole play takes seconds; who waits for longer waits in vain.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks at how things stand.
const LOOK: Duration = Duration::from_millis(50);
/// IDs a call may hold on v1.0.
const IDS_PER_CALL: u64 = 500;

/// What is played.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Messages to publish
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    messages: usize,
    /// What the load is made from: the same number makes the same load
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Plays, and shows the summary.
///
/// # Errors
/// The summary doesn't hold, something is missing, or SIGINT or SIGTERM came.
pub async fn run(args: &Args) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let interrupted = async {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        bail!("interrupted")
    };
    tokio::pin!(interrupted);
    let screen = Screen::new();
    let broker = tokio::select! {
        broker = Rabbitmq::provide(|sentence| screen.say(sentence)) => broker?,
        end = &mut interrupted => return end,
    };
    let stage = Stage::build(&broker, |sentence| screen.say(sentence)).await;
    let end = tokio::select! {
        end = timeout(PATIENCE, play(args, &stage, &screen)) => {
            end.unwrap_or_else(|_| bail!("the end did not come within {PATIENCE:?}"))
        }
        end = &mut interrupted => end,
    };
    screen.close();
    strike(&stage, &broker).await.context("failed to tidy up on the broker")?;
    end
}

/// From the first message to the summary.
async fn play(args: &Args, stage: &Stage, screen: &Screen) -> Result<()> {
    let load = Load::new(args.messages, args.seed);
    let settings =
        Settings { token: Some(TOKEN.to_owned()), faults: healthy(), keep_ids: false, ..Settings::default() };
    let mock = Mock::start(([127, 0, 0, 1], 0).into(), settings).await.context("failed to start the mock")?;
    let admin = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?;
    let environment = stage.environment(mock.addr, admin);
    let config = configuration(&environment)?;
    let mut worker = Worker::start(&environment, admin)?;
    worker.ready().await?;
    let mut desk = Desk::open(&config).await?;
    screen.say(&format!(
        "Publishing {} messages that name {} different videos; up to {REQUESTS_PER_SECOND} calls a second \
         (the real quota is 5), up to {IDS_PER_CALL} IDs each.",
        load.expected.messages,
        load.expected.ids.len()
    ));
    let began = Instant::now();
    let (published, settled) = tokio::join!(
        desk.publish(&load.messages),
        direct(&load, &mock, &worker, screen) // until everything is deleted
    );
    let published = published?;
    settled?;
    await_silence(&desk, &worker, &load).await?;
    let took = began.elapsed();
    let totals = worker.status().await?.totals;
    let (exit, log) = worker.stop().await?;
    let dead = desk.take_dead_letters().await?;
    let (left, _) = desk.ready().await?;
    desk.close().await;
    let observed = Observed {
        published,
        left,
        dead_letters: dead.iter().filter_map(|(reason, count)| Some(((*reason)?, *count))).collect(),
        dead_letters_strange: dead.get(&None).copied().unwrap_or_default(),
        deleted: mock.deleted(),
        worker_ids_deleted: totals.ids_deleted,
        worker_dead_letters: totals.messages_dead_lettered,
        worker_exit: exit.code(),
        took,
        ..calls(&mock.stats())
    };
    let checks = summary::check(&load.expected, &observed);
    screen.close();
    let table = summary::render(&load.expected, &observed, &checks, IDS_PER_CALL);
    write!(std::io::stdout(), "\n{table}\n").context("failed to print the summary")?;
    let wrong = checks.iter().filter(|check| !check.holds()).count();
    ensure!(wrong == 0, "{wrong} of {} checks failed; the worker's log:\n{log}", checks.len());
    screen.say("Everything adds up.");
    Ok(())
}

/// Lets the endpoint misbehave as the script has it, and shows the progress, until all IDs are deleted.
async fn direct(load: &Load, mock: &MockHandle, worker: &Worker, screen: &Screen) -> Result<()> {
    let all = load.expected.ids.len() as u64;
    let mut script = Script::new(all);
    loop {
        let stats = mock.stats();
        if let Some(step) = script.advance(stats.ids_deleted, failed(&stats)) {
            screen.say(&format!("{:3} %: {}", stats.ids_deleted * 100 / all, step.says));
            mock.set_faults(step.faults);
        }
        let status = worker.status().await?;
        screen.show(&stats, all, &status);
        if script.is_over() && stats.ids_deleted >= all {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until nothing is left to settle, on the broker's word and the worker's.
async fn await_silence(desk: &Desk, worker: &Worker, load: &Load) -> Result<()> {
    let expected: u64 = load.expected.dead_letters.values().sum();
    loop {
        let (left, dead) = desk.ready().await?;
        if left == 0 && dead >= expected && worker.status().await?.held.messages_unsettled == 0 {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn strike(stage: &Stage, broker: &Rabbitmq) -> Result<()> {
    if let (Some(_), Some(management)) = (&stage.vhost, broker.management()) {
        return Ok(stage.strike(&management).await?);
    }
    let address = ([127, 0, 0, 1], 1).into();
    let desk = Desk::open(&configuration(&stage.environment(address, address))?).await?;
    desk.strike().await?;
    desk.close().await;
    Ok(())
}

fn configuration(environment: &[(&'static str, String)]) -> Result<Config> {
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let loaded = Config::load(None, environment, &[], Need::Worker);
    Ok(loaded.map_err(|problems| anyhow::anyhow!("the demo's own configuration: {problems}"))?.config)
}

fn failed(stats: &Stats) -> u64 {
    stats.calls.iter().filter(|(fate, _)| **fate != Fate::Deleted).map(|(_, count)| count).sum()
}

/// What the mock counted of calls.
fn calls(stats: &Stats) -> Observed {
    let mut calls_failed = BTreeMap::new();
    for (fate, count) in stats.calls.iter().filter(|(fate, _)| **fate != Fate::Deleted) {
        calls_failed.insert(format!("{fate:?}").to_lowercase(), *count);
    }
    Observed {
        calls: stats.calls.get(&Fate::Deleted).copied().unwrap_or_default(),
        calls_failed,
        calls_in_one_second: stats.peaks.in_one_second as u64,
        ..Observed::default()
    }
}
