//! The program as its users meet it: arguments in, lines and exit codes out.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use deletion_worker::admin::{Admin, Question, Readiness};
use deletion_worker::metrics::Metrics;
use tokio::sync::{mpsc, watch};

/// How a run of the program ended.
#[derive(Debug)]
struct End {
    code: Option<i32>,
    out: String,
    err: String,
}

/// The program, without the configuration of whoever runs the tests.
fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deletion-worker"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

fn end(command: &mut Command) -> End {
    let output = command.output().expect("the program starts");
    End {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

fn run(args: &[&str]) -> End {
    end(&mut program(args))
}

/// An admin server whose loop answers pings on a thread of its own until the server is gone.
fn admin(readiness: Readiness) -> Admin {
    let (_, watched) = watch::channel(readiness);
    let (asked, mut questions) = mpsc::channel(1);
    std::thread::spawn(move || {
        while let Some(question) = questions.blocking_recv() {
            match question {
                Question::Ping(pong) => drop(pong.send(())),
                Question::Status(reply) => drop(reply),
            }
        }
    });
    Admin::start(([127, 0, 0, 1], 0).into(), Arc::new(Metrics::new()), watched, asked).expect("a free port")
}

fn listen(address: SocketAddr) -> String {
    format!("admin.listen={address}")
}

#[test]
fn it_tells_its_version() {
    let End { code, out, err } = run(&["--version"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("deletion-worker {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn its_help_says_what_a_user_needs() {
    let End { code, out, .. } = run(&["--help"]);
    assert_eq!(code, Some(0));
    for needed in [
        "run",
        "check-config",
        "healthcheck",
        "--config <FILE>",
        "--set <KEY=VALUE>",
        "DELETION_WORKER_CONFIG",
        "DELETION_WORKER__BATCH__LINGER",
        "Exit codes:",
    ] {
        assert!(out.contains(needed), "{needed} in\n{out}");
    }
    let End { code, out, .. } = run(&["healthcheck", "--help"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("--ready") && out.contains("/readyz") && out.contains("admin.listen"), "{out}");
}

#[test]
fn bad_usage_exits_with_2() {
    for args in [&[][..], &["delete-everything"], &["--colour"], &["healthcheck", "--url", "https://worker"]]
    {
        let End { code, out, err } = run(args);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}");
        assert!(err.contains("Usage:") || err.contains("For more information"), "{err}");
    }
}

#[test]
fn check_config_shows_what_holds_and_where_it_comes_from() {
    let token = "endpoint.token=s3cr3t";
    let End { code, out, err } =
        end(program(&["check-config", "--set", token]).env("DELETION_WORKER__BATCH__LINGER", "250ms"));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("linger = \"250ms\"") && out.contains("DELETION_WORKER__BATCH__LINGER"), "{out}");
    assert!(!out.contains("s3cr3t"), "{out}");
}

#[test]
fn check_config_lists_every_problem() {
    let End { code, out, err } =
        run(&["check-config", "--set", "batch.linger=soon", "--set", "retry.max=0s"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    for key in ["batch.linger", "retry.max", "endpoint.token"] {
        assert!(err.contains(key), "{key} in\n{err}");
    }
}

#[test]
fn settings_count_before_and_after_the_command() {
    let End { err, .. } = run(&["--set", "batch.linger=soon", "check-config", "--set", "retry.max=never"]);
    assert!(err.contains("batch.linger") && err.contains("retry.max"), "{err}");
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}.toml", std::process::id()));
    std::fs::write(&path, "[batch]\nlinger = \"750ms\"\n[endpoint]\ntoken = \"t\"\n").expect("writable");
    let by_env = end(program(&["check-config"]).env("DELETION_WORKER_CONFIG", &path));
    let by_flag = run(&["check-config", "--config", path.to_str().expect("UTF-8")]);
    let missing = run(&["check-config", "--config", "/nowhere.toml"]);
    std::fs::remove_file(&path).expect("it is there");
    for End { code, out, err } in [by_env, by_flag] {
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("linger = \"750ms\""), "{out}");
    }
    assert_eq!(missing.code, Some(2));
    assert!(missing.err.contains("/nowhere.toml"), "{}", missing.err);
}

#[test]
fn run_refuses_to_start_without_a_token() {
    let End { code, out, err } = run(&["run"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.starts_with("error: bad configuration:\nendpoint.token: "), "{err}");
}

#[test]
fn run_ends_with_1_and_a_log_line_if_the_admin_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let End { code, out, err } =
        run(&["run", "--set", "endpoint.token=t", "--set", "log.format=json", "--set", &listen(address)]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    let last = err.lines().last().expect("a line");
    let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(last["level"], "ERROR");
    let message = last["message"].as_str().expect("a text");
    assert!(message.starts_with(&format!("failed to listen on {address} (admin.listen): ")), "{message}");
}

#[test]
fn healthcheck_finds_the_worker_by_its_configuration() {
    let admin = admin(Readiness::NotReady("connecting to the broker".into()));
    let address = admin.address();
    let healthy = run(&["healthcheck", "--set", &listen(address)]);
    assert_eq!((healthy.code, healthy.err.as_str()), (Some(0), ""));
    assert_eq!(healthy.out, format!("http://{address}/healthz: ok\n"));

    let everywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
    assert_eq!(run(&["healthcheck", "--set", &listen(everywhere)]).code, Some(0));

    let ready = run(&["healthcheck", "--ready", "--url", &format!("http://{address}")]);
    assert_eq!((ready.code, ready.out.as_str()), (Some(1), ""));
    let line = format!("error: http://{address}/readyz: not ready: connecting to the broker (HTTP 503)\n");
    assert_eq!(ready.err, line);
}

#[test]
fn healthcheck_says_that_nobody_answers() {
    let admin = admin(Readiness::Ready);
    let address = admin.address();
    admin.stop();
    let gone = run(&["healthcheck", "--set", &listen(address)]);
    assert_eq!(gone.code, Some(1));
    let line = format!("error: http://{address}/healthz: failed to connect: Connection refused");
    assert!(gone.err.starts_with(&line) && gone.err.lines().count() == 1, "{}", gone.err);

    // Accepted by the system, answered by nobody.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound");
    let End { code, err, .. } = run(&["healthcheck", "--url", &format!("http://{address}")]);
    assert_eq!(code, Some(1));
    assert_eq!(err, format!("error: http://{address}/healthz: no answer within 3s\n"));
}

#[test]
fn healthcheck_does_not_take_another_server_for_the_worker() {
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = stranger.local_addr().expect("bound");
    let talk = std::thread::spawn(move || {
        let (mut stream, _) = stranger.accept().expect("a client");
        stream.write_all(b"220 mail\x1b[31m ready\r\n").expect("a client");
    });
    let End { code, err, .. } = run(&["healthcheck", "--url", &format!("http://{address}")]);
    talk.join().expect("no panic");
    assert_eq!(code, Some(1));
    assert!(err.starts_with(&format!("error: http://{address}/healthz: ")), "{err}");
    assert!(!err.contains('\x1b'), "{err}");
}

#[test]
fn healthcheck_needs_a_sound_configuration_unless_told_where() {
    let End { code, err, .. } = run(&["healthcheck", "--set", "admin.listen=everywhere"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("admin.listen"), "{err}");
}
