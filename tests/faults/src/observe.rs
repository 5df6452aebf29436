//! What the members say of themselves during a run, and what compacts and defragments them meanwhile.
//!
//! Invariant: nothing is compacted that a watcher has not been given, so that the watchers' log has no gap.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use wire::etcdserverpb as pb;

use crate::cluster::client;
use crate::record::Sample;
use crate::workload::{OPERATION_TIMEOUT, Shared};

const SAMPLE_EVERY: Duration = Duration::from_millis(250);
const PAGE_KIB: u64 = 4;
/// Revisions that stay readable behind what all watchers have seen.
const HISTORY: i64 = 30;

pub async fn sample(
    member: usize,
    url: String,
    processes: Arc<Vec<AtomicU32>>,
    shared: Arc<Shared>,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    let Ok(mut client) = client(&url) else { return samples };
    while !shared.stopped() {
        let process = processes[member].load(Ordering::Relaxed);
        let at_ns = shared.now_ns();
        let status = client.maintenance.status(pb::StatusRequest {});
        let status = tokio::time::timeout(SAMPLE_EVERY, status).await.ok().and_then(Result::ok);
        let status = status.map(tonic::Response::into_inner);
        let header = status.as_ref().and_then(|status| status.header.as_ref());
        let sample = Sample {
            at_ns,
            member,
            answered: status.is_some(),
            leads: status
                .as_ref()
                .zip(header)
                .is_some_and(|(status, header)| status.leader == header.member_id),
            term: status.as_ref().map_or(0, |status| status.raft_term),
            revision: header.map_or(0, |header| header.revision),
            resident_kib: resident_kib(process),
            descriptors: fs::read_dir(format!("/proc/{process}/fd")).map_or(0, |files| files.count() as u64),
        };
        shared.note("cluster", &sample);
        samples.push(sample);
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
    samples
}

/// Zero if it does not run.
fn resident_kib(process: u32) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_KIB
}

/// What was acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upkeep {
    pub compactions: usize,
    pub defragmentations: usize,
}

pub async fn keep_up(urls: Vec<String>, seed: u64, shared: Arc<Shared>) -> Upkeep {
    let mut random = StdRng::seed_from_u64(seed);
    let mut done = Upkeep::default();
    while !shared.stopped() {
        tokio::time::sleep(Duration::from_millis(random.random_range(300..1_200))).await;
        let url = &urls[random.random_range(0..urls.len())];
        let Ok(mut client) = client(url) else { continue };
        if random.random_bool(0.2) {
            let defragment = client.maintenance.defragment(pb::DefragmentRequest {});
            let told = tokio::time::timeout(OPERATION_TIMEOUT, defragment).await;
            done.defragmentations += usize::from(matches!(told, Ok(Ok(_))));
            continue;
        }
        let seen = shared.collected.iter().map(|seen| seen.load(Ordering::SeqCst)).min().unwrap_or(0);
        let revision = seen - HISTORY - random.random_range(0..20);
        // Asked after `seen`: what is compacted all the same is older than what the copies are asked for.
        if revision < 1 || shared.copying.load(Ordering::SeqCst) {
            continue;
        }
        let compact =
            client.kv.compact(pb::CompactionRequest { revision, physical: random.random_bool(0.3) });
        let told = tokio::time::timeout(OPERATION_TIMEOUT, compact).await;
        done.compactions += usize::from(matches!(told, Ok(Ok(_))));
    }
    done
}
