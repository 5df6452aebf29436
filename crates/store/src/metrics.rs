//! What is counted per request, and `/metrics` in Prometheus' text form under etcd's names.
//!
//! Counting costs one relaxed addition per request. Everything about the log and the state is read when asked for.

mod clients;
mod process;
mod text;

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use prost_reflect::DescriptorPool;
use replica::Histogram;
use tonic::Code;

pub(crate) use clients::Clients;
pub(crate) use text::render;

/// Number of gRPC codes.
const CODES: usize = 17;

/// Upper bounds of durations in seconds: those of Prometheus' libraries, and of etcd server/storage/backend/metrics.go.
const HANDLING_BUCKETS_S: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const DEFRAGMENT_BUCKETS_S: [f64; 13] =
    [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6];
const HASH_BUCKETS_S: [f64; 15] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84];
const BACKUP_BUCKETS_S: [f64; 17] = [
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68,
    655.36,
];

/// All messages and services by descriptor. `None` never happens: the bytes come from this build.
pub(crate) static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(wire::DESCRIPTORS).ok());

/// Reads the descriptors of all messages now, once in a process. Otherwise the first start of a member does, which is
/// then not quite what the second one is: a simulation sees the difference.
pub fn read_descriptors() {
    LazyLock::force(&POOL);
}

/// One gRPC method of the client API.
#[derive(Debug)]
pub(crate) struct Method {
    pub service: String,
    pub name: String,
    pub client_stream: bool,
    pub server_stream: bool,
}

impl Method {
    fn kind(&self) -> &'static str {
        match (self.client_stream, self.server_stream) {
            (false, false) => "unary",
            (true, false) => "client_stream",
            (false, true) => "server_stream",
            (true, true) => "bidi_stream",
        }
    }
}

/// Counters of one method.
pub(crate) struct MethodCounters {
    pub method: Method,
    pub started: AtomicU64,
    pub handled: [AtomicU64; CODES],
    pub handling: Histogram,
}

impl MethodCounters {
    pub(crate) fn finished(&self, code: Code, begin: Instant) {
        self.handled[code as usize].fetch_add(1, Relaxed);
        self.handling.observe(begin.elapsed());
    }
}

/// Counters of this member's client side.
pub(crate) struct Metrics {
    /// By path, `/package.Service/Method`.
    methods: HashMap<String, Arc<MethodCounters>>,
    pub received_bytes: Arc<AtomicU64>,
    pub sent_bytes: Arc<AtomicU64>,
    pub health_success: AtomicU64,
    pub health_failures: AtomicU64,
    pub ranges: AtomicU64,
    pub leases_renewed: AtomicU64,
    pub learner_promotions: AtomicU64,
    pub backup: Histogram,
    pub defragment: Histogram,
    /// Events that were given to watches' streams.
    pub events_sent: AtomicU64,
    pub scrapes: AtomicU64,
    pub clients: Clients,
    pub hash: Histogram,
    pub hash_at_revision: Histogram,
    /// Ranges by whether they were answered: failed ones first.
    pub range: [Histogram; 2],
}

impl Default for Metrics {
    fn default() -> Metrics {
        let services = POOL.iter().flat_map(DescriptorPool::services);
        // The peer protocol is not for clients.
        let services = services.filter(|service| !service.full_name().starts_with("binnacle."));
        let methods = services.flat_map(|service| {
            let list: Vec<_> = service.methods().collect();
            list.into_iter().map(move |method| Method {
                service: service.full_name().to_owned(),
                name: method.name().to_owned(),
                client_stream: method.is_client_streaming(),
                server_stream: method.is_server_streaming(),
            })
        });
        let counters = methods.map(|method| {
            let path = format!("/{}/{}", method.service, method.name);
            let handled = std::array::from_fn(|_| AtomicU64::new(0));
            let counters = MethodCounters {
                method,
                started: AtomicU64::new(0),
                handled,
                handling: Histogram::new(&HANDLING_BUCKETS_S),
            };
            (path, Arc::new(counters))
        });
        Metrics {
            methods: counters.collect(),
            received_bytes: Arc::default(),
            sent_bytes: Arc::default(),
            health_success: AtomicU64::new(0),
            health_failures: AtomicU64::new(0),
            ranges: AtomicU64::new(0),
            leases_renewed: AtomicU64::new(0),
            learner_promotions: AtomicU64::new(0),
            backup: Histogram::new(&BACKUP_BUCKETS_S),
            defragment: Histogram::new(&DEFRAGMENT_BUCKETS_S),
            events_sent: AtomicU64::new(0),
            scrapes: AtomicU64::new(0),
            clients: Clients::default(),
            hash: Histogram::new(&HASH_BUCKETS_S),
            hash_at_revision: Histogram::new(&HASH_BUCKETS_S),
            range: std::array::from_fn(|_| Histogram::new(&replica::APPLY_BUCKETS_S)),
        }
    }
}

impl Metrics {
    /// Counts a request's beginning; `None` for a path that is no method.
    pub(crate) fn started(&self, path: &str) -> Option<&Arc<MethodCounters>> {
        let counters = self.methods.get(path)?;
        counters.started.fetch_add(1, Relaxed);
        Some(counters)
    }

    /// In the order of their paths, so that two scrapes compare.
    fn methods(&self) -> Vec<&Arc<MethodCounters>> {
        let mut methods: Vec<_> = self.methods.iter().collect();
        methods.sort_unstable_by_key(|(path, _)| *path);
        methods.into_iter().map(|(_, counters)| counters).collect()
    }
}
