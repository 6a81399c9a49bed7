//! The broker shell and the publish command against a real RabbitMQ.

mod bench;

use std::collections::BTreeSet;

use deletion_worker::broker::{Command, Event, Extent};
use deletion_worker::delivery::{Arrival, Obituary, Reason, Tag};
use lapin::types::AMQPValue;

use self::bench::{Bench, Proxy, Shell, pattern};
use crate::support::{PATIENCE, broker, wait_for};

#[tokio::test]
async fn messages_are_consumed_acked_and_gone() {
    let bench = Bench::new("acked").await;
    let mut shell = Shell::start(&bench.config);
    shell.consume().await;
    bench.publish(1_000).await;
    let arrivals = shell.arrivals(1_000).await;
    let tags: Vec<u64> = arrivals.iter().map(|arrival| arrival.tag.0).collect();
    assert_eq!(tags, (1..=1_000).collect::<Vec<_>>());
    assert!(arrivals.iter().all(|arrival| arrival.request.is_ok() && !arrival.redelivered));
    // Odd ones alone, the rest below 900 in one, the last hundred alone again.
    for tag in (1..900).step_by(2) {
        shell.command(Command::Ack(Extent::One(Tag(tag))));
    }
    shell.command(Command::Ack(Extent::UpTo(Tag(900))));
    for tag in (901..=1_000).rev() {
        shell.command(Command::Ack(Extent::One(Tag(tag))));
    }
    assert_eq!(shell.close().await, 0);
    assert_eq!(bench.depth().await, 0);
}

#[tokio::test]
async fn many_acks_one_by_one_survive_the_close_behind_them() {
    let bench = Bench::new("one-by-one").await;
    let mut shell = Shell::start(&bench.config);
    shell.consume().await;
    bench.publish(2_000).await;
    shell.arrivals(2_000).await;
    shell.command(Command::GiveBack(Extent::One(Tag(1))));
    for tag in 2..=2_000 {
        shell.command(Command::Ack(Extent::One(Tag(tag))));
    }
    assert_eq!(shell.close().await, 0);
    bench.wait_for_depth(1).await;
}

#[tokio::test]
async fn what_is_given_back_comes_again() {
    let bench = Bench::new("given-back").await;
    let mut shell = Shell::start(&bench.config);
    shell.consume().await;
    bench.publish(10).await;
    shell.arrivals(10).await;
    shell.command(Command::GiveBack(Extent::One(Tag(3))));
    shell.command(Command::GiveBack(Extent::UpTo(Tag(2))));
    shell.command(Command::Ack(Extent::UpTo(Tag(10))));
    let again = shell.arrivals(3).await;
    assert!(again.iter().all(|arrival| arrival.redelivered));
    assert_eq!(again.iter().map(|arrival| arrival.tag.0).collect::<Vec<_>>(), [11, 12, 13]);
    shell.command(Command::Ack(Extent::UpTo(Tag(13))));
    assert_eq!(shell.close().await, 0);
    assert_eq!(bench.depth().await, 0);
}

#[tokio::test]
async fn a_cancelled_consumer_gives_back_what_nobody_took() {
    let bench = Bench::new("cancelled").await;
    bench.publish(1_500).await;
    let mut shell = Shell::start(&bench.config);
    shell.consume().await;
    let mut held = shell.chunk().await;
    shell.command(Command::Cancel);
    // Chunks that were on their way before the answer belong to us.
    held += shell.chunks_until(|event| matches!(event, Event::Cancelled)).await;
    bench.wait_for_depth(1_500 - held).await;
    shell.command(Command::Ack(Extent::UpTo(Tag(held as u64))));
    shell.consume_again().await;
    let rest = shell.arrivals(1_500 - held).await;
    let last = rest.last().expect("some").tag;
    shell.command(Command::Ack(Extent::UpTo(last)));
    assert_eq!(shell.close().await, 0);
    assert_eq!(bench.depth().await, 0);
}

#[tokio::test]
async fn unsettled_messages_survive_a_close() {
    let bench = Bench::new("unsettled").await;
    bench.publish(20).await;
    let mut shell = Shell::start(&bench.config);
    shell.consume().await;
    shell.arrivals(20).await;
    shell.command(Command::Ack(Extent::UpTo(Tag(5))));
    assert_eq!(shell.close().await, 0);
    bench.wait_for_depth(15).await;
}

#[tokio::test]
async fn a_cut_connection_is_replaced_and_lost_acks_are_counted() {
    let bench = Bench::new("cut").await;
    let mut proxy = Proxy::start(&bench.url).await;
    bench.publish(100).await;
    let mut shell = Shell::start(&bench.config_through(&proxy));
    shell.consume().await;
    shell.arrivals(100).await;
    proxy.refuse().await;
    let (_, lost) = shell.down().await;
    assert_eq!(lost, 0, "nothing had been commanded");
    proxy.forward().await;
    shell.consume().await;
    let again = shell.arrivals(100).await;
    assert_eq!(again[0].tag, Tag(1), "tags start anew in a new epoch");
    assert!(again.iter().all(|arrival| arrival.redelivered));
    shell.command(Command::Ack(Extent::UpTo(Tag(100))));
    assert_eq!(shell.close().await, 0);
    assert_eq!(bench.depth().await, 0);
}

#[tokio::test]
async fn a_silent_broker_is_met_within_two_seconds_of_its_return() {
    let bench = Bench::new("silent").await;
    let mut proxy = Proxy::start(&bench.url).await;
    let mut shell = Shell::start(&bench.config_through(&proxy));
    shell.consume().await;
    proxy.silence().await;
    shell.down().await;
    // Long enough for all attempts to hang.
    proxy.wait_for_connections(8).await;
    let alive = proxy.alive();
    proxy.forward().await;
    let back = std::time::Instant::now();
    shell.consume().await;
    assert!(back.elapsed().as_millis() < 2_000, "took {:?}", back.elapsed());
    assert!(alive <= 5, "{alive} attempts alive: four, and one being replaced");
    proxy.wait_until_alive(1).await;
    shell.close().await;
    proxy.wait_until_alive(0).await;
}

#[tokio::test]
async fn a_stopped_broker_is_met_within_two_seconds_of_its_return() {
    let bench = Bench::new("stopped").await;
    let mut proxy = Proxy::start(&bench.url).await;
    proxy.refuse().await;
    let mut shell = Shell::start(&bench.config_through(&proxy));
    proxy.wait_for_connections(3).await;
    proxy.forward().await;
    let back = std::time::Instant::now();
    shell.consume().await;
    assert!(back.elapsed().as_millis() < 2_000, "took {:?}", back.elapsed());
    shell.close().await;
}

#[tokio::test]
async fn a_deleted_queue_is_created_again() {
    let bench = Bench::new("deleted").await;
    let mut shell = Shell::start(&bench.config);
    shell.consume().await;
    bench.delete_queue(&bench.config.amqp.queue).await;
    let (reason, _) = shell.down().await;
    assert!(reason.contains("deleted"), "{reason}");
    shell.consume().await;
    bench.publish(1).await;
    shell.arrivals(1).await;
    shell.command(Command::Ack(Extent::UpTo(Tag(1))));
    shell.close().await;
}

#[tokio::test]
async fn a_queue_with_other_arguments_fails_the_start_and_is_named() {
    let bench = Bench::new("mismatch").await;
    let mut config = bench.config.clone();
    config.amqp.delivery_limit = 7;
    let sentence = Shell::start(&config).failed().await;
    let queue = format!("queue `{}`", bench.config.dead_letter.queue);
    assert!(sentence.contains(&queue), "{sentence}");
    assert!(sentence.contains("x-delivery-limit"), "the broker's words: {sentence}");
}

#[tokio::test]
async fn a_missing_queue_fails_the_start_when_it_is_only_looked_for() {
    let bench = Bench::new("missing").await;
    let mut config = bench.config.clone();
    config.amqp.declare = deletion_worker::config::Declare::Verify;
    let mut shell = Shell::start(&config);
    shell.consume().await;
    shell.close().await;
    bench.delete_queue(&bench.config.amqp.queue).await;
    let sentence = Shell::start(&config).failed().await;
    assert!(sentence.contains(&format!("queue `{}` does not exist", config.amqp.queue)), "{sentence}");
    config.amqp.declare = deletion_worker::config::Declare::Skip;
    let mut shell = Shell::start(&config);
    shell.up().await;
    shell.command(Command::Consume);
    let sentence = shell.failed().await;
    assert!(sentence.contains(&format!("queue `{}` does not exist", config.amqp.queue)), "{sentence}");
}

#[tokio::test]
async fn wrong_credentials_fail_the_start_without_showing_them() {
    let bench = Bench::new("credentials").await;
    let mut url = url::Url::parse(&bench.url).expect("a URL");
    url.set_password(Some("hunter2")).expect("a place for it");
    let sentence = Shell::start(&bench.config_at(url.as_str())).failed().await;
    assert!(sentence.contains(&format!("refuses user `{}`", url.username())), "{sentence}");
    assert!(!sentence.contains("hunter2"), "{sentence}");
    let mut url = url::Url::parse(&bench.url).expect("a URL");
    url.set_path("/nowhere");
    let sentence = Shell::start(&bench.config_at(url.as_str())).failed().await;
    assert!(sentence.contains("vhost `nowhere`"), "{sentence}");
}

#[tokio::test]
async fn dead_letters_are_stored_before_they_are_reported() {
    let bench = Bench::new("dead").await;
    let mut shell = Shell::start(&bench.config);
    shell.consume().await;
    bench.publish(600).await;
    shell.arrivals(600).await;
    for tag in 1..=600 {
        shell.command(Command::DeadLetter(Tag(tag), obituary()));
    }
    assert_eq!(shell.dead_lettered(600).await, (1..=600).map(Tag).collect::<BTreeSet<_>>());
    shell.command(Command::Ack(Extent::UpTo(Tag(600))));
    assert_eq!(shell.close().await, 0);
    assert_eq!(bench.depth().await, 0);
    bench.wait_for_dead(600).await;
    let message = bench.get_dead().await;
    assert_eq!(message.data, pattern(0));
    assert_eq!(message.routing_key.as_str(), bench.config.amqp.routing_key);
    let headers = message.properties.headers().as_ref().expect("headers");
    let reason = headers.inner().get("x-deletion-reason");
    assert_eq!(reason, Some(&AMQPValue::LongString("rejected".into())));
}

#[tokio::test]
async fn a_dead_letter_waits_for_its_exchange() {
    let bench = Bench::new("exchange").await;
    let mut config = bench.config.clone();
    Shell::start(&config).up_and_close().await;
    config.amqp.declare = deletion_worker::config::Declare::Skip;
    bench.unbind_dead().await;
    let mut shell = Shell::start(&config);
    shell.consume().await;
    bench.publish(2).await;
    shell.arrivals(2).await;
    shell.command(Command::DeadLetter(Tag(1), obituary()));
    shell.command(Command::DeadLetter(Tag(2), obituary()));
    // Unroutable now, and the exchange itself is missing next.
    shell.dead_letters_refused().await;
    bench.delete_dead_exchange().await;
    shell.dead_letters_refused().await;
    bench.restore_dead().await;
    assert_eq!(shell.dead_lettered(2).await.len(), 2);
    shell.command(Command::Ack(Extent::UpTo(Tag(2))));
    shell.close().await;
    bench.wait_for_dead(2).await;
}

#[tokio::test]
async fn a_shell_that_is_dropped_leaves_no_consumer_behind() {
    let bench = Bench::new("threads").await;
    let mut shell = Shell::start(&bench.config);
    shell.consume().await;
    shell.abandon().await;
    bench.wait_for_consumers(0).await;
}

fn obituary() -> Box<Obituary> {
    Box::new(Obituary {
        reason: Reason::Rejected,
        detail: "a parameter is incorrect".to_owned(),
        code: Some("0001".into()),
        http_status: Some(200),
        attempts: 3,
        failed_ids: Vec::new(),
    })
}

#[tokio::test]
async fn what_was_ready_has_waited_and_what_comes_later_has_not() {
    let bench = Bench::new("waited").await;
    let mut shell = Shell::start(&bench.config);
    let waited = |arrivals: Vec<Arrival>| arrivals.iter().map(|arrival| arrival.waited).collect::<Vec<_>>();
    shell.consume().await;
    bench.publish(2).await;
    assert_eq!(waited(shell.arrivals(2).await), [false; 2]);
    shell.command(Command::Ack(Extent::UpTo(Tag(2))));
    shell.command(Command::Cancel);
    shell.chunks_until(|event| matches!(event, Event::Cancelled)).await;
    bench.publish(3).await;
    shell.consume_again().await;
    assert_eq!(waited(shell.arrivals(3).await), [true; 3]);
    bench.publish(2).await;
    assert_eq!(waited(shell.arrivals(2).await), [false; 2]);
    // Beside another consumer nothing is certain.
    shell.command(Command::Ack(Extent::UpTo(Tag(7))));
    shell.command(Command::Cancel);
    shell.chunks_until(|event| matches!(event, Event::Cancelled)).await;
    bench.publish(1).await;
    let mut other = Shell::start(&bench.config);
    other.consume().await;
    assert_eq!(waited(other.arrivals(1).await), [true]);
    shell.consume_again().await;
    other.abandon().await;
    assert_eq!(waited(shell.arrivals(1).await), [false]);
    shell.close().await;
}

#[tokio::test]
async fn what_is_ready_is_counted_though_the_queue_is_slow_to_tell() {
    let node = broker::node().await;
    let bench = Bench::at(&node.amqp_url("/"), "slow-to-tell").await;
    let mut shell = Shell::start(&bench.config);
    shell.up().await;
    bench.publish(3).await;
    // The broker gives up on the first question, and says that there is nothing.
    broker::hold_leader(&node, "/", &bench.config.amqp.queue, 2).await;
    shell.consume_again().await;
    assert!(shell.arrivals(3).await.iter().all(|arrival| arrival.waited));
    shell.close().await;
}

#[tokio::test]
async fn acks_that_a_dead_session_could_not_carry_out_are_counted() {
    let bench = Bench::new("lost").await;
    let mut shell = Shell::start(&bench.config);
    shell.consume().await;
    bench.publish(5).await;
    shell.arrivals(5).await;
    shell.command(Command::Cancel);
    shell.chunks_until(|event| matches!(event, Event::Cancelled)).await;
    bench.delete_queue(&bench.config.amqp.queue).await;
    // Consuming fails, and takes with it what was commanded after it.
    shell.command(Command::Consume);
    shell.command(Command::Ack(Extent::One(Tag(2))));
    shell.command(Command::GiveBack(Extent::One(Tag(4))));
    shell.command(Command::Ack(Extent::UpTo(Tag(3))));
    let (reason, lost) = shell.down().await;
    assert!(reason.contains("does not exist"), "{reason}");
    assert_eq!(lost, 3, "1 to 3");
    shell.consume().await;
    shell.close().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_isolated_and_named() {
    let bench = Bench::new("unreadable").await;
    let mut proxy = Proxy::start(&bench.url).await;
    proxy.garble().await;
    let mut shell = Shell::start(&bench.config_through(&proxy));
    shell.consume().await;
    bench.publish_bodies([bench::GARBLED]).await;
    for _ in 0..4 {
        let (reason, _) = shell.down().await;
        let expected = format!("cannot read is in queue `{}`", bench.config.amqp.queue);
        assert!(reason.contains(&expected), "{reason}");
        shell.consume().await;
    }
    proxy.forward().await;
    let (reason, _) = shell.down().await;
    assert!(reason.contains("cannot read"), "the session that had begun: {reason}");
    shell.consume().await;
    let arrivals = shell.arrivals(1).await;
    shell.command(Command::Ack(Extent::UpTo(arrivals[0].tag)));
    let (reason, _) = shell.down().await;
    assert!(reason.contains("taking more"), "one message was settled in isolation: {reason}");
    shell.consume().await;
    bench.publish(600).await;
    shell.arrivals(600).await;
    shell.command(Command::Ack(Extent::UpTo(Tag(600))));
    assert_eq!(shell.close().await, 0);
}

#[tokio::test]
async fn an_alarm_holds_up_dead_letters_and_no_acks() {
    let node = broker::node().await;
    let bench = Bench::at(&node.amqp_url("/"), "alarmed").await;
    let mut shell = Shell::start(&bench.config);
    shell.consume().await;
    bench.publish(40).await;
    shell.arrivals(40).await;
    node.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await.expect("the node serves");
    let alarms = async || node.ctl(&["eval", "rabbit_alarm:get_alarms()."]).await.expect("the node serves");
    wait_for("the alarm", PATIENCE, async || alarms().await.contains("memory")).await;
    for tag in 1..=20 {
        shell.command(Command::DeadLetter(Tag(tag), obituary()));
    }
    for tag in 21..=40 {
        shell.command(Command::Ack(Extent::One(Tag(tag))));
    }
    let unacked = async || {
        let counts =
            node.ctl(&["-q", "list_queues", "--no-table-headers", "name", "messages_unacknowledged"]);
        counts.await.expect("the node serves")
    };
    wait_for("acks to pass", PATIENCE, async || unacked().await.contains("alarmed\t20")).await;
    let blocked = async || {
        let states = node.ctl(&["-q", "list_connections", "--no-table-headers", "state"]);
        states.await.expect("the node serves")
    };
    wait_for("a blocked publisher", PATIENCE, async || blocked().await.contains("blocked")).await;
    node.ctl(&["set_vm_memory_high_watermark", "0.4"]).await.expect("the node serves");
    assert_eq!(shell.dead_lettered(20).await.len(), 20);
    shell.command(Command::Ack(Extent::UpTo(Tag(20))));
    assert_eq!(shell.close().await, 0);
    bench.wait_for_dead(20).await;
    assert_eq!(bench.depth().await, 0);
}

#[tokio::test]
async fn messages_held_too_long_end_the_session_with_the_cause() {
    let node = broker::node().await;
    let impatient = "application:set_env(rabbit, consumer_timeout, 3000), \
                     application:set_env(rabbit, channel_tick_interval, 500).";
    node.ctl(&["eval", impatient]).await.expect("the node serves");
    let bench = Bench::at(&node.amqp_url("/"), "impatient").await;
    let mut shell = Shell::start(&bench.config);
    shell.consume().await;
    bench.publish(1).await;
    shell.arrivals(1).await;
    let (reason, _) = shell.down().await;
    assert!(reason.contains("consumer_timeout"), "{reason}");
    shell.consume().await;
    assert!(shell.arrivals(1).await[0].redelivered);
    shell.command(Command::Ack(Extent::UpTo(Tag(1))));
    assert_eq!(shell.close().await, 0);
}

#[tokio::test]
async fn a_killed_broker_brings_back_what_was_not_acked() {
    let mut node = broker::node().await;
    let bench = Bench::at(&node.amqp_url("/"), "killed").await;
    Shell::start(&bench.config).up_and_close().await;
    // A quorum queue whose node is killed within a second of its creation never finds a leader again (3.10.8).
    node.stop().await.expect("stopped");
    node.start_again().await.expect("started");
    let bench = Bench::at(&node.amqp_url("/"), "killed").await;
    let mut shell = Shell::start(&bench.config);
    shell.consume().await;
    bench.publish(100).await;
    shell.arrivals(100).await;
    node.kill().await.expect("killed");
    shell.down().await;
    node.start_again().await.expect("started");
    shell.consume().await;
    shell.arrivals(100).await;
    shell.command(Command::Ack(Extent::UpTo(Tag(100))));
    assert_eq!(shell.close().await, 0);
    let bench = Bench::at(&node.amqp_url("/"), "killed").await;
    bench.wait_for_depth(0).await;
}

mod publish {
    use std::num::NonZeroUsize;
    use std::path::PathBuf;

    use deletion_worker::command::publish::{Args, Failure, run};

    use super::*;

    fn args(ids: &[&str]) -> Args {
        Args {
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            file: None,
            per_message: NonZeroUsize::MIN,
            namespace: None,
            reason: None,
            requested_by: None,
            skip_invalid: false,
        }
    }

    fn file(name: &str, content: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("deletion-worker-{name}-{}", fastrand::u64(..)));
        std::fs::write(&path, content).expect("written");
        path
    }

    #[tokio::test]
    async fn a_file_becomes_messages_on_a_fresh_broker() {
        let mut bench = Bench::fresh("publish").await;
        // A queue with a single active consumer can't be read any other way.
        bench.config.amqp.single_active_consumer = false;
        let lines: String = (0..2_501).map(|number| format!("VI{number}\n")).collect();
        let path = file("ids", &lines);
        let args = Args {
            file: Some(path.clone()),
            per_message: NonZeroUsize::new(2).expect("not zero"),
            namespace: Some("space".to_owned()),
            requested_by: Some("me".to_owned()),
            reason: Some("test".to_owned()),
            ..args(&["VIa"])
        };
        let mut out = Vec::new();
        run(args, &bench.config, &mut out).await.expect("published");
        std::fs::remove_file(path).expect("removed");
        let expected =
            format!("published 1251 messages with 2502 IDs to exchange `{}`\n", bench.config.amqp.exchange);
        assert_eq!(String::from_utf8(out).expect("text"), expected);
        assert_eq!(bench.depth().await, 1_251);
        let message = bench.get().await;
        let body = r#"{"videoNos":["VIa","VI0"],"namespace":"space","requestedBy":"me","reason":"test"}"#;
        assert_eq!(String::from_utf8(message.data).expect("text"), body);
        assert_eq!(*message.properties.delivery_mode(), Some(2));
        assert!(message.properties.timestamp().is_some() && message.properties.message_id().is_some());
    }

    #[tokio::test]
    async fn one_bad_id_stops_everything_unless_it_is_skipped() {
        let bench = Bench::new("publish-bad").await;
        let path = file("bad", "VI1\nV I2\nVI3\n");
        let mut out = Vec::new();
        let args = Args { file: Some(path.clone()), ..args(&[]) };
        let failure = run(args.clone(), &bench.config, &mut out).await.expect_err("refused");
        assert!(matches!(failure, Failure::Usage(_)), "{failure:?}");
        assert!(
            failure.to_string().contains("line 2 has white space at character 1; nothing was sent"),
            "{failure}"
        );
        assert_eq!(bench.depth().await, 0);
        run(Args { skip_invalid: true, ..args }, &bench.config, &mut out).await.expect("published");
        std::fs::remove_file(path).expect("removed");
        assert_eq!(bench.depth().await, 2);
        assert!(String::from_utf8(out).expect("text").contains("left out: "));
    }

    #[tokio::test]
    async fn what_no_queue_takes_is_a_fault() {
        let bench = Bench::new("publish-unroutable").await;
        let mut config = bench.config.clone();
        config.amqp.declare = deletion_worker::config::Declare::Skip;
        config.amqp.routing_key = "elsewhere".to_owned();
        let failure = run(args(&["VI1", "VI2"]), &config, &mut Vec::new()).await.expect_err("unroutable");
        assert!(matches!(failure, Failure::Fault(_)), "{failure:?}");
        let sentence = failure.to_string();
        assert!(sentence.contains("no queue is bound"), "{sentence}");
        assert!(sentence.contains("0 messages with 0 IDs are confirmed"), "{sentence}");
    }

    #[tokio::test]
    async fn an_absent_broker_is_a_fault_after_ten_seconds() {
        let bench = Bench::new("publish-absent").await;
        let config = bench.config_at("amqp://guest:guest@127.0.0.1:1/%2f");
        let failure = run(args(&["VI1"]), &config, &mut Vec::new()).await.expect_err("nobody there");
        let Failure::Fault(sentence) = failure else { panic!("{failure}") };
        assert!(
            sentence.contains("can't be reached within 10s") && sentence.contains("127.0.0.1:1"),
            "{sentence}"
        );
        assert!(sentence.ends_with("nothing was sent"), "{sentence}");
    }
}
