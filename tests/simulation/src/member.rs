//! One simulated machine with a member on it: its disk outlives the member's lives.
//!
//! Always holds: a life gets the disk as the end of the last one left it, after a kill with the page cache, after a power
//! cut with what the seed lets survive of the un-synced changes. Not here: when lives end (run.rs).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use replica::{Surroundings, Threads};
use store::{Config, Url};
use tokio_util::sync::CancellationToken;
use wal::sim_disk::SimDisk;
use wal::sim_disk::crash::Random;

use crate::network::{Accepted, SimNetwork};

pub(crate) const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// What is written to the log at once is less, under this load.
const LAST_BATCH_SIZE_BYTES_MAX: usize = 6_000;

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
}

pub(crate) struct Machine {
    pub number: usize,
    settings: Settings,
    latency_ms: AtomicU64,
    connects: Arc<AtomicU64>,
    inner: Mutex<Inner>,
}

struct Inner {
    disk: SimDisk,
    handle: Option<replica::Handle>,
    /// Why the last life ended by itself.
    ended: Option<String>,
    lives: u64,
}

pub(crate) fn host(number: usize) -> String {
    format!("m{number}")
}

impl Machine {
    pub(crate) fn new(number: usize, settings: Settings) -> Arc<Machine> {
        let inner = Inner { disk: SimDisk::new().untraced(), handle: None, ended: None, lives: 0 };
        Arc::new(Machine {
            number,
            settings,
            latency_ms: AtomicU64::new(0),
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

    /// To be called with the end of a life, after `killed`. Something that another sync has followed: what was written
    /// last cannot be told from a write that was torn. Answers the file and the place.
    pub(crate) fn flip_bit(&self, random: &mut Random) -> Option<(std::path::PathBuf, usize)> {
        let mut inner = self.inner.lock();
        let mut platter = inner.disk.cache();
        let segment = |path: &std::path::PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("wal-"))
        };
        let segments: Vec<_> = platter.names.iter().filter(|(path, _)| segment(path)).collect();
        let newest = segments.len().checked_sub(1)?;
        let chosen = usize::try_from(random.below(segments.len() as u64)).unwrap_or(0);
        let (path, file) = (segments[chosen].0.clone(), *segments[chosen].1);
        let contents = platter.files.get_mut(file)?;
        let bytes = contents.to_vec();
        let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
        if chosen == newest && used < LAST_BATCH_SIZE_BYTES_MAX {
            return None;
        }
        let before = if chosen == newest { used - LAST_BATCH_SIZE_BYTES_MAX } else { used };
        let at = usize::try_from(random.below(before.max(1) as u64)).unwrap_or(0);
        contents.write(&[bytes[at] ^ (1 << random.below(8))], at);
        inner.disk = SimDisk::with(platter).untraced();
        Some((path, at))
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
        config.listen_peer_urls = url("0.0.0.0", PEER_PORT);
        config.initial_advertise_peer_urls = url(&name, PEER_PORT);
        config.initial_cluster = (0..settings.members)
            .map(|number| (host(number), url(&host(number), PEER_PORT).remove(0)))
            .collect();
        config.election_timeout_ms = settings.election_timeout_ms;
        config.heartbeat_interval_ms = settings.heartbeat_interval_ms;
        config.snapshot_count = settings.snapshot_count;
        config.log_segment_size_bytes = settings.log_segment_size_bytes;
        config.watch_inbox_entries_max = settings.watch_inbox_entries_max;
        config.state_sync_interval = Duration::from_millis(settings.state_sync_interval_ms);
        config.watch_progress_interval = Duration::from_secs(2);
        config
    }
}

/// The software of a machine: one life of a member.
pub(crate) async fn live(machine: Arc<Machine>) -> turmoil::Result {
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
    machine.inner.lock().handle = Some(store.handle());
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
