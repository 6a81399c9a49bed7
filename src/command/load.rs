//! `deletion-worker load`: made-up requests without an end.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{MissedTickBehavior, interval};

use super::demo::Interrupts;
use super::demo::load::Flow;
use crate::broker::desk::Desk;
use crate::config::Config;

/// In each of which its part of a second's messages goes out.
const TICKS_PER_SECOND: u32 = 10;

/// How much is published.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Messages a second
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

/// Publishes, each message confirmed by the broker, until SIGINT or SIGTERM; then says to `out` how many they were.
///
/// # Errors
/// The broker isn't there, goes away, or didn't store a message.
pub async fn run(args: &Args, config: &Config, out: &mut dyn Write) -> Result<()> {
    let mut interrupts = Interrupts::listen().context("failed to listen for signals")?;
    let mut published = 0;
    tokio::select! {
        end = publish(args.rate, config, &mut published) => end?,
        () = interrupts.next() => {}
    }
    writeln!(out, "published {published} messages to exchange `{}`", config.amqp.exchange)
        .context("failed to write the summary")
}

/// Never ends well: it goes on until it fails, or is dropped.
async fn publish(rate: u32, config: &Config, published: &mut u64) -> Result<()> {
    let mut desk = Desk::open(config).await?;
    let mut flow = Flow::new(fastrand::u32(..));
    let mut ticks = interval(Duration::from_secs(1) / TICKS_PER_SECOND);
    // A broker that falls behind isn't to be flooded when it catches up.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due = 0;
    loop {
        ticks.tick().await;
        due += rate;
        let messages: Vec<String> = flow.by_ref().take((due / TICKS_PER_SECOND) as usize).collect();
        due %= TICKS_PER_SECOND;
        *published += desk.publish(&messages).await?;
    }
}
