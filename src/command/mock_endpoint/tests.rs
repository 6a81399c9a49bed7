use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn faults(flags: &[&str]) -> Faults {
    let cli = Cli::try_parse_from([&["x"], flags].concat()).expect("good flags");
    Faults::from(cli.args.faults)
}

#[test]
fn flags_are_faults() {
    assert_eq!(faults(&[]), Faults::default());
    let flags = "--latency 50ms --jitter 10ms --requests-per-second 5 --throttle-by-status --retry-after 2 \
                 --bad-id A --bad-id B --bad-prefix C --failing-id D --failing-prefix E --duplicates-answer-0409 \
                 --down reset-after-applying --blocked http-401 --reply-status 302 --reply-calls 1 --reply-applies \
                 --reply-body <html> --reply-header location:/x --fail-next 3 --failure-ratio 0.5 --seed 7 \
                 --lose-next 4 --lose-as endless";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let reply = Reply {
        status: 302,
        headers: [("location".to_owned(), "/x".to_owned())].into(),
        body: "<html>".to_owned(),
        calls: Some(1),
        applies: true,
    };
    let expected = Faults {
        latency: Duration::from_millis(50),
        jitter: Duration::from_millis(10),
        requests_per_second: 5,
        throttle_by_status: true,
        retry_after: Some(2),
        bad_ids: ["A".to_owned(), "B".to_owned()].into(),
        bad_prefix: Some("C".to_owned()),
        failing_ids: ["D".to_owned()].into(),
        failing_prefix: Some("E".to_owned()),
        duplicates_answer_0409: true,
        down: Some(Down::ResetAfterApplying),
        blocked: Some(Block::Http401),
        reply: Some(reply),
        fail_next: 3,
        failure_ratio: 0.5,
        seed: 7,
        lose_next: 4,
        lose_as: Loss::Endless,
    };
    assert_eq!(faults(&flags), expected);
}

#[test]
fn bad_flags_are_refused() {
    for flags in
        [&["--down", "sideways"][..], &["--blocked", "401"], &["--latency", "50"], &["--reply-body", "x"]]
    {
        assert!(Cli::try_parse_from([&["x"], flags].concat()).is_err(), "{flags:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_served_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = taken.local_addr().expect("an address").to_string();
    let cli = Cli::try_parse_from(["x", "--listen", &listen]).expect("good flags");
    let error = format!("{:#}", run(cli.args).await.expect_err("the port is taken"));
    assert!(error.starts_with(&format!("failed to listen on {listen}: ")), "{error}");

    let cli =
        Cli::try_parse_from(["x", "--listen", "127.0.0.1:0", "--failure-ratio", "2"]).expect("good flags");
    let error = format!("{:#}", run(cli.args).await.expect_err("no ratio"));
    assert_eq!(error, "failed to set up the faults: failure_ratio is 2, expected 0 to 1");
}

/// A process, ended with the test whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_signal_ends_it_at_once_and_cleanly() {
    for signal in ["-TERM", "-INT"] {
        let child = Command::new(std::env::current_exe().expect("a program"))
            .args(["--exact", "--ignored", "--nocapture", "command::mock_endpoint::tests::child"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut child = Running(child);
        let mut lines = BufReader::new(child.0.stdout.take().expect("a pipe")).lines();
        let addr = loop {
            let line = lines.next().expect("it listens").expect("text");
            if let Some(addr) = line.strip_prefix("listening on ") {
                break addr.to_owned();
            }
        };
        let _idle = std::net::TcpStream::connect(addr).expect("a connection");
        let signalled = Instant::now();
        let kill = Command::new("kill").args([signal, &child.0.id().to_string()]).status().expect("kill");
        assert!(kill.success());
        let status = child.0.wait().expect("an end");
        assert!(status.success(), "{signal}: {status}");
        assert!(signalled.elapsed() < Duration::from_secs(5), "{signal}: {:?}", signalled.elapsed());
    }
}

#[tokio::test]
#[ignore = "run by a_signal_ends_it_at_once_and_cleanly"]
async fn child() {
    let cli = Cli::try_parse_from(["x", "--listen", "127.0.0.1:0"]).expect("good flags");
    run(cli.args).await.expect("a clean end");
}
