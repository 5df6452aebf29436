//! Lease time over several members.

use std::time::{Duration, Instant};

use mvcc::{Caller, Command, LeaseGrant, Put};
use replica::Handle;

use crate::rig::{Cluster, eventually, get_here};

async fn grant(handle: &Handle, id: i64, ttl_s: i64) {
    let applied =
        handle.propose(Caller::System, Command::LeaseGrant(LeaseGrant { id, ttl_s })).await.unwrap();
    applied.result.unwrap();
}

async fn put_with_lease(handle: &Handle, key: &'static str, lease: i64) {
    let put = Put { key: key.as_bytes().into(), value: "x".into(), lease, ..Put::default() };
    handle.propose(Caller::System, Command::Put(put)).await.unwrap().result.unwrap();
}

#[tokio::test]
async fn a_lease_expires_on_time_and_never_early_and_renewals_through_any_member_keep_it() {
    let cluster = Cluster::start(3).await;
    let follower = cluster.a_follower().await;
    let handle = cluster.handle(follower);
    let granted = Instant::now();
    grant(handle, 1, 2).await;
    grant(handle, 2, 5).await;
    put_with_lease(handle, "lonely", 1).await;
    put_with_lease(handle, "kept", 2).await;
    let left = handle.lease_remaining(1).await.unwrap().unwrap();
    assert_eq!(left.granted_ttl_s, 2);
    assert!(left.remaining_s <= 2);
    let mut gone = None;
    // Longer than the renewed one would live; and a machine may be slow to end the other.
    while granted.elapsed() < Duration::from_secs(6)
        || (gone.is_none() && granted.elapsed() < Duration::from_secs(30))
    {
        for index in 0..3 {
            assert_eq!(cluster.handle(index).lease_renew(2).await.unwrap(), Some(5));
        }
        if gone.is_none() && get_here(handle, "lonely").is_none() {
            gone = Some(granted.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let gone = gone.expect("the lease expired in time");
    assert!(gone >= Duration::from_secs(2), "expired early, after {gone:?}");
    assert_eq!(get_here(handle, "kept").as_deref(), Some("x"));
    assert_eq!(handle.lease_renew(1).await.unwrap(), None);
    assert_eq!(handle.lease_remaining(1).await.unwrap(), None);
    cluster.converge().await;
}

#[tokio::test]
async fn a_new_leader_gives_every_lease_its_full_time_again() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    grant(cluster.handle(leader), 7, 3).await;
    put_with_lease(cluster.handle(leader), "k", 7).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    cluster.kill(leader).await;
    let survivor = cluster.running()[0];
    cluster.leader().await;
    let changed = Instant::now();
    let left = cluster.handle(survivor).lease_remaining(7).await.unwrap().unwrap();
    assert!(left.remaining_s >= 2, "{left:?}");
    eventually("the lease to expire", || get_here(cluster.handle(survivor), "k").is_none().then_some(()))
        .await;
    assert!(changed.elapsed() > Duration::from_millis(2_000), "expired early, after {:?}", changed.elapsed());
}

#[tokio::test]
async fn with_checkpoints_a_new_leader_goes_on_from_what_was_left() {
    let mut cluster = Cluster::start_with(3, |config| {
        config.lease_checkpoint_interval = Some(Duration::from_secs(1));
    })
    .await;
    let leader = cluster.leader().await;
    grant(cluster.handle(leader), 7, 600).await;
    grant(cluster.handle(leader), 8, 600).await;
    let checkpoint =
        |id| cluster.handle(leader).read(|store, _| store.lease(id).map_or(0, |lease| lease.remaining_s));
    eventually("checkpoints", || (checkpoint(7) > 0 && checkpoint(8) > 0).then_some(())).await;
    assert!(checkpoint(7) < 600);
    // Renewed: nothing of the checkpoint is left once the client knows.
    let handle = cluster.handle(leader);
    assert_eq!(handle.lease_renew(8).await.unwrap(), Some(600));
    let left = checkpoint(7);
    // Every member knows it: whoever is elected begins with it, and not with full time.
    eventually("the checkpoint on all members", || {
        let known = |index| {
            cluster.handle(index).read(|store, _| store.lease(7).map_or(0, |lease| lease.remaining_s))
        };
        (0..3).all(|index| (1..=left).contains(&known(index))).then_some(())
    })
    .await;
    cluster.kill(leader).await;
    let survivor = cluster.running()[0];
    cluster.leader().await;
    let after = cluster.handle(survivor).lease_remaining(7).await.unwrap().unwrap().remaining_s;
    assert!(after <= left, "{after} of {left} s");
}

/// The log's order matters for each lease, but nobody waits for another one's round: the renewals share fsyncs.
#[tokio::test]
async fn renewals_of_checkpointed_leases_do_not_wait_for_each_other() {
    const LEASES: i64 = 200;
    let cluster = Cluster::start_with(1, |config| {
        config.lease_checkpoint_interval = Some(Duration::from_secs(1));
    })
    .await;
    let handle = cluster.handle(0);
    futures_util::future::join_all((1..=LEASES).map(|id| grant(handle, id, 600))).await;
    let checkpointed = || {
        (1..=LEASES)
            .all(|id| handle.read(|store, _| store.lease(id).is_some_and(|lease| lease.remaining_s > 0)))
    };
    eventually("checkpoints", || checkpointed().then_some(())).await;
    let before = handle.metrics().wal.fsync_count;
    let renewed = futures_util::future::join_all((1..=LEASES).map(|id| handle.lease_renew(id))).await;
    assert!(renewed.into_iter().all(|granted| granted == Ok(Some(600))));
    let fsyncs = handle.metrics().wal.fsync_count - before;
    assert!(fsyncs < LEASES as u64 / 2, "{fsyncs} fsyncs for {LEASES} renewals");
}
