//! `mock-endpoint`: the stand-in for the delete endpoint, as a server of its own.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::mock::{Block, Down, Faults, Loss, Mock, Reply, Settings};

/// Serves both versions of the delete endpoint, and deletes nothing but what it remembers.
///
/// Every fault can also be switched on and off at run time:
/// curl -X PATCH -H 'content-type: application/json' -d '{"down":"hang"}' http://127.0.0.1:8088/_mock/faults.
/// See also GET /_mock/stats, /_mock/deleted, /_mock/calls, and POST /_mock/reset.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8088")]
    listen: SocketAddr,
    /// The only Authorization value to accept; without it, any
    #[arg(long, env = "MOCK_ENDPOINT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// How many of the last calls to remember
    #[arg(long, value_name = "N", default_value_t = 1000)]
    calls_kept: usize,
    /// Remember their IDs too
    #[arg(long)]
    keep_ids: bool,
    #[command(flatten, next_help_heading = "Faults")]
    faults: FaultArgs,
}

#[derive(Debug, clap::Args)]
struct FaultArgs {
    /// How long each answer takes, like 50ms
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "0s")]
    latency: Duration,
    /// Up to this much longer, at random
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "0s")]
    jitter: Duration,
    /// Accept so many calls in any one second, and answer 0429 to the rest; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    requests_per_second: u32,
    /// Throttle with HTTP 429 instead of 200
    #[arg(long)]
    throttle_by_status: bool,
    /// Throttle with this Retry-After, in seconds
    #[arg(long, value_name = "SECONDS")]
    retry_after: Option<u64>,
    /// Answer 0001 to a call that has this ID; repeatable
    #[arg(long = "bad-id", value_name = "ID")]
    bad_ids: Vec<String>,
    /// Answer 0001 to a call that has an ID beginning like this
    #[arg(long, value_name = "TEXT")]
    bad_prefix: Option<String>,
    /// Answer HTTP 500 to a call that has this ID; repeatable
    #[arg(long = "failing-id", value_name = "ID")]
    failing_ids: Vec<String>,
    /// Answer HTTP 500 to a call that has an ID beginning like this
    #[arg(long, value_name = "TEXT")]
    failing_prefix: Option<String>,
    /// Answer 0409 to a call that has an ID deleted before
    #[arg(long)]
    duplicates_answer_0409: bool,
    /// Be down
    #[arg(long, value_name = "HOW")]
    down: Option<Down>,
    /// Refuse the account
    #[arg(long, value_name = "HOW")]
    blocked: Option<Block>,
    /// Answer this HTTP status to whatever comes
    #[arg(long, value_name = "STATUS")]
    reply_status: Option<u16>,
    /// ... with this header; repeatable
    #[arg(long = "reply-header", value_name = "NAME: VALUE", value_parser = header, requires = "reply_status")]
    reply_headers: Vec<(String, String)>,
    /// ... and this body
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        requires = "reply_status",
        hide_default_value = true
    )]
    reply_body: String,
    /// ... to so many calls only
    #[arg(long, value_name = "N", requires = "reply_status")]
    reply_calls: Option<u32>,
    /// ... and delete their IDs all the same
    #[arg(long, requires = "reply_status")]
    reply_applies: bool,
    /// Answer HTTP 500 to the first N calls
    #[arg(long, value_name = "N", default_value_t = 0)]
    fail_next: u32,
    /// Answer HTTP 500 to this part of all calls, 0 to 1
    #[arg(long, value_name = "RATIO", default_value_t = 0.0)]
    failure_ratio: f64,
    /// For all that is random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Delete, but lose the answer to the first N calls that would succeed
    #[arg(long, value_name = "N", default_value_t = 0)]
    lose_next: u32,
    /// ... in this way
    #[arg(long, value_name = "HOW", default_value = "reset")]
    lose_as: Loss,
}

/// Serves until SIGTERM or SIGINT, and then ends at once.
///
/// # Errors
/// If a flag's value makes no sense, or the address can't be listened on.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // Before the first word, so that whoever reads it may send a signal; as process 1 there is no default action.
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let faults = Faults::from(args.faults);
    faults.check().map_err(anyhow::Error::msg).context("failed to set up the faults")?;
    let settings =
        Settings { token: args.token, faults, calls_kept: args.calls_kept, keep_ids: args.keep_ids };
    let mock = Mock::start(args.listen, settings)
        .await
        .with_context(|| format!("failed to listen on {}", args.listen))?;
    announce(mock.addr).context("failed to write to standard output")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    mock.shutdown().await;
    Ok(())
}

fn announce(addr: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "v1.0: DELETE http://{addr}/api/serve/video/delete")?;
    writeln!(out, "v1.2: POST http://{addr}/serve/api/v1/delete_videos")?;
    writeln!(out, "listening on {addr}")?;
    out.flush()
}

fn header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl From<FaultArgs> for Faults {
    fn from(args: FaultArgs) -> Self {
        let reply = args.reply_status.map(|status| Reply {
            status,
            headers: BTreeMap::from_iter(args.reply_headers),
            body: args.reply_body,
            calls: args.reply_calls,
            applies: args.reply_applies,
        });
        Self {
            latency: args.latency,
            jitter: args.jitter,
            requests_per_second: args.requests_per_second,
            throttle_by_status: args.throttle_by_status,
            retry_after: args.retry_after,
            bad_ids: args.bad_ids.into_iter().collect(),
            bad_prefix: args.bad_prefix,
            failing_ids: args.failing_ids.into_iter().collect(),
            failing_prefix: args.failing_prefix,
            duplicates_answer_0409: args.duplicates_answer_0409,
            down: args.down,
            blocked: args.blocked,
            reply,
            fail_next: args.fail_next,
            failure_ratio: args.failure_ratio,
            seed: args.seed,
            lose_next: args.lose_next,
            lose_as: args.lose_as,
        }
    }
}

#[cfg(test)]
mod tests;
