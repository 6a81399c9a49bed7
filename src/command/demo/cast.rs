//! The worker as the demo's child: the same binary, under a shell that takes it down with us.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use url::Url;

use crate::command::healthcheck;
use crate::config;
use crate::status::Status;

/// How long the worker may take to come up, and to drain.
const PATIENCE: Duration = Duration::from_secs(40);
/// As much of its log as is shown if something goes wrong.
const LOG_BYTES_MAX: u64 = 64 * 1024;

/// A running worker. Dropping it closes its shell's standard input, at which the worker drains and goes.
pub(super) struct Worker {
    shell: Child,
    admin: SocketAddr,
    log: JoinHandle<String>,
}

impl Worker {
    /// Starts this very binary with `environment` as its only configuration.
    pub(super) fn start(environment: &[(&'static str, String)], admin: SocketAddr) -> Result<Self> {
        let program = std::env::current_exe().context("failed to find our own binary")?;
        let mut command = Command::new("sh");
        command.args(["-c", include_str!("worker.sh"), "deletion-worker-demo"]).arg(program).arg("run");
        for key in config::keys() {
            command.env_remove(key.variable);
        }
        command
            .env_remove("DELETION_WORKER_CONFIG")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // An interrupt from the terminal is ours to handle.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut shell = command.spawn().context("failed to run sh")?;
        let mut stderr = shell.stderr.take().context("failed to get the worker's log")?;
        let log = tokio::spawn(async move {
            let mut log = Vec::new();
            // What is cut short is still worth showing, and the rest must be read for the worker to go on.
            let _ = (&mut stderr).take(LOG_BYTES_MAX).read_to_end(&mut log).await;
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
            String::from_utf8_lossy(&log).into_owned()
        });
        Ok(Self { shell, admin, log })
    }

    /// Waits until it consumes.
    pub(super) async fn ready(&mut self) -> Result<()> {
        let ready = async {
            while self.page("/readyz").await.is_err() {
                ensure!(self.shell.try_wait()?.is_none(), "the worker ended before it was ready");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        timeout(PATIENCE, ready).await.context("the worker did not become ready")?
    }

    /// Its `/status`.
    pub(super) async fn status(&self) -> Result<Status> {
        serde_json::from_str(&self.page("/status").await?).context("failed to read the worker's status")
    }

    /// Asks it to go; its exit status and its log.
    pub(super) async fn stop(mut self) -> Result<(ExitStatus, String)> {
        drop(self.shell.stdin.take());
        let status = timeout(PATIENCE, self.shell.wait()).await.context("the worker did not end")??;
        Ok((status, self.log.await?))
    }

    async fn page(&self, path: &str) -> Result<String> {
        let mut url = Url::parse(&format!("http://{}", self.admin)).context("failed to name the worker")?;
        url.set_path(path);
        timeout(Duration::from_secs(5), healthcheck::fetch(&url)).await.context("no answer")?
    }
}
