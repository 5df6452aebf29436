//! All that were connected to a leader that is gone come to the others at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use wire::{Client, Transport, etcdserverpb as pb};

use super::Three;
use crate::rig::PATIENCE;

/// Fewer where a process may not have so many files open.
const CLIENTS: u64 = 10_000;
const CLIENTS_MIN: u64 = 500;
/// Beside a client's socket, what test and members need.
const OTHER_FILES: u64 = 500;
/// What is promised; a machine on which the first connections took longer may take twice as long as for them.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
#[ignore = "keeps the machine busy for some seconds"]
async fn clients_that_all_come_at_once_when_their_leader_is_gone_are_all_served() {
    let files = harness::raise_open_files_max().unwrap();
    let all = CLIENTS.min(files.saturating_sub(OTHER_FILES));
    assert!(all >= CLIENTS_MIN, "{files} open files are too few");
    let mut three = Three::start(&["--quota-backend-bytes=-1"]).await;
    let leader = three.leader().await;
    let mut urls = three.cluster.client_urls.clone();
    urls.rotate_left(leader);
    let mut clients = JoinSet::new();
    let connected = Arc::new(AtomicU64::new(0));
    let killed = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    for number in 0..all {
        let (connected, killed) = (connected.clone(), killed.clone());
        let (first, mut others) = (urls[..1].to_vec(), urls[1..].to_vec());
        others.rotate_left((number % 2) as usize);
        clients.spawn(async move {
            let read = pb::RangeRequest { key: "ready".into(), ..Default::default() };
            let mut first = Client::new(Transport::connect(&first, None, PATIENCE).unwrap());
            first.kv.range(read.clone()).await.unwrap();
            connected.fetch_add(1, Ordering::Relaxed);
            while !killed.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let mut second = Client::new(Transport::connect(&others, None, PATIENCE).unwrap());
            let begin = Instant::now();
            while let Err(status) = second.kv.range(read.clone()).await {
                assert!(begin.elapsed() < 2 * PATIENCE, "not served: {status}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    while connected.load(Ordering::Relaxed) < all {
        assert!(begin.elapsed() < 2 * PATIENCE, "only {connected:?} of {all} could connect");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let first_took = begin.elapsed();
    assert!(three.cluster.kill(leader).unwrap());
    let begin = Instant::now();
    killed.store(true, Ordering::Relaxed);
    while let Some(served) = tokio::time::timeout(3 * PATIENCE, clients.join_next()).await.unwrap() {
        served.unwrap_or_else(|error| panic!("{error}\n{}", three.cluster.log_ends()));
    }
    let settled = begin.elapsed();
    println!("{all} clients: connected within {first_took:?}, again within {settled:?}");
    assert!(
        settled < SETTLED_WITHIN.max(2 * first_took),
        "{all} clients needed {settled:?}, at first {first_took:?}"
    );
}
