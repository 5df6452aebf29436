//! Starts, kills and compares members.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mvcc::{Applied, Caller, Command, KeyRange, Put, RangeQuery};
use replica::{Config, Handle, Identity, Member, ProposeError, cluster_id, member_id, start};
use tokio_util::sync::CancellationToken;

/// Ports are between 14000 and 14999, never the same twice in one run; runs begin at different places.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

pub(crate) fn free_port() -> u16 {
    let begin = u16::try_from(std::process::id() % 20 * 50).unwrap();
    loop {
        let taken = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        assert!(taken < 1_000, "out of ports");
        let port = 14_000 + (begin + taken) % 1_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    members: Vec<Member>,
    pub(crate) nodes: Vec<Option<Node>>,
    tweak: fn(&mut Config),
}

/// A running member and the thread that drives it.
pub(crate) struct Node {
    pub(crate) handle: Handle,
    thread: std::thread::JoinHandle<()>,
    end: CancellationToken,
}

pub(crate) fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

impl Cluster {
    pub(crate) async fn start(size: usize) -> Cluster {
        Cluster::start_with(size, |_| {}).await
    }

    pub(crate) async fn start_with(size: usize, tweak: fn(&mut Config)) -> Cluster {
        let mut cluster = Cluster::prepare(size, tweak);
        for index in 0..size {
            cluster.launch(index).await;
        }
        cluster.leader().await;
        // Whoever came behind the first election votes a moment later: until then no other member may go.
        for index in 0..size {
            cluster.votes(index).await;
        }
        cluster
    }

    pub(crate) async fn votes(&self, index: usize) {
        let handle = self.handle(index);
        eventually("the quarantine to be lifted", || (!handle.status().quarantined).then_some(())).await;
    }

    pub(crate) fn prepare(size: usize, tweak: fn(&mut Config)) -> Cluster {
        // `RUST_LOG=openraft=warn,replica=debug` shows what happened; another test may have set it up already.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().display().to_string();
        let member = |index: usize| {
            let peer_urls = vec![url(free_port())];
            let id = member_id(&peer_urls, &token, None);
            Member { id, name: format!("m{index}"), peer_urls, client_urls: Vec::new(), is_learner: false }
        };
        let members = (0..size).map(member).collect();
        Cluster { directory, members, nodes: (0..size).map(|_| None).collect(), tweak }
    }

    pub(crate) fn id(&self, index: usize) -> u64 {
        self.members[index].id
    }

    pub(crate) fn identity(&self, index: usize) -> Identity {
        let ids: Vec<u64> = self.members.iter().map(|member| member.id).collect();
        Identity { cluster_id: cluster_id(&ids), member_id: self.members[index].id }
    }

    pub(crate) fn data_dir(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("m{index}"))
    }

    pub(crate) fn config(&self, index: usize) -> Config {
        let address = |url: &String| url.trim_start_matches("http://").parse::<SocketAddr>().unwrap();
        let me = &self.members[index];
        let listen = me.peer_urls.iter().map(address).collect();
        let mut config =
            Config::new(self.identity(index), &me.name, self.data_dir(index), self.members.clone(), listen);
        config.wal_segment_size_bytes = 4 << 20;
        config.state_cache_size_bytes = 8 << 20;
        (self.tweak)(&mut config);
        config
    }

    pub(crate) async fn launch(&mut self, index: usize) -> Handle {
        let node = Node::start(self.config(index)).await.unwrap();
        let handle = node.handle.clone();
        self.nodes[index] = Some(node);
        handle
    }

    pub(crate) fn handle(&self, index: usize) -> &Handle {
        &self.nodes[index].as_ref().expect("the member runs").handle
    }

    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].is_some()).collect()
    }

    /// What a crash of the process leaves, except for what the operating system would lose.
    pub(crate) async fn kill(&mut self, index: usize) {
        let node = self.nodes[index].take().expect("the member runs");
        node.handle.kill().await;
        node.join().await;
    }

    pub(crate) async fn stop(&mut self, index: usize) {
        let node = self.nodes[index].take().expect("the member runs");
        node.handle.transfer_leadership_and_stop().await;
        node.join().await;
    }

    pub(crate) fn wipe(&self, index: usize) {
        std::fs::remove_dir_all(self.data_dir(index)).unwrap();
    }

    /// Index of the member that leads, when every running member agrees on it.
    pub(crate) async fn leader(&self) -> usize {
        let found = eventually("a leader that all agree on", || {
            let leaders: Vec<Option<u64>> =
                self.running().into_iter().map(|index| self.handle(index).status().leader).collect();
            let first = leaders.first().copied().flatten()?;
            leaders.iter().all(|leader| *leader == Some(first)).then_some(first)
        })
        .await;
        self.members.iter().position(|member| member.id == found).expect("a member leads")
    }

    pub(crate) async fn a_follower(&self) -> usize {
        let leader = self.leader().await;
        self.running().into_iter().find(|index| *index != leader).expect("a follower runs")
    }

    /// Waits until all running members have applied the same, and checks that they hold the same.
    pub(crate) async fn converge(&self) {
        let running = self.running();
        eventually("equal applied indexes", || {
            let applied: Vec<(u64, u64)> = running
                .iter()
                .map(|index| self.handle(*index).status())
                .map(|status| (status.applied_index, status.raft_index))
                .collect();
            applied.iter().all(|other| *other == applied[0] && other.0 == other.1).then_some(())
        })
        .await;
        let hashes: Vec<u64> =
            running.iter().map(|index| self.handle(*index).read(|store, _| store.state_hash())).collect();
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "members differ: {hashes:x?}");
    }
}

impl Node {
    pub(crate) async fn start(config: Config) -> Result<Node, replica::StartError> {
        let (sender, started) = tokio::sync::oneshot::channel();
        let end = CancellationToken::new();
        let ended = end.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let result = start(config, ended.clone()).await;
                let failed = result.is_err();
                let _ = sender.send(result);
                if !failed {
                    ended.cancelled().await;
                }
            });
        });
        let handle = started.await.unwrap()?;
        Ok(Node { handle, thread, end })
    }

    pub(crate) async fn join(self) {
        let Node { handle, thread, end } = self;
        drop(handle);
        end.cancel();
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    }
}

/// Polls until there is an answer; panics after 30 s.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited 30 s for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn put_command(key: &str, value: &str) -> Command {
    Command::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Put::default()
    })
}

pub(crate) async fn try_put(handle: &Handle, key: &str, value: &str) -> Result<Applied, ProposeError> {
    handle.propose(Caller::System, put_command(key, value)).await
}

/// Patient with elections, after which nothing was proposed.
pub(crate) async fn put(handle: &Handle, key: &str, value: &str) -> i64 {
    let deadline = Instant::now() + Duration::from_secs(30);
    let applied = loop {
        match try_put(handle, key, value).await {
            Err(ProposeError::NoLeader) if Instant::now() < deadline => {}
            result => break result.unwrap(),
        }
    };
    applied.result.unwrap();
    applied.revision
}

/// A linearizable read.
pub(crate) async fn get(handle: &Handle, key: &str) -> Option<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = handle.read_barrier().await {
        assert!(Instant::now() < deadline, "waited 30 s: {error}");
    }
    get_here(handle, key)
}

/// What the member has applied.
pub(crate) fn get_here(handle: &Handle, key: &str) -> Option<String> {
    let query = RangeQuery::latest(KeyRange::Key(Bytes::copy_from_slice(key.as_bytes())));
    let reply = handle.read(|store, records| store.range(records, &query)).unwrap();
    reply.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

impl Cluster {
    /// With an empty directory.
    pub(crate) async fn launch_after_wipe(&mut self, index: usize) -> Handle {
        self.wipe(index);
        self.launch(index).await
    }

    /// What the store layer does after every start.
    pub(crate) async fn publish(&self, index: usize) {
        let attributes = mvcc::MemberAttributes {
            member: self.id(index),
            name: format!("m{index}"),
            client_urls: vec![format!("http://127.0.0.1:{}", 1_000 + index)],
        };
        let applied =
            self.handle(index).propose(Caller::System, Command::MemberAttributes(attributes)).await.unwrap();
        applied.result.unwrap();
    }
}
