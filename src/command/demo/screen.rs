//! What the audience sees: a progress bar on a terminal, a line now and then otherwise.

use std::cell::Cell;
use std::io::Write as _;

use indicatif::{ProgressBar, ProgressDrawTarget};

use crate::command::bar_style;
use crate::mock::Stats;
use crate::status::Status;

/// Without a terminal, progress is told at each of so many parts of the whole.
const PARTS: u64 = 5;

/// Standard error.
#[derive(Debug)]
pub(super) struct Screen {
    bar: ProgressBar,
    /// The last part that was told.
    told: Cell<u64>,
}

impl Screen {
    pub(super) fn new() -> Self {
        let style = bar_style("{bar:16} {human_pos}/{human_len} IDs  {msg}");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style);
        Self { bar, told: Cell::new(0) }
    }

    /// Tells a sentence.
    pub(super) fn say(&self, sentence: &str) {
        self.bar.suspend(|| {
            // Without a standard error there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "{sentence}");
        });
    }

    /// Shows how far it is.
    pub(super) fn show(&self, stats: &Stats, all: u64, status: &Status) {
        if self.bar.length().is_none() {
            self.bar.set_length(all);
            self.bar.reset();
            // Hidden, unless it is a terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        let message = format!(
            "{} calls, {:.0} % full; endpoint {}",
            stats.sizes.count,
            100.0 * stats.sizes.mean_fill,
            status.endpoint.state.as_str(),
        );
        if self.bar.is_hidden() {
            let part = stats.ids_deleted * PARTS / all.max(1);
            if part > self.told.replace(part) {
                self.say(&format!(
                    "{:3} %: {} IDs deleted, {message}",
                    part * 100 / PARTS,
                    stats.ids_deleted
                ));
            }
            return;
        }
        self.bar.set_position(stats.ids_deleted);
        self.bar.set_message(format!("{:.0}/s  {message}", self.bar.per_sec()));
    }

    /// Takes the bar away.
    pub(super) fn close(&self) {
        self.bar.finish_and_clear();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
    }
}
