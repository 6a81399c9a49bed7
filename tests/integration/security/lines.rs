//! One event is one line, whatever strangers write: nobody forges a log line, and nobody speaks to a terminal.

use std::collections::BTreeMap;

use deletion_worker::mock::Reply;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::is_harmful;
use crate::support::letter::{header, names};
use crate::support::process::Process;
use crate::support::world::World;
use crate::support::{PATIENCE, amqp, http};

/// Line ends of every kind, forged lines of both formats, colours, C1 controls, an override of the reading direction.
const HOSTILE: &str = "a\n{\"level\":\"ERROR\",\"message\":\"forged\"}\r\n2026-01-01T00:00:00.000000Z ERROR forged\
    \u{b}\u{c}\u{1b}[31mred\u{1b}]0;title\u{7}\u{7f}\u{85}\u{9b}2J\u{2028}\u{2029}\u{202e}\u{2066}\u{feff}\u{0}\"\\'";

/// What an ID or a namespace may hold of it: formatting characters are no control characters.
const HOSTILE_ID: &str = "VI\u{202e}\u{2066}\u{200f}\u{feff}\"\\'{}$(x)`";

/// Bodies that say hostile things wherever a body may.
fn bodies() -> Vec<Vec<u8>> {
    let text = serde_json::Value::from(HOSTILE).to_string();
    let id = serde_json::Value::from(HOSTILE_ID).to_string();
    let json = [
        format!(
            r#"{{"videoNo":{id},"namespace":{id},"requestId":{text},"requestedBy":{text},"reason":{text}}}"#
        ),
        format!(r#"{{"videoNo":{text}}}"#),
        format!(r#"{{"videoNos":["VI1",{text}]}}"#),
        format!(r#"{{"videoNo":"VI1","namespace":{text}}}"#),
        format!(r#"{{{text}:1,{text}:2,"videoNo":"VI1"}}"#),
        format!("[{text}"),
        HOSTILE.to_owned(),
    ];
    json.into_iter().map(String::into_bytes).chain([[HOSTILE.as_bytes(), b"\xff\x9b"].concat()]).collect()
}

fn properties() -> BasicProperties {
    let short = || HOSTILE.chars().take(60).collect::<String>();
    let mut headers = FieldTable::default();
    headers.insert("x-hostile".into(), AMQPValue::LongString(HOSTILE.into()));
    headers.insert(short().into(), AMQPValue::LongString("name".into()));
    amqp::persistent()
        .with_content_type(short().into())
        .with_message_id(short().into())
        .with_correlation_id(short().into())
        .with_type(short().into())
        .with_app_id(short().into())
        .with_headers(headers)
}

/// What the endpoint says: HTTP 400 rejects whatever the code.
fn replies() -> Vec<Reply> {
    let json = serde_json::json!({ "code": HOSTILE, "msg": HOSTILE }).to_string();
    let reply = |status, body: &str| Reply {
        status,
        headers: BTreeMap::from([("x-hostile".to_owned(), "a\u{9b}b".to_owned())]),
        body: body.to_owned(),
        calls: Some(1),
        applies: false,
    };
    vec![reply(500, HOSTILE), reply(200, &json), reply(400, &json)]
}

#[tokio::test]
async fn an_event_is_one_line_in_both_formats() {
    for format in ["json", "text"] {
        let mut world = World::new().await;
        world.prepare().await;
        world.set("log.format", format).set("log.level", "trace,hyper=trace,lapin=debug");
        world.set("admin.listen", &free_address());
        let mut process = world.process(&["run"]);
        for (n, reply) in replies().into_iter().enumerate() {
            world.faults(|faults| faults.reply = Some(reply));
            world.publish([serde_json::json!({ "videoNo": format!("{HOSTILE_ID}{n}") }).to_string()]).await;
            // The last one rejects.
            if n < 2 {
                world.deleted(n as u64 + 1).await;
            }
        }
        let mut letters = world.dead_letters(1).await;
        world.publish_with(properties(), bodies()).await;
        let unencoded = properties().with_content_encoding("br\n\u{1b}[31m\u{9b}".into());
        world.publish_with(unencoded, [r#"["VI1"]"#]).await;
        letters.extend(world.dead_letters(8).await);
        for letter in &letters {
            for name in names(letter).iter().filter(|name| name.starts_with("x-deletion-")) {
                let text = header(letter, name);
                let verbatim = name == "x-deletion-failed-ids";
                assert!(verbatim || !text.contains(is_harmful), "{name}: {text:?}");
            }
        }
        let address = world.variable("admin.listen");
        for path in ["/status", "/metrics", "/readyz", "/healthz"] {
            let (_, text) = http::get(&format!("http://{address}{path}")).await.expect("it runs");
            assert!(!text.replace('\n', "").contains(is_harmful), "{path}: {text:?}");
        }
        process.signal("TERM").await;
        assert!(process.exit(PATIENCE).await.success());
        let log = process.stderr.all();
        assert!(log.iter().any(|line| line.contains("forged")), "what was said is told of");
        for line in log {
            assert!(!line.contains(is_harmful), "{line:?}");
            if format == "json" {
                let event: serde_json::Value = serde_json::from_str(&line).expect("each line is one event");
                assert!(event["timestamp"].is_string() && event["message"] != "forged", "{line}");
            } else {
                let mut words = line.split_whitespace();
                let (time, level) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                assert!(time.ends_with('Z') && !time.starts_with("2026-01-01T00:00:00.0"), "{line}");
                assert!(["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&level), "{line}");
            }
        }
    }
}

#[tokio::test]
async fn commands_escape_what_they_repeat() {
    let argument = HOSTILE.replace('\0', "");
    let set = |key: &str| format!("{key}={argument}");
    let (queue, level, linger) = (set("amqp.queue"), set("log.level"), set("batch.linger"));
    let (key, vhost) =
        (format!("{argument}=1"), format!("amqp.urls=amqp://guest:guest@127.0.0.1:1/{argument}"));
    let rows: [(&[&str], usize); 9] = [
        (&["check-config", "--set", &queue, "--set", &level, "--set", &linger], 4),
        (&["check-config", "--set", &key], 2),
        (&["check-config", "--config", &argument], 2),
        (&["run", "--set", "endpoint.token=t", "--set", &queue], 2),
        (&["publish", "--set", &vhost, "VI1"], 2),
        (&["publish", &argument], 1),
        (&["publish", "--file", &argument], 1),
        (&["publish", "--namespace", &argument, "VI1"], 1),
        (&["healthcheck", "--set", &set("admin.listen")], 2),
    ];
    for (arguments, lines) in rows {
        let mut process = Process::start(arguments, &[]);
        assert_eq!(process.exit(PATIENCE).await.code(), Some(2), "{arguments:?}");
        let said = [process.stderr.all(), process.stdout.all()].concat();
        for line in &said {
            assert!(!line.contains(is_harmful), "{line:?}");
            assert!(!line.starts_with('{') && !line.starts_with("2026-"), "{line:?}");
        }
        assert!((1..=lines).contains(&said.len()), "{said:#?}");
    }
    // Arguments that there aren't.
    for arguments in [&["run", argument.as_str()][..], &["run", &format!("--{argument}")], &[&argument]] {
        let mut process = Process::start(arguments, &[]);
        assert_eq!(process.exit(PATIENCE).await.code(), Some(2));
        let said = [process.stderr.all(), process.stdout.all()].concat();
        assert!(said.iter().all(|line| !line.contains(is_harmful) && !line.starts_with('{')), "{said:#?}");
    }
}

fn free_address() -> String {
    let listener =
        (10_000..12_000).rev().find_map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).ok());
    listener.expect("one is free").local_addr().expect("bound").to_string()
}
