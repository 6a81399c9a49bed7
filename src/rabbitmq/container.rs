//! RabbitMQ in Docker.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tokio::time::timeout;
use url::Url;

use super::management::Management;
use crate::lifeline::{Environment, Lifeline};

/// The image with the management plugin.
const IMAGE: &str = "rabbitmq:4-management";
/// How long the daemon may take to say that it is there.
const DAEMON_PATIENCE: Duration = Duration::from_secs(5);
/// How long the image may take to come.
const PULL_PATIENCE: Duration = Duration::from_secs(300);
/// From the container's start until the broker serves.
const START_PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// A broker in a container of our own, reachable from this machine only.
///
/// Dropping it removes the container; so does the end of this process, `kill -9` included.
#[derive(Debug)]
pub struct Container {
    amqp: Url,
    management: Management,
    _lifeline: Lifeline,
}

impl Container {
    /// Starts a container with the client `docker`, pulling the image if need be.
    ///
    /// # Errors
    /// There is no Docker, no image, or no broker in it.
    pub(super) async fn start(docker: &OsStr, say: impl Fn(&str)) -> Result<Self> {
        run(docker, &["info"], DAEMON_PATIENCE).await.context("no usable Docker")?;
        if run(docker, &["image", "inspect", IMAGE], DAEMON_PATIENCE).await.is_err() {
            say(&format!("Pulling {IMAGE} with Docker."));
            run(docker, &["pull", IMAGE], PULL_PATIENCE).await.context("failed to pull the image")?;
        }
        say(&format!("Starting {IMAGE} in Docker; the container is removed when this program ends."));
        let name = format!("deletion-worker-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let password: String = std::iter::repeat_with(fastrand::alphanumeric).take(20).collect();
        let mut lifeline = Lifeline::start(
            include_str!("container.sh"),
            &[docker, name.as_ref(), IMAGE.as_ref()],
            &environment(&password),
        )?;
        let answer = lifeline.answer(START_PATIENCE).await.context("failed to start the container")?;
        ensure!(answer == "running", "failed to start the container: {answer}");
        let amqp = published(docker, &name, 5672).await?;
        let api = published(docker, &name, 15672).await?;
        let amqp = Url::parse(&format!("amqp://deletion-worker:{password}@{amqp}"))?;
        let management =
            Management::new(&Url::parse(&format!("http://{api}"))?, "deletion-worker", &password);
        let deadline = Instant::now() + START_PATIENCE;
        while let Err(error) = management.ready().await {
            if Instant::now() > deadline {
                return Err(error).context("the container's broker didn't get ready");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(Self { amqp, management, _lifeline: lifeline })
    }

    pub(super) fn amqp_url(&self, vhost: &str) -> String {
        super::with_vhost(&self.amqp, vhost)
    }

    pub(super) fn management(&self) -> Management {
        self.management.clone()
    }
}

/// Our environment, as Docker's client may need any of it, and the user: `guest` may not come from outside the
/// container.
fn environment(password: &str) -> Environment {
    let mut environment: BTreeMap<_, _> = env::vars_os().collect();
    environment.insert("RABBITMQ_DEFAULT_USER".into(), "deletion-worker".into());
    environment.insert("RABBITMQ_DEFAULT_PASS".into(), password.into());
    environment
}

/// Where on this machine the container's `port` is.
async fn published(docker: &OsStr, name: &str, port: u16) -> Result<String> {
    let answer = run(docker, &["port", name, &format!("{port}/tcp")], DAEMON_PATIENCE).await?;
    answer.lines().next().map(str::to_owned).with_context(|| format!("Docker published no port {port}"))
}

async fn run(docker: &OsStr, arguments: &[&str], patience: Duration) -> Result<String> {
    let command = Command::new(docker).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match timeout(patience, command).await {
        Ok(output) => output.context("failed to run the Docker client")?,
        Err(_) => bail!("docker {} took longer than {patience:?}", arguments[0]),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    bail!("docker {}: {}", arguments[0], complaint.lines().next_back().unwrap_or("failed without a word"))
}
