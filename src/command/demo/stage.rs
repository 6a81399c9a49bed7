//! Where the demo plays: a virtual host of its own where that is possible, and names nobody else has in any case.

use std::net::SocketAddr;

use super::script::REQUESTS_PER_SECOND;
use crate::rabbitmq::{Management, ManagementError, Rabbitmq, percent_decode};

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

    /// Deletes everything under the names.
    ///
    /// # Errors
    /// What the broker's API said; nothing more is tried after that.
    pub async fn strike(&self, management: &Management) -> Result<(), ManagementError> {
        if let Some(vhost) = &self.vhost {
            return management.delete_vhost(vhost).await;
        }
        let vhost = self.shared_vhost();
        for queue in [&self.queue, &self.dead_queue] {
            management.delete_queue(&vhost, queue).await?;
        }
        for exchange in [&self.exchange, &self.dead_exchange] {
            management.delete_exchange(&vhost, exchange).await?;
        }
        Ok(())
    }

    /// The worker's configuration as environment variables: the documented defaults, but for what makes a demo short.
    #[must_use]
    pub fn environment(&self, endpoint: SocketAddr, admin: SocketAddr) -> Vec<(&'static str, String)> {
        vec![
            ("DELETION_WORKER__AMQP__URLS", self.amqp_url.clone()),
            ("DELETION_WORKER__AMQP__QUEUE", self.queue.clone()),
            ("DELETION_WORKER__AMQP__EXCHANGE", self.exchange.clone()),
            ("DELETION_WORKER__AMQP__ROUTING_KEY", self.routing_key.to_owned()),
            ("DELETION_WORKER__DEAD_LETTER__EXCHANGE", self.dead_exchange.clone()),
            ("DELETION_WORKER__DEAD_LETTER__QUEUE", self.dead_queue.clone()),
            ("DELETION_WORKER__ENDPOINT__API", "v1.0".to_owned()),
            ("DELETION_WORKER__ENDPOINT__URL", format!("http://{endpoint}/api/serve/video/delete")),
            ("DELETION_WORKER__ENDPOINT__TOKEN", TOKEN.to_owned()),
            ("DELETION_WORKER__ENDPOINT__REQUESTS_PER_SECOND", REQUESTS_PER_SECOND.to_string()),
            // An outage of seconds, not of minutes.
            ("DELETION_WORKER__HEALTH__PROBE_INITIAL", "200ms".to_owned()),
            ("DELETION_WORKER__HEALTH__PROBE_MAX", "500ms".to_owned()),
            ("DELETION_WORKER__RETRY__INITIAL", "100ms".to_owned()),
            ("DELETION_WORKER__RETRY__MAX", "1s".to_owned()),
            ("DELETION_WORKER__ADMIN__LISTEN", admin.to_string()),
            ("DELETION_WORKER__LOG__LEVEL", "warn".to_owned()),
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

    /// The virtual host in the URL; a URL that names none means `/`.
    fn shared_vhost(&self) -> String {
        let path = self.amqp_url.splitn(4, '/').nth(3).and_then(|rest| rest.split('?').next());
        path.filter(|path| !path.is_empty()).map_or_else(|| "/".to_owned(), percent_decode)
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
        assert_eq!((stage.vhost.as_deref(), stage.shared_vhost().as_str()), (None, "some/vhost"));
        for name in [&stage.queue, &stage.exchange, &stage.dead_exchange, &stage.dead_queue] {
            assert!(name.starts_with("deletion-worker-demo-"), "{name}");
        }
        assert_ne!(stage.queue, Stage::build(&broker, |_| {}).await.queue);
        assert_eq!(Stage::build(&given("amqp://broker"), |_| {}).await.shared_vhost(), "/");
    }

    #[test]
    fn every_variable_is_a_documented_key() {
        let stage = Stage::named("amqp://broker".to_owned(), None, "q");
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let known: Vec<String> = crate::config::keys().map(|key| key.variable).collect();
        for (name, _) in stage.environment(address, address) {
            assert!(known.iter().any(|key| key == name), "{name}");
        }
    }
}
