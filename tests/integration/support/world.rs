//! The whole system, small: a virtual host, the mock endpoint in this process, and the real binary between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use deletion_worker::mock::{Faults, Mock, MockHandle, Settings};
use deletion_worker::status::{BrokerState, EndpointState, Status};
use lapin::message::BasicGetMessage;
use lapin::{BasicProperties, Connection};

use super::broker::{Vhost, connect, vhost};
use super::process::Process;
use super::proxy::Proxy;
use super::{PATIENCE, amqp, http, wait_for, wait_for_some};

/// The token that the mock accepts and the worker is given.
pub(crate) const TOKEN: &str = "sk-integration-token";

/// A virtual host and a mock endpoint, and what a worker is told about them.
pub(crate) struct World {
    pub(crate) vhost: Vhost,
    pub(crate) mock: MockHandle,
    /// Publishes and looks into queues; not the worker's.
    pub(crate) connection: Connection,
    environment: BTreeMap<String, String>,
    /// What the binary is run by, if not directly.
    wrapper: Vec<String>,
}

/// A running worker.
pub(crate) struct Worker {
    pub(crate) process: Process,
    /// `http://address` of its admin server.
    pub(crate) admin: String,
}

impl World {
    /// On the shared broker, with an endpoint without faults, and a worker with defaults but for a rate limit that
    /// is off, a short linger and short intervals.
    pub(crate) async fn new() -> Self {
        Self::on(vhost().await).await
    }

    /// The same on any virtual host.
    pub(crate) async fn on(vhost: Vhost) -> Self {
        let settings = Settings { token: Some(TOKEN.into()), ..Settings::default() };
        let mock = Mock::start(([127, 0, 0, 1], 0).into(), settings).await.expect("loopback has free ports");
        let connection = connect(&vhost.url).await;
        let url = format!("http://{}/api/serve/video/delete", mock.addr);
        let mut world = Self { vhost, mock, connection, environment: BTreeMap::new(), wrapper: Vec::new() };
        for (key, value) in [
            ("amqp.urls", world.vhost.url.clone().as_str()),
            ("endpoint.url", &url),
            ("endpoint.token", TOKEN),
            ("endpoint.requests_per_second", "0"),
            ("batch.linger", "50ms"),
            ("retry.initial", "20ms"),
            ("retry.max", "200ms"),
            ("health.probe_initial", "50ms"),
            ("health.probe_max", "500ms"),
            ("admin.listen", "127.0.0.1:0"),
            ("log.level", "debug"),
        ] {
            world.set(key, value);
        }
        world
    }

    /// Sets a configuration key for the workers that are started from now on.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.environment.insert(variable(key), value.to_owned());
        self
    }

    /// Sets any environment variable likewise.
    pub(crate) fn environment(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Runs workers as arguments of this command, which has to turn into them.
    pub(crate) fn run_by(&mut self, command: impl IntoIterator<Item = String>) -> &mut Self {
        self.wrapper = command.into_iter().collect();
        self
    }

    /// Puts a proxy between the endpoint and the workers that are started from now on.
    pub(crate) async fn endpoint_proxy(&mut self) -> Proxy {
        let proxy = Proxy::start(&self.mock.addr.to_string()).await;
        self.set("endpoint.url", &format!("http://{}/api/serve/video/delete", proxy.address));
        proxy
    }

    /// Puts a proxy between the broker and the workers that are started from now on.
    pub(crate) async fn proxy(&mut self) -> Proxy {
        let proxy = Proxy::start(&self.vhost.address()).await;
        self.set("amqp.urls", &self.vhost.url_through(proxy.address));
        proxy
    }

    /// Leaves a configuration key at its default.
    pub(crate) fn unset(&mut self, key: &str) -> &mut Self {
        self.environment.remove(&variable(key));
        self
    }

    /// What a configuration key is set to.
    pub(crate) fn variable(&self, key: &str) -> &str {
        &self.environment[&variable(key)]
    }

    /// Speaks v1.2 instead of v1.0.
    pub(crate) fn v1_2(&mut self) -> &mut Self {
        let url = format!("http://{}/serve/api/v1/delete_videos", self.mock.addr);
        self.set("endpoint.api", "v1.2").set("endpoint.url", &url)
    }

    /// Starts a worker, and waits until it has a port; not until it consumes.
    pub(crate) async fn launch(&self) -> Worker {
        let mut process = self.process(&["run"]);
        let stderr = process.stderr.clone();
        let line = wait_for_some("it has started", PATIENCE, async || {
            let line = stderr.all().into_iter().find(|line| line.contains("\"started\""));
            assert!(line.is_some() || !process.has_ended(), "it ended: {:#?}", stderr.all());
            line
        })
        .await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("the log is JSON");
        let admin = format!("http://{}", line["admin"].as_str().expect("the address is logged"));
        Worker { process, admin }
    }

    /// Starts a worker, and waits until it consumes.
    pub(crate) async fn start(&self) -> Worker {
        let worker = self.launch().await;
        worker.wait_until("it consumes", async |worker| worker.is_consuming().await).await;
        worker
    }

    /// Declares what the worker would, by letting one come and go; so that messages can wait for the next.
    pub(crate) async fn prepare(&self) {
        let mut worker = self.start().await;
        worker.stop().await;
    }

    /// Runs any command of the binary with the same configuration.
    pub(crate) fn process(&self, arguments: &[&str]) -> Process {
        let environment: Vec<_> = self.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        Process::start_by(&self.wrapper, arguments, &environment)
    }

    /// Publishes one message for each ID, persistent, confirmed and routed.
    pub(crate) async fn publish_ids<I: AsRef<str>>(&self, ids: impl IntoIterator<Item = I>) {
        let bodies = ids.into_iter().map(|id| format!(r#"{{"videoNo":"{}"}}"#, id.as_ref()));
        self.publish(bodies).await;
    }

    /// Publishes bodies as they are.
    pub(crate) async fn publish<B: AsRef<[u8]>>(&self, bodies: impl IntoIterator<Item = B>) {
        self.publish_with(amqp::persistent(), bodies).await;
    }

    /// Publishes bodies as they are, with these properties.
    pub(crate) async fn publish_with<B: AsRef<[u8]>>(
        &self,
        properties: BasicProperties,
        bodies: impl IntoIterator<Item = B>,
    ) {
        amqp::publish(&self.connection, "deletions", "delete", properties, bodies).await;
    }

    /// Replaces the mock's faults.
    pub(crate) fn faults(&self, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.mock.faults();
        change(&mut faults);
        self.mock.set_faults(faults);
    }

    /// Deletes 20 IDs a call and two calls at a time, each of which takes 10 ms: at most 4,000 IDs a second, so that
    /// there is a middle of a drain.
    pub(crate) fn slow_down(&mut self) -> &mut Self {
        self.faults(|faults| faults.latency = Duration::from_millis(10));
        self.set("batch.max_ids", "20").set("endpoint.max_concurrency", "2")
    }

    /// Waits until so many different IDs were deleted, or more.
    pub(crate) async fn deleted_at_least(&self, ids: u64) {
        let what = format!("{ids} or more IDs deleted");
        wait_for(&what, PATIENCE, async || self.mock.stats().ids_deleted >= ids).await;
    }

    /// Waits until exactly so many messages wait in the queue.
    pub(crate) async fn ready(&self, messages: u32) {
        let what = format!("{messages} messages in the queue");
        wait_for(&what, PATIENCE, async || amqp::ready(&self.connection, "deletions").await == messages)
            .await;
    }

    /// Sees that nothing was dead-lettered.
    pub(crate) async fn no_dead_letters(&self) {
        let letters = amqp::take_all(&self.connection, "deletions.dead").await;
        assert_eq!(letters.len(), 0, "{letters:#?}");
    }

    /// Sees that each of these was deleted, and nothing else.
    pub(crate) fn all_deleted(&self, ids: &[String]) {
        let (deleted, wanted) = (self.mock.deleted(), ids.iter().collect::<BTreeSet<_>>());
        assert_eq!(deleted.keys().collect::<BTreeSet<_>>(), wanted);
    }

    /// Sees that each of these was deleted, nothing else, and nothing twice.
    pub(crate) fn all_deleted_once(&self, ids: &[String]) {
        self.all_deleted(ids);
        let twice: Vec<_> = self.mock.deleted().into_iter().filter(|(_, times)| *times > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    /// Waits until so many different IDs were deleted.
    pub(crate) async fn deleted(&self, ids: u64) {
        wait_for(&format!("{ids} IDs deleted"), PATIENCE, async || self.mock.stats().ids_deleted >= ids)
            .await;
        assert_eq!(self.mock.stats().ids_deleted, ids);
    }

    /// Waits until so many dead letters are there, and takes them out.
    pub(crate) async fn dead_letters(&self, count: u32) -> Vec<BasicGetMessage> {
        wait_for(&format!("{count} dead letters"), PATIENCE, async || {
            amqp::ready(&self.connection, "deletions.dead").await >= count
        })
        .await;
        let letters = amqp::take_all(&self.connection, "deletions.dead").await;
        assert_eq!(letters.len(), count as usize, "{letters:#?}");
        letters
    }

    /// Waits until nothing waits in the queue; messages in a worker's hands don't count.
    pub(crate) async fn queue_empty(&self) {
        wait_for("an empty queue", PATIENCE, async || amqp::ready(&self.connection, "deletions").await == 0)
            .await;
    }
}

impl Worker {
    /// `/status`, if it answers.
    pub(crate) async fn status(&self) -> Option<Status> {
        let (status, body) = http::get(&format!("{}/status", self.admin)).await.ok()?;
        (status == 200).then(|| serde_json::from_str(&body).expect("a status"))
    }

    /// Where its admin server listens.
    pub(crate) fn admin_address(&self) -> &str {
        self.admin.trim_start_matches("http://")
    }

    pub(crate) async fn is_consuming(&self) -> bool {
        self.status().await.is_some_and(|status| status.broker.state == BrokerState::Consuming)
    }

    /// The value of a series, without the prefix `deletion_worker_`.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let (_, text) = http::get(&format!("{}/metrics", self.admin)).await.expect("the worker runs");
        let name = format!("deletion_worker_{name}");
        http::series(&text, &name, labels).unwrap_or_else(|| panic!("no series {name} {labels:?}"))
    }

    /// Waits for a condition on the worker.
    pub(crate) async fn wait_until(&self, what: &str, mut condition: impl AsyncFnMut(&Self) -> bool) {
        wait_for(what, PATIENCE, async || condition(self).await).await;
    }

    /// Waits until it has nothing in hand and the broker nothing for it.
    ///
    /// What is between the two isn't seen. It is settled too if all IDs are deleted and each was in one message only; where
    /// messages share IDs, wait with [`Self::counted`] first.
    pub(crate) async fn settled(&self, world: &World) {
        wait_for_some("everything settled", PATIENCE, async || {
            let ready = amqp::ready(&world.connection, "deletions").await;
            let held = self.status().await?.held;
            (ready == 0 && held.messages_unsettled == 0).then_some(())
        })
        .await;
    }

    /// Waits until it takes the endpoint for this.
    pub(crate) async fn endpoint_is(&self, state: EndpointState) {
        let what = format!("the endpoint is {}", state.as_str());
        self.wait_until(&what, async |worker| {
            worker.status().await.is_some_and(|status| status.endpoint.state == state)
        })
        .await;
        // Status and metric are of the same turn.
        for other in EndpointState::ALL {
            let value = self.metric("endpoint_state", &[("state", other.as_str())]).await;
            assert_eq!(value == 1.0, other == state, "endpoint_state is {value} for {}", other.as_str());
        }
    }

    /// Waits until a series has at least this value.
    pub(crate) async fn counted(&self, name: &str, labels: &[(&str, &str)], least: f64) {
        let what = format!("{name} {labels:?} of {least}");
        self.wait_until(&what, async |worker| worker.metric(name, labels).await >= least).await;
    }

    /// Waits until it was connected so many times after the first, and consumes.
    pub(crate) async fn reconnected(&self, times: u64) {
        self.wait_until(&format!("reconnect {times}"), async |worker| {
            let status = worker.status().await;
            status.is_some_and(|status| {
                status.totals.broker_reconnects >= times && status.broker.state == BrokerState::Consuming
            })
        })
        .await;
    }

    /// Waits until it knows that the broker is gone.
    pub(crate) async fn disconnected(&self) {
        self.wait_until("it is disconnected", async |worker| {
            let status = worker.status().await;
            status.is_some_and(|status| matches!(status.broker.state, BrokerState::Disconnected { .. }))
        })
        .await;
    }

    /// The status code of `/readyz`.
    pub(crate) async fn readyz(&self) -> u16 {
        http::get(&format!("{}/readyz", self.admin)).await.expect("the worker runs").0
    }

    /// Asks it to go, and sees that it drains: exit code 0.
    pub(crate) async fn stop(&mut self) {
        self.process.signal("TERM").await;
        let status = self.process.exit(Duration::from_secs(40)).await;
        assert_eq!(status.code(), Some(0), "{:#?}", self.process.stderr.all());
    }
}

/// So many different IDs.
pub(crate) fn ids(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("VI{n}")).collect()
}

fn variable(key: &str) -> String {
    format!("DELETION_WORKER__{}", key.to_uppercase().replace('.', "__"))
}
