//! `dead-letters show`.

use std::io::Write;

use super::{Common, End, Output, Reading, body, letter};
use crate::broker::corpse::Corpse;
use crate::config::Config;
use crate::text::{harmless, harmless_json};

/// What to show.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// No more than this many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

pub(super) async fn run(args: &Args, config: &Config, out: &mut Output) -> Result<(), End> {
    let mut reading = Reading::open(args.common.clone(), config).await?;
    let ended = write(&mut reading, args.limit.unwrap_or(u64::MAX), out).await;
    reading.close(ended, args.limit.is_some()).await
}

async fn write(reading: &mut Reading, limit: u64, out: &mut Output) -> Result<(), End> {
    for _ in 0..limit {
        let Some((_, corpse)) = reading.next().await? else { break };
        show(&corpse, reading.seen, out)?;
        // Somebody may be looking on.
        out.pass_on(reading).await?;
    }
    if reading.seen == reading.passed_over {
        writeln!(out, "no dead letters")?;
    }
    Ok(())
}

/// Prints a letter; nothing of it speaks to a terminal.
fn show(corpse: &Corpse, place: u64, out: &mut impl Write) -> Result<(), End> {
    let code = corpse.word("code").map(|code| format!(" {code}"));
    let died = letter::died(corpse).map_or("at an unknown time".into(), letter::moment);
    writeln!(
        out,
        "=== {place}: {}{}, {died}",
        harmless(&letter::reason(corpse)),
        harmless(&code.unwrap_or_default())
    )?;
    if let Some(detail) = corpse.word("detail") {
        writeln!(out, "  {}", harmless(&detail))?;
    }
    match corpse.origin() {
        Some(origin) => {
            let (exchange, key) = (harmless(&origin.exchange), harmless(&origin.routing_key));
            writeln!(out, "  published to exchange `{exchange}` with routing key `{key}`")?;
        }
        None => writeln!(out, "  published to an unknown place")?,
    }
    if let Some(repaired) = &corpse.repaired {
        writeln!(out, "  made readable: {}", harmless(repaired))?;
    }
    for (title, members) in [("properties", corpse.properties()), ("headers", corpse.headers())] {
        if members.is_empty() {
            continue;
        }
        writeln!(out, "{title}")?;
        for (name, value) in members {
            writeln!(out, "  {}: {}", harmless(&name), harmless_json(&value.to_string()))?;
        }
    }
    body::write(corpse, out)?;
    writeln!(out)?;
    Ok(())
}
