//! Closed-loop clients: each sends its next request when it has the answer to the one before.
//!
//! Invariants: both systems see the same keys in the same order per client; a client goes from connection to
//! connection, so that one client too meets every member; only answers within the measured window count; a read that
//! finds nothing is an error. Requests are bounded in number, and what hangs after the window is counted as an error.
//! Not here: starting members (cluster.rs), sums over rounds (report.rs).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use wire::etcdserverpb::{PutRequest, RangeRequest};

use crate::cluster::Cluster;
use crate::grpc::Connection;
use crate::histogram::Histogram;
use crate::machine;

pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";

pub(crate) const CONNECTIONS: usize = 6;
pub(crate) const KEYS: u64 = 1_000_000;
pub(crate) const VALUE_SIZE_BYTES: usize = 256;
const PRELOAD_CLIENTS: u64 = 64;

const WARM_UP: Duration = Duration::from_secs(1);
/// For answers that are under way when the window closes.
const DRAIN: Duration = Duration::from_secs(10);
/// More failed requests than this end the point.
const ERRORS_MAX: u64 = 100;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Load {
    Put,
    LinearizableRange,
    SerializableRange,
}

impl Load {
    pub(crate) const ALL: [Load; 3] = [Load::Put, Load::LinearizableRange, Load::SerializableRange];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Load::Put => "put",
            Load::LinearizableRange => "linearizable range",
            Load::SerializableRange => "serializable range",
        }
    }

    pub(crate) fn reads(self) -> bool {
        self != Load::Put
    }

    async fn request(self, connection: &Connection, key: Bytes) -> anyhow::Result<()> {
        match self {
            Load::Put => {
                let message = PutRequest { key, value: value(), ..PutRequest::default() };
                connection.unary(PUT, &message).await?;
            }
            Load::LinearizableRange | Load::SerializableRange => {
                let serializable = self == Load::SerializableRange;
                let message = RangeRequest { key, serializable, ..RangeRequest::default() };
                let answer = connection.unary(RANGE, &message).await?;
                ensure!(answer.len() > VALUE_SIZE_BYTES, "a key that was written is not there");
            }
        }
        Ok(())
    }
}

/// What one point asks for.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) load: Load,
    pub(crate) clients: u64,
    pub(crate) window: Duration,
    pub(crate) requests_max: u64,
    /// Reads go to the first so many keys.
    pub(crate) preloaded: u64,
    /// The same for both systems.
    pub(crate) seed: u64,
}

/// What one point of one round gave.
#[derive(Clone)]
pub(crate) struct Measured {
    pub(crate) latencies: Histogram,
    pub(crate) window: Duration,
    pub(crate) server_cpu: Duration,
    pub(crate) generator_cpu: Duration,
    pub(crate) memory_peak_bytes: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

struct Shared {
    plan: Plan,
    connections: Vec<Connection>,
    measuring: Cell<bool>,
    ended: Cell<bool>,
    end: Notify,
    requests: Cell<u64>,
    latencies: RefCell<Histogram>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
}

/// Writes the first `keys` keys and waits until every member has them.
pub(crate) async fn preload(cluster: &mut Cluster, keys: u64) -> anyhow::Result<()> {
    let connections = Rc::new(cluster.connect(CONNECTIONS).await?);
    let mut writers = JoinSet::new();
    for writer in 0..PRELOAD_CLIENTS {
        let connections = Rc::clone(&connections);
        writers.spawn_local(async move {
            for number in (writer..keys).step_by(PRELOAD_CLIENTS as usize) {
                let connection = &connections[(number % CONNECTIONS as u64) as usize];
                Load::Put.request(connection, key(number)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    cluster.ready().await
}

pub(crate) async fn run(cluster: &mut Cluster, plan: Plan) -> anyhow::Result<Measured> {
    let shared = Rc::new(Shared {
        plan,
        connections: cluster.connect(CONNECTIONS).await?,
        measuring: Cell::new(false),
        ended: Cell::new(false),
        end: Notify::new(),
        requests: Cell::new(0),
        latencies: RefCell::new(Histogram::new()),
        errors: Cell::new(0),
        first_error: RefCell::new(None),
    });
    let mut clients = JoinSet::new();
    for client in 0..plan.clients {
        clients.spawn_local(client_loop(Rc::clone(&shared), client));
    }
    let _ = tokio::time::timeout(WARM_UP, shared.end.notified()).await; // elapsing is the normal case
    let started = Instant::now();
    let (server_before, generator_before) = (cluster.cpu_time()?, machine::cpu_time(std::process::id())?);
    shared.measuring.set(true);
    if !shared.ended.get() {
        let _ = tokio::time::timeout(plan.window, shared.end.notified()).await; // as above
    }
    shared.measuring.set(false);
    let window = started.elapsed();
    shared.ended.set(true);
    cluster.check_running()?;
    let (server_after, generator_after) = (cluster.cpu_time()?, machine::cpu_time(std::process::id())?);
    let memory_peak_bytes = cluster.memory_peak_bytes()?;

    let drained = async { while clients.join_next().await.is_some() {} };
    let hanging = tokio::time::timeout(DRAIN, drained).await.is_err();
    if hanging {
        let count = clients.len() as u64;
        shared.errors.set(shared.errors.get() + count);
        shared.first_error.borrow_mut().get_or_insert_with(|| format!("{count} requests hang for {DRAIN:?}"));
    }
    let errors = shared.errors.get();
    let first_error = shared.first_error.borrow().clone();
    let latencies = shared.latencies.borrow().clone();
    if errors > ERRORS_MAX || latencies.total() == 0 {
        let first_error = first_error.unwrap_or_else(|| "no request ended in the window".to_owned());
        bail!("{errors} requests failed, the first with: {first_error}");
    }
    Ok(Measured {
        latencies,
        window,
        server_cpu: server_after.saturating_sub(server_before),
        generator_cpu: generator_after.saturating_sub(generator_before),
        memory_peak_bytes,
        errors,
        first_error,
    })
}

async fn client_loop(shared: Rc<Shared>, client: u64) {
    let plan = shared.plan;
    let keys = if plan.load.reads() { plan.preloaded } else { KEYS };
    let mut random = Random(plan.seed.wrapping_add(client.wrapping_mul(0x5851_f42d_4c95_7f2d)));
    let mut turn = client as usize;
    while !shared.ended.get() {
        if shared.requests.get() >= plan.requests_max {
            shared.end();
            return;
        }
        shared.requests.set(shared.requests.get() + 1);
        let connection = &shared.connections[turn % CONNECTIONS];
        turn += 1;
        let key = key(random.below(keys));
        let began = Instant::now();
        match plan.load.request(connection, key).await {
            Ok(()) if shared.measuring.get() => shared.latencies.borrow_mut().record(began.elapsed()),
            Ok(()) => {}
            Err(error) => {
                shared.failed(&error);
                tokio::time::sleep(Duration::from_millis(10)).await; // a member that refuses is not to be flooded
            }
        }
    }
}

impl Shared {
    fn end(&self) {
        self.ended.set(true);
        self.end.notify_one();
    }

    fn failed(&self, error: &anyhow::Error) {
        self.errors.set(self.errors.get() + 1);
        self.first_error.borrow_mut().get_or_insert_with(|| format!("{error:#}"));
        if self.errors.get() > ERRORS_MAX {
            self.end();
        }
    }
}

/// Eight bytes.
fn key(number: u64) -> Bytes {
    Bytes::from(format!("{number:08}"))
}

fn value() -> Bytes {
    const VALUE: [u8; VALUE_SIZE_BYTES] = [b'v'; VALUE_SIZE_BYTES];
    Bytes::from_static(&VALUE)
}

/// SplitMix64: the same numbers for the same seed, which is all that is asked of it.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_eight_bytes_and_all_differ() {
        assert_eq!(&key(0)[..], b"00000000");
        assert_eq!(key(KEYS - 1).len(), 8);
        assert_ne!(key(1), key(10));
    }

    #[test]
    fn random_keys_repeat_with_the_seed_and_reach_the_whole_range() {
        let draw = |seed| {
            let mut random = Random(seed);
            (0..10_000).map(|_| random.below(KEYS)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let drawn = draw(7);
        for tenth in 0..10 {
            let inside = drawn.iter().filter(|number| **number / (KEYS / 10) == tenth).count();
            assert!((800..1200).contains(&inside), "tenth {tenth} has {inside}");
        }
    }
}
