//! Finding an installed RabbitMQ, or installing one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

/// What to do if there is no way to a broker.
pub(super) const ADVICE: &str = "failed to get a RabbitMQ: install Docker or the package rabbitmq-server, or \
                                 set AMQP_URL to a broker that may be used";

/// Debian's real scripts: the ones in `/usr/sbin` switch to the user `rabbitmq`, and refuse ordinary users.
const DEBIAN: &str = "/usr/lib/rabbitmq/bin";

/// The `rabbitmq-server` to run, if one is installed.
pub(super) fn server() -> Option<PathBuf> {
    program("rabbitmq-server")
}

/// The `rabbitmqctl` that goes with it.
pub(super) fn ctl() -> Option<PathBuf> {
    program("rabbitmqctl")
}

/// Installs a server, unless there is one.
pub(super) async fn if_missing(say: impl Fn(&str)) -> Result<()> {
    if server().is_none() {
        say("RabbitMQ is not installed; trying to install it with apt-get.");
        with_apt(&say).await.context(ADVICE)?;
    }
    Ok(())
}

/// Installs the distribution's package without letting it start the system's service.
async fn with_apt(say: impl Fn(&str)) -> Result<()> {
    ensure!(on_path("apt-get").is_some(), "there is no apt-get");
    let mut command = if is_root().await {
        Command::new("sh")
    } else if sudo_needs_no_password().await {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "sh"]);
        sudo
    } else {
        bail!("apt-get needs root, or a sudo that asks for no password");
    };
    say("Running apt-get update and apt-get install rabbitmq-server; the service is not started.");
    run(&mut command, Path::new("/usr/sbin/policy-rc.d")).await?;
    ensure!(server().is_some(), "apt-get installed no rabbitmq-server");
    Ok(())
}

async fn run(shell: &mut Command, policy: &Path) -> Result<()> {
    let output = shell
        .args(["-c", include_str!("install.sh"), "install-rabbitmq"])
        .arg(policy)
        .stdin(Stdio::null())
        .output()
        .await
        .context("failed to run apt-get")?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    bail!("apt-get: {}", complaint.lines().next_back().unwrap_or("failed without a word"))
}

fn program(name: &str) -> Option<PathBuf> {
    let debian = Path::new(DEBIAN).join(name);
    if debian.is_file() { Some(debian) } else { on_path(name) }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

async fn is_root() -> bool {
    let output = Command::new("id").arg("-u").stdin(Stdio::null()).output().await;
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

async fn sudo_needs_no_password() -> bool {
    let status = Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory with an `apt-get` that notes its arguments and what the policy file said meanwhile.
    fn fake(name: &str, install: &str) -> PathBuf {
        let directory = env::temp_dir().join(format!("deletion-worker-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a writable temporary directory");
        let script = format!(
            "#!/bin/sh\ncd '{}'\necho \"$@\" >> calls\n[ \"$1\" = install ] || exit 0\nsh ./policy; echo $? > policy-said\n{install}\n",
            directory.display()
        );
        fs::write(directory.join("apt-get"), script).expect("writable");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.join("apt-get"), mode).expect("our own file");
        directory
    }

    fn shell(directory: &Path) -> Command {
        let mut command = Command::new("sh");
        command.env("PATH", format!("{}:/usr/bin:/bin", directory.display()));
        command
    }

    #[tokio::test]
    async fn the_service_is_kept_from_starting_and_the_policy_is_withdrawn() {
        let directory = fake("apt-works", "");
        run(&mut shell(&directory), &directory.join("policy")).await.expect("the fake succeeds");
        let calls = fs::read_to_string(directory.join("calls")).expect("apt-get was called");
        assert_eq!(calls, "update -q\ninstall -y -q --no-install-recommends rabbitmq-server\n");
        let said = fs::read_to_string(directory.join("policy-said")).expect("the policy was there");
        assert_eq!(said, "101\n");
        assert!(!directory.join("policy").exists());
        fs::remove_dir_all(directory).expect("our own directory");
    }

    #[tokio::test]
    async fn a_policy_that_was_there_stays_and_a_failure_is_told() {
        let directory = fake("apt-fails", "echo 'E: no space' >&2; exit 100");
        fs::write(directory.join("policy"), "exit 104\n").expect("writable");
        let error = run(&mut shell(&directory), &directory.join("policy")).await.expect_err("the fake fails");
        assert_eq!(error.to_string(), "apt-get: E: no space");
        assert_eq!(fs::read_to_string(directory.join("policy")).expect("kept"), "exit 104\n");
        assert_eq!(fs::read_to_string(directory.join("policy-said")).expect("asked"), "104\n");
        fs::remove_dir_all(directory).expect("our own directory");
    }
}
