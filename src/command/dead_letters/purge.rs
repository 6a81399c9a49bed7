//! `dead-letters purge`.

use std::io::{self, IsTerminal as _, Write};

use super::group::Groups;
use super::{Common, End, Reading};
use crate::broker::morgue::Slip;
use crate::config::Config;

/// Letters that are removed together.
const REMOVED_AT_ONCE: usize = 1_000;

/// What to remove.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(args: Args, config: &Config, out: &mut impl Write) -> Result<(), End> {
    let can_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !args.yes && !can_ask {
        return Err(End::Usage(
            "purge asks before it removes anything, and there is no terminal to ask on: give --yes"
                .to_owned(),
        ));
    }
    let mut reading = Reading::open(args.common, config).await?;
    let ended = purge(&mut reading, args.yes, out).await;
    reading.close(ended, false).await
}

async fn purge(reading: &mut Reading, yes: bool, out: &mut impl Write) -> Result<(), End> {
    // What is shown is held until the answer comes, so that nothing else is removed.
    let (mut groups, mut runs) = (Groups::default(), Runs::default());
    while let Some((slip, corpse)) = reading.next().await? {
        groups.add(&corpse);
        runs.push(slip);
    }
    if runs.letters == 0 {
        return Ok(writeln!(out, "no dead letters")?);
    }
    write!(out, "{}", groups.table())?;
    out.flush()?;
    if !yes && !ask(reading, runs.letters).await? {
        return Ok(writeln!(out, "removed nothing")?);
    }
    let mut removed = 0;
    let mut slips = runs.slips();
    loop {
        let chunk: Vec<_> = slips.by_ref().take(REMOVED_AT_ONCE).collect();
        if chunk.is_empty() {
            break;
        }
        reading.morgue.remove(&chunk).await?;
        removed += chunk.len();
    }
    Ok(writeln!(out, "removed {removed} dead letters")?)
}

async fn ask(reading: &mut Reading, letters: u64) -> Result<bool, End> {
    let mut err = io::stderr();
    write!(err, "Remove these {letters} dead letters for good? [y/N] ")?;
    err.flush()?;
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = tokio::select! {
        answer = answer => answer.expect("reading a line doesn't panic")?,
        () = reading.interrupts.wait() => return Err(End::Interrupted),
    };
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

/// Slips, as runs of those that follow one another.
#[derive(Debug, Default)]
struct Runs {
    runs: Vec<(Slip, u32)>,
    letters: u64,
}

impl Runs {
    fn push(&mut self, slip: Slip) {
        self.letters += 1;
        match self.runs.last_mut() {
            Some((first, len)) if first.after(*len) == slip => *len += 1,
            _ => self.runs.push((slip, 1)),
        }
    }

    fn slips(&self) -> impl Iterator<Item = Slip> {
        self.runs.iter().flat_map(|(first, len)| (0..*len).map(|letters| first.after(letters)))
    }
}
