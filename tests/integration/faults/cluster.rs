//! Faults of a cluster: members that die, and a network that parts.
//!
//! The worker knows all three members. A publisher goes on meanwhile, and what is confirmed to it has to be deleted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deletion_worker::rabbitmq::{Cluster, Extras};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::support::broker::{Vhost, cluster, connect};
use crate::support::world::Worker;
use crate::support::{PATIENCE, amqp, wait_for, wait_for_some};

use super::drain::{Bounds, Count, Drain, Moment, PREFETCH, Row, moments};

/// One cluster at a time is enough for a machine.
static TURN: Mutex<()> = Mutex::const_new(());
const MEMBERS: usize = 3;
const QUEUE: &str = "deletions";

#[tokio::test]
async fn leader_killed() {
    let _turn = TURN.lock().await;
    let mut row = Row::new("cluster: `kill -9` of the member that leads the queue; it starts again");
    let mut cluster = partible("pause_minority").await;
    for moment in moments(Moment::Percent(50)) {
        let mut scene = Scene::new(&cluster, moment).await;
        let worker = scene.start(&cluster).await;
        let leader = scene.leader;
        cluster.member_mut(leader).kill().await.expect("it runs");
        scene.goes_on().await;
        assert_ne!(scene.leader_now(&cluster).await, leader);
        cluster.member_mut(leader).start_again().await.expect("its ports and files are its own");
        row.add(scene.verify(worker).await);
    }
    row.print();
}

#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn follower_killed() {
    let _turn = TURN.lock().await;
    let mut row = Row::new("cluster: `kill -9` of a member that follows; it starts again");
    let mut cluster = partible("pause_minority").await;
    for moment in moments(Moment::Percent(50)) {
        let mut scene = Scene::new(&cluster, moment).await;
        let worker = scene.start(&cluster).await;
        let is_spared = |member: &usize| [scene.leader, scene.witness].contains(member);
        let follower = (0..MEMBERS).find(|member| !is_spared(member)).expect("a third");
        cluster.member_mut(follower).kill().await.expect("it runs");
        scene.goes_on().await;
        assert_eq!(scene.leader_now(&cluster).await, scene.leader);
        cluster.member_mut(follower).start_again().await.expect("its ports and files are its own");
        row.add(scene.verify(worker).await);
    }
    row.print();
}

/// The minority closes its clients' connections, and the worker goes to the majority.
#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn minority_that_pauses() {
    let _turn = TURN.lock().await;
    let mut row = Row::new("cluster: the worker's member cut off, `pause_minority`; healed");
    let cluster = partible("pause_minority").await;
    for moment in few_moments() {
        let mut scene = Scene::new(&cluster, moment).await;
        let worker = scene.start(&cluster).await;
        let home = scene.home;
        cluster.isolate(home);
        scene.goes_on().await;
        assert!(worker.metric("broker_reconnects_total", &[]).await >= 1.0);
        assert!(!cluster.running(scene.witness).await.expect("it runs").contains(&home));
        cluster.heal();
        wait_for("it is back in the cluster", PATIENCE, async || {
            cluster.running(scene.witness).await.is_ok_and(|running| running.len() == MEMBERS)
        })
        .await;
        row.add(scene.verify(worker).await);
    }
    row.print();
}

/// The minority keeps its clients, who hear nothing until the network is whole again.
#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn minority_that_stays() {
    let _turn = TURN.lock().await;
    let mut row = Row::new("cluster: the worker's member cut off, `ignore`; healed");
    let mut cluster = partible("ignore").await;
    for moment in few_moments() {
        let mut scene = Scene::new(&cluster, moment).await;
        let worker = scene.start(&cluster).await;
        let home = scene.home;
        cluster.isolate(home);
        wait_for("the majority misses it", PATIENCE, async || {
            cluster.running(scene.witness).await.is_ok_and(|running| !running.contains(&home))
        })
        .await;
        cluster.heal();
        // Its channel may wait for ever for what the partition took; the worker has to notice by itself.
        scene.goes_on().await;
        // What it missed of everything but quorum queues it learns by a restart only.
        cluster.member_mut(home).stop().await.expect("it runs");
        cluster.member_mut(home).start_again().await.expect("its ports and files are its own");
        row.add(scene.verify(worker).await);
    }
    row.print();
}

/// The same for long: the worker has to leave a member that has lost the queue.
#[tokio::test]
#[ignore = "run by make test-faults: takes minutes"]
async fn minority_that_stays_for_long() {
    let _turn = TURN.lock().await;
    let mut row = Row::new("cluster: the worker's member cut off for long, `ignore`; healed");
    let mut cluster = partible("ignore").await;
    for moment in few_moments().into_iter().take(1) {
        let mut scene = Scene::new(&cluster, moment).await;
        let worker = scene.start(&cluster).await;
        let home = scene.home;
        cluster.isolate(home);
        scene.goes_on().await;
        cluster.heal();
        cluster.member_mut(home).stop().await.expect("it runs");
        cluster.member_mut(home).start_again().await.expect("its ports and files are its own");
        row.add(scene.verify(worker).await);
    }
    row.print();
}

/// A partition takes long to be noticed, so it comes at the most delicate moments only.
fn few_moments() -> Vec<Moment> {
    let mut moments = moments(Moment::Percent(50));
    if moments.len() > 1 {
        moments.retain(|moment| [Moment::Calls, Moment::Letters].contains(moment));
    }
    moments
}

/// A cluster whose members do this when they lose sight of the others.
async fn partible(handling: &str) -> Cluster {
    let configuration = vec![format!("cluster_partition_handling = {handling}")];
    cluster(&Extras { configuration, ..Extras::default() }).await
}

/// A drain on a cluster.
struct Scene {
    drain: Drain,
    /// Which member leads the queue, and which the worker is connected to, before the fault.
    leader: usize,
    home: usize,
    /// A member that is spared: through it we look and publish.
    witness: usize,
    publisher: Option<Publisher>,
    /// What the publisher published.
    asked: BTreeMap<String, u32>,
}

impl Scene {
    /// Messages in a queue that is replicated on all members.
    async fn new(cluster: &Cluster, moment: Moment) -> Self {
        const FIRST: usize = 0;
        let mut drain = Drain::on(moment, Vhost::on(&cluster.members()[FIRST]).await).await;
        drain.fill().await;
        let leader = leader(cluster, FIRST, &drain.world.vhost.name).await;
        Self { drain, leader, home: FIRST, witness: FIRST, publisher: None, asked: BTreeMap::new() }
    }

    /// Starts the worker, waits for the moment, and publishes from then on.
    async fn start(&mut self, cluster: &Cluster) -> Worker {
        let urls = cluster.amqp_urls(&self.drain.world.vhost.name).join(",");
        let worker = self.drain.world.set("amqp.urls", &urls).start().await;
        self.home = self.home(cluster).await;
        self.witness =
            (0..MEMBERS).find(|member| ![self.leader, self.home].contains(member)).expect("a third");
        let vhost = &mut self.drain.world.vhost;
        let witness = &cluster.members()[self.witness];
        (vhost.url, vhost.management) = (witness.amqp_url(&vhost.name), witness.management());
        self.drain.world.connection = vhost.connect().await;
        self.drain.reached().await;
        self.publisher = Some(Publisher::start(self.drain.world.vhost.url.clone()));
        worker
    }

    /// Which member the worker consumes from.
    async fn home(&self, cluster: &Cluster) -> usize {
        let vhost = &self.drain.world.vhost;
        wait_for_some("the worker's connection shows", PATIENCE, async || {
            let connections = vhost.management.connections(&vhost.name).await.ok()?;
            let is_consuming = |client: &String| client.ends_with("consume");
            let found =
                connections.into_iter().find(|found| found.client.as_ref().is_some_and(is_consuming))?;
            cluster.position(&found.node)
        })
        .await
    }

    async fn leader_now(&self, cluster: &Cluster) -> usize {
        leader(cluster, self.witness, &self.drain.world.vhost.name).await
    }

    /// Sees that from now on deleting and publishing go on, and notes how long that took.
    async fn goes_on(&mut self) {
        let lifted = self.drain.lifted();
        let before = self.drain.world.mock.stats().ids_deleted;
        let more = "it deletes more than it had in hand";
        self.drain
            .again(more, lifted, async |world| world.mock.stats().ids_deleted > before + 2 * PREFETCH)
            .await;
        let publisher = self.publisher.take().expect("started with the worker");
        publisher.confirms().await;
        self.asked = publisher.stop().await;
    }

    async fn verify(mut self, worker: Worker) -> Count {
        self.drain.also(self.asked);
        self.drain.verify(worker, Bounds::ONE_CONNECTION).await
    }
}

async fn leader(cluster: &Cluster, witness: usize, vhost: &str) -> usize {
    wait_for_some("a leader", PATIENCE, async || cluster.leader(witness, vhost, QUEUE).await.ok()?).await
}

/// Publishes in a steady trickle, each message again and again until it is confirmed.
struct Publisher {
    confirmed: Arc<AtomicU64>,
    stop: oneshot::Sender<()>,
    /// Ends with the IDs, and how often each was published.
    task: JoinHandle<BTreeMap<String, u32>>,
}

impl Publisher {
    fn start(url: String) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let confirmed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&confirmed);
        let task = tokio::spawn(async move {
            let mut asked = BTreeMap::new();
            let mut channel = None;
            while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                let ids: Vec<_> = (0..10).map(|n| format!("MEANWHILE{}", asked.len() + n)).collect();
                loop {
                    ids.iter().for_each(|id| *asked.entry(id.clone()).or_default() += 1);
                    if let Ok(Some(())) =
                        timeout(Duration::from_secs(10), publish(&url, &mut channel, &ids)).await
                    {
                        break;
                    }
                    channel = None;
                }
                count.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(20)).await;
            }
            asked
        });
        Self { confirmed, stop, task }
    }

    /// Waits until something is confirmed that is published from now on.
    async fn confirms(&self) {
        let before = self.confirmed.load(Ordering::Relaxed);
        // The first may be of what was published before.
        wait_for("publishes confirmed", PATIENCE, async || {
            self.confirmed.load(Ordering::Relaxed) > before + 1
        })
        .await;
    }

    async fn stop(self) -> BTreeMap<String, u32> {
        drop(self.stop);
        timeout(PATIENCE, self.task).await.expect("the last ones confirmed").expect("it doesn't panic")
    }
}

/// Publishes one message for each ID, on `channel` if there is one; `None` unless all are confirmed.
async fn publish(url: &str, channel: &mut Option<Channel>, ids: &[String]) -> Option<()> {
    let channel = match channel {
        Some(channel) => channel,
        None => {
            let new = connect(url).await.create_channel().await.ok()?;
            new.confirm_select(ConfirmSelectOptions::default()).await.ok()?;
            channel.insert(new)
        }
    };
    for id in ids {
        let body = format!(r#"{{"videoNo":"{id}"}}"#);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, key) = ("deletions".into(), "delete".into());
        let publish = channel.basic_publish(exchange, key, options, body.as_bytes(), amqp::persistent());
        if !matches!(publish.await.ok()?.await.ok()?, Confirmation::Ack(None)) {
            return None;
        }
    }
    Some(())
}
