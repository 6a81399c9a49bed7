//! A shell that outlives us by the moment it takes to clean up.
//!
//! A destructor doesn't run when the process is killed, and a process group isn't told. But a pipe is closed
//! however its writer dies, `kill -9` included; so what we start belongs to a shell that reads from us, and
//! that takes it down at the end of file.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A process's whole environment.
pub(crate) type Environment = BTreeMap<OsString, OsString>;

/// A running shell script and both ends of the conversation with it.
///
/// Dropping it ends its standard input, and waits until the script has cleaned up.
#[derive(Debug)]
pub(crate) struct Lifeline {
    shell: Child,
    commands: Option<ChildStdin>,
    answers: mpsc::UnboundedReceiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Lifeline {
    /// Runs `script` with `arguments` as its `$1`, `$2`, ... and exactly `environment`, in a process group of its
    /// own.
    pub(crate) fn start(script: &str, arguments: &[&OsStr], environment: &Environment) -> Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", script, "deletion-worker-lifeline"])
            .args(arguments)
            .env_clear()
            .envs(environment)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to run sh")?;
        let commands = shell.stdin.take();
        let output = shell.stdout.take().context("failed to get the output of sh")?;
        // A thread and not a task, as a broker may serve many runtimes: each test has its own.
        let (sender, answers) = mpsc::unbounded_channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { shell, commands, answers, reader: Some(reader) })
    }

    /// Sends one command.
    pub(crate) fn send(&mut self, command: &str) -> Result<()> {
        let pipe = self.commands.as_mut().context("failed to reach the lifeline")?;
        writeln!(pipe, "{command}").context("failed to write to the lifeline")
    }

    /// The next line the script prints.
    pub(crate) async fn answer(&mut self, patience: Duration) -> Result<String> {
        match timeout(patience, self.answers.recv()).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => bail!("the lifeline ended"),
            Err(_) => bail!("the lifeline said nothing for {patience:?}"),
        }
    }

    /// The next line, if it has been printed already.
    pub(crate) fn answered(&mut self) -> Option<String> {
        self.answers.try_recv().ok()
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        drop(self.commands.take());
        // Fails only if the shell has been waited for, which nobody else does.
        let _ = self.shell.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
