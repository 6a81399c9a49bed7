//! `dead-letters replay`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::tally::Tally;
use super::{Common, End, Reading, body};
use crate::broker::connection::Line;
use crate::broker::corpse::{Corpse, Origin};
use crate::broker::morgue::{self, Slip};
use crate::broker::press::{BARRIER_MAX, Press, Unplaced};
use crate::broker::revival::{Revival, revive};
use crate::config::Config;

/// Bytes of bodies that are published together, unless it is one letter.
const BYTES_MAX: usize = 4 << 20;
/// Missing exchanges that are remembered; the others are looked for each time.
const GONE_MAX: usize = 1_000;
/// How long a barrier may still take after an interrupt.
const INTERRUPT_GRACE: Duration = Duration::from_secs(2);

/// What to replay, and how.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// No more than this many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// No more than so many a second
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Say what would be replayed, and where to; publish and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Of letters of which only some IDs failed, send just these
    #[arg(long)]
    failed_ids_only: bool,
}

pub(super) async fn run(args: Args, config: &Config, out: &mut impl Write) -> Result<(), End> {
    let reading = Reading::open(args.common.clone(), config).await?;
    let outlet = if args.dry_run { None } else { Some(Outlet::open(config).await?) };
    let tally = Tally::new(reading.morgue.waiting);
    let (pace, dry_run, is_limited) = (Pace::new(args.rate), args.dry_run, args.limit.is_some());
    let mut replay = Replay { args, reading, outlet, tally, pace, selected: 0, gone: BTreeSet::new() };
    let ended = replay.all().await;
    let Replay { reading, outlet, tally, .. } = replay;
    tally.finish();
    let (seen, skipped) = (reading.seen, reading.passed_over);
    let closed = reading.close(ended, is_limited).await;
    if let Some(outlet) = outlet {
        outlet.line.close().await;
    }
    if seen > 0 || closed.is_ok() {
        tally.summarize(skipped, dry_run, out)?;
        out.flush()?;
    }
    closed?;
    match tally.refused {
        0 => Ok(()),
        refused => {
            Err(End::Fault(format!("{refused} letters were refused; they stay in the dead-letter queue")))
        }
    }
}

struct Replay {
    args: Args,
    reading: Reading,
    /// `None` if nothing is to be published.
    outlet: Option<Outlet>,
    tally: Tally,
    pace: Pace,
    selected: u64,
    /// Exchanges that don't exist, [`GONE_MAX`] at most.
    gone: BTreeSet<String>,
}

/// Where messages are published: a connection of its own, as one that publishes may be blocked.
struct Outlet {
    line: Line,
    press: Press,
}

/// A letter on its way back.
struct Item {
    slip: Slip,
    origin: Origin,
    revival: Revival,
}

impl Replay {
    async fn all(&mut self) -> Result<(), End> {
        loop {
            let (items, is_last) = self.take().await?;
            self.pace.wait(items.len(), &mut self.reading).await?;
            // A missing exchange ends the channel, and with it whatever else is in the barrier.
            let mut by_exchange: BTreeMap<String, Vec<Item>> = BTreeMap::new();
            for item in items {
                by_exchange.entry(item.origin.exchange.clone()).or_default().push(item);
            }
            for (exchange, items) in by_exchange {
                self.send(&exchange, items).await?;
            }
            self.tally.progress(self.reading.seen);
            if is_last {
                return Ok(());
            }
        }
    }

    /// The next letters to publish together, and whether they are the last.
    async fn take(&mut self) -> Result<(Vec<Item>, bool), End> {
        let limit = self.args.limit.unwrap_or(u64::MAX);
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < self.pace.barrier_max && bytes < BYTES_MAX {
            if self.selected == limit {
                return Ok((items, true));
            }
            let Some((slip, corpse)) = self.reading.next().await? else { return Ok((items, true)) };
            self.selected += 1;
            match self.prepare(&corpse) {
                Ok((origin, revival)) => {
                    bytes += revival.letter.body.len();
                    items.push(Item { slip, origin, revival });
                }
                Err(reason) => self.tally.refuse(&reason),
            }
        }
        Ok((items, false))
    }

    fn prepare(&self, corpse: &Corpse) -> Result<(Origin, Revival), String> {
        // Just now, or by the worker when it died.
        if let Some(repaired) = corpse.repaired.clone().or_else(|| corpse.word("repaired")) {
            return Err(format!("it can't be published as it was, it had to be made readable: {repaired}"));
        }
        let origin = corpse.origin().ok_or("it doesn't say where it was published to")?;
        let body = if self.args.failed_ids_only { body::failed_only(corpse)? } else { None };
        let morgue = &self.reading.morgue;
        let revival = revive(corpse, &origin, body, &morgue.names, &morgue.line)?;
        Ok((origin, revival))
    }

    /// Publishes `items`, all to `exchange`, and removes those that are stored again.
    async fn send(&mut self, exchange: &str, items: Vec<Item>) -> Result<(), End> {
        if self.outlet.is_none() {
            for item in items {
                self.tally.replay(&item.origin, &item.revival.kept_back);
            }
            return Ok(());
        }
        if self.gone.contains(exchange) {
            return self.refuse_gone(exchange, items.len());
        }
        let alone = items.len() == 1;
        let mut failed = self.attempt(items).await?;
        if failed.is_empty() {
            return Ok(());
        }
        let outlet = self.outlet.as_ref().expect("something is to be published");
        if !morgue::has_exchange(&outlet.line, exchange).await? {
            if self.gone.len() < GONE_MAX {
                self.gone.insert(exchange.to_owned());
            }
            return self.refuse_gone(exchange, failed.len());
        }
        // One of them closed the channel: which?
        while !alone && let Some((item, _)) = failed.pop_front() {
            for (_, words) in self.attempt(vec![item]).await? {
                self.tally.refuse(&words);
            }
        }
        for (_, words) in failed {
            self.tally.refuse(&words);
        }
        Ok(())
    }

    fn refuse_gone(&mut self, exchange: &str, letters: usize) -> Result<(), End> {
        for _ in 0..letters {
            self.tally.refuse(&format!("its exchange `{exchange}` doesn't exist any more"));
        }
        Ok(())
    }

    /// The same, but gives back those of which nothing is known as the channel was closed, each with the broker's words.
    async fn attempt(&mut self, items: Vec<Item>) -> Result<VecDeque<(Item, String)>, End> {
        let outlet = self.outlet.as_mut().expect("something is to be published");
        let (placed, interrupted) = outlet.publish(&items, &mut self.reading).await?;
        if placed.iter().any(Result::is_err) {
            outlet.press = Press::open_unmarked(&outlet.line).await?;
        }
        let mut failed = VecDeque::new();
        let mut stored = Vec::new();
        for (item, placed) in items.into_iter().zip(placed) {
            match placed {
                Ok(()) => stored.push(item),
                Err(Unplaced::Unknown(words)) => failed.push_back((item, words)),
                Err(unplaced) => self.tally.refuse(&unplaced.to_string()),
            }
        }
        let slips: Vec<_> = stored.iter().map(|item| item.slip).collect();
        if let Err(fault) = self.reading.morgue.remove(&slips).await {
            self.tally.unsure += slips.len() as u64;
            return Err(fault.into());
        }
        for item in stored {
            self.tally.replay(&item.origin, &item.revival.kept_back);
        }
        if interrupted { Err(End::Interrupted) } else { Ok(failed) }
    }
}

impl Outlet {
    async fn open(config: &Config) -> Result<Self, End> {
        let line = morgue::dial(config, "dead-letters replay").await?;
        let press = Press::open_unmarked(&line).await?;
        Ok(Self { line, press })
    }

    /// Publishes a barrier: what became of each, and whether we were interrupted meanwhile.
    async fn publish(
        &mut self,
        items: &[Item],
        reading: &mut Reading,
    ) -> Result<(Vec<Result<(), Unplaced>>, bool), End> {
        let letters: Vec<_> = items.iter().map(|item| &item.revival.letter).collect();
        let mut work = std::pin::pin!(self.press.barrier(&self.line, &letters));
        tokio::select! {
            placed = reading.morgue.line.beside(&mut work) => Ok((placed?, false)),
            () = reading.interrupts.wait() => match timeout(INTERRUPT_GRACE, work).await {
                Ok(placed) => Ok((placed?, true)),
                Err(_) => Err(End::Interrupted),
            },
        }
    }
}

/// Keeps to a rate.
struct Pace {
    rate: Option<f64>,
    barrier_max: usize,
    next: Instant,
}

impl Pace {
    fn new(rate: Option<f64>) -> Self {
        // Small barriers, so that a slow rate is an even one.
        let barrier_max =
            rate.map_or(BARRIER_MAX, |rate| ((rate / 4.0).ceil() as usize).clamp(1, BARRIER_MAX));
        Self { rate, barrier_max, next: Instant::now() }
    }

    /// Waits until `letters` may go.
    async fn wait(&mut self, letters: usize, reading: &mut Reading) -> Result<(), End> {
        let Some(rate) = self.rate else { return Ok(()) };
        tokio::select! {
            () = reading.morgue.line.beside(sleep_until(self.next)) => {}
            () = reading.interrupts.wait() => return Err(End::Interrupted),
        }
        self.next = self.next.max(Instant::now()) + Duration::from_secs_f64(letters as f64 / rate);
        Ok(())
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e6).contains(&rate) => Ok(rate),
        _ => Err("not a number from 0.001 to 1000000".to_owned()),
    }
}
