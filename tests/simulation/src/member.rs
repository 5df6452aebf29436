//! One simulated machine with a member on it: its disk outlives the member's lives.
//!
//! Always holds: a life gets the disk as the end of the last one left it, after a kill with the page cache, after a power
//! cut with what the seed lets survive of the un-synced changes. Not here: when lives end (run.rs).

mod rot;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use replica::{Surroundings, Threads};
use store::{ClusterState, Config, Url};
use tokio_util::sync::CancellationToken;
use wal::sim_disk::SimDisk;
use wal::sim_disk::crash::{Platter, Random};

use crate::clocks;
use crate::network::{Accepted, SimNetwork};

pub(crate) const CLIENT_PORT: u16 = 2379;
/// Where members listen for each other; the first is what they say at their first start.
pub(crate) const PEER_PORTS: [u16; 2] = [2380, 2381];

/// What members are configured with; the same on all of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub members: usize,
    pub election_timeout_ms: u64,
    pub heartbeat_interval_ms: u64,
    /// Log entries kept for followers that lag; few make snapshots frequent.
    pub snapshot_count: u64,
    pub log_segment_size_bytes: u64,
    /// Few make watch streams read history.
    pub watch_inbox_entries_max: usize,
    pub state_sync_interval_ms: u64,
    /// How often the leader compares what all members hold.
    pub compare_interval_ms: Option<u64>,
    /// They listen for each other on two ports.
    pub moves: bool,
}

pub(crate) struct Machine {
    pub number: usize,
    settings: Settings,
    latency_ms: AtomicU64,
    /// `None`: its clock is right.
    clock_percent: Option<u64>,
    jump_ms: AtomicU64,
    connects: Arc<AtomicU64>,
    inner: Mutex<Inner>,
}

struct Inner {
    disk: SimDisk,
    handle: Option<replica::Handle>,
    /// Why the last life ended by itself.
    ended: Option<String>,
    lives: u64,
    member_id: Option<u64>,
    /// The machines whose members it joins; `None`: it is one of the first.
    others: Option<Vec<usize>>,
    /// What was on the disk when it began to keep what it is asked.
    remembered: Option<Platter>,
}

pub(crate) fn host(number: usize) -> String {
    format!("m{number}")
}

pub(crate) fn peer_url(number: usize) -> String {
    peer_url_at(number, PEER_PORTS[0])
}

pub(crate) fn peer_url_at(number: usize, port: u16) -> String {
    format!("http://{}:{port}", host(number))
}

impl Machine {
    /// A machine beyond the first members is nobody's until it joins.
    pub(crate) fn new(number: usize, settings: Settings, clock_percent: Option<u64>) -> Arc<Machine> {
        let inner = Inner {
            disk: SimDisk::new().untraced(),
            handle: None,
            ended: None,
            lives: 0,
            member_id: None,
            others: None,
            remembered: None,
        };
        Arc::new(Machine {
            number,
            settings,
            latency_ms: AtomicU64::new(0),
            clock_percent,
            jump_ms: AtomicU64::new(0),
            connects: Arc::default(),
            inner: Mutex::new(inner),
        })
    }

    pub(crate) fn disk(&self) -> SimDisk {
        self.inner.lock().disk.clone()
    }

    /// The running member, once it has started.
    pub(crate) fn handle(&self) -> Option<replica::Handle> {
        self.inner.lock().handle.clone()
    }

    pub(crate) fn lives(&self) -> u64 {
        self.inner.lock().lives
    }

    /// Connections that it has tried to make to others.
    pub(crate) fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// Why the member ended by itself, once.
    pub(crate) fn take_end(&self) -> Option<String> {
        self.inner.lock().ended.take()
    }

    pub(crate) fn set_latency_ms(&self, latency_ms: u64) {
        self.latency_ms.store(latency_ms, Ordering::Relaxed);
    }

    /// Its clock is to move ahead by so much at once.
    pub(crate) fn jump_ms(&self, jump_ms: u64) {
        self.jump_ms.fetch_add(jump_ms, Ordering::Relaxed);
    }

    /// How far the clock is to jump now, once.
    pub(crate) fn take_jump_ms(&self) -> u64 {
        self.jump_ms.swap(0, Ordering::Relaxed)
    }

    /// To be called with the end of a life: its process is gone, the kernel lives on.
    pub(crate) fn killed(&self) {
        let mut inner = self.inner.lock();
        inner.handle = None;
        inner.ended = None;
        inner.disk = inner.disk.killed().untraced();
    }

    /// To be called with the end of a life: the machine lost its power. Answers how many un-synced changes there were.
    pub(crate) fn power_lost(&self, random: &mut Random) -> usize {
        let mut inner = self.inner.lock();
        inner.handle = None;
        inner.ended = None;
        let moment = inner.disk.moment();
        let fates = moment.sample_fates(random, 6);
        let choice = random.below(fates.len() as u64) as usize;
        inner.disk = SimDisk::with(moment.crash(&fates[choice])).untraced();
        moment.pending.len()
    }

    /// The next life is the first of a new member, which asks the members on these machines who it is.
    pub(crate) fn join(&self, others: Vec<usize>) {
        self.inner.lock().others = Some(others);
    }

    /// To be called with the end of a life: the disk is a new one. What the member asks the others then, it must be told
    /// whom to ask: those of the first list may be gone.
    pub(crate) fn emptied(&self, others: Vec<usize>) {
        let mut inner = self.inner.lock();
        inner.disk = SimDisk::new().untraced();
        inner.others = Some(others);
    }

    /// Of its newest life.
    pub(crate) fn member_id(&self) -> Option<u64> {
        self.inner.lock().member_id
    }

    fn config(&self) -> Config {
        let settings = &self.settings;
        let url = |host: &str, port: u16| -> Vec<Url> {
            Url::parse_list(&format!("http://{host}:{port}")).expect("a URL that is written here")
        };
        let name = host(self.number);
        let mut config = Config::new(&name, "/data");
        config.listen_client_urls = url("0.0.0.0", CLIENT_PORT);
        config.advertise_client_urls = url(&name, CLIENT_PORT);
        config.listen_peer_urls = url("0.0.0.0", PEER_PORTS[0]);
        if settings.moves {
            config.listen_peer_urls.extend(url("0.0.0.0", PEER_PORTS[1]));
        }
        config.initial_advertise_peer_urls = url(&name, PEER_PORTS[0]);
        let others = self.inner.lock().others.clone();
        if let Some(others) = &others {
            config.initial_cluster_state = ClusterState::Existing;
            config.initial_cluster = others
                .iter()
                .filter(|other| **other != self.number)
                .chain([&self.number])
                .map(|number| (host(*number), url(&host(*number), PEER_PORTS[0]).remove(0)))
                .collect();
        } else {
            config.initial_cluster = (0..settings.members)
                .map(|number| (host(number), url(&host(number), PEER_PORTS[0]).remove(0)))
                .collect();
        }
        config.election_timeout_ms = settings.election_timeout_ms;
        config.heartbeat_interval_ms = settings.heartbeat_interval_ms;
        config.snapshot_count = settings.snapshot_count;
        config.log_segment_size_bytes = settings.log_segment_size_bytes;
        config.watch_inbox_entries_max = settings.watch_inbox_entries_max;
        config.state_sync_interval = Duration::from_millis(settings.state_sync_interval_ms);
        config.operations.corrupt_check_interval = settings.compare_interval_ms.map(Duration::from_millis);
        // The cheapest: each comparison takes a millisecond of the simulation's only thread.
        config.bcrypt_cost = 4;
        config.watch_progress_interval = Duration::from_secs(2);
        config
    }
}

/// The software of a machine: one life of a member.
pub(crate) async fn live(machine: Arc<Machine>) -> turmoil::Result {
    if machine.number >= machine.settings.members && machine.inner.lock().others.is_none() {
        return Ok(());
    }
    if let Some(percent) = machine.clock_percent {
        let clock = Arc::clone(&machine);
        tokio::spawn(clocks::hurry(percent, move || clock.take_jump_ms()));
    }
    let reason = life(&machine).await;
    let mut inner = machine.inner.lock();
    inner.handle = None;
    inner.ended = Some(reason);
    Ok(())
}

/// Answers why it ended.
async fn life(machine: &Arc<Machine>) -> String {
    let latency = Arc::clone(machine);
    let threads =
        Threads::Tasks(Arc::new(move || Duration::from_millis(latency.latency_ms.load(Ordering::Relaxed))));
    let mut config = machine.config();
    config.surroundings = Surroundings {
        disk: Arc::new(machine.disk()),
        network: Arc::new(SimNetwork { connects: Arc::clone(&machine.connects) }),
        threads,
    };
    machine.inner.lock().lives += 1;
    let shutdown = CancellationToken::new();
    let store = match store::start(config, shutdown.clone()).await {
        Ok(store) => store,
        Err(error) => return format!("not started: {error}"),
    };
    {
        let mut inner = machine.inner.lock();
        inner.member_id = Some(store.handle().identity().member_id);
        inner.handle = Some(store.handle());
    }
    let listener = match turmoil::net::TcpListener::bind(("0.0.0.0", CLIENT_PORT)).await {
        Ok(listener) => listener,
        Err(error) => return format!("not listening: {error}"),
    };
    let incoming = futures_util::stream::unfold(listener, |listener| async move {
        Some((listener.accept().await.map(|(socket, _)| Accepted(socket)), listener))
    });
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(1)))
        .http2_keepalive_timeout(Some(Duration::from_secs(1)))
        .add_routes(store.routes())
        .serve_with_incoming(incoming);
    tokio::select! {
        ended = store.stopped() => match ended {
            Ok(()) => "stopped".to_owned(),
            Err(error) => error.to_string(),
        },
        served = serving => format!("serving ended: {served:?}"),
    }
}
