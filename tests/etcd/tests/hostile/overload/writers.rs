//! Clients that write one after the other, as fast as they are answered, and what they were told how fast.
//!
//! Each group lives in a thread of its own, so that two groups meet in the members and not in the test. Not here: what
//! is expected of the figures.

use std::collections::BTreeMap;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::Status;
use wire::{Client, Transport, etcdserverpb as pb};

use super::REFUSAL;
use crate::rig::{PATIENCE, put};

/// What each of them writes.
pub(super) const VALUE_BYTES: u64 = 256;
/// Whoever was refused comes again after this.
const PAUSE: Duration = Duration::from_millis(500);

/// A group that writes until it is stopped.
pub(super) struct Writers {
    tally: Arc<Tally>,
    thread: JoinHandle<BTreeMap<String, u32>>,
}

#[derive(Default)]
struct Tally {
    written: AtomicU64,
    stop: AtomicBool,
    counted: Mutex<Counted>,
}

/// How long each answer took.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) written: Vec<Duration>,
    pub(super) refused: Vec<Duration>,
}

/// How long the fastest `percent` of these took at most.
pub(super) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    let last = times.len().saturating_sub(1);
    times.get((times.len() * percent / 100).min(last)).copied().unwrap_or_default()
}

impl Writers {
    /// `count` of them, each member's over one connection; each writes so many keys at once.
    pub(super) fn start(urls: &[String], count: usize, keys: usize) -> Writers {
        let tally = Arc::new(Tally::default());
        let (shared, urls) = (tally.clone(), urls.to_vec());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(write(&urls, (count, keys), &shared))
        });
        Writers { tally, thread }
    }

    /// Writes since the start.
    pub(super) fn written(&self) -> u64 {
        self.tally.written.load(Ordering::Relaxed)
    }

    /// What came in since the last time.
    pub(super) fn count(&self) -> Counted {
        std::mem::take(&mut self.tally.counted.lock().unwrap())
    }

    /// Ends with what they were told that is neither "done" nor "too many", and how often.
    pub(super) fn stop(self) -> BTreeMap<String, u32> {
        self.tally.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn write(urls: &[String], (count, keys): (usize, usize), tally: &Arc<Tally>) -> BTreeMap<String, u32> {
    let connect =
        |url: &String| Client::new(Transport::connect(std::slice::from_ref(url), None, PATIENCE).unwrap());
    let clients: Vec<Client> = urls.iter().map(connect).collect();
    let mut tasks = JoinSet::new();
    for writer in 0..count {
        let success = (0..keys).map(|key| {
            let put = put(&format!("load{writer}/{key}"), &"x".repeat(VALUE_BYTES as usize / keys));
            pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
        });
        let request = pb::TxnRequest { success: success.collect(), ..Default::default() };
        tasks.spawn(write_on(clients[writer % clients.len()].clone(), request, tally.clone()));
    }
    let mut failures = BTreeMap::new();
    while let Some(failed) = tokio::time::timeout(PATIENCE, tasks.join_next()).await.unwrap() {
        for status in failed.unwrap() {
            *failures.entry(status.to_string()).or_insert(0) += 1;
        }
    }
    failures
}

async fn write_on(client: Client, request: pb::TxnRequest, tally: Arc<Tally>) -> Vec<Status> {
    let (mut kv, mut failures) = (client.kv, Vec::new());
    while !tally.stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        match kv.txn(request.clone()).await {
            Ok(_) => {
                tally.written.fetch_add(1, Ordering::Relaxed);
                tally.counted.lock().unwrap().written.push(begin.elapsed());
            }
            Err(status) if status.code() == tonic::Code::Unknown && status.message() == REFUSAL => {
                tally.counted.lock().unwrap().refused.push(begin.elapsed());
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => failures.push(status),
        }
    }
    failures
}
