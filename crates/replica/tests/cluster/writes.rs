//! Writing and reading while all members run, and over a change of leaders.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mvcc::EventsBound;
use replica::ProposeError;

use crate::rig::{Cluster, eventually, get, get_here, put, put_command, try_put};

/// A timeout that no test sits out: what is faster did not need it.
fn slow_elections(config: &mut replica::Config) {
    config.election_timeout_ms = 6_000;
}

#[tokio::test]
async fn a_single_member_leads_at_once_and_answers() {
    let started = Instant::now();
    let cluster = Cluster::start_with(1, slow_elections).await;
    let elected = started.elapsed();
    assert_eq!(put(cluster.handle(0), "a", "1").await, 2);
    assert_eq!(get(cluster.handle(0), "a").await.as_deref(), Some("1"));
    assert!(elected < Duration::from_secs(3), "led after {elected:?}");
}

#[tokio::test]
async fn three_members_that_start_together_have_a_leader_well_under_an_election_timeout() {
    let mut cluster = Cluster::prepare(3, slow_elections);
    let started = Instant::now();
    for index in 0..3 {
        cluster.launch(index).await;
    }
    let launched = started.elapsed();
    cluster.leader().await;
    let elected = started.elapsed() - launched;
    assert!(elected < Duration::from_secs(3), "elected after {elected:?}, launched after {launched:?}");
}

#[tokio::test]
async fn every_member_takes_writes_and_reads_what_any_other_acknowledged() {
    let cluster = Cluster::start(3).await;
    for round in 0..10 {
        for writer in 0..3 {
            let value = format!("{round}-{writer}");
            put(cluster.handle(writer), "k", &value).await;
            for reader in 0..3 {
                assert_eq!(get(cluster.handle(reader), "k").await, Some(value.clone()), "reader {reader}");
            }
        }
    }
    cluster.converge().await;
}

#[tokio::test]
async fn many_writers_on_all_members_are_each_applied_once() {
    let cluster = Cluster::start(3).await;
    let writers = (0..60).map(|writer| {
        let handle = cluster.handle(writer % 3).clone();
        tokio::spawn(async move {
            for n in 0..20 {
                put(&handle, &format!("w{writer}"), &n.to_string()).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    cluster.converge().await;
    assert_eq!(cluster.handle(0).status().revision, 1 + 60 * 20);
}

#[tokio::test]
async fn events_are_readable_when_the_revision_watch_moves() {
    let cluster = Cluster::start(3).await;
    let follower = cluster.a_follower().await;
    let handle = cluster.handle(follower).clone();
    let mut revisions = handle.revision_watch();
    let seen = tokio::spawn(async move {
        let mut next = 2;
        while next < 52 {
            revisions.changed().await.unwrap();
            let revision = *revisions.borrow_and_update();
            let bound = EventsBound { revisions_max: 1_000, size_bytes_max: 1 << 20 };
            let batches = handle.read(|store, records| store.events(records, next, bound)).unwrap();
            for batch in &batches {
                assert_eq!(batch.revision, next, "revisions come in order, none is skipped");
                next += 1;
            }
            assert!(next > revision, "events up to {revision} are readable, read up to {next}");
        }
    });
    for n in 0..50 {
        put(cluster.handle(0), "k", &n.to_string()).await;
    }
    tokio::time::timeout(Duration::from_secs(10), seen).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_cluster_goes_on_when_the_leader_dies_and_loses_nothing_acknowledged() {
    let mut cluster = Cluster::start(3).await;
    for n in 0..50 {
        put(cluster.handle(n % 3), &format!("before{n}"), "x").await;
    }
    let old = cluster.leader().await;
    cluster.kill(old).await;
    let died = Instant::now();
    let survivor = cluster.running()[0];
    put(cluster.handle(survivor), "after", "y").await;
    assert!(died.elapsed() < Duration::from_secs(30), "a new leader after {:?}", died.elapsed());
    for n in 0..50 {
        assert_eq!(get(cluster.handle(survivor), &format!("before{n}")).await.as_deref(), Some("x"));
    }
    assert_ne!(cluster.leader().await, old);
    cluster.converge().await;
}

#[tokio::test]
async fn leadership_moves_on_request_and_on_a_clean_stop() {
    let mut cluster = Cluster::start_with(3, slow_elections).await;
    let first = cluster.leader().await;
    let target = (first + 1) % 3;
    cluster.handle(first).move_leader(cluster.id(target)).await.unwrap();
    assert_eq!(cluster.leader().await, target);
    let stopped = Instant::now();
    cluster.stop(target).await;
    let survivor = cluster.running()[0];
    put(cluster.handle(survivor), "a", "1").await;
    assert!(stopped.elapsed() < Duration::from_secs(4), "took {:?}", stopped.elapsed());
}

#[tokio::test]
async fn proposals_during_leader_changes_succeed_once_or_are_reported_unknown() {
    let cluster = Arc::new(Cluster::start(3).await);
    let unknown = Arc::new(AtomicU64::new(0));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writers = (0..12).map(|writer| {
        let (cluster, unknown, acknowledged) = (cluster.clone(), unknown.clone(), acknowledged.clone());
        tokio::spawn(async move {
            let handle = cluster.handle(writer % 3).clone();
            for n in 0..60 {
                match try_put(&handle, &format!("w{writer}-{n}"), "x").await {
                    Ok(applied) => {
                        applied.result.unwrap();
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(ProposeError::OutcomeUnknown { .. }) => drop(unknown.fetch_add(1, Ordering::Relaxed)),
                    Err(other) => panic!("{other}"),
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let leader = cluster.leader().await;
        let target = (leader + 1) % 3;
        // A transfer may lose against another election; then there was a leader change all the same.
        let _ = cluster.handle(leader).move_leader(cluster.id(target)).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    cluster.converge().await;
    // Every put makes one revision: no proposal was applied twice, none that was acknowledged is missing.
    let applied = u64::try_from(cluster.handle(0).status().revision - 1).unwrap();
    let (acknowledged, unknown) = (acknowledged.load(Ordering::Relaxed), unknown.load(Ordering::Relaxed));
    assert!(
        applied >= acknowledged && applied <= acknowledged + unknown,
        "{applied} {acknowledged} {unknown}"
    );
    assert_eq!(acknowledged + unknown, 720);
}

#[tokio::test]
async fn a_caller_that_has_waited_already_waits_less() {
    let mut cluster = Cluster::start(2).await;
    let leader = cluster.leader().await;
    cluster.kill((leader + 1) % 2).await;
    let handle = cluster.handle(leader);
    let mut patient = std::pin::pin!(try_put(handle, "a", "1"));
    // On its way when the other one comes.
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut patient).await.is_err());
    let soon = tokio::time::Instant::now() + Duration::from_millis(50);
    let impatient = handle.propose_by(mvcc::Caller::System, put_command("a", "2"), soon);
    tokio::select! {
        biased;
        result = impatient => {
            let late = matches!(result, Err(ProposeError::OutcomeUnknown { .. } | ProposeError::NoLeader));
            assert!(late, "{result:?}");
        }
        result = patient => panic!("{result:?} before the other one's deadline"),
    }
}

#[tokio::test]
async fn without_a_quorum_nothing_is_acknowledged_and_reads_do_not_pretend() {
    let mut cluster = Cluster::start_with(3, |config| config.request_timeout = Duration::from_secs(4)).await;
    put(cluster.handle(0), "a", "1").await;
    let leader = cluster.leader().await;
    for index in cluster.running() {
        if index != leader {
            cluster.kill(index).await;
        }
    }
    let result = try_put(cluster.handle(leader), "a", "2").await;
    assert!(
        matches!(result, Err(ProposeError::OutcomeUnknown { .. } | ProposeError::NoLeader)),
        "{result:?}"
    );
    assert!(cluster.handle(leader).read_barrier().await.is_err());
    assert_eq!(get_here(cluster.handle(leader), "a").as_deref(), Some("1"));
    eventually("the lonely leader to say that there is none", || {
        cluster.handle(leader).status().leader.is_none().then_some(())
    })
    .await;
}
