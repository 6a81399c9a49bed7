//! Three private nodes that are one broker, on one machine.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::join_all;
use serde::Deserialize;

use super::install;
use super::link::Links;
use super::node::{self, Extras, Node};
use super::ports::Ports;

/// How many members a cluster has: the fewest of which one may be missing.
const MEMBERS: usize = 3;
/// For how many seconds a member may be silent before the others take it for gone; a quarter more at most.
const SILENCE_MAX: u8 = 8;

/// A cluster of three private nodes, on which quorum queues are replicated.
///
/// Each member is a [`Node`] that can be stopped, killed and started again by itself; and the network between
/// them is ours to cut.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Node>,
    links: Links,
}

impl Cluster {
    /// Starts three nodes, and waits until each serves and all are one cluster: 10 to 30 s.
    ///
    /// `extras` are for every member.
    ///
    /// # Errors
    /// RabbitMQ is not installed, or a member ends or stays silent; then the error holds the end of what it said.
    pub async fn start(extras: &Extras) -> Result<Self> {
        const ATTEMPTS: usize = 5;
        let server = install::server().context(install::ADVICE)?;
        for _ in 0..ATTEMPTS {
            if let Some(cluster) = Self::attempt(&server, extras).await? {
                return Ok(cluster);
            }
        }
        bail!("failed to find free ports: each time one was taken before its node had it")
    }

    /// All of them, in an order that stays; also those that don't run.
    #[must_use]
    pub fn members(&self) -> &[Node] {
        &self.members
    }

    /// One of them, to be stopped, killed and started again.
    #[must_use]
    pub fn member_mut(&mut self, member: usize) -> &mut Node {
        &mut self.members[member]
    }

    /// The URL of each for `vhost` (not percent-encoded).
    #[must_use]
    pub fn amqp_urls(&self, vhost: &str) -> Vec<String> {
        self.members.iter().map(|member| member.amqp_url(vhost)).collect()
    }

    /// Which member Erlang knows by `name`.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.name() == name)
    }

    /// Which member leads a quorum queue, by the word of the leader that `witness` knows; `None` while none does.
    ///
    /// # Errors
    /// The witness doesn't run, or knows no such queue.
    pub async fn leader(&self, witness: usize, vhost: &str, queue: &str) -> Result<Option<usize>> {
        // The tool's own lists come from every member, and the others can't find the tool.
        let ask = format!(
            "{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"{queue}\">>)), \
             {{Name, _}} = amqqueue:get_pid(Queue), \
             case ra:members({{Name, node()}}, 2000) of {{ok, _, {{_, Leader}}}} -> Leader; _ -> none end."
        );
        let said = self.members[witness].ctl(&["eval", &ask]).await?;
        Ok(self.position(said.trim().trim_matches('\'')))
    }

    /// Which members run and hear from one another, as member `witness` knows it.
    ///
    /// # Errors
    /// The witness doesn't run.
    pub async fn running(&self, witness: usize) -> Result<Vec<usize>> {
        let ask = "[Node || Node <- [node() | nodes()], rabbit:is_running(Node)].";
        let said = self.members[witness].ctl(&["eval", ask]).await?;
        let is_named = |member: &usize| said.contains(&self.members[*member].name());
        Ok((0..self.members.len()).filter(is_named).collect())
    }

    /// Cuts `member` off from the two others, which hear nothing from it any more and it nothing from them. Clients
    /// reach all three as before. They take one another for gone some ten seconds later.
    pub fn isolate(&self, member: usize) {
        self.links.isolate(Some(member));
    }

    /// Undoes [`Self::isolate`].
    pub fn heal(&self) {
        self.links.isolate(None);
    }

    /// `None`: somebody else took a port first.
    async fn attempt(server: &Path, extras: &Extras) -> Result<Option<Self>> {
        let ports: [Ports; MEMBERS] = Ports::find_several().context("failed to find free ports")?;
        match Self::form(server, extras, ports).await {
            Ok(cluster) => Ok(Some(cluster)),
            // The nodes are gone by now, so a port that is still taken was somebody else's.
            Err(error) if ports.into_iter().all(Ports::are_free) => Err(error),
            Err(_) => Ok(None),
        }
    }

    async fn form(server: &Path, extras: &Extras, ports: [Ports; MEMBERS]) -> Result<Self> {
        let (names, cookie) = (ports.map(node::name), node::cookie());
        let mut members = Vec::new();
        for (member, ports) in ports.into_iter().enumerate() {
            let extras = membership(extras, &names, member);
            members.push(Node::furnished(server, ports, &extras, &cookie).await?);
        }
        let links = Links::open(names.into_iter().zip(ports).collect()).await?;
        let mut cluster = Self { members, links };
        // The first has a cluster of its own, which the others then join, whoever of them is faster.
        let (first, others) = cluster.members.split_at_mut(1);
        for started in
            [join_all(first.iter_mut().map(launch)).await, join_all(others.iter_mut().map(launch)).await]
        {
            started.into_iter().collect::<Result<()>>()?;
        }
        cluster.check().await?;
        Ok(cluster)
    }

    /// A node that can't join starts all the same, by itself.
    async fn check(&self) -> Result<()> {
        #[derive(Deserialize)]
        struct Status {
            running_nodes: Vec<String>,
        }
        let text = self.members[0].ctl(&["cluster_status", "--formatter", "json"]).await?;
        let status: Status = serde_json::from_str(&text).with_context(|| format!("unexpected {text}"))?;
        let running = status.running_nodes;
        ensure!(running.len() == MEMBERS, "only {running:?} form a cluster");
        Ok(())
    }
}

async fn launch(node: &mut Node) -> Result<()> {
    node.launch().await.map_err(|error| error.context(node.last_words()))
}

/// What makes a node the cluster's `member` of that number.
fn membership(extras: &Extras, names: &[String], member: usize) -> Extras {
    // Three runtimes share a machine with whatever is tested.
    let mut erlang = vec![
        "+S 1:1 +SDio 2 +sbwt none +sbwtdcpu none +sbwtdio none".to_owned(),
        format!("-kernel net_ticktime {SILENCE_MAX}"),
    ];
    erlang.extend(extras.erlang.iter().cloned());
    let mut configuration = extras.configuration.clone();
    if member > 0 {
        configuration.extend([
            "cluster_formation.peer_discovery_backend = classic_config".to_owned(),
            format!("cluster_formation.classic_config.nodes.1 = {}", names[0]),
            format!("cluster_formation.classic_config.nodes.2 = {}", names[member]),
        ]);
    }
    Extras { configuration, plugins: extras.plugins.clone(), erlang }
}
