//! Real subscribers that write to memory.

use std::sync::{Arc, Mutex};

use tracing::{debug, error, info, warn};

use super::*;

/// Line breaks, a forged line, colours, C1 controls, separators, an override of the reading direction.
const HOSTILE: &str =
    "a\nERROR forged\r\u{1b}[31mred\u{7}\u{7f}\u{9b}2J\u{85}\u{2028}\u{202e}\u{2066}\u{0}\tä\"\\";

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics while it writes").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `events` leave in the log.
fn logged(style: Style, is_coloured: bool, level: &str, events: impl FnOnce()) -> String {
    let memory = Memory::default();
    let writer = memory.clone();
    let filter = filter(level).expect("a level");
    let subscriber = subscriber(style, is_coloured, filter, move || writer.clone());
    tracing::subscriber::with_default(subscriber, events);
    let bytes = memory.0.lock().expect("no test panics while it writes").clone();
    String::from_utf8(bytes).expect("UTF-8")
}

fn hostile_events() {
    let error = io::Error::other(HOSTILE);
    let span = tracing::info_span!("span", field = %HOSTILE);
    let _entered = span.enter();
    info!("{HOSTILE}");
    info!(text = HOSTILE, display = %HOSTILE, debug = ?HOSTILE, error = %error, "message");
    info!(error = &error as &dyn std::error::Error, list = ?[HOSTILE], raw = ?format_args!("{HOSTILE}"));
    info!(message = HOSTILE);
}

#[test]
fn text_lines_cannot_be_forged() {
    let text = logged(Style::Text, false, "info", hostile_events);
    assert_eq!(text.matches('\n').count(), 4, "{text:?}");
    assert!(!text.replace('\n', "").contains(is_harmful), "{text:?}");
    let escaped =
        "a\\nERROR forged\\r\\u{1b}[31mred\\u{7}\\u{7f}\\u{9b}2J\\u{85}\\u{2028}\\u{202e}\\u{2066}\\u{0}\\tä";
    let first = text.lines().next().expect("a line");
    assert!(first.ends_with(&format!("{escaped}\"\\")), "{first}");
    let timestamp = first.split(' ').next().expect("a word");
    assert!(humantime::parse_rfc3339(timestamp).is_ok(), "UTC: {timestamp}");
}

#[test]
fn coloured_lines_have_our_colours_only() {
    let text = logged(Style::Text, true, "info", hostile_events);
    assert_eq!(text.matches('\n').count(), 4, "{text:?}");
    assert!(text.contains("\x1b[2mdisplay=\x1b[0ma\\nERROR"), "{text:?}");
    assert!(!text.contains("\x1b[31m"), "{text:?}");
    let harmful: Vec<_> = text.matches(is_harmful).filter(|char| !["\n", "\x1b"].contains(char)).collect();
    assert!(harmful.is_empty(), "{harmful:?}");
}

#[test]
fn json_lines_cannot_be_forged_and_lose_nothing() {
    let text = logged(Style::Json, true, "info", hostile_events);
    assert_eq!(text.matches('\n').count(), 4, "{text:?}");
    assert!(!text.replace('\n', "").contains(is_harmful), "{text:?}");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["message"], HOSTILE);
    assert_eq!(lines[0]["level"], "INFO");
    assert_eq!(lines[0]["target"], "deletion_worker::log::tests");
    assert_eq!(lines[0]["spans"][0]["field"], HOSTILE);
    assert!(lines[0]["timestamp"].as_str().is_some_and(|time| humantime::parse_rfc3339(time).is_ok()));
    for field in ["text", "display", "error"] {
        assert_eq!(lines[1][field], HOSTILE, "{field}");
    }
    assert_eq!(lines[2]["error"], HOSTILE);
    assert_eq!(lines[3]["message"], HOSTILE);
}

/// Which of these get through at `level`.
fn heard(level: &str) -> Vec<String> {
    let text = logged(Style::Text, false, level, || {
        error!(target: "lapin::channel", "lapin error");
        error!(target: "amq_protocol_tcp", "amq error");
        error!(target: "hyper_util::client", "hyper error");
        warn!(target: "rustls::conn", "rustls warn");
        info!(target: "reqwest::connect", "reqwest info");
        error!("own error");
        info!("own info");
        debug!("own debug");
    });
    let heard = |line: &str| line.rsplit_once(": ").map(|(_, message)| message.to_owned());
    text.lines().filter_map(heard).collect()
}

#[test]
fn libraries_are_quiet_unless_they_are_named() {
    assert_eq!(heard("info"), ["hyper error", "rustls warn", "own error", "own info"]);
    assert_eq!(heard("trace"), ["hyper error", "rustls warn", "own error", "own info", "own debug"]);
    assert_eq!(heard("error"), ["hyper error", "own error"]);
    assert_eq!(heard("off"), Vec::<String>::new());
    let named = heard("info, lapin=error , hyper=off,reqwest=debug");
    assert_eq!(named, ["lapin error", "rustls warn", "reqwest info", "own error", "own info"]);
    // Directives alone leave everything else as it is.
    let own = heard("deletion_worker::log=debug");
    assert_eq!(own, ["hyper error", "rustls warn", "own error", "own info", "own debug"]);
}

#[test]
fn frames_are_never_logged() {
    let text = logged(Style::Text, false, "lapin=trace,amq_protocol=trace,trace", || {
        tracing::trace!(target: "lapin::io_loop", "frame with a password");
        tracing::trace!(target: "amq_protocol_tcp", "uri with a password");
        debug!(target: "lapin::channels", "create channel");
        tracing::trace!("own trace");
    });
    assert!(!text.contains("password"), "{text}");
    assert!(text.contains("create channel") && text.contains("own trace"), "{text}");
}

/// Installs the real thing, for which this must be a process of its own.
#[test]
#[ignore = "run by the tests below, as a process of its own"]
fn child() {
    let log = Log { level: "info".to_owned(), format: LogFormat::Auto };
    init(&log).expect("nobody logs yet");
    info!(number = 5, "said");
    assert!(matches!(init(&log), Err(Fault::Taken(_))));
}

fn run_child(stderr: impl Into<std::process::Stdio>) -> std::process::Output {
    std::process::Command::new(std::env::current_exe().expect("we run"))
        .args(["--ignored", "--exact", "log::tests::child", "--nocapture"])
        .stderr(stderr)
        .output()
        .expect("it runs too")
}

#[test]
fn away_from_a_terminal_the_log_is_json() {
    let output = run_child(std::process::Stdio::piped());
    assert!(output.status.success(), "{output:?}");
    let line: serde_json::Value = serde_json::from_slice(&output.stderr).expect("one line of JSON");
    assert_eq!((&line["message"], &line["number"]), (&"said".into(), &5.into()));
}

#[test]
fn a_log_that_cannot_be_written_stops_nobody() {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let output = run_child(writer);
    assert!(output.status.success(), "{output:?}");
}
