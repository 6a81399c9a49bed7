//! Everything at once, for as long as it is told: load, faults of every kind at random, workers that come and go.
//!
//! `make soak MINUTES=30`. One worker, the elder, is spared all signals, so that what it holds can be watched over time.
//! At the end all faults are lifted, everything has to be settled, and every message is accounted for.

mod account;
mod broker;
mod crew;
mod endpoint;
mod gauge;
mod load;
mod network;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;
use std::time::{Duration, Instant};

use deletion_worker::mock::Faults;
use fastrand::Rng;

use self::crew::Crew;
use self::gauge::Gauge;
use self::load::Load;
use self::network::Network;
use crate::support::broker::{Vhost, node};
use crate::support::wait_for;
use crate::support::world::World;

/// Workers besides the elder.
const WORKERS: usize = 3;
/// From the end of the last fault until everything is settled.
const DRAIN_PATIENCE: Duration = Duration::from_secs(300);

/// What all parts of a run see.
struct Soak {
    world: World,
    began: Instant,
    ends: Instant,
    load: RefCell<Load>,
    gauge: RefCell<Gauge>,
    /// How often each fault was there.
    faults: RefCell<BTreeMap<&'static str, u64>>,
}

#[tokio::test]
#[ignore = "run by `make soak`, for as long as it is told"]
async fn everything_at_once() {
    let minutes: f64 = given("SOAK_MINUTES").unwrap_or(1.0);
    let seed: u64 = given("SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    let mut node = node().await;
    let version = node.management().version().await.expect("the node serves");
    say(&format!("soak: {minutes} minutes on RabbitMQ {version}, seed {seed}"));

    let mut world = World::on(Vhost::on(&node).await).await;
    configure(&mut world);
    let (for_elder, for_others) = (world.proxy().await, world.proxy().await);
    world.set("amqp.urls", &world.vhost.url_through(for_elder.address));
    let elder = world.start().await;
    world.set("amqp.urls", &world.vhost.url_through(for_others.address));
    let mut crew = Crew::new(elder);
    let mut network = Network { for_elder, for_others };

    let began = Instant::now();
    let soak = Soak {
        world,
        began,
        ends: began + Duration::from_secs_f64(minutes * 60.0),
        load: RefCell::default(),
        gauge: RefCell::default(),
        faults: RefCell::default(),
    };
    // The order of what each draws depends on nothing but the seed.
    let mut seeds = Rng::with_seed(seed);
    let mut rng = || seeds.fork();
    tokio::join!(
        load::publish(&soak, rng()),
        endpoint::fail(&soak, rng()),
        network::fail(&soak, &mut network, rng()),
        broker::fail(&soak, &mut node, rng()),
        crew.come_and_go(&soak, rng()),
        gauge::watch(&soak),
    );
    say("soak: all faults are lifted; draining");
    crew.settled(&soak).await;
    gauge::last_look(&soak);
    crew.stop().await;
    let verdict = account::settle(soak).await;
    say(&verdict.to_string());
    verdict.pass();
}

/// All replicas share the queue, so that all of them are at work; and everything is quick, so that much happens.
fn configure(world: &mut World) {
    for (key, value) in [
        ("amqp.single_active_consumer", "false"),
        ("amqp.heartbeat", "5s"),
        ("batch.max_ids", "100"),
        ("endpoint.connect_timeout", "2s"),
        ("endpoint.timeout", "3s"),
        ("health.release_after", "5s"),
        ("health.probe_max", "1s"),
        ("log.level", "info"),
        ("retry.max", "1s"),
        ("shutdown.grace", "10s"),
    ] {
        world.set(key, value);
    }
    world.mock.set_faults(healthy());
}

/// An endpoint without faults: it takes a moment, and it knows a bad ID when it sees one.
fn healthy() -> Faults {
    Faults {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(20),
        bad_prefix: Some(load::BAD.into()),
        ..Faults::default()
    }
}

impl Soak {
    fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }

    /// Lets some time pass, so many milliseconds, or what is left; false at the end. What is waited for here is the
    /// passing of time itself.
    async fn rest(&self, rng: &mut Rng, millis: Range<u64>) -> bool {
        let rest = Duration::from_millis(rng.u64(millis));
        tokio::time::sleep_until((Instant::now() + rest).min(self.ends).into()).await;
        !self.is_over()
    }

    /// Counts a fault.
    fn struck(&self, fault: &'static str) {
        *self.faults.borrow_mut().entry(fault).or_default() += 1;
    }
}

/// What the environment says, if it says anything.
fn given<T: FromStr<Err: Display>>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name} is {text:?}: {error}")))
}

#[expect(clippy::print_stdout, reason = "a run takes long, and somebody watches")]
fn say(line: &str) {
    println!("{line}");
}
