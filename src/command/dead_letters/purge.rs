//! `dead-letters purge`.

use std::io::{self, IsTerminal as _, Write};

use super::group::Groups;
use super::{Common, End, Output, Reading};
use crate::broker::morgue::Slips;
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

pub(super) async fn run(args: Args, config: &Config, out: &mut Output) -> Result<(), End> {
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

async fn purge(reading: &mut Reading, yes: bool, out: &mut Output) -> Result<(), End> {
    // What is shown is held until the answer comes, so that nothing else is removed.
    let (mut groups, mut slips) = (Groups::default(), Slips::default());
    while let Some((slip, corpse)) = reading.next().await? {
        groups.add(&corpse);
        slips.insert(slip);
    }
    if slips.letters == 0 {
        return Ok(writeln!(out, "no dead letters")?);
    }
    write!(out, "{}", groups.table())?;
    out.pass_on(reading).await?;
    if !yes && !ask(reading, slips.letters).await? {
        return Ok(writeln!(out, "removed nothing")?);
    }
    let mut removed = 0;
    let mut slips = slips.iter();
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
        answer = reading.morgue.line.beside(answer) => answer.expect("reading a line doesn't panic")?,
        () = reading.interrupts.wait() => return Err(End::Interrupted),
    };
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}
