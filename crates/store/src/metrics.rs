//! What is counted per request, and `/metrics` in Prometheus' text form under etcd's names.
//!
//! Counting costs one relaxed addition per request. Everything about the log and the state is read when asked for.

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
use tonic::Code;

pub(crate) use text::render;

/// Number of gRPC codes.
const CODES: usize = 17;

/// All messages and services by descriptor. `None` never happens: the bytes come from this build.
pub(crate) static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(wire::DESCRIPTORS).ok());

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
#[derive(Debug)]
pub(crate) struct MethodCounters {
    pub method: Method,
    pub started: AtomicU64,
    pub handled: [AtomicU64; CODES],
    pub handling_us: AtomicU64,
}

impl MethodCounters {
    pub(crate) fn finished(&self, code: Code, begin: Instant) {
        self.handled[code as usize].fetch_add(1, Relaxed);
        let elapsed_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.handling_us.fetch_add(elapsed_us, Relaxed);
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
                handling_us: AtomicU64::new(0),
            };
            (path, Arc::new(counters))
        });
        Metrics {
            methods: counters.collect(),
            received_bytes: Arc::default(),
            sent_bytes: Arc::default(),
            health_success: AtomicU64::new(0),
            health_failures: AtomicU64::new(0),
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
