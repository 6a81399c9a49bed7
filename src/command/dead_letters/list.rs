//! `dead-letters list`.

use std::io::Write;

use serde_json::json;

use super::group::Groups;
use super::{Common, End, Reading};
use crate::config::Config;
use crate::text;

/// How to list.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// For people or for scripts
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(super) async fn run(args: Args, config: &Config, out: &mut impl Write) -> Result<(), End> {
    let mut reading = Reading::open(args.common, config).await?;
    let mut groups = Groups::default();
    let ended = read(&mut reading, &mut groups).await;
    let (seen, passed_over, complete) = (reading.seen, reading.passed_over, reading.is_complete());
    let queue = reading.morgue.names.dead_queue.to_string();
    reading.close(ended, false).await?;
    let selected = seen - passed_over;
    match args.output {
        Output::Json => {
            let list = json!({
                "queue": queue,
                "letters": selected,
                "passed_over": passed_over,
                "complete": complete,
                "groups": groups.json(),
            });
            let json = serde_json::to_string_pretty(&list).expect("values always serialize");
            writeln!(out, "{}", text::harmless_json(&json))?;
        }
        Output::Table if selected == 0 => writeln!(out, "no dead letters")?,
        Output::Table => write!(out, "{}", groups.table())?,
    }
    Ok(())
}

async fn read(reading: &mut Reading, groups: &mut Groups) -> Result<(), End> {
    while let Some((_, corpse)) = reading.next().await? {
        groups.add(&corpse);
    }
    Ok(())
}
