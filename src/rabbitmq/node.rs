//! A private RabbitMQ node: own ports, own directory, own port mapper, loopback only.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::net::TcpStream;
use url::Url;

use super::install;
use super::management::Management;
use super::ports::Ports;
use crate::lifeline::{Environment, Lifeline};

/// From the command to start until the node serves, on a slow and busy machine.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// From `TERM` until the node has ended; it closes its queues meanwhile.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// What the shell answers by itself.
const SHELL_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// A RabbitMQ node of our own, with user `guest`, password `guest`, and the management plugin.
///
/// Dropping it kills it and removes its files; so does the end of this process, `kill -9` included.
#[derive(Debug)]
pub struct Node {
    lifeline: Lifeline,
    ports: Ports,
    directory: PathBuf,
    environment: Environment,
    state: State,
}

/// What a node is given beyond its own configuration.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Lines of `rabbitmq.conf`. What they listen on is not among the ports that the node looks for.
    pub configuration: Vec<String>,
    /// Names of plugins.
    pub plugins: Vec<String>,
    /// Arguments of Erlang's runtime; they win over the node's own.
    pub erlang: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running { pid: u32 },
    Ended,
}

/// What came of an attempt to start.
enum Attempt {
    Up(Node),
    /// Somebody else took a port first.
    PortTaken,
}

impl Node {
    /// Starts a node with empty queues and waits until it serves AMQP and its management API: 4 to 10 s.
    ///
    /// # Errors
    /// RabbitMQ is not installed, or it ends or stays silent; then the error holds the end of what it said.
    pub async fn start() -> Result<Self> {
        Self::start_with(&Extras::default()).await
    }

    /// [`Self::start`], with more than it needs by itself.
    ///
    /// # Errors
    /// As there.
    pub async fn start_with(extras: &Extras) -> Result<Self> {
        const ATTEMPTS: usize = 5;
        let server = install::server().context(install::ADVICE)?;
        for _ in 0..ATTEMPTS {
            match Self::attempt(&server, extras).await? {
                Attempt::Up(node) => return Ok(node),
                Attempt::PortTaken => {}
            }
        }
        bail!("failed to find four free ports: each time one was taken before the node had it")
    }

    /// Ends the node in an orderly way, as `rabbitmqctl stop` does. Ports, files and name stay its own.
    ///
    /// # Errors
    /// It is not running, or doesn't end in time.
    pub async fn stop(&mut self) -> Result<()> {
        self.end("TERM").await
    }

    /// Ends the node with `kill -9`.
    ///
    /// # Errors
    /// It is not running.
    pub async fn kill(&mut self) -> Result<()> {
        self.end("KILL").await
    }

    /// Starts a node that was stopped or killed, on the same ports and with what its disk holds.
    ///
    /// # Errors
    /// It is running, ends again, or stays silent.
    pub async fn start_again(&mut self) -> Result<()> {
        ensure!(self.state == State::Ended, "the node is running");
        self.launch().await
    }

    /// A URL for `vhost` (not percent-encoded).
    #[must_use]
    pub fn amqp_url(&self, vhost: &str) -> String {
        super::with_vhost(&self.base_url("amqp", self.ports.amqp), vhost)
    }

    /// Its HTTP API. Numbers of messages there are up to a quarter of a second old.
    #[must_use]
    pub fn management(&self) -> Management {
        Management::new(&self.base_url("http", self.ports.management), "guest", "guest")
    }

    /// Runs `rabbitmqctl` with `arguments` against this node, and returns what it prints.
    ///
    /// # Errors
    /// It fails; the error holds what it said.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let ctl = install::ctl().context("failed to find rabbitmqctl")?;
        let output = tokio::process::Command::new(ctl)
            .arg("--quiet")
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .kill_on_drop(true)
            .output()
            .await
            .context("failed to run rabbitmqctl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }

    /// Erlang's name for it, as the management API and `rabbitmqctl` show it.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.ports)
    }

    /// The process ID of the running broker.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self.state {
            State::Running { pid } => Some(pid),
            State::Ended => None,
        }
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    async fn attempt(server: &Path, extras: &Extras) -> Result<Attempt> {
        let ports = Ports::find().context("failed to find free ports")?;
        let mut node = Self::furnished(server, ports, extras, &cookie()).await?;
        let Err(error) = node.launch().await else { return Ok(Attempt::Up(node)) };
        let said = node.last_words();
        // With the node gone, a port that is still taken was somebody else's.
        drop(node);
        if ports.are_free() { Err(error.context(said)) } else { Ok(Attempt::PortTaken) }
    }

    /// A node with its files and its port mapper, not running yet.
    pub(super) async fn furnished(
        server: &Path,
        ports: Ports,
        extras: &Extras,
        cookie: &str,
    ) -> Result<Self> {
        let name = format!("deletion-worker-rabbitmq-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let directory = env::temp_dir().join(name);
        let environment = environment(&directory, ports, extras);
        let mut lifeline = Lifeline::start(
            include_str!("node.sh"),
            &[directory.as_os_str(), server.as_os_str(), ports.epmd.to_string().as_ref()],
            &environment,
        )?;
        lifeline.answer(SHELL_PATIENCE).await.with_context(|| format!("failed to create {directory:?}"))?;
        furnish(&directory, ports, extras, cookie)
            .with_context(|| format!("failed to write to {directory:?}"))?;
        Ok(Self { lifeline, ports, directory, environment, state: State::Ended })
    }

    pub(super) async fn launch(&mut self) -> Result<()> {
        self.lifeline.send("start")?;
        let started = self.lifeline.answer(SHELL_PATIENCE).await?;
        let pid = started.strip_prefix("started ").and_then(|pid| pid.parse().ok());
        self.state = State::Running { pid: pid.with_context(|| format!("unexpected answer {started:?}"))? };
        let management = self.management();
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(exited) = self.lifeline.answered() {
                self.state = State::Ended;
                bail!("the node {exited} while starting");
            }
            let Err(error) = self.serves(&management).await else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(error).context("the node didn't get ready");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Either may be the last to come up.
    async fn serves(&self, management: &Management) -> Result<()> {
        management.ready().await?;
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.amqp)).await.context("no AMQP listener yet")?;
        Ok(())
    }

    async fn end(&mut self, signal: &str) -> Result<()> {
        ensure!(self.state != State::Ended, "the node is not running");
        self.lifeline.send(signal)?;
        self.lifeline.answer(STOP_PATIENCE).await.context("the node didn't end")?;
        self.state = State::Ended;
        Ok(())
    }

    /// The end of what the node wrote, for an error message.
    pub(super) fn last_words(&self) -> String {
        const LINES: usize = 20;
        let text = fs::read(self.directory.join("start.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    fn base_url(&self, scheme: &str, port: u16) -> Url {
        Url::parse(&format!("{scheme}://guest:guest@127.0.0.1:{port}"))
            .expect("a scheme, an address and a port")
    }
}

/// Everything the node and `rabbitmqctl` are told by environment; nothing of ours or the machine's shines through.
fn environment(directory: &Path, ports: Ports, extras: &Extras) -> Environment {
    let path = |name: &str| directory.join(name).into_os_string();
    let inherited = |name: &'static str| env::var_os(name).map(|value| (name, value));
    let distribution = ports.distribution;
    // Given a name at once, the runtime needn't start a second one just to have a port mapper. Two schedulers
    // are plenty, and the interface keeps the distribution off the network.
    let erlang = format!(
        "+S 2:2 +SDio 4 -start_epmd false -sname {} -kernel inet_dist_use_interface {{127,0,0,1}} \
         -kernel inet_dist_listen_min {distribution} -kernel inet_dist_listen_max {distribution} {}",
        name(ports),
        extras.erlang.join(" "),
    );
    let ours: [(&'static str, OsString); 16] = [
        ("ERL_EPMD_PORT", ports.epmd.to_string().into()),
        ("HOME", directory.into()),
        ("LC_ALL", "C.UTF-8".into()),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config")),
        // Makes the start script turn into the node instead of staying its parent, so that the process ID is the
        // node's; standard input stays closed all the same.
        ("RABBITMQ_ALLOW_INPUT", "true".into()),
        ("RABBITMQ_SERVER_START_ARGS", "-noinput".into()),
        ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
        ("RABBITMQ_CONFIG_FILES", path("conf.d")),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
        ("RABBITMQ_CTL_ERL_ARGS", "-start_epmd false".into()),
        ("RABBITMQ_DIST_PORT", distribution.to_string().into()),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
        ("RABBITMQ_LOG_BASE", path("log")),
        ("RABBITMQ_MNESIA_BASE", path("data")),
        ("RABBITMQ_NODENAME", name(ports).into()),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", erlang.into()),
    ];
    let all = ours.into_iter().chain(inherited("PATH")).chain(inherited("TMPDIR"));
    all.map(|(name, value)| (name.into(), value)).collect()
}

/// How Erlang knows the node.
pub(super) fn name(ports: Ports) -> String {
    format!("deletion-worker-{}@localhost", ports.amqp)
}

/// What nodes and tools show to one another to be let in.
pub(super) fn cookie() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(20).collect()
}

/// Writes the node's configuration into its `directory`.
fn furnish(directory: &Path, ports: Ports, extras: &Extras, cookie: &str) -> Result<()> {
    let Ports { amqp, management, .. } = ports;
    let more = extras.configuration.join("\n");
    let configuration = format!(
        "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
         management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {management}\n\
         disk_free_limit.absolute = 10MB\n\
         collect_statistics_interval = 200\n\
         raft.wal_max_size_bytes = 67108864\n\
         log.console = false\n\
         {more}\n"
    );
    fs::write(directory.join("rabbitmq.conf"), configuration)?;
    fs::write(directory.join("advanced.config"), "[].\n")?;
    let plugins: String = extras.plugins.iter().map(|plugin| format!(",{plugin}")).collect();
    fs::write(directory.join("enabled_plugins"), format!("[rabbitmq_management{plugins}].\n"))?;
    for name in ["conf.d", "data", "log"] {
        fs::create_dir(directory.join(name))?;
    }
    // Erlang refuses a cookie that others may read.
    let mut file = fs::File::options()
        .create_new(true)
        .write(true)
        .mode(0o400)
        .open(directory.join(".erlang.cookie"))?;
    file.write_all(cookie.as_bytes())?;
    Ok(())
}
