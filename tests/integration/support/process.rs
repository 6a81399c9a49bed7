//! The real binary, run as an operator runs it.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::wait_for_some;

/// A running `deletion-worker`. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// What it wrote to standard output so far, by line.
    pub(crate) stdout: Lines,
    /// What it wrote to standard error so far, by line.
    pub(crate) stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

/// Lines that keep coming.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Process {
    /// Runs the binary with `arguments`, and `environment` as its only `DELETION_WORKER__*` variables.
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_by(&[], arguments, environment)
    }

    /// The same as arguments of a `wrapper`, which has to turn into it.
    pub(crate) fn start_by(wrapper: &[String], arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        // `make soak` names the one that is built for use.
        let named = std::env::var_os("DELETION_WORKER_BINARY");
        let binary = named.unwrap_or_else(|| env!("CARGO_BIN_EXE_deletion-worker").into());
        let mut command = match wrapper {
            [] => Command::new(binary),
            [program, before @ ..] => {
                let mut command = Command::new(program);
                command.args(before).arg(binary);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DELETION_WORKER__") {
                command.env_remove(name);
            }
        }
        command.args(arguments).envs(environment.iter().copied());
        Self::spawn(command)
    }

    /// Runs any command likewise.
    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the program exists");
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            stdout.fill(child.stdout.take().expect("piped")),
            stderr.fill(child.stderr.take().expect("piped")),
        ];
        Self { child, stdout, stderr, readers }
    }

    /// Its process ID, until it has been waited for.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("not waited for yet")
    }

    /// The most memory it had at once, in bytes.
    pub(crate) fn peak_rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// The processor time it has taken so far.
    pub(crate) fn processor_time(&self) -> Duration {
        /// On Linux, whatever the machine.
        const TICKS_PER_SECOND: u32 = 100;
        let path = format!("/proc/{}/stat", self.pid());
        let text = std::fs::read_to_string(path).expect("it runs");
        // Its name stands in parentheses and may hold anything; user and system time are the 14th and 15th field.
        let fields: Vec<&str> = text.rsplit(')').next().expect("a name").split_whitespace().collect();
        let ticks: u32 = fields[11..13].iter().map(|field| field.parse::<u32>().expect("a number")).sum();
        Duration::from_secs(1) * ticks / TICKS_PER_SECOND
    }

    /// Sends a signal: `TERM`, `KILL`, ...
    pub(crate) async fn signal(&self, signal: &str) {
        // Not waited for yet, so the process ID is still our child's.
        let kill = Command::new("kill").args(["-s", signal, &self.pid().to_string()]).status().await;
        assert!(kill.is_ok_and(|status| status.success()), "failed to send {signal}");
    }

    /// Whether it has exited.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits until it has exited: its exit code. May be given up, and asked again.
    pub(crate) async fn wait(&mut self) -> Option<i32> {
        self.child.wait().await.expect("a child can be waited for").code()
    }

    /// Waits until it has exited and all its output is read; panics with that output if it doesn't within
    /// `patience`.
    pub(crate) async fn exit(&mut self, patience: Duration) -> ExitStatus {
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => {
                for reader in self.readers.drain(..) {
                    reader.await.expect("reading lines doesn't panic");
                }
                status.expect("a child can be waited for")
            }
            Err(_) => panic!("still running after {patience:?}; it wrote {:#?}", self.stderr.all()),
        }
    }
}

impl Lines {
    /// All so far.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().expect("nobody panics holding it").clone()
    }

    /// Waits for a line that holds `text`, and returns it.
    pub(crate) async fn wait_for(&self, text: &str, patience: Duration) -> String {
        let what = format!("a line with {text:?}");
        wait_for_some(&what, patience, async || self.all().into_iter().find(|line| line.contains(text))).await
    }

    fn fill(&self, source: impl AsyncRead + Unpin + Send + 'static) -> JoinHandle<()> {
        let lines = self.clone();
        tokio::spawn(async move {
            let mut source = BufReader::new(source).lines();
            while let Ok(Some(line)) = source.next_line().await {
                lines.0.lock().expect("nobody panics holding it").push(line);
            }
        })
    }
}
