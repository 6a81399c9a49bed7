//! What the benchmark compares the worker with, and what it needs beside it: one program, in the role that `BENCH` names.
//! `tests/bench/run.py` starts it. And, in [`micro`], what a message costs without all that.

mod micro;

use std::io::{BufRead as _, Write as _};
use std::{env, io};

use deletion_worker::rabbitmq::Node;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::runtime::Builder;

/// Messages acknowledged together: as many as a full call holds.
const ACK_EVERY: u64 = 500;

/// * `broker`: a private RabbitMQ, until standard input ends; says its URL.
/// * `noop one|many URL QUEUE PREFETCH COUNT`: consumes and acknowledges in bulk, and nothing else, on a runtime of one
///   thread or of many.
/// * `receive URL QUEUE`: consumes and acknowledges each message, and says when it has come, until standard input ends.
/// * `publish URL EXCHANGE KEY`: publishes each line it reads, and says when the broker has confirmed it.
#[test]
#[ignore = "run by make bench"]
fn role() {
    let role = env::var("BENCH").expect("BENCH says what to be");
    let words: Vec<&str> = role.split(' ').collect();
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let mut builder = match words[..] {
        ["noop", "many", ..] => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().expect("a runtime");
    match words[..] {
        ["broker"] => runtime.block_on(broker()),
        ["noop", _, url, queue, prefetch, count] => {
            let prefetch = u16::try_from(number(prefetch)).expect("a prefetch");
            runtime.block_on(noop(url, queue, prefetch, number(count)));
        }
        ["receive", url, queue] => runtime.block_on(receive(url, queue)),
        ["publish", url, exchange, key] => runtime.block_on(publish(url, exchange, key)),
        _ => panic!("no such role: {role}"),
    }
}

async fn broker() {
    let node = Node::start().await.expect("a broker");
    say(&node.amqp_url("/"));
    let wait = || io::copy(&mut io::stdin().lock(), &mut io::sink());
    tokio::task::spawn_blocking(wait).await.expect("it waits").expect("standard input ends");
}

async fn noop(url: &str, queue: &str, prefetch: u16, count: u64) {
    let (connection, channel) = connect(url).await;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.expect("a prefetch");
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer =
        channel.basic_consume(queue.into(), "".into(), options, none).await.expect("it consumes");
    for taken in 1..=count {
        let delivery = consumer.next().await.expect("the queue holds enough").expect("a delivery");
        if taken % ACK_EVERY == 0 || taken == count {
            delivery.acker.ack(BasicAckOptions { multiple: true }).await.expect("it acknowledges");
        }
    }
    connection.close(200, "OK".into()).await.expect("it closes");
}

async fn receive(url: &str, queue: &str) {
    let (connection, channel) = connect(url).await;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer =
        channel.basic_consume(queue.into(), "".into(), options, none).await.expect("it consumes");
    say("ready");
    let wait = || io::copy(&mut io::stdin().lock(), &mut io::sink());
    let mut end = tokio::task::spawn_blocking(wait);
    loop {
        tokio::select! {
            delivery = consumer.next() => {
                say("received");
                let delivery = delivery.expect("the queue is there").expect("a delivery");
                delivery.acker.ack(BasicAckOptions::default()).await.expect("it acknowledges");
            }
            _ = &mut end => break,
        }
    }
    connection.close(200, "OK".into()).await.expect("it closes");
}

async fn publish(url: &str, exchange: &str, key: &str) {
    let (connection, channel) = connect(url).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    say("ready");
    for line in io::stdin().lock().lines() {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = BasicProperties::default().with_delivery_mode(2);
        let body = line.expect("a line");
        let publish =
            channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties);
        publish.await.expect("it publishes").await.expect("a confirm");
        say("confirmed");
    }
    connection.close(200, "OK".into()).await.expect("it closes");
}

async fn connect(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("it connects");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

/// Past the test harness, which would keep it.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "bench: {line}").and_then(|()| out.flush()).expect("somebody listens");
}
