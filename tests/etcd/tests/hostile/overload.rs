//! More work than a member or a cluster can do.
//!
//! What is judged: who is refused and how, who goes on, and that all is as before when the load is gone. Times are only
//! limits of patience.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use harness::etcd::EtcdCluster;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use wire::{Client, Transport, etcdserverpb as pb};

use crate::rig::{PATIENCE, Victim, put, watch};

/// Proposals that a member lets wait.
const PROPOSALS_MAX: usize = 5000;

struct Three {
    cluster: EtcdCluster,
    clients: Vec<Client>,
}

impl Three {
    async fn start(flags: &[&str]) -> Three {
        let cluster = EtcdCluster::start(3, None, None, flags).unwrap();
        let connect = |url: &String| {
            Client::new(Transport::connect(std::slice::from_ref(url), None, PATIENCE).unwrap())
        };
        let clients = cluster.client_urls.iter().map(connect).collect();
        let three = Three { cluster, clients };
        for member in 0..3 {
            three.serves(member).await;
        }
        three
    }

    /// A put through the member succeeds some time.
    async fn serves(&self, member: usize) {
        let begin = Instant::now();
        while let Err(status) = self.clients[member].kv.clone().put(put("ready", "")).await {
            assert!(begin.elapsed() < PATIENCE, "does not serve: {status}\n{}", self.cluster.log_ends());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn status(&self, member: usize) -> pb::StatusResponse {
        let asked = self.clients[member].maintenance.clone().status(pb::StatusRequest {}).await;
        asked.unwrap().into_inner()
    }

    async fn leader(&self) -> usize {
        for member in 0..3 {
            let status = self.status(member).await;
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return member;
            }
        }
        panic!("nobody leads:\n{}", self.cluster.log_ends());
    }

    /// Each member's term and whom it follows.
    async fn reigns(&self) -> Vec<(u64, u64)> {
        let mut reigns = Vec::new();
        for member in 0..3 {
            let status = self.status(member).await;
            reigns.push((status.raft_term, status.leader));
        }
        reigns
    }
}

#[tokio::test]
async fn proposals_over_the_limit_are_refused_at_once_and_the_others_get_their_turn() {
    // The leader keeps its office for a while without the others.
    let three = Three::start(&["--heartbeat-interval=100", "--election-timeout=8000"]).await;
    let leader = three.leader().await;
    let others = [0, 1, 2].into_iter().filter(|member| *member != leader);
    others.clone().for_each(|member| assert!(three.cluster.pause(member).unwrap()));
    let over = 200;
    let mut writers = JoinSet::new();
    for number in 0..PROPOSALS_MAX + over {
        let mut kv = three.clients[leader].kv.clone();
        writers.spawn(async move { kv.put(put(&format!("k{number}"), "1")).await });
    }
    for _ in 0..over {
        let refused = tokio::time::timeout(PATIENCE, writers.join_next()).await;
        let refused = refused.expect("refused while the others wait").unwrap().unwrap().unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unknown, "etcdserver: too many requests"));
    }
    // Reads of what the member knows are no proposals.
    let read = pb::RangeRequest { key: "ready".into(), serializable: true, ..Default::default() };
    let read = tokio::time::timeout(PATIENCE, three.clients[leader].kv.clone().range(read)).await;
    assert_eq!(read.unwrap().unwrap().into_inner().count, 1);
    others.for_each(|member| assert!(three.cluster.resume(member).unwrap()));
    let mut done = 0;
    while let Some(written) = tokio::time::timeout(PATIENCE, writers.join_next()).await.unwrap() {
        // On a slow machine the leader's office or a request's time may be over.
        match written.unwrap() {
            Ok(_) => done += 1,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
    }
    assert!(done > 0, "none of those that waited was written");
    three.serves(leader).await;
}

#[tokio::test]
async fn ten_thousand_idle_watches_and_a_reader_that_is_stuck_hold_up_no_writer() {
    let mut victim = Victim::start(&["--quota-backend-bytes=-1"]).await;
    victim.remember_memory();
    let mut stuck = victim.connect(0).await;
    let _stuck = stuck.watch().await;
    let mut idle = Vec::new();
    for stream in 0..10 {
        let creates = (0..1000).map(|number| pb::WatchCreateRequest {
            key: format!("idle{stream}/{number}").into(),
            ..Default::default()
        });
        let mut answers = watch(&victim.client, creates.collect()).await;
        for _ in 1..1000 {
            let created = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
            assert!(created.created && !created.canceled);
        }
        idle.push(answers);
    }
    // 128 MiB pass the reader that is stuck.
    let value = "x".repeat(512 << 10);
    for number in 0..256 {
        victim.client.kv.clone().put(put(&format!("k{}", number % 64), &value)).await.unwrap();
    }
    victim.is_well(400).await;
    for (stream, answers) in idle.iter_mut().enumerate() {
        victim.client.kv.clone().put(put(&format!("idle{stream}/{}", stream * 100), "1")).await.unwrap();
        let event = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
        assert_eq!((event.watch_id, event.events.len()), (i64::try_from(stream * 100).unwrap(), 1));
    }
}

/// What writers without pause have got.
#[derive(Default)]
struct Tally {
    written: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

/// Starts writers that write one after the other until told to stop. Ends with what they were told that is no refusal.
fn write_without_pause(three: &Three, writers: usize, tally: &Arc<Tally>) -> JoinSet<Vec<Status>> {
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let (mut kv, tally) = (three.clients[writer % 3].kv.clone(), tally.clone());
        tasks.spawn(async move {
            let mut failures = Vec::new();
            let value = "x".repeat(256);
            while !tally.stop.load(Ordering::Relaxed) {
                match kv.put(put(&format!("load{writer}"), &value)).await {
                    Ok(_) => drop(tally.written.fetch_add(1, Ordering::Relaxed)),
                    Err(status) if status.message() == "etcdserver: too many requests" => {
                        tally.refused.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    Err(status) => failures.push(status),
                }
            }
            failures
        });
    }
    tasks
}

/// The middle of eleven puts, one after the other.
async fn middle(three: &Three) -> Duration {
    let mut took = Vec::new();
    for number in 0..11 {
        let begin = Instant::now();
        three.clients[number % 3].kv.clone().put(put("latency", "1")).await.unwrap();
        took.push(begin.elapsed());
    }
    took.sort();
    took[took.len() / 2]
}

/// 128 writers saturate two processors; five times as many are let loose.
#[tokio::test]
#[ignore = "keeps the machine busy for half a minute"]
async fn a_cluster_under_five_times_its_load_keeps_its_leader_and_its_leases_and_recovers() {
    let three = Three::start(&["--quota-backend-bytes=-1"]).await;
    let lease = pb::LeaseGrantRequest { ttl: 20, id: 7 };
    three.clients[0].lease.clone().lease_grant(lease).await.unwrap();
    let leased = pb::PutRequest { lease: 7, ..put("leased", "1") };
    three.clients[0].kv.clone().put(leased).await.unwrap();
    let calm = middle(&three).await;
    let before = three.reigns().await;

    let tally = Arc::new(Tally::default());
    let mut writers = write_without_pause(&three, 5 * 128, &tally);
    let begin = Instant::now();
    let mut pieces = Vec::new();
    while begin.elapsed() < Duration::from_secs(20) {
        let so_far = tally.written.load(Ordering::Relaxed);
        let keep = tokio_stream::iter([pb::LeaseKeepAliveRequest { id: 7 }]);
        let mut kept = three.clients[0].lease.clone().lease_keep_alive(keep).await.unwrap().into_inner();
        let kept = tokio::time::timeout(PATIENCE, kept.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(kept.ttl, 20, "the lease lives");
        tokio::time::sleep(Duration::from_secs(2)).await;
        pieces.push(tally.written.load(Ordering::Relaxed) - so_far);
    }
    tally.stop.store(true, Ordering::Relaxed);
    let mut failures = BTreeMap::new();
    while let Some(failed) = tokio::time::timeout(PATIENCE, writers.join_next()).await.unwrap() {
        for status in failed.unwrap() {
            *failures.entry(status.to_string()).or_insert(0) += 1;
        }
    }
    let refused = tally.refused.load(Ordering::Relaxed);
    assert!(failures.is_empty(), "{failures:?}\n{}", three.cluster.log_ends());
    assert!(
        pieces.iter().all(|written| *written > 0),
        "a piece without a write: {pieces:?}, {refused} refused"
    );
    assert_eq!(three.reigns().await, before, "the load has caused an election");
    let read = pb::RangeRequest { key: "leased".into(), ..Default::default() };
    assert_eq!(three.clients[1].kv.clone().range(read).await.unwrap().into_inner().count, 1);

    let begin = Instant::now();
    loop {
        let now = middle(&three).await;
        if now <= 3 * calm.max(Duration::from_millis(20)) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "a put takes {now:?}, before the load {calm:?}");
    }
}
