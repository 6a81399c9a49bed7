//! The broker that the tests of one run share, and a virtual host for each.

use std::net::SocketAddr;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use deletion_worker::rabbitmq::{Cluster, Extras, Management, Node, Rabbitmq};
use lapin::{Connection, ConnectionProperties};
use tokio::sync::{Mutex, OnceCell};

/// Started by whichever test comes first; gone when the process is.
static SHARED: OnceCell<Rabbitmq> = OnceCell::const_new();
/// Whose turn it is to start nodes: the first may have to install RabbitMQ, and several at once take longer.
static TURN: Mutex<()> = Mutex::const_new(());
static VHOSTS: AtomicU64 = AtomicU64::new(0);

/// The shared broker. Whoever stops or alarms it disturbs everybody: such tests start a node of their own.
pub(crate) async fn shared() -> &'static Rabbitmq {
    SHARED
        .get_or_init(async || {
            let said = std::sync::Mutex::new(Vec::new());
            let say =
                |sentence: &str| said.lock().expect("nobody panics holding it").push(sentence.to_owned());
            match Rabbitmq::provide(say).await {
                Ok(broker) => broker,
                Err(error) => panic!("no broker: {error:#}; {said:?}"),
            }
        })
        .await
}

/// A node of the test's own, to be stopped, killed and alarmed.
pub(crate) async fn node() -> Node {
    node_with(&Extras::default()).await
}

/// The same with a configuration of its own.
pub(crate) async fn node_with(extras: &Extras) -> Node {
    // The shared one is installed first, if that is necessary.
    shared().await;
    let _turn = TURN.lock().await;
    Rabbitmq::private(extras, |_| ()).await.expect("RabbitMQ is installed, or can be")
}

/// Lets the leader of a quorum queue answer nobody until its messages have been counted so often, or for ten seconds.
pub(crate) async fn hold_leader(node: &Node, vhost: &str, queue: &str, counts: u32) {
    let hold = format!(
        "{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"{queue}\">>)),
         {{Name, _}} = amqqueue:get_pid(Queue),
         Leader = whereis(Name),
         Counts = fun() ->
             {{messages, All}} = process_info(Leader, messages),
             length([count || {{'$gen_call', _, Call}} <- All, element(1, Call) =:= local_query])
         end,
         Wait = fun Wait(Rounds) ->
             case Rounds =:= 0 orelse Counts() >= {counts} of
                 true -> sys:resume(Leader);
                 false -> timer:sleep(10), Wait(Rounds - 1)
             end
         end,
         ok = sys:suspend(Leader),
         spawn(fun() -> Wait(1000) end)."
    );
    node.ctl(&["eval", &hold]).await.expect("the node serves, and has the queue");
}

/// A cluster of the test's own, in which nobody resolves a partition but by `extras`.
pub(crate) async fn cluster(extras: &Extras) -> Cluster {
    shared().await;
    let _turn = TURN.lock().await;
    Rabbitmq::cluster(extras, |_| ()).await.expect("RabbitMQ is installed, or can be")
}

/// An empty virtual host on the shared broker.
pub(crate) async fn vhost() -> Vhost {
    Vhost::create(shared().await).await
}

/// A virtual host, deleted with all that is in it when this is dropped.
pub(crate) struct Vhost {
    /// Its name, which no other test has.
    pub(crate) name: String,
    /// User, password and virtual host included.
    pub(crate) url: String,
    /// The broker's HTTP API.
    pub(crate) management: Management,
}

impl Vhost {
    /// Creates one on any broker.
    pub(crate) async fn create(broker: &Rabbitmq) -> Self {
        let management = broker.management().expect("the tests need a broker with the management plugin");
        Self::at(management, |name| broker.amqp_url(name)).await
    }

    /// Creates one on a node of the test's own, which may be stopped and killed.
    pub(crate) async fn on(node: &Node) -> Self {
        Self::at(node.management(), |name| node.amqp_url(name)).await
    }

    async fn at(management: Management, url: impl FnOnce(&str) -> String) -> Self {
        let name = format!("test-{}-{}", process::id(), VHOSTS.fetch_add(1, Ordering::Relaxed));
        management.create_vhost(&name).await.expect("the broker serves");
        Self { url: url(&name), name, management }
    }

    /// The broker's address, for a proxy in front of it.
    pub(crate) fn address(&self) -> String {
        let url = self.parsed_url();
        format!("{}:{}", url.host_str().expect("a host"), url.port().unwrap_or(5672))
    }

    /// [`Self::url`] by way of another address.
    pub(crate) fn url_through(&self, address: SocketAddr) -> String {
        let mut url = self.parsed_url();
        url.set_ip_host(address.ip()).expect("an amqp URL has a host");
        url.set_port(Some(address.port())).expect("an amqp URL has a port");
        url.to_string()
    }

    /// [`Self::url`] as somebody else.
    pub(crate) fn url_as(&self, user: &str, password: &str) -> String {
        let mut url = self.parsed_url();
        url.set_username(user).expect("an amqp URL has a user");
        url.set_password(Some(password)).expect("an amqp URL has a password");
        url.to_string()
    }

    fn parsed_url(&self) -> url::Url {
        url::Url::parse(&self.url).expect("the broker's URL is well-formed")
    }

    /// A new connection to it.
    pub(crate) async fn connect(&self) -> Connection {
        connect(&self.url).await
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let (name, management) = (self.name.clone(), self.management.clone());
        // On a runtime of its own, as the test's is busy running this. Best effort: the broker may be down.
        let deleted = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(management.delete_vhost(&name)).is_ok())
        });
        let _ = deleted.join();
    }
}

/// A new connection to `url`.
pub(crate) async fn connect(url: &str) -> Connection {
    Connection::connect(url, ConnectionProperties::default()).await.expect("the broker serves")
}
