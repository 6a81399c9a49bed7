//! The demo's load and script, played with the real worker.

use std::collections::BTreeMap;
use std::time::Instant;

use deletion_worker::command::demo::load::Load;
use deletion_worker::command::demo::script::{Script, healthy};
use deletion_worker::command::demo::stage::{Stage, TOKEN};
use deletion_worker::command::demo::summary::{self, Observed};
use deletion_worker::delivery::Reason;
use deletion_worker::mock::{Fate, Mock, Settings};

use crate::support::process::Process;
use crate::support::{PATIENCE, amqp, broker, http, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_planned_is_what_happens() {
    let shared = broker::shared().await;
    let stage = Stage::build(shared, |_| {}).await;
    let load = Load::new(10_000, 1);
    let settings = Settings { token: Some(TOKEN.to_owned()), faults: healthy(), ..Settings::default() };
    let mock = Mock::start(([127, 0, 0, 1], 0).into(), settings).await.expect("a free port");
    let admin = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let environment = stage.environment(mock.addr, admin);
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let mut worker = Process::start(&["run"], &environment);
    let connection = broker::connect(&stage.amqp_url).await;
    wait_for("the worker consumes", PATIENCE, async || {
        http::get(&format!("http://{admin}/readyz")).await.is_ok_and(|(status, _)| status == 200)
    })
    .await;

    let start = Instant::now();
    let mut script = Script::new(load.expected.ids.len() as u64);
    let failed = || {
        let calls = mock.stats().calls;
        calls.iter().filter(|(fate, _)| **fate != Fate::Deleted).map(|(_, count)| count).sum()
    };
    let publish =
        amqp::publish(&connection, &stage.exchange, stage.routing_key, amqp::persistent(), &load.messages);
    let dead_letters: u64 = load.expected.dead_letters.values().sum();
    let metrics = async || {
        http::get(&format!("http://{admin}/metrics")).await.map(|(_, text)| text).unwrap_or_default()
    };
    let unsettled = async || http::series(&metrics().await, "deletion_worker_messages_unsettled", &[]);
    tokio::join!(
        publish,
        wait_for("everything is settled", PATIENCE, async || {
            if let Some(step) = script.advance(mock.stats().ids_deleted, failed()) {
                mock.set_faults(step.faults);
            }
            script.is_over()
                && mock.stats().ids_deleted == load.expected.ids.len() as u64
                && u64::from(amqp::ready(&connection, &stage.dead_queue).await) == dead_letters
                && amqp::ready(&connection, &stage.queue).await == 0
                && unsettled().await == Some(0.0)
        })
    );
    let took = start.elapsed();

    let text = metrics().await;
    let sum = |name: &str, label: &str, values: &[&str]| -> u64 {
        values.iter().filter_map(|value| http::series(&text, name, &[(label, value)])).sum::<f64>() as u64
    };
    let reasons = Reason::ALL.map(Reason::as_str);
    let worker_dead_letters = sum("deletion_worker_dead_letters_total", "reason", &reasons);
    let worker_ids_deleted =
        http::series(&text, "deletion_worker_ids_deleted_total", &[]).expect("a documented metric") as u64;
    worker.signal("TERM").await;
    let exit = worker.exit(PATIENCE).await;
    let mut dead_letters = BTreeMap::new();
    for letter in amqp::take_all(&connection, &stage.dead_queue).await {
        let headers = letter.delivery.properties.headers().clone().unwrap_or_default();
        let reason =
            headers.inner().get("x-deletion-reason").and_then(|value| value.as_long_string()).cloned();
        let reason = Reason::ALL
            .into_iter()
            .find(|r| reason.as_ref().is_some_and(|t| t.as_bytes() == r.as_str().as_bytes()));
        *dead_letters.entry(reason.expect("a reason")).or_default() += 1;
    }
    let stats = mock.stats();
    let observed = Observed {
        published: load.messages.len() as u64,
        left: u64::from(amqp::ready(&connection, &stage.queue).await),
        dead_letters,
        deleted: mock.deleted(),
        calls: stats.calls.get(&Fate::Deleted).copied().unwrap_or_default(),
        calls_failed: stats
            .calls
            .iter()
            .filter(|(fate, _)| **fate != Fate::Deleted)
            .map(|(fate, count)| (format!("{fate:?}"), *count))
            .collect(),
        calls_in_one_second: stats.peaks.in_one_second as u64,
        worker_ids_deleted,
        worker_dead_letters,
        worker_exit: exit.code(),
        took,
        ..Observed::default()
    };
    let checks = summary::check(&load.expected, &observed);
    let table = summary::render(&load.expected, &observed, &checks, 500);
    stage.strike(&shared.management().expect("the tests need it")).await.expect("all of it is ours");
    assert!(checks.iter().all(summary::Check::holds), "{table}\n{:#?}", worker.stderr.all());
}
