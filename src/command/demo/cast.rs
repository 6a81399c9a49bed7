//! The worker as the demo's child: the same binary, under a shell that takes it down with us.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use crate::command::healthcheck;
use crate::lifeline::{Environment, Lifeline};
use crate::status::Status;

/// How long the worker may take to come up.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to drain: more than `shutdown.grace`.
const EXIT_PATIENCE: Duration = Duration::from_secs(60);
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How long its end may take to be known after a connection broke.
const OBITUARY_PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);
/// As much of its log as is shown if something goes wrong.
const LOG_LINES_MAX: usize = 25;

/// What a worker may need of our own environment; a proxy, say, it must not.
const INHERITED: [&str; 3] = ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// A worker. Dropping it kills it, and so does the end of this process, `kill -9` included.
#[derive(Debug)]
pub(super) struct Worker {
    lifeline: Lifeline,
    /// The last lines of its log.
    log: VecDeque<String>,
    /// Where its admin server listens, once that is logged.
    admin: Option<SocketAddr>,
    exit: Option<i32>,
}

impl Worker {
    /// Starts this very binary with `environment` as its only configuration.
    pub(super) fn start(environment: &[(&'static str, String)]) -> Result<Self> {
        let program = std::env::current_exe().context("failed to find our own binary")?;
        let inherited = INHERITED.into_iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
        let given = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let environment: Environment = inherited.chain(given).collect();
        let lifeline = Lifeline::start(include_str!("worker.sh"), &[program.as_os_str()], &environment)?;
        Ok(Self { lifeline, log: VecDeque::new(), admin: None, exit: None })
    }

    /// Waits until it consumes.
    pub(super) async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_PATIENCE;
        loop {
            let Err(error) = self.page("/readyz").await else { return Ok(()) };
            if self.exit.is_some() || Instant::now() > deadline {
                return Err(error.context("the worker did not become ready"));
            }
            sleep(POLL).await;
        }
    }

    /// Its `/status`.
    pub(super) async fn status(&mut self) -> Result<Status> {
        serde_json::from_str(&self.page("/status").await?).context("failed to read the worker's status")
    }

    /// Asks it to go, and waits until it has; its exit code, 128 and the number if a signal ended it.
    pub(super) async fn stop(&mut self) -> Result<i32> {
        self.lifeline.send("TERM")?;
        let ended = timeout(EXIT_PATIENCE, self.ended()).await;
        ended.with_context(|| format!("the worker did not end within {EXIT_PATIENCE:?}"))
    }

    /// The end of its log, for people.
    pub(super) fn last_words(&mut self) -> String {
        self.listen();
        format!("The worker's log ends with:\n{}", self.log.make_contiguous().join("\n"))
    }

    async fn page(&mut self, path: &str) -> Result<String> {
        self.listen();
        if let Some(code) = self.exit {
            bail!("the worker ended with exit code {code}");
        }
        let admin = self.admin.context("the worker has not logged its address yet")?;
        let page = fetch(admin, path).await;
        if page.is_err() {
            // A connection breaks a moment before its process is known to be gone, and that is the better reason.
            let _ = timeout(OBITUARY_PATIENCE, self.ended()).await;
        }
        self.exit.map_or(page, |code| Err(anyhow!("the worker ended with exit code {code}")))
    }

    /// Waits until it has ended.
    async fn ended(&mut self) -> i32 {
        loop {
            self.listen();
            if let Some(code) = self.exit {
                return code;
            }
            sleep(POLL).await;
        }
    }

    fn listen(&mut self) {
        /// The line of the log that tells the port, which was left to the system.
        #[derive(Deserialize)]
        struct Started {
            admin: SocketAddr,
        }
        while let Some(line) = self.lifeline.answered() {
            if let Some(code) = line.strip_prefix("exited ") {
                self.exit = code.parse().ok();
                continue;
            }
            if self.admin.is_none() {
                self.admin = serde_json::from_str(&line).ok().map(|Started { admin }| admin);
            }
            if self.log.len() == LOG_LINES_MAX {
                self.log.pop_front();
            }
            self.log.push_back(line);
        }
    }
}

async fn fetch(admin: SocketAddr, path: &str) -> Result<String> {
    let mut url = Url::parse(&format!("http://{admin}")).expect("an address is a URL's authority");
    url.set_path(path);
    let fetched = timeout(ANSWER_PATIENCE, healthcheck::fetch(&url)).await;
    fetched.context("no answer").and_then(|fetched| fetched).with_context(|| format!("GET {path}"))
}
