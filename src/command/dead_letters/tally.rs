//! How a replay gets on, and what came of it.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::say;
use crate::broker::corpse::Origin;
use crate::text::harmless;

/// Reasons and destinations spelt out.
const SPELT_OUT_MAX: usize = 20;
/// Between two lines of progress where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// What came of the letters.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) replayed: u64,
    pub(super) refused: u64,
    /// Stored again, but perhaps still in the dead-letter queue too.
    pub(super) unsure: u64,
    reasons: BTreeMap<String, u64>,
    destinations: BTreeMap<String, u64>,
    kept_back: BTreeMap<&'static str, u64>,
    progress: Progress,
}

#[derive(Debug)]
struct Progress {
    bar: ProgressBar,
    /// Of the last line; `None` where the bar is seen.
    line: Option<Instant>,
    started: Instant,
    letters: u64,
}

impl Tally {
    /// For a queue of so many letters.
    pub(super) fn new(letters: u64) -> Self {
        let style = crate::command::bar_style("{bar:40} {human_pos}/{human_len} letters, {rate}, {eta} left");
        let bar =
            ProgressBar::with_draw_target(Some(letters), ProgressDrawTarget::stderr()).with_style(style);
        let line = (!io::stderr().is_terminal()).then(Instant::now);
        Self {
            replayed: 0,
            refused: 0,
            unsure: 0,
            reasons: BTreeMap::new(),
            destinations: BTreeMap::new(),
            kept_back: BTreeMap::new(),
            progress: Progress { bar, line, started: Instant::now(), letters },
        }
    }

    pub(super) fn refuse(&mut self, reason: &str) {
        self.refused += 1;
        count(&mut self.reasons, reason.to_owned(), "other reasons");
    }

    pub(super) fn replay(&mut self, origin: &Origin, kept_back: &[&'static str]) {
        self.replayed += 1;
        let destination = format!("exchange `{}`, routing key `{}`", origin.exchange, origin.routing_key);
        count(&mut self.destinations, destination, "other places");
        for name in kept_back {
            *self.kept_back.entry(name).or_default() += 1;
        }
    }

    /// Shows how far we are: `seen` letters.
    pub(super) fn progress(&mut self, seen: u64) {
        let Progress { bar, line, started, letters } = &mut self.progress;
        bar.set_position(seen);
        if let Some(last) = line
            && last.elapsed() >= LINE_INTERVAL
        {
            *last = Instant::now();
            let rate = self.replayed as f64 / started.elapsed().as_secs_f64();
            let left = Duration::from_secs_f64(
                started.elapsed().as_secs_f64() * letters.saturating_sub(seen) as f64 / seen.max(1) as f64,
            );
            let (replayed, left) =
                (self.replayed, humantime::format_duration(Duration::from_secs(left.as_secs())));
            say(&format!("replayed {replayed} letters, seen {seen} of {letters}; {rate:.0}/s, {left} left"));
        }
    }

    /// Takes the progress bar away.
    pub(super) fn finish(&self) {
        self.progress.bar.finish_and_clear();
    }

    /// What came of it all; of `skipped` letters nothing was wanted.
    pub(super) fn summarize(&self, skipped: u64, dry_run: bool, out: &mut impl Write) -> io::Result<()> {
        let verb = if dry_run { "would replay" } else { "replayed" };
        let (replayed, refused) = (self.replayed, self.refused);
        writeln!(out, "{verb} {replayed} letters, skipped {skipped}, refused {refused}")?;
        for (destination, letters) in &self.destinations {
            writeln!(out, "  to {}: {letters}", harmless(destination))?;
        }
        for (reason, letters) in &self.reasons {
            writeln!(out, "  refused {letters}: {}", harmless(reason))?;
        }
        for (name, letters) in &self.kept_back {
            writeln!(
                out,
                "  {letters} without the property {name}, which is ours to publish only as x-original-{name}"
            )?;
        }
        if self.unsure > 0 {
            writeln!(out, "  {} more may be replayed, and in the dead-letter queue too", self.unsure)?;
        }
        Ok(())
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: String, rest: &str) {
    let is_new = !counts.contains_key(&name);
    let name = if is_new && counts.len() >= SPELT_OUT_MAX { rest.to_owned() } else { name };
    *counts.entry(name).or_default() += 1;
}
