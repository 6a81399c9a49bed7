//! The part of RabbitMQ's HTTP API that the demo and the tests need.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use url::Url;

/// The HTTP API of one broker. Whatever fails fails with an [`Error`].
///
/// Its numbers come from samples, so they lag behind; where the latest matters, declare the queue passively.
#[derive(Debug)]
pub struct Management {
    base: Url,
    user: String,
    password: String,
    client: reqwest::Client,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer.
    #[error("no answer from the management API")]
    Unreachable(#[source] reqwest::Error),
    /// It said no.
    #[error("the management API answered {status} to {request}: {body}")]
    Refused {
        /// Method and path.
        request: String,
        /// What it said.
        status: StatusCode,
        /// And why.
        body: String,
    },
    /// It answered something else than the documented JSON.
    #[error("the management API's answer makes no sense")]
    Unreadable(#[source] serde_json::Error),
}

/// A queue as the broker sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Waiting for a consumer.
    #[serde(default, rename = "messages_ready")]
    pub ready: u64,
    /// With a consumer.
    #[serde(default, rename = "messages_unacknowledged")]
    pub unacked: u64,
    /// All of them, with those that are kept until the broker has dead-lettered them.
    #[serde(default)]
    pub messages: u64,
    /// How many there are.
    #[serde(default)]
    pub consumers: u64,
    /// What it was declared with.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// A client's connection.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Connection {
    /// The broker's name for it: both addresses.
    pub name: String,
    /// The client's name for it, if it gave one.
    #[serde(default, rename = "user_provided_name")]
    pub client: Option<String>,
    /// Its virtual host.
    #[serde(default)]
    pub vhost: String,
    /// `running`, `blocked`, ...
    #[serde(default)]
    pub state: String,
    /// The node that serves it.
    #[serde(default)]
    pub node: String,
}

/// A message taken with [`Management::get`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Message {
    /// The body, if it is UTF-8, else its base64 form.
    pub payload: String,
    /// `string` or `base64`.
    pub payload_encoding: String,
    /// It was delivered before.
    pub redelivered: bool,
    /// Properties; headers under `headers`. An empty set comes as an empty array.
    pub properties: Value,
}

type Result<T> = std::result::Result<T, Error>;

impl Management {
    /// Names the API at `base`; nothing is sent yet. Credentials in `base` count for nothing.
    #[must_use]
    pub fn new(base: &Url, user: &str, password: &str) -> Self {
        // reqwest is built without a TLS provider of its own; a second installation is refused and changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(20))
            .no_proxy()
            .build()
            .expect("no option given can fail");
        let mut base = base.clone();
        // Left in the URL they would be sent a second time. Only a URL without a host refuses, and has none.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        Self { base, user: user.to_owned(), password: password.to_owned(), client }
    }

    /// Where it is.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Succeeds if the broker serves.
    pub async fn ready(&self) -> Result<()> {
        self.send(Method::GET, &["vhosts"], None).await.map(drop)
    }

    /// The broker's version, such as `4.0.5`.
    pub async fn version(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Answer {
            rabbitmq_version: String,
        }
        self.read(Method::GET, &["overview"], None).await.map(|answer: Answer| answer.rabbitmq_version)
    }

    /// Creates a virtual host in which our user may do everything.
    pub async fn create_vhost(&self, vhost: &str) -> Result<()> {
        self.send(Method::PUT, &["vhosts", vhost], Some(json!({}))).await?;
        self.set_permissions(vhost, &self.user, [".*"; 3]).await
    }

    /// Deletes a virtual host and everything in it, and closes its connections.
    pub async fn delete_vhost(&self, vhost: &str) -> Result<()> {
        self.send(Method::DELETE, &["vhosts", vhost], None).await.map(drop)
    }

    /// The names of all virtual hosts.
    pub async fn vhosts(&self) -> Result<Vec<String>> {
        let all: Vec<BTreeMap<String, Value>> = self.read(Method::GET, &["vhosts"], None).await?;
        let name = |vhost: &BTreeMap<String, Value>| Some(vhost.get("name")?.as_str()?.to_owned());
        Ok(all.iter().filter_map(name).collect())
    }

    /// Creates a user without any permission, or changes its password and tags (`administrator`, or none: a user
    /// without tags may not use this API).
    pub async fn set_user(&self, user: &str, password: &str, tags: &str) -> Result<()> {
        let body = json!({ "password": password, "tags": tags });
        self.send(Method::PUT, &["users", user], Some(body)).await.map(drop)
    }

    /// Deletes a user.
    pub async fn delete_user(&self, user: &str) -> Result<()> {
        self.send(Method::DELETE, &["users", user], None).await.map(drop)
    }

    /// Says what `user` may configure, write and read in `vhost`: a regular expression each.
    pub async fn set_permissions(&self, vhost: &str, user: &str, permissions: [&str; 3]) -> Result<()> {
        let [configure, write, read] = permissions;
        let body = json!({ "configure": configure, "write": write, "read": read });
        self.send(Method::PUT, &["permissions", vhost, user], Some(body)).await.map(drop)
    }

    /// Shuts `user` out of `vhost`. Connections it has there stay.
    pub async fn clear_permissions(&self, vhost: &str, user: &str) -> Result<()> {
        self.send(Method::DELETE, &["permissions", vhost, user], None).await.map(drop)
    }

    /// Declares a durable queue with `arguments`, an object.
    pub async fn declare_queue(&self, vhost: &str, queue: &str, arguments: Value) -> Result<()> {
        let body = json!({ "durable": true, "arguments": arguments });
        self.send(Method::PUT, &["queues", vhost, queue], Some(body)).await.map(drop)
    }

    /// Deletes a queue with what it holds.
    pub async fn delete_queue(&self, vhost: &str, queue: &str) -> Result<()> {
        self.send(Method::DELETE, &["queues", vhost, queue], None).await.map(drop)
    }

    /// Throws away what is ready in a queue.
    pub async fn purge_queue(&self, vhost: &str, queue: &str) -> Result<()> {
        self.send(Method::DELETE, &["queues", vhost, queue, "contents"], None).await.map(drop)
    }

    /// One queue's last sample.
    pub async fn queue(&self, vhost: &str, queue: &str) -> Result<Queue> {
        self.read(Method::GET, &["queues", vhost, queue], None).await
    }

    /// Sets a policy for the queues whose names match `pattern`.
    pub async fn set_policy(&self, vhost: &str, name: &str, pattern: &str, definition: Value) -> Result<()> {
        let body = json!({ "pattern": pattern, "apply-to": "queues", "definition": definition });
        self.send(Method::PUT, &["policies", vhost, name], Some(body)).await.map(drop)
    }

    /// The clients' connections to one virtual host, as of the last sample.
    pub async fn connections(&self, vhost: &str) -> Result<Vec<Connection>> {
        let all: Vec<Connection> = self.read(Method::GET, &["connections"], None).await?;
        Ok(all.into_iter().filter(|connection| connection.vhost == vhost).collect())
    }

    /// Closes a connection as an operator would: the client gets 320 `CONNECTION_FORCED`.
    pub async fn close_connection(&self, name: &str) -> Result<()> {
        self.send(Method::DELETE, &["connections", name], None).await.map(drop)
    }

    /// Publishes a text; says whether it reached a queue.
    pub async fn publish(&self, vhost: &str, exchange: &str, routing_key: &str, text: &str) -> Result<bool> {
        #[derive(Deserialize)]
        struct Answer {
            routed: bool,
        }
        let body = json!({
            "properties": { "delivery_mode": 2 }, "routing_key": routing_key,
            "payload": text, "payload_encoding": "string",
        });
        let path = ["exchanges", vhost, exchange, "publish"];
        self.read(Method::POST, &path, Some(body)).await.map(|answer: Answer| answer.routed)
    }

    /// Takes up to `count` messages from a queue, for good.
    pub async fn get(&self, vhost: &str, queue: &str, count: usize) -> Result<Vec<Message>> {
        let body = json!({ "count": count, "ackmode": "ack_requeue_false", "encoding": "auto" });
        self.read(Method::POST, &["queues", vhost, queue, "get"], Some(body)).await
    }

    async fn read<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<Value>,
    ) -> Result<T> {
        let bytes = self.send(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(Error::Unreadable)
    }

    async fn send(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<bytes::Bytes> {
        let mut url = self.base.clone();
        // Segments are escaped one by one, so a virtual host `/` becomes `%2F`.
        url.path_segments_mut().expect("an http URL").pop_if_empty().push("api").extend(path);
        let request = format!("{method} {}", url.path());
        let mut builder = self.client.request(method, url).basic_auth(&self.user, Some(&self.password));
        if let Some(body) = body {
            builder = builder.header("content-type", "application/json").body(body.to_string());
        }
        let answer = builder.send().await.map_err(Error::unreachable)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(Error::unreachable)?;
        if status.is_success() {
            return Ok(bytes);
        }
        Err(Error::Refused { request, status, body: String::from_utf8_lossy(&bytes).into_owned() })
    }
}

/// A clone has connections of its own, so it may serve another runtime than the original.
impl Clone for Management {
    fn clone(&self) -> Self {
        Self::new(&self.base, &self.user, &self.password)
    }
}

impl Error {
    /// The API's status, if it answered.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Unreachable(_) | Self::Unreadable(_) => None,
        }
    }

    fn unreachable(error: reqwest::Error) -> Self {
        // The URL may hold the user's password.
        Self::Unreachable(error.without_url())
    }
}
