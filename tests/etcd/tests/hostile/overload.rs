//! More work than a member or a cluster can do.
//!
//! What is judged: who is refused and how, who goes on, and that all is as before when the load is gone. Times are only
//! limits of patience.

mod load;
mod reconnect;
mod tenants;
mod writers;

use std::time::{Duration, Instant};

use harness::etcd::EtcdCluster;
use tokio::task::JoinSet;
use tonic::Code;
use wire::{Client, Transport, etcdserverpb as pb};

use crate::rig::{PATIENCE, Victim, put, watch};

/// Proposals that a member lets wait.
const PROPOSALS_MAX: usize = 5000;
const REFUSAL: &str = "etcdserver: too many requests";
/// More than these a client may not have waiting once the line is full.
const FEW: usize = 16;

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

/// Lease 7 of 20 s is kept alive.
async fn keeps_alive(client: &Client) {
    let keep = tokio_stream::iter([pb::LeaseKeepAliveRequest { id: 7 }]);
    let mut kept = client.lease.clone().lease_keep_alive(keep).await.unwrap().into_inner();
    let kept = tokio::time::timeout(PATIENCE, kept.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(kept.ttl, 20, "the lease lives");
}

/// The middle of eleven puts, one after the other.
async fn middle(clients: &[Client]) -> Duration {
    let mut took = Vec::new();
    for number in 0..11 {
        let begin = Instant::now();
        clients[number % clients.len()].kv.clone().put(put("latency", "1")).await.unwrap();
        took.push(begin.elapsed());
    }
    writers::percentile(&mut took, 50)
}

#[tokio::test]
async fn writes_over_the_limit_are_refused_at_once_and_another_client_has_its_turn_before_all_that_wait() {
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
    let mut reigned_on = true;
    for _ in 0..over {
        let refused = tokio::time::timeout(PATIENCE, writers.join_next()).await;
        let refused = refused.expect("refused while the others wait").unwrap().unwrap().unwrap_err();
        // On a slow machine the leader's office may be over before all have asked.
        if refused.code() == Code::Unavailable {
            reigned_on = false;
            break;
        }
        assert_eq!((refused.code(), refused.message()), (Code::Unknown, REFUSAL));
    }
    // There is room for whoever has not many in line, on another connection.
    let mut others_writes = JoinSet::new();
    let other =
        Client::new(Transport::connect(&three.cluster.client_urls[leader..=leader], None, PATIENCE).unwrap());
    for number in 0..FEW {
        let mut kv = other.kv.clone();
        others_writes.spawn(async move { kv.put(put(&format!("other{number}"), "1")).await });
    }
    // Reads of what the member knows are no proposals.
    let read = pb::RangeRequest { key: "ready".into(), serializable: true, ..Default::default() };
    let read = tokio::time::timeout(PATIENCE, three.clients[leader].kv.clone().range(read)).await;
    assert_eq!(read.unwrap().unwrap().into_inner().count, 1);
    others.for_each(|member| assert!(three.cluster.resume(member).unwrap()));
    let (mut done, mut done_before_other) = (0, 0);
    while !(others_writes.is_empty() && writers.is_empty()) {
        let (written, is_other) = tokio::select! {
            biased;
            Some(written) = others_writes.join_next() => (written, true),
            Some(written) = writers.join_next() => (written, false),
            () = tokio::time::sleep(PATIENCE) => panic!("no answer:\n{}", three.cluster.log_ends()),
        };
        // On a slow machine the leader's office or a request's time may be over.
        match written.unwrap() {
            Ok(_) if is_other => done_before_other = done,
            Ok(_) => done += 1,
            Err(status) if status.code() == Code::Unavailable => reigned_on = false,
            // Those left over when the office ended early.
            Err(status) if status.message() == REFUSAL && !(is_other && reigned_on) => {}
            Err(status) => panic!("{status}"),
        }
    }
    // Of those that came before the other's all are done first that were in the log's line, and then one for each.
    assert!(done_before_other < PROPOSALS_MAX / 2 || !reigned_on, "the other waited for {done_before_other}");
    assert!(done > 0 || !reigned_on, "none of those that waited was written");
    three.serves(leader).await;
}

#[tokio::test]
async fn ten_thousand_idle_watches_and_a_reader_that_is_stuck_hold_up_no_writer() {
    let mut victim = Victim::start(&["--quota-backend-bytes=-1"]).await;
    victim.remember_memory();
    let calm = middle(std::slice::from_ref(&victim.client)).await;
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
    // A put takes no longer than without them: tried again, because others share this machine.
    let begin = Instant::now();
    loop {
        let now = middle(std::slice::from_ref(&victim.client)).await;
        if now <= 3 * calm.max(Duration::from_millis(20)) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "a put takes {now:?}, without watches {calm:?}");
    }
    for (stream, answers) in idle.iter_mut().enumerate() {
        victim.client.kv.clone().put(put(&format!("idle{stream}/{}", stream * 100), "1")).await.unwrap();
        let event = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
        assert_eq!((event.watch_id, event.events.len()), (i64::try_from(stream * 100).unwrap(), 1));
    }
}
