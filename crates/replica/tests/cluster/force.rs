//! A cluster of one made from what one member has, with `--force-new-cluster`.

use std::time::Duration;

use bytes::Bytes;
use mvcc::{AuthCommand, Caller, Command, LeaseGrant};
use replica::{FatalReason, Handle, StartError};

use crate::lose::damage_log;
use crate::members::join;
use crate::rig::{Cluster, Node, eventually, free_port, get, put, url};

const PATIENCE: Duration = Duration::from_secs(30);

async fn propose(handle: &Handle, command: Command) {
    handle.propose(Caller::System, command).await.unwrap().result.unwrap();
}

/// Starts a member on what it has, as the whole of a new cluster.
async fn force(cluster: &mut Cluster, index: usize) -> Handle {
    let mut config = cluster.config(index);
    config.force_new_cluster = true;
    let node = Node::start(config).await.unwrap();
    let handle = node.handle.clone();
    cluster.nodes[index] = Some(node);
    eventually("the survivor to lead itself", || handle.status().is_leader.then_some(())).await;
    handle.read_barrier().await.unwrap();
    handle
}

#[tokio::test]
async fn a_survivor_goes_on_alone_with_all_it_has_and_grows_again() {
    let mut cluster = Cluster::start(3).await;
    for index in 0..3 {
        cluster.publish(index).await;
    }
    let cluster_id = cluster.identity(0).cluster_id;
    put(cluster.handle(0), "a", "1").await;
    propose(cluster.handle(0), Command::LeaseGrant(LeaseGrant { id: 7, ttl_s: 600 })).await;
    let user = AuthCommand::UserAdd { name: "u".into(), password_hash: Bytes::from("h"), no_password: false };
    propose(cluster.handle(0), Command::Auth(user)).await;
    cluster.converge().await;
    for index in [2, 1, 0] {
        cluster.kill(index).await;
    }

    let handle = force(&mut cluster, 0).await;
    assert_eq!(handle.identity().cluster_id, cluster_id);
    assert_eq!(handle.members().iter().map(|member| member.id).collect::<Vec<_>>(), [cluster.id(0)]);
    assert_eq!(get(&handle, "a").await.as_deref(), Some("1"));
    assert!(handle.lease_remaining(7).await.unwrap().is_some());
    assert_eq!(handle.read(|store, _| store.users()), ["u"]);
    put(&handle, "b", "2").await;

    // A former member ends when it hears of it, and disturbs nobody; so do both, though they are a majority of old.
    let term = handle.status().term;
    for index in [1, 2] {
        cluster.launch(index).await;
    }
    for index in [1, 2] {
        let reason = tokio::time::timeout(PATIENCE, cluster.handle(index).fatal()).await.expect("it ends");
        assert_eq!(reason, FatalReason::Removed);
        cluster.kill(index).await;
    }
    assert_eq!(handle.status().term, term, "the former members were not listened to");
    put(&handle, "c", "3").await;

    // Without the flag it starts as the cluster of one that it is; then it takes new members.
    cluster.kill(0).await;
    let handle = cluster.launch(0).await;
    assert_eq!(get(&handle, "c").await.as_deref(), Some("3"));
    let port = free_port();
    handle.add_member(vec![url(port)], false).await.unwrap();
    let node = join(&cluster, port, "new").await;
    eventually("two members that vote", || {
        (handle.members().len() == 2 && node.handle.status().applied_index == handle.status().applied_index)
            .then_some(())
    })
    .await;
    put(&node.handle, "d", "4").await;
    assert_eq!(get(&node.handle, "a").await.as_deref(), Some("1"));
    node.handle.stop().await;
    node.join().await;
}

#[tokio::test]
async fn a_single_member_with_a_damaged_log_can_be_forced_to_go_on_with_what_is_left() {
    let mut cluster = Cluster::start(1).await;
    put(cluster.handle(0), "kept", "1").await;
    cluster.handle(0).flush().await.unwrap();
    put(cluster.handle(0), "a", "marker-of-this-test").await;
    for n in 0..20 {
        put(cluster.handle(0), "a", &n.to_string()).await;
    }
    cluster.kill(0).await;
    damage_log(&cluster.data_dir(0), b"marker-of-this-test");
    let refused = Node::start(cluster.config(0)).await.err().expect("refused");
    assert!(matches!(refused, StartError::Corrupt { .. }), "{refused}");
    let handle = force(&mut cluster, 0).await;
    assert_eq!(get(&handle, "kept").await.as_deref(), Some("1"));
    put(&handle, "b", "2").await;
    cluster.kill(0).await;
    let handle = cluster.launch(0).await;
    assert_eq!(get(&handle, "b").await.as_deref(), Some("2"));
}
