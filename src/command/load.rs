//! `deletion-worker load`: made-up requests without an end.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::demo::Interrupts;
use super::demo::load::Flow;
use crate::broker::desk::Desk;
use crate::config::Config;

/// In each of which its part of a second's messages goes out.
const TICKS_PER_SECOND: u32 = 10;

/// After so long without a confirmed message the load isn't healthy.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// How much is published.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Messages a second
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Answer /healthz here, for `healthcheck --url`: whether messages are being confirmed
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
}

/// Publishes, each message confirmed by the broker, until SIGINT or SIGTERM; then says to `out` how many they were.
///
/// # Errors
/// The broker isn't there, goes away, or didn't store a message; or the port is taken.
pub async fn run(args: &Args, config: &Config, out: &mut dyn Write) -> Result<()> {
    let mut interrupts = Interrupts::listen().context("failed to listen for signals")?;
    let listener = match args.listen {
        Some(listen) => Some(bind(listen, out).await?),
        None => None,
    };
    let (confirmed, last) = watch::channel(Confirmed { messages: 0, at: Instant::now() });
    tokio::select! {
        Err(error) = publish(args.rate, config, &confirmed) => return Err(error),
        Err(error) = serve(listener, last) => return Err(error),
        () = interrupts.next() => {}
    }
    let published = confirmed.borrow().messages;
    writeln!(out, "published {published} messages to exchange `{}`", config.amqp.exchange)
        .context("failed to write the summary")
}

/// What the broker has confirmed so far.
#[derive(Clone, Copy, Debug)]
struct Confirmed {
    messages: u64,
    at: Instant,
}

/// Goes on until it fails, or is dropped.
async fn publish(rate: u32, config: &Config, confirmed: &watch::Sender<Confirmed>) -> Result<Infallible> {
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
        if !messages.is_empty() {
            let stored = desk.publish(&messages).await?;
            confirmed.send_modify(|confirmed| {
                *confirmed = Confirmed { messages: confirmed.messages + stored, at: Instant::now() };
            });
        }
    }
}

async fn bind(listen: SocketAddr, out: &mut dyn Write) -> Result<TcpListener> {
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("failed to listen on {listen}"))?;
    writeln!(out, "http://{}/healthz says whether messages are confirmed", listener.local_addr()?)?;
    Ok(listener)
}

/// Answers `/healthz`, if anywhere, until it is dropped.
async fn serve(listener: Option<TcpListener>, last: watch::Receiver<Confirmed>) -> Result<Infallible> {
    let Some(listener) = listener else { return std::future::pending().await };
    let health = async move || {
        if last.borrow().at.elapsed() < SILENCE_MAX {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the broker confirms nothing\n")
        }
    };
    axum::serve(listener, Router::new().route("/healthz", get(health))).await.context("failed to serve")?;
    anyhow::bail!("the server ended")
}
