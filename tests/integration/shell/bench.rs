//! A bench with queues of its own, the worker's end of a shell, and a proxy that breaks connections.
#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else happens is a failure")]

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deletion_worker::broker::{self, Broker, Command, Event, Session};
use deletion_worker::config::{
    Amqp, Api, Batch, Config, DeadLetter, Declare, Endpoint, Health, Log, LogFormat, OnOutage, QueueType,
    Retry, Secret, SecretSource, Tls, Urls,
};
use deletion_worker::delivery::{Arrival, Tag};
use lapin::message::Delivery;
use lapin::options::*;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ExchangeKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::amqp;
use crate::support::broker::{Vhost, connect, vhost};

const DEADLINE: Duration = Duration::from_secs(60);

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

pub(crate) struct Bench {
    pub(crate) url: String,
    pub(crate) config: Config,
    connection: Connection,
    _vhost: Option<Vhost>,
}

impl Bench {
    /// With everything in place.
    pub(crate) async fn new(name: &str) -> Self {
        let bench = Self::fresh(name).await;
        Shell::start(&bench.config).up_and_close().await;
        bench
    }

    /// With names only.
    pub(crate) async fn fresh(name: &str) -> Self {
        let vhost = vhost().await;
        let bench = Self::at(&vhost.url, name).await;
        Self { _vhost: Some(vhost), ..bench }
    }

    /// On a broker of one's own, with names only.
    pub(crate) async fn at(url: &str, name: &str) -> Self {
        let connection = within("connect", connect(url)).await;
        Self { url: url.to_owned(), config: config(url, name), connection, _vhost: None }
    }

    pub(crate) fn config_at(&self, url: &str) -> Config {
        let mut config = self.config.clone();
        config.amqp.urls = Urls::Values(vec![Secret::new(url)]);
        config
    }

    pub(crate) fn config_through(&self, proxy: &Proxy) -> Config {
        let mut url = url::Url::parse(&self.url).expect("a URL");
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(proxy.port)).expect("a port");
        self.config_at(url.as_str())
    }

    async fn channel(&self) -> Channel {
        self.connection.create_channel().await.expect("a channel")
    }

    pub(crate) async fn publish(&self, count: usize) {
        self.publish_bodies((0..count).map(pattern)).await;
    }

    pub(crate) async fn publish_bodies<B: AsRef<[u8]>>(&self, bodies: impl IntoIterator<Item = B>) {
        let channel = self.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let amqp = &self.config.amqp;
        for body in bodies {
            let publish = channel.basic_publish(
                amqp.exchange.as_str().into(),
                amqp.routing_key.as_str().into(),
                BasicPublishOptions { mandatory: true, immediate: false },
                body.as_ref(),
                BasicProperties::default().with_delivery_mode(2),
            );
            drop(publish.await.expect("published"));
        }
        let returned = within("confirms", channel.wait_for_confirms()).await.expect("confirmed");
        assert!(returned.is_empty());
    }

    async fn count(&self, queue: &str) -> usize {
        amqp::ready(&self.connection, queue).await as usize
    }

    pub(crate) async fn depth(&self) -> usize {
        self.count(&self.config.amqp.queue).await
    }

    pub(crate) async fn wait_for_depth(&self, depth: usize) {
        within("depth", async { while self.depth().await != depth {} }).await;
    }

    pub(crate) async fn wait_for_dead(&self, depth: usize) {
        within("dead letters", async { while self.count(&self.config.dead_letter.queue).await != depth {} })
            .await;
    }

    pub(crate) async fn wait_for_consumers(&self, count: u32) {
        let queue = self.config.amqp.queue.as_str();
        let consumers = async || amqp::counts(&self.connection, queue).await.expect("declared").1;
        within("consumers", async { while consumers().await != count {} }).await;
    }

    async fn get_from(&self, queue: &str) -> Delivery {
        let options = BasicGetOptions { no_ack: true };
        let message = self.channel().await.basic_get(queue.into(), options).await;
        message.expect("asked").expect("a message").delivery
    }

    pub(crate) async fn get(&self) -> Delivery {
        self.get_from(&self.config.amqp.queue).await
    }

    pub(crate) async fn get_dead(&self) -> Delivery {
        self.get_from(&self.config.dead_letter.queue).await
    }

    pub(crate) async fn delete_queue(&self, queue: &str) {
        let channel = self.channel().await;
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
    }

    pub(crate) async fn unbind_dead(&self) {
        let dead = &self.config.dead_letter;
        let unbind = async |channel: Channel| {
            channel
                .queue_unbind(
                    dead.queue.as_str().into(),
                    dead.exchange.as_str().into(),
                    "".into(),
                    FieldTable::default(),
                )
                .await
        };
        unbind(self.channel().await).await.expect("unbound");
    }

    pub(crate) async fn delete_dead_exchange(&self) {
        let name = self.config.dead_letter.exchange.as_str().into();
        let options = ExchangeDeleteOptions::default();
        self.channel().await.exchange_delete(name, options).await.expect("deleted");
    }

    pub(crate) async fn restore_dead(&self) {
        let channel = self.channel().await;
        let dead = &self.config.dead_letter;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (queue, exchange) = (dead.queue.as_str(), dead.exchange.as_str());
        channel
            .exchange_declare(exchange.into(), ExchangeKind::Fanout, durable, FieldTable::default())
            .await
            .expect("declared");
        channel
            .queue_bind(
                queue.into(),
                exchange.into(),
                "".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .expect("bound");
    }
}

pub(crate) fn pattern(number: usize) -> Vec<u8> {
    format!(r#"{{"videoNo":"VI{number}"}}"#).into_bytes()
}

/// The worker's end.
pub(crate) struct Shell {
    broker: Broker,
    session: Option<Session>,
}

impl Shell {
    pub(crate) fn start(config: &Config) -> Self {
        Self { broker: broker::start(config), session: None }
    }

    pub(crate) async fn event(&mut self) -> Event {
        within("event", self.broker.events.recv()).await.expect("the shell runs")
    }

    pub(crate) async fn up(&mut self) {
        match self.event().await {
            Event::Up(session) => self.session = Some(session),
            event => panic!("{event:?}"),
        }
    }

    pub(crate) async fn consume(&mut self) {
        self.up().await;
        self.consume_again().await;
    }

    pub(crate) async fn consume_again(&mut self) {
        self.command(Command::Consume);
        match self.event().await {
            Event::Consuming => {}
            event => panic!("{event:?}"),
        }
    }

    pub(crate) fn command(&self, command: Command) {
        let session = self.session.as_ref().expect("a session");
        session.commands.send(command).expect("the session runs");
    }

    pub(crate) async fn chunk(&mut self) -> usize {
        let session = self.session.as_mut().expect("a session");
        within("chunk", session.arrivals.recv()).await.expect("the session runs").len()
    }

    pub(crate) async fn chunks_until(&mut self, until: impl Fn(&Event) -> bool) -> usize {
        let event = self.event().await;
        assert!(until(&event), "{event:?}");
        let session = self.session.as_mut().expect("a session");
        let mut count = 0;
        while let Ok(chunk) = session.arrivals.try_recv() {
            count += chunk.len();
        }
        count
    }

    pub(crate) async fn arrivals(&mut self, count: usize) -> Vec<Arrival> {
        let session = self.session.as_mut().expect("a session");
        let mut arrivals = Vec::new();
        while arrivals.len() < count {
            arrivals.extend(within("arrivals", session.arrivals.recv()).await.expect("the session runs"));
        }
        assert_eq!(arrivals.len(), count);
        arrivals
    }

    pub(crate) async fn dead_lettered(&mut self, count: usize) -> BTreeSet<Tag> {
        let mut stored = BTreeSet::new();
        while stored.len() < count {
            match self.event().await {
                Event::DeadLettered(letters) => stored.extend(letters.into_iter().map(|(tag, _)| tag)),
                // Counts alone are no report on any of them.
                Event::DeadLettersRefused(_) => {}
                event => panic!("{event:?}"),
            }
        }
        stored
    }

    /// Waits until a dead letter was refused; none is stored meanwhile.
    pub(crate) async fn dead_letters_refused(&mut self) {
        match self.event().await {
            Event::DeadLettersRefused(_) => {}
            event => panic!("{event:?}"),
        }
    }

    pub(crate) async fn down(&mut self) -> (String, u64) {
        loop {
            match self.event().await {
                Event::Down { reason, acks_lost } => return (reason, acks_lost),
                Event::Up(_) | Event::Failed(_) => panic!("expected the session to end"),
                Event::Consuming
                | Event::Cancelled
                | Event::DeadLettered(_)
                | Event::DeadLettersRefused(_) => {}
            }
        }
    }

    pub(crate) async fn failed(mut self) -> String {
        loop {
            match self.event().await {
                Event::Failed(sentence) => {
                    within("end", self.broker.join()).await;
                    return sentence;
                }
                Event::Down { .. } => {}
                event => panic!("{event:?}"),
            }
        }
    }

    pub(crate) async fn close(mut self) -> u64 {
        self.command(Command::Close);
        let (reason, lost) = self.down().await;
        assert_eq!(reason, "closed");
        assert!(within("end", self.broker.events.recv()).await.is_none());
        within("end", self.broker.join()).await;
        lost
    }

    pub(crate) async fn up_and_close(mut self) {
        self.up().await;
        self.close().await;
    }

    pub(crate) async fn abandon(self) {
        drop(self.session);
        within("end", self.broker.join()).await;
    }
}

/// A body that doesn't survive [`Proxy::garble`].
pub(crate) const GARBLED: &str = r#"{"videoNo":"GARBLED"}"#;

/// What the proxy does with connections.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Forward,
    /// Spoils the frame of a body that is [`GARBLED`] on its way to the client.
    Garble,
    /// Takes connections and bytes, and says nothing; those that are open fall silent.
    Silence,
    /// Closes the open ones and each new one.
    Refuse,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
    accepted: Arc<AtomicUsize>,
    alive: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(url: &str) -> Self {
        let url = url::Url::parse(url).expect("a URL");
        let target = format!("{}:{}", url.host_str().expect("a host"), url.port().unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let mode = watch::Sender::new(Mode::Forward);
        let accepted = Arc::new(AtomicUsize::new(0));
        let alive = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn({
            let (mode, accepted, alive) = (mode.subscribe(), Arc::clone(&accepted), Arc::clone(&alive));
            async move {
                let mut pipes = tokio::task::JoinSet::new();
                loop {
                    let (client, _) = listener.accept().await.expect("accepted");
                    accepted.fetch_add(1, Ordering::SeqCst);
                    let pipe = pipe(client, target.clone(), mode.clone());
                    let alive = Arc::clone(&alive);
                    pipes.spawn(async move {
                        alive.fetch_add(1, Ordering::SeqCst);
                        pipe.await;
                        alive.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            }
        });
        Self { port, mode, accepted, alive, task }
    }

    pub(crate) async fn forward(&mut self) {
        self.mode.send_replace(Mode::Forward);
    }

    pub(crate) async fn garble(&mut self) {
        self.mode.send_replace(Mode::Garble);
    }

    pub(crate) async fn silence(&mut self) {
        self.accepted.store(0, Ordering::SeqCst);
        self.mode.send_replace(Mode::Silence);
    }

    pub(crate) async fn refuse(&mut self) {
        self.mode.send_replace(Mode::Refuse);
    }

    /// Connections that the other side has not closed.
    pub(crate) fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    pub(crate) async fn wait_until_alive(&self, count: usize) {
        let enough = async {
            while self.alive() != count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within("connections to close", enough).await;
    }

    pub(crate) async fn wait_for_connections(&self, count: usize) {
        let enough = async {
            while self.accepted.load(Ordering::SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within("connections", enough).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection lives in the mode it began in, or falls silent for good: a blackhole is not healed for it.
async fn pipe(mut client: TcpStream, target: String, mut mode: watch::Receiver<Mode>) {
    let began = *mode.borrow_and_update();
    match began {
        Mode::Forward => {
            let mut broker = TcpStream::connect(target).await.expect("the broker is there");
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut broker) => return,
                _ = mode.wait_for(|mode| *mode != Mode::Forward) => {}
            }
            if *mode.borrow() == Mode::Silence {
                swallow(client).await;
            }
        }
        Mode::Garble => {
            let broker = TcpStream::connect(target).await.expect("the broker is there");
            let (mut from_client, mut to_client) = client.split();
            let (from_broker, mut to_broker) = broker.into_split();
            tokio::select! {
                _ = tokio::io::copy(&mut from_client, &mut to_broker) => {}
                () = garble(from_broker, &mut to_client) => {}
            }
        }
        Mode::Silence => swallow(client).await,
        Mode::Refuse => {}
    }
}

/// Passes bytes on, but for the octet that ends the frame.
async fn garble(mut from: impl AsyncRead + Unpin, to: &mut (impl AsyncWrite + Unpin)) {
    let frame = [GARBLED.as_bytes(), &[0xCE]].concat();
    let mut matching = 0;
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        for byte in &mut buffer[..count] {
            matching = if *byte == frame[matching] { matching + 1 } else { usize::from(*byte == frame[0]) };
            if matching == frame.len() {
                (*byte, matching) = (0, 0);
            }
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn swallow(mut client: TcpStream) {
    // However it ends, it has ended.
    let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
}

fn config(url: &str, name: &str) -> Config {
    Config {
        amqp: Amqp {
            urls: Urls::Values(vec![Secret::new(url)]),
            queue: name.to_owned(),
            exchange: format!("{name}.exchange"),
            routing_key: "delete".to_owned(),
            declare: Declare::Create,
            queue_type: QueueType::Quorum,
            delivery_limit: 1_000_000,
            single_active_consumer: true,
            prefetch: 2_000,
            heartbeat: Duration::from_secs(2),
            tls: Tls::default(),
        },
        dead_letter: DeadLetter { exchange: format!("{name}.dlx"), queue: format!("{name}.dead") },
        batch: Batch { max_ids: 500, linger: Duration::from_secs(1), max_ids_per_message: 10_000 },
        endpoint: Endpoint {
            api: Api::V1_0,
            url: url::Url::parse("http://127.0.0.1:1/").expect("a URL"),
            token: Some(SecretSource::Value(Secret::new("token"))),
            namespace: None,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            max_concurrency: 4,
            requests_per_second: None,
            success_codes: vec!["0000".to_owned()],
        },
        retry: Retry {
            initial: Duration::from_millis(500),
            max: Duration::from_secs(60),
            multiplier: 2.0,
            max_strikes: 8,
            max_retry_after: Duration::from_secs(300),
        },
        health: Health {
            failure_threshold: 5,
            probe_initial: Duration::from_secs(1),
            probe_max: Duration::from_secs(60),
            release_after: Duration::from_secs(300),
            on_outage: OnOutage::Hold,
        },
        shutdown_grace: Duration::from_secs(25),
        admin_listen: "127.0.0.1:0".parse().expect("an address"),
        log: Log { level: "info".to_owned(), format: LogFormat::Auto },
        dry_run: false,
    }
}
