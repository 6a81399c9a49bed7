//! Where the demo plays: a virtual host of its own where that is possible, and names nobody else has in any case.

use std::ffi::OsString;
use std::net::SocketAddr;

use anyhow::{Result, anyhow};

use super::script::REQUESTS_PER_SECOND;
use crate::broker::desk::Desk;
use crate::config::{Config, Need};
use crate::rabbitmq::Rabbitmq;

/// The token that the demo's endpoint asks for.
pub const TOKEN: &str = "demo-token";

/// The names on the broker. Everything under them is the demo's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// With user, password and virtual host.
    pub amqp_url: String,
    /// The virtual host that is deleted in the end; `None`: only queues and exchanges are.
    pub vhost: Option<String>,
    /// `amqp.queue`.
    pub queue: String,
    /// `amqp.exchange`.
    pub exchange: String,
    /// `amqp.routing_key`.
    pub routing_key: &'static str,
    /// `dead_letter.exchange`.
    pub dead_exchange: String,
    /// `dead_letter.queue`.
    pub dead_queue: String,
}

impl Stage {
    /// Creates a virtual host if the broker's management API is there and lets us; else makes up names for the
    /// virtual host that the broker's URL names.
    pub async fn build(broker: &Rabbitmq, say: impl Fn(&str)) -> Self {
        let name = format!("deletion-worker-demo-{:08x}", fastrand::u32(..));
        let Some(management) = broker.management() else { return Self::in_shared_vhost(broker, &name) };
        match management.create_vhost(&name).await {
            Ok(()) => Self::named(broker.amqp_url(&name), Some(name), "deletions"),
            Err(error) => {
                say(&format!("No virtual host of our own ({error}); using names of our own instead."));
                Self::in_shared_vhost(broker, &name)
            }
        }
    }

    /// What is deleted in the end, for people.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.vhost {
            Some(vhost) => format!("the virtual host `{vhost}`"),
            None => format!("queues and exchanges whose names begin with `{}`", self.queue),
        }
    }

    /// Deletes everything under the names.
    ///
    /// # Errors
    /// What the broker or its API said; nothing more is tried after that.
    pub async fn strike(&self, broker: &Rabbitmq) -> Result<()> {
        if let (Some(vhost), Some(management)) = (&self.vhost, broker.management()) {
            return Ok(management.delete_vhost(vhost).await?);
        }
        let desk = Desk::open(&self.config()?).await?;
        desk.strike().await?;
        desk.close().await;
        Ok(())
    }

    /// The worker's configuration as environment variables: the documented defaults, but for what makes a demo short.
    #[must_use]
    pub fn environment(&self, endpoint: SocketAddr) -> Vec<(&'static str, String)> {
        let mut environment = self.names();
        environment.extend([
            ("DELETION_WORKER__ENDPOINT__API", "v1.0".to_owned()),
            ("DELETION_WORKER__ENDPOINT__URL", format!("http://{endpoint}/api/serve/video/delete")),
            ("DELETION_WORKER__ENDPOINT__TOKEN", TOKEN.to_owned()),
            ("DELETION_WORKER__ENDPOINT__REQUESTS_PER_SECOND", REQUESTS_PER_SECOND.to_string()),
            // An outage of seconds, not of minutes.
            ("DELETION_WORKER__HEALTH__PROBE_INITIAL", "200ms".to_owned()),
            ("DELETION_WORKER__HEALTH__PROBE_MAX", "500ms".to_owned()),
            ("DELETION_WORKER__RETRY__INITIAL", "100ms".to_owned()),
            ("DELETION_WORKER__RETRY__MAX", "1s".to_owned()),
            // Any free port; the worker logs which.
            ("DELETION_WORKER__ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ]);
        environment
    }

    /// The same as far as the broker is concerned, for those who join the worker there.
    ///
    /// # Errors
    /// `AMQP_URL` is none that the worker takes.
    pub fn config(&self) -> Result<Config> {
        let names = self.names().into_iter().map(|(name, value)| (OsString::from(name), value.into()));
        let loaded = Config::load(None, names, &[], Need::Broker);
        loaded
            .map(|loaded| loaded.config)
            .map_err(|problems| anyhow!("the broker can't be used:\n{problems}"))
    }

    fn names(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DELETION_WORKER__AMQP__URLS", self.amqp_url.clone()),
            ("DELETION_WORKER__AMQP__QUEUE", self.queue.clone()),
            ("DELETION_WORKER__AMQP__EXCHANGE", self.exchange.clone()),
            ("DELETION_WORKER__AMQP__ROUTING_KEY", self.routing_key.to_owned()),
            ("DELETION_WORKER__DEAD_LETTER__EXCHANGE", self.dead_exchange.clone()),
            ("DELETION_WORKER__DEAD_LETTER__QUEUE", self.dead_queue.clone()),
        ]
    }

    fn in_shared_vhost(broker: &Rabbitmq, name: &str) -> Self {
        let amqp_url = match broker {
            Rabbitmq::Given { url, .. } => url.to_string(),
            Rabbitmq::Container(_) | Rabbitmq::Node(_) => broker.amqp_url("/"),
        };
        Self::named(amqp_url, None, name)
    }

    fn named(amqp_url: String, vhost: Option<String>, queue: &str) -> Self {
        Self {
            amqp_url,
            vhost,
            queue: queue.to_owned(),
            exchange: queue.to_owned(),
            routing_key: "delete",
            dead_exchange: format!("{queue}.dlx"),
            dead_queue: format!("{queue}.dead"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(url: &str) -> Rabbitmq {
        Rabbitmq::Given { url: url::Url::parse(url).expect("well-formed"), management: None }
    }

    #[tokio::test]
    async fn without_the_management_api_every_name_is_our_own() {
        let broker = given("amqp://u:p@broker/some%2Fvhost?heartbeat=5");
        let stage = Stage::build(&broker, |_| {}).await;
        assert_eq!(stage.amqp_url, "amqp://u:p@broker/some%2Fvhost?heartbeat=5");
        assert_eq!(stage.vhost, None);
        for name in [&stage.queue, &stage.exchange, &stage.dead_exchange, &stage.dead_queue] {
            assert!(name.starts_with("deletion-worker-demo-"), "{name}");
        }
        assert_ne!(stage.queue, Stage::build(&broker, |_| {}).await.queue);
    }

    #[test]
    fn the_worker_takes_the_environment_and_others_find_it_there() {
        let stage = Stage::named("amqp://broker".to_owned(), None, "q");
        let environment = stage.environment(SocketAddr::from(([127, 0, 0, 1], 1)));
        let environment = environment.into_iter().map(|(name, value)| (name.into(), value.into()));
        let worker = Config::load(None, environment, &[], Need::Worker).expect("sound").config;
        let others = stage.config().expect("sound");
        for config in [worker, others] {
            assert_eq!((config.amqp.queue.as_str(), config.amqp.exchange.as_str()), ("q", "q"));
            assert_eq!(
                (config.dead_letter.queue.as_str(), config.dead_letter.exchange.as_str()),
                ("q.dead", "q.dlx")
            );
        }
    }
}
