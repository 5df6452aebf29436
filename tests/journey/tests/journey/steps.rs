//! What the steps of the story are made of: a cluster with its certificates, clients, and watches that check themselves.
//!
//! Invariants: a watch fails the story if a resource version goes backwards or an object is added twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use apimachinery::meta;
use harness::certificates::{Authority, Leaf};
use harness::cluster::LocalCluster;
use kubeclient::{Client, Endpoint, Error, Transport, WatchEvent, WatchOptions, WatchStream};
use serde_json::{Value, json};

/// How long a step may wait for the cluster.
const PATIENCE: Duration = Duration::from_secs(45);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Journey {
    pub(crate) cluster: LocalCluster,
    root_pem: Vec<u8>,
    admin: Leaf,
    pub(crate) jiang: Leaf,
    /// Signed by a CA that the cluster does not know.
    pub(crate) foreign: Leaf,
    _dir: tempfile::TempDir,
}

impl Journey {
    /// Root CA → cluster CA → server and users; then three members.
    pub(crate) fn start() -> Result<Journey> {
        let dir = tempfile::tempdir()?;
        let pki = dir.path().join("cluster/pki");
        fs::create_dir_all(&pki)?;
        let root = Authority::root("Example Root CA")?;
        let cluster_authority = root.intermediate("Example Cluster CA")?;
        fs::write(pki.join("root.crt"), root.certificate_pem())?;
        fs::write(pki.join("ca.crt"), cluster_authority.certificate_pem())?;
        fs::write(pki.join("ca.key"), cluster_authority.key_pem())?;
        let users = dir.path().join("users");
        fs::create_dir_all(&users)?;
        let admin = cluster_authority.client(&users, "boss", &["system:masters"])?;
        let jiang = cluster_authority.client(&users, "jiang", &["dev"])?;
        let foreign = Authority::root("Foreign CA")?.client(&users, "stranger", &["system:masters"])?;
        let cluster = LocalCluster::start(&dir.path().join("cluster"), 5, &[])?;
        Ok(Journey { cluster, root_pem: root.certificate_pem().into(), admin, jiang, foreign, _dir: dir })
    }

    pub(crate) fn admin(&self, member: usize) -> Http {
        self.client(member, &self.admin)
    }

    pub(crate) fn client(&self, member: usize, leaf: &Leaf) -> Http {
        let read = |path| fs::read(path).unwrap_or_default();
        self.connect(member, Some((read(&leaf.certificate), read(&leaf.key))))
    }

    pub(crate) fn anonymous(&self, member: usize) -> Http {
        self.connect(member, None)
    }

    fn connect(&self, member: usize, identity: Option<(Vec<u8>, Vec<u8>)>) -> Http {
        let endpoint = Endpoint {
            servers: vec![self.cluster.members[member].api_url.clone()],
            ca_pem: Some(self.root_pem.clone()),
            client_identity_pem: identity,
            ..Endpoint::default()
        };
        let transport = Transport::connect(endpoint).expect("certificates made here can be read");
        Http { client: Client::new(transport, "journey").with_timeout(Duration::from_secs(10)) }
    }

    fn store(&self, member: usize) -> Result<wire::Client> {
        let url = self.cluster.members[member].store_url.clone();
        let transport = wire::Transport::connect(&[url], None, Duration::from_secs(5))?;
        Ok(wire::Client::new(transport))
    }

    /// Position of the member that leads the store.
    pub(crate) async fn store_leader(&self) -> Result<usize> {
        for member in 0..self.cluster.members.len() {
            let request = wire::etcdserverpb::StatusRequest {};
            let status = self.store(member)?.maintenance.status(request).await?.into_inner();
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return Ok(member);
            }
        }
        bail!("no member says that it leads")
    }

    /// The hash of each member's keys at one revision.
    pub(crate) async fn state_hashes(&self) -> Result<Vec<u32>> {
        let request = wire::etcdserverpb::StatusRequest {};
        let status = self.store(0)?.maintenance.status(request).await?.into_inner();
        let revision = status.header.context("no header")?.revision;
        let mut hashes = Vec::new();
        for member in 0..self.cluster.members.len() {
            let request = wire::etcdserverpb::HashKvRequest { revision };
            hashes.push(self.store(member)?.maintenance.hash_kv(request).await?.into_inner().hash);
        }
        Ok(hashes)
    }
}

/// Requests by path, as curl would send them.
pub(crate) struct Http {
    client: Client,
}

impl Http {
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Error> {
        self.client.request(http::Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.client.request(http::Method::POST, path, Some(object)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Value, Error> {
        self.client.request(http::Method::DELETE, path, None).await
    }

    pub(crate) async fn wait_ready(&self) -> Result<()> {
        eventually("the API server is ready", || async { self.client.get_raw("/readyz").await.ok() })
            .await
            .map(drop)
    }

    /// A watch of everything there is and will be.
    pub(crate) async fn watch(
        &self,
        group: &str,
        version: &str,
        plural: &str,
        namespace: &str,
    ) -> Result<Watch> {
        let api = self.client.api(group, version, plural).namespace(namespace);
        let options = WatchOptions { send_initial_events: true, bookmarks: true, ..WatchOptions::default() };
        Ok(Watch { stream: api.watch(&options).await?, seen: Seen::default() })
    }
}

/// A watch that checks that it is complete and in order.
pub(crate) struct Watch {
    stream: WatchStream,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    resource_version: u64,
    initial_events_ended: bool,
    added: BTreeSet<String>,
    node_of: BTreeMap<String, String>,
}

impl Watch {
    /// Reads until an object satisfies `done`.
    pub(crate) async fn until(&mut self, done: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(object) = self.next(deadline).await?
                && done(&object)
            {
                return Ok(object);
            }
        }
    }

    /// Reads until every one of these pods (name → uid) was seen with a node.
    pub(crate) async fn until_all_placed(
        &mut self,
        pods: &BTreeMap<String, String>,
        patience: Duration,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let missing = pods.values().filter(|uid| !self.seen.node_of.contains_key(*uid)).count();
            if missing == 0 {
                return Ok(());
            }
            self.next(deadline).await.with_context(|| format!("{missing} pods were not seen with a node"))?;
        }
    }

    /// The next object; None for a bookmark.
    async fn next(&mut self, deadline: Instant) -> Result<Option<Value>> {
        let event = tokio::time::timeout_at(deadline.into(), self.stream.next())
            .await
            .map_err(|_| anyhow!("nothing more within the time"))?
            .ok_or_else(|| anyhow!("the watch ended"))??;
        self.seen.check(event)
    }
}

impl Seen {
    fn check(&mut self, event: WatchEvent) -> Result<Option<Value>> {
        let (object, added) = match event {
            WatchEvent::Added(object) => (object, true),
            WatchEvent::Modified(object) | WatchEvent::Deleted(object) => (object, false),
            WatchEvent::Bookmark { resource_version, .. } => {
                self.initial_events_ended = true;
                self.advance(&resource_version)?;
                return Ok(None);
            }
        };
        if self.initial_events_ended {
            self.advance(meta::of(&object).resource_version())?; // the initial state comes in order of name
        }
        let uid = meta::of(&object).uid().to_owned();
        ensure!(!added || self.added.insert(uid.clone()), "{} was added twice", meta::of(&object).name());
        ensure!(self.added.contains(&uid), "{} changed before it was added", meta::of(&object).name());
        if let Some(node) = object["spec"]["nodeName"].as_str() {
            let before = self.node_of.insert(uid, node.to_owned());
            ensure!(
                before.is_none_or(|before| before == node),
                "{} moved to {node}",
                meta::of(&object).name()
            );
        }
        Ok(Some(object))
    }

    fn advance(&mut self, version: &str) -> Result<()> {
        let version: u64 = version.parse().context("not a number")?;
        ensure!(version >= self.resource_version, "version {version} after {}", self.resource_version);
        self.resource_version = version;
        Ok(())
    }
}

/// Looks again and again until `look` finds something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    look: impl Fn() -> F,
) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(found) = look().await {
            return Ok(found);
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("not within {PATIENCE:?}: {what}")
}

/// The code of a Status answer.
pub(crate) fn code<T>(result: &Result<T, Error>) -> Option<u16> {
    result.as_ref().err().and_then(Error::status).map(|status| status.code)
}

pub(crate) fn message<T>(result: &Result<T, Error>) -> String {
    result.as_ref().err().and_then(Error::status).map(|status| status.message.clone()).unwrap_or_default()
}

/// What the condition PodScheduled says.
pub(crate) fn scheduled_message(pod: &Value) -> Option<String> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let condition = conditions.iter().find(|condition| condition["type"] == "PodScheduled")?;
    Some(condition["message"].as_str().unwrap_or_default().to_owned())
}

pub(crate) fn pod(name: &str, cpu: &str, memory: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [
        {"name": "app", "image": "registry.example/app:1",
         "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}})
}

pub(crate) fn registered_node(name: &str, cpu: &str, memory: &str) -> Value {
    let amounts = json!({"cpu": cpu, "memory": memory, "pods": "110"});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
           "status": {"capacity": amounts, "allocatable": amounts,
                      "conditions": [{"type": "Ready", "status": "True"}]}})
}
