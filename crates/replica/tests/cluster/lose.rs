//! Members that lost their log, their directory, or so much time that the log is gone.

use std::time::Duration;

use replica::StartError;

use crate::rig::{Cluster, Node, eventually, get, get_here, put, try_put};

/// A log that is cut soon.
fn short_log(config: &mut replica::Config) {
    config.snapshot_count = 100;
    config.wal_segment_size_bytes = 256 << 10;
}

#[tokio::test]
async fn a_follower_that_was_away_too_long_gets_a_snapshot_and_its_watchers_go_on() {
    let mut cluster = Cluster::start_with(3, short_log).await;
    let away = cluster.a_follower().await;
    cluster.kill(away).await;
    let leader = cluster.leader().await;
    for n in 0..1_500 {
        put(cluster.handle(leader), &format!("k{}", n % 200), &n.to_string()).await;
    }
    eventually("the log to be cut", || (cluster.handle(leader).status().purged_index > 1_000).then_some(()))
        .await;
    let handle = cluster.launch(away).await;
    let mut revisions = handle.revision_watch();
    revisions.wait_for(|revision| *revision >= 1_501).await.unwrap();
    cluster.converge().await;
    eventually("a snapshot to be counted", || (handle.metrics().snapshots_received >= 1).then_some(())).await;
    assert_eq!(get(&handle, "k199").await.as_deref(), Some("1399"));
    // It takes part again, also after a restart on what it received.
    put(&handle, "by the returned", "1").await;
    cluster.kill(away).await;
    cluster.launch(away).await;
    cluster.converge().await;
    assert_eq!(get(cluster.handle(away), "by the returned").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_member_that_lost_its_directory_is_refilled_and_gives_no_vote_before() {
    let mut cluster = Cluster::start(3).await;
    for index in 0..3 {
        cluster.publish(index).await;
    }
    for n in 0..300 {
        put(cluster.handle(0), &format!("k{n}"), "x").await;
    }
    let victim = cluster.a_follower().await;
    cluster.kill(victim).await;
    let handle = cluster.launch_after_wipe(victim).await;
    assert!(handle.status().quarantined);
    eventually("the quarantine to be lifted", || (!handle.status().quarantined).then_some(())).await;
    cluster.converge().await;
    assert_eq!(get(&handle, "k299").await.as_deref(), Some("x"));
    // Now its vote counts again: the cluster survives the loss of another member.
    let leader = cluster.leader().await;
    cluster.kill(leader).await;
    put(&handle, "after", "1").await;
    cluster.converge().await;
}

/// The first start on the empty directory fails when it has only just written whose it is.
#[tokio::test]
async fn a_member_that_lost_its_directory_gives_no_vote_after_an_interrupted_start_either() {
    let mut cluster = Cluster::start(3).await;
    for index in 0..3 {
        cluster.publish(index).await;
    }
    let victim = cluster.a_follower().await;
    cluster.kill(victim).await;
    cluster.wipe(victim);
    let config = cluster.config(victim);
    let port = std::net::TcpListener::bind(config.listen_peer_urls[0]).unwrap();
    let refused = Node::start(config).await.err().expect("refused");
    assert!(matches!(refused, StartError::PortInUse { .. }), "{refused}");
    drop(port);
    let handle = cluster.launch(victim).await;
    assert!(handle.status().quarantined);
    eventually("the quarantine to be lifted", || (!handle.status().quarantined).then_some(())).await;
}

/// A port in use, or a crash, between the first word in the directory and the first entry of the log.
#[tokio::test]
async fn a_new_cluster_whose_first_starts_were_interrupted_elects_a_leader() {
    let mut cluster = Cluster::prepare(3, |_| {});
    let mut ports = Vec::new();
    for index in 0..3 {
        let config = cluster.config(index);
        ports.push(std::net::TcpListener::bind(config.listen_peer_urls[0]).unwrap());
        let refused = Node::start(config).await.err().expect("refused");
        assert!(matches!(refused, StartError::PortInUse { .. }), "{refused}");
    }
    drop(ports);
    for index in 0..3 {
        cluster.launch(index).await;
    }
    for index in 0..3 {
        cluster.votes(index).await;
    }
    put(cluster.handle(0), "a", "1").await;
    cluster.converge().await;
}

/// Once it has an identity, its flags alone say who the others are, and flags know no ids of members that came later.
#[tokio::test]
async fn an_emptied_member_whose_flags_know_the_others_by_wrong_ids_gets_its_vote_back() {
    let mut cluster = Cluster::start(3).await;
    for index in 0..3 {
        cluster.publish(index).await;
    }
    let victim = cluster.a_follower().await;
    cluster.kill(victim).await;
    cluster.wipe(victim);
    let mut config = cluster.config(victim);
    config.new_cluster = false;
    let me = cluster.id(victim);
    for other in config.initial_members.iter_mut().filter(|member| member.id != me) {
        other.id ^= 1;
    }
    cluster.nodes[victim] = Some(Node::start(config).await.unwrap());
    assert!(cluster.handle(victim).status().quarantined);
    cluster.votes(victim).await;
    put(cluster.handle(victim), "a", "1").await;
    cluster.converge().await;
}

#[tokio::test]
async fn a_member_of_an_existing_cluster_with_an_empty_directory_gives_no_vote_while_nobody_answers() {
    let mut cluster = Cluster::prepare(3, |config| config.new_cluster = false);
    for _ in 0..2 {
        assert!(cluster.launch(0).await.status().quarantined);
        cluster.kill(0).await;
    }
}

#[tokio::test]
async fn a_wiped_member_cannot_elect_a_leader_that_lacks_acknowledged_entries() {
    let mut cluster = Cluster::start_with(3, |config| config.request_timeout = Duration::from_secs(2)).await;
    for index in 0..3 {
        cluster.publish(index).await;
    }
    let leader = cluster.leader().await;
    let (behind, acknowledging) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(behind).await;
    put(cluster.handle(leader), "precious", "1").await;
    cluster.kill(acknowledging).await;
    // While the leader is there, the wiped member learns that it was known.
    cluster.wipe(acknowledging);
    let wiped = cluster.launch(acknowledging).await;
    assert!(wiped.status().quarantined);
    // Kill the only member that still has the entry before the wiped one is refilled or not: either way the two others
    // must never lead without it.
    cluster.kill(leader).await;
    cluster.launch(behind).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    for index in [behind, acknowledging] {
        let handle = cluster.handle(index);
        if handle.read_barrier().await.is_ok() {
            assert_eq!(get_here(handle, "precious").as_deref(), Some("1"), "acknowledged data is gone");
        }
    }
    cluster.launch(leader).await;
    cluster.leader().await;
    assert_eq!(get(cluster.handle(behind), "precious").await.as_deref(), Some("1"));
}

/// Nobody is there who could say that the empty directory is not a first start; the entry is nowhere but with the member
/// that comes last.
#[tokio::test]
async fn a_member_that_was_emptied_while_all_were_down_elects_nobody_who_lacks_acknowledged_entries() {
    let mut cluster = Cluster::start_with(3, |config| config.request_timeout = Duration::from_secs(2)).await;
    cluster.converge().await;
    let leader = cluster.leader().await;
    let (behind, acknowledging) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(behind).await;
    put(cluster.handle(leader), "precious", "1").await;
    cluster.kill(acknowledging).await;
    cluster.kill(leader).await;
    cluster.wipe(acknowledging);
    assert!(cluster.launch(acknowledging).await.status().quarantined);
    cluster.launch(behind).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    for index in [behind, acknowledging] {
        assert!(cluster.handle(index).read_barrier().await.is_err(), "a leader that cannot have the entry");
    }
    cluster.launch(leader).await;
    cluster.leader().await;
    assert_eq!(get(cluster.handle(behind), "precious").await.as_deref(), Some("1"));
    let handle = cluster.handle(acknowledging);
    eventually("the quarantine to be lifted", || (!handle.status().quarantined).then_some(())).await;
    assert_eq!(get(handle, "precious").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn an_emptied_member_follows_nobody_before_it_knows_which_terms_it_may_have_voted_in() {
    let mut cluster = Cluster::start_with(3, |config| config.request_timeout = Duration::from_secs(2)).await;
    cluster.converge().await;
    let leader = cluster.leader().await;
    let (away, emptied) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(away).await;
    cluster.kill(emptied).await;
    cluster.wipe(emptied);
    cluster.launch(emptied).await;
    let alone = try_put(cluster.handle(leader), "a", "1").await;
    assert!(
        alone.is_err(),
        "the member that is away may lead a term that the emptied one voted in: {alone:?}"
    );
    assert_eq!(cluster.handle(emptied).status().applied_index, 0);
    cluster.launch(away).await;
    let handle = cluster.handle(emptied);
    eventually("the quarantine to be lifted", || (!handle.status().quarantined).then_some(())).await;
    put(handle, "b", "2").await;
    cluster.converge().await;
}

/// Flips a byte in the middle of the newest log file that has entries.
pub(crate) fn damage_log(data_dir: &std::path::Path, marker: &[u8]) {
    let mut files: Vec<_> =
        std::fs::read_dir(data_dir.join("member/wal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files {
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(marker.len()).position(|window| window == marker) {
            bytes[at] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("the marker is not in the log");
}

#[tokio::test]
async fn a_single_member_with_a_damaged_log_refuses_to_start_and_says_where() {
    let mut cluster = Cluster::start(1).await;
    put(cluster.handle(0), "a", "marker-of-this-test").await;
    for n in 0..20 {
        put(cluster.handle(0), "a", &n.to_string()).await;
    }
    cluster.kill(0).await;
    damage_log(&cluster.data_dir(0), b"marker-of-this-test");
    match Node::start(cluster.config(0)).await.err().expect("refused") {
        StartError::Corrupt { file, offset } => {
            assert!(file.starts_with(cluster.data_dir(0)));
            assert!(offset > 0);
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_member_with_a_damaged_log_is_quarantined_until_the_leader_has_sent_it_again() {
    let mut cluster = Cluster::start(3).await;
    put(cluster.handle(0), "a", "marker-of-this-test").await;
    for n in 0..20 {
        put(cluster.handle(0), &format!("k{n}"), "x").await;
    }
    cluster.converge().await;
    let victim = cluster.a_follower().await;
    cluster.kill(victim).await;
    damage_log(&cluster.data_dir(victim), b"marker-of-this-test");
    let handle = cluster.launch(victim).await;
    eventually("the quarantine to be lifted", || (!handle.status().quarantined).then_some(())).await;
    cluster.converge().await;
    assert_eq!(get(&handle, "k19").await.as_deref(), Some("x"));
    cluster.kill(victim).await;
    assert!(!cluster.launch(victim).await.status().quarantined, "healed for good");
    cluster.converge().await;
}
