//! Members that come back.

use crate::rig::{Cluster, Node, eventually, get, get_here, put};
use replica::StartError;

#[tokio::test]
async fn a_single_member_has_everything_after_a_crash() {
    let mut cluster = Cluster::start(1).await;
    for n in 0..500 {
        put(cluster.handle(0), &format!("k{n}"), &n.to_string()).await;
    }
    let hash = cluster.handle(0).read(|store, _| store.state_hash());
    for _ in 0..2 {
        cluster.kill(0).await;
        cluster.launch(0).await;
        cluster.leader().await;
        assert_eq!(get(cluster.handle(0), "k499").await.as_deref(), Some("499"));
        assert_eq!(cluster.handle(0).read(|store, _| store.state_hash()), hash);
        assert_eq!(cluster.handle(0).status().revision, 501);
    }
}

#[tokio::test]
async fn a_follower_that_was_away_catches_up_from_the_log() {
    let mut cluster = Cluster::start(3).await;
    put(cluster.handle(0), "a", "1").await;
    let away = cluster.a_follower().await;
    cluster.kill(away).await;
    let writer = cluster.running()[0];
    for n in 0..300 {
        put(cluster.handle(writer), "a", &n.to_string()).await;
    }
    cluster.launch(away).await;
    cluster.converge().await;
    assert_eq!(get_here(cluster.handle(away), "a").as_deref(), Some("299"));
    assert_eq!(cluster.handle(writer).metrics().snapshots_sent, 0, "the log was enough");
}

#[tokio::test]
async fn all_members_restart_and_keep_what_was_acknowledged() {
    let mut cluster = Cluster::start(3).await;
    for n in 0..200 {
        put(cluster.handle(n % 3), &format!("k{n}"), "x").await;
    }
    for round in 0..2 {
        for index in cluster.running() {
            cluster.kill(index).await;
        }
        for index in 0..3 {
            cluster.launch(index).await;
        }
        cluster.leader().await;
        assert_eq!(put(cluster.handle(0), "after", &round.to_string()).await, 202 + round);
        cluster.converge().await;
    }
    assert_eq!(get(cluster.handle(1), "k0").await.as_deref(), Some("x"));
}

#[tokio::test]
async fn a_data_directory_of_another_cluster_or_member_is_refused() {
    let mut cluster = Cluster::start(1).await;
    cluster.kill(0).await;
    let mut config = cluster.config(0);
    config.identity.cluster_id += 1;
    let refused = Node::start(config).await.err().unwrap();
    assert!(matches!(refused, StartError::WrongCluster { .. }));
    assert!(refused.to_string().starts_with("data directory belongs to another cluster"));
    let mut config = cluster.config(0);
    config.identity.member_id += 1;
    assert!(matches!(Node::start(config).await.err().unwrap(), StartError::WrongMember { .. }));
    assert_eq!(
        replica::stored_identity(&wal::RealDisk::new(), &cluster.data_dir(0)).unwrap(),
        Some(cluster.identity(0))
    );
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let cluster = Cluster::prepare(1, |_| {});
    let config = cluster.config(0);
    let _taken = std::net::TcpListener::bind(config.listen_peer_urls[0]).unwrap();
    match Node::start(config.clone()).await.err().unwrap() {
        StartError::PortInUse { addr } => assert_eq!(addr, config.listen_peer_urls[0]),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn members_of_another_cluster_on_the_same_ports_are_not_obeyed() {
    let mut cluster = Cluster::start(3).await;
    put(cluster.handle(0), "a", "1").await;
    let stranger = cluster.a_follower().await;
    cluster.kill(stranger).await;
    cluster.wipe(stranger);
    let mut config = cluster.config(stranger);
    config.identity.cluster_id += 1;
    let node = Node::start(config).await.unwrap();
    let writer = cluster.running()[0];
    for n in 0..20 {
        put(cluster.handle(writer), "a", &n.to_string()).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(get_here(&node.handle, "a"), None);
    assert_eq!(node.handle.status().leader, None);
    node.handle.kill().await;
    node.join().await;
    cluster.launch_after_wipe(stranger).await;
    eventually("the real member to catch up", || {
        (get_here(cluster.handle(stranger), "a").as_deref() == Some("19")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_log_may_lie_elsewhere_and_is_not_forgotten() {
    let mut cluster = Cluster::prepare(1, |_| {});
    let mut config = cluster.config(0);
    let elsewhere = config.data_dir.with_file_name("log");
    config.wal_dir = Some(elsewhere.clone());
    let node = Node::start(config.clone()).await.unwrap();
    put(&node.handle, "a", "1").await;
    node.handle.flush().await.unwrap();
    put(&node.handle, "b", "2").await;
    node.handle.kill().await;
    node.join().await;
    assert!(std::fs::read_dir(&elsewhere).unwrap().next().is_some());
    assert!(!cluster.data_dir(0).join("member/wal").exists());
    for _ in 0..2 {
        let refused = Node::start(cluster.config(0)).await.err().expect("refused");
        assert!(matches!(refused, StartError::NoLog { .. }), "{refused}");
    }
    cluster.nodes[0] = Some(Node::start(config).await.unwrap());
    assert_eq!(get(cluster.handle(0), "b").await.as_deref(), Some("2"));
}
