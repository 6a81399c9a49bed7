//! A broker for `deletion-worker demo` and the tests: the given one, a container, or a private node.
//!
//! Whatever was started is gone when its [`Rabbitmq`] is dropped, and also when this process is killed.

mod cluster;
mod container;
mod install;
mod link;
mod management;
mod node;
mod ports;

use std::env;
use std::ffi::OsString;

use anyhow::{Context, Result};
use url::Url;

pub use cluster::Cluster;
pub use container::Container;
pub use management::{Connection, Error as ManagementError, Management, Message, Queue};
pub use node::{Extras, Node};

/// A broker that can be used.
#[derive(Debug)]
pub enum Rabbitmq {
    /// Named by `AMQP_URL`: somebody else's, so nothing on it is touched but what we created.
    Given {
        /// Where it is, with the virtual host to use.
        url: Url,
        /// Its HTTP API, if there is one.
        management: Option<Management>,
    },
    /// In Docker.
    Container(Container),
    /// A private node of an installed RabbitMQ.
    Node(Node),
}

/// Where [`Rabbitmq::provide_from`] looks for a broker.
#[derive(Clone, Debug)]
pub struct Sources {
    /// `AMQP_URL`: a broker to be used as it is.
    pub amqp_url: Option<String>,
    /// `RABBITMQ_MANAGEMENT_URL`: its HTTP API; without it, port 15672 of the same host.
    pub management_url: Option<String>,
    /// The Docker client.
    pub docker: OsString,
}

impl Sources {
    /// What the environment names.
    #[must_use]
    pub fn from_env() -> Self {
        let given = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            amqp_url: given("AMQP_URL"),
            management_url: given("RABBITMQ_MANAGEMENT_URL"),
            docker: "docker".into(),
        }
    }
}

impl Rabbitmq {
    /// Finds or starts a broker as the environment allows; tells `say` each step, one sentence at a time.
    ///
    /// # Errors
    /// Names what to install or to set if there is no way to a broker.
    pub async fn provide(say: impl Fn(&str)) -> Result<Self> {
        Self::provide_from(&Sources::from_env(), say).await
    }

    /// [`Self::provide`] from other sources than the environment's.
    ///
    /// # Errors
    /// As there.
    pub async fn provide_from(sources: &Sources, say: impl Fn(&str)) -> Result<Self> {
        if let Some(url) = &sources.amqp_url {
            return Self::given(url, sources.management_url.as_deref(), say).await;
        }
        match Container::start(&sources.docker, &say).await {
            Ok(container) => return Ok(Self::Container(container)),
            Err(error) => say(&format!("Not using Docker: {error:#}.")),
        }
        Self::private(&Extras::default(), say).await.map(Self::Node)
    }

    /// Starts a private node, after installing RabbitMQ if that is missing.
    ///
    /// # Errors
    /// As [`Self::provide`].
    pub async fn private(extras: &Extras, say: impl Fn(&str)) -> Result<Node> {
        install::if_missing(&say).await?;
        say("Starting a private RabbitMQ node on loopback; it and its files vanish when this program ends.");
        Node::start_with(extras).await
    }

    /// Starts a private cluster likewise.
    ///
    /// # Errors
    /// As [`Self::provide`].
    pub async fn cluster(extras: &Extras, say: impl Fn(&str)) -> Result<Cluster> {
        install::if_missing(&say).await?;
        say("Starting three private RabbitMQ nodes on loopback; they vanish when this program ends.");
        Cluster::start(extras).await
    }

    /// A URL for `vhost` (not percent-encoded), user and password included.
    #[must_use]
    pub fn amqp_url(&self, vhost: &str) -> String {
        match self {
            Self::Given { url, .. } => with_vhost(url, vhost),
            Self::Container(container) => container.amqp_url(vhost),
            Self::Node(node) => node.amqp_url(vhost),
        }
    }

    /// The HTTP API; `None` only if the given broker has none.
    #[must_use]
    pub fn management(&self) -> Option<Management> {
        match self {
            Self::Given { management, .. } => management.clone(),
            Self::Container(container) => Some(container.management()),
            Self::Node(node) => Some(node.management()),
        }
    }

    async fn given(amqp: &str, management: Option<&str>, say: impl Fn(&str)) -> Result<Self> {
        let url = Url::parse(amqp).context("failed to read AMQP_URL")?;
        let host = url.host_str().context("failed to find a host in AMQP_URL")?;
        say(&format!("Using the broker at {host}:{} as AMQP_URL says.", url.port().unwrap_or(5672)));
        let api = match management {
            Some(text) => Url::parse(text).context("failed to read RABBITMQ_MANAGEMENT_URL")?,
            None => Url::parse(&format!("http://{host}:15672"))?,
        };
        let (user, password) = if api.username().is_empty() { credentials(&url) } else { credentials(&api) };
        let api = Management::new(&api, &user, &password);
        let management = match api.ready().await {
            Ok(()) => Some(api),
            Err(error) => {
                say(&format!("Its management API is not usable ({error}); doing without."));
                None
            }
        };
        Ok(Self::Given { url, management })
    }
}

/// User and password of `url`, decoded; the broker's defaults where it names none.
fn credentials(url: &Url) -> (String, String) {
    let user = if url.username().is_empty() { "guest".to_owned() } else { percent_decode(url.username()) };
    (user, url.password().map_or_else(|| "guest".to_owned(), percent_decode))
}

fn with_vhost(url: &Url, vhost: &str) -> String {
    let mut url = url.clone();
    // As one segment: `/` becomes `%2F`, which is how AMQP URLs name the default virtual host.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().push(vhost);
    }
    url.to_string()
}

/// Undoes the escapes of a part of a URL.
fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_host_is_one_segment_of_the_url() {
        let url = Url::parse("amqp://guest:guest@127.0.0.1:5672/old?heartbeat=5").expect("well-formed");
        assert_eq!(with_vhost(&url, "/"), "amqp://guest:guest@127.0.0.1:5672/%2F?heartbeat=5");
        assert_eq!(with_vhost(&url, "a b/c"), "amqp://guest:guest@127.0.0.1:5672/a%20b%2Fc?heartbeat=5");
        let bare = Url::parse("amqp://broker").expect("well-formed");
        assert_eq!(with_vhost(&bare, "v"), "amqp://broker/v");
    }

    #[test]
    fn credentials_are_decoded_and_default_to_the_brokers() {
        let url = |text| Url::parse(text).expect("well-formed");
        assert_eq!(credentials(&url("amqp://u%2Fx:p%40%3D+&@h")), ("u/x".into(), "p@=+&".into()));
        assert_eq!(credentials(&url("amqp://h")), ("guest".into(), "guest".into()));
    }
}
