//! `dead-letters export`.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::{Common, End, Output, Reading, letter};
use crate::broker::corpse::Corpse;
use crate::config::Config;
use crate::text;

/// What to export.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// One JSON object a line
    #[arg(long, value_name = "FORM", default_value = "jsonl")]
    format: Format,
    /// No more than this many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Jsonl,
}

pub(super) async fn run(args: Args, config: &Config, out: &mut Output) -> Result<(), End> {
    let Format::Jsonl = args.format;
    let mut reading = Reading::open(args.common, config).await?;
    let ended = write(&mut reading, args.limit.unwrap_or(u64::MAX), out).await;
    reading.close(ended, args.limit.is_some()).await
}

async fn write(reading: &mut Reading, limit: u64, out: &mut Output) -> Result<(), End> {
    for _ in 0..limit {
        let Some((_, corpse)) = reading.next().await? else { break };
        writeln!(out, "{}", text::harmless_json(&Value::Object(record(&corpse)).to_string()))?;
        out.gather(reading).await?;
    }
    out.pass_on(reading).await
}

/// All there is about a letter.
fn record(corpse: &Corpse) -> Map<String, Value> {
    let origin = corpse.origin();
    let mut record = Map::new();
    let mut put = |name: &str, value: Value| record.insert(name.to_owned(), value);
    put("reason", json!(letter::reason(corpse)));
    put("code", json!(corpse.word("code")));
    put("detail", json!(corpse.word("detail")));
    put("died", json!(letter::died(corpse).map(letter::moment)));
    put("exchange", json!(origin.as_ref().map(|origin| &origin.exchange)));
    put("routing_key", json!(origin.as_ref().map(|origin| &origin.routing_key)));
    put("properties", Value::Object(corpse.properties()));
    put("headers", Value::Object(corpse.headers()));
    if let Some(repaired) = &corpse.repaired {
        put("repaired", json!(repaired));
    }
    match str::from_utf8(&corpse.body) {
        Ok(text) => put("body", json!(text)),
        Err(_) => put("body_base64", json!(text::base64(&corpse.body))),
    };
    record
}
