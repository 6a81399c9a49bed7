//! What the audience sees: a progress bar on a terminal, a line now and then otherwise.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::mock::Stats;
use crate::status::Status;

/// Without a terminal, progress is told at each of so many parts of the whole.
const PARTS: u64 = 10;

/// Standard error.
pub(super) struct Screen {
    bar: ProgressBar,
    terminal: bool,
    /// The last part that was told.
    told: Cell<u64>,
}

impl Screen {
    pub(super) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let template = "{bar:30} {percent:>3} %  {human_pos} IDs  {elapsed}  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, terminal, told: Cell::new(0) }
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
        let message = format!(
            "{} calls, {:.0} % full  endpoint {}",
            stats.sizes.count,
            100.0 * stats.sizes.mean_fill,
            status.endpoint.state.as_str(),
        );
        if self.terminal {
            if self.bar.is_hidden() {
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            self.bar.set_length(all);
            self.bar.set_position(stats.ids_deleted);
            self.bar.set_message(message);
            return;
        }
        let part = stats.ids_deleted * PARTS / all.max(1);
        if part > self.told.replace(part) {
            self.say(&format!("{:3} %: {} IDs deleted, {message}", part * 100 / PARTS, stats.ids_deleted));
        }
    }

    /// Takes the bar away.
    pub(super) fn close(&self) {
        self.bar.finish_and_clear();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
    }
}
