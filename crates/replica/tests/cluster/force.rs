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

/// The flag was left in a unit file, or only this member cannot reach anybody: the cluster goes on elsewhere.
#[tokio::test]
async fn nothing_is_forced_while_another_member_follows_a_leader() {
    let mut cluster = Cluster::start(3).await;
    let index = cluster.a_follower().await;
    put(cluster.handle(index), "a", "1").await;
    cluster.kill(index).await;
    let others = cluster.running();
    let leader = cluster.leader().await;
    put(cluster.handle(leader), "b", "2").await;
    let mut config = cluster.config(index);
    config.force_new_cluster = true;
    let refused = Node::start(config).await.err().expect("refused");
    let StartError::StillLed { leader: named, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*named, cluster.id(leader));
    for word in ["without the flag", "stop the others"] {
        assert!(refused.to_string().contains(word), "{refused}");
    }

    // Nothing was written: it is a member like before, and has what was acknowledged meanwhile.
    let handle = cluster.launch(index).await;
    assert_eq!(get(&handle, "b").await.as_deref(), Some("2"));
    assert_eq!(handle.members().len(), 3);
    let term = handle.status().term;
    for index in others {
        cluster.kill(index).await;
    }
    cluster.kill(index).await;
    let handle = force(&mut cluster, index).await;
    assert_eq!(get(&handle, "b").await.as_deref(), Some("2"));
    assert!(handle.status().term > term + 1, "the forced entry has a term of its own");
}

/// As if each of the first two starts had crashed: one before it wrote the entry, one right behind.
#[tokio::test]
async fn a_start_with_the_flag_that_was_cut_short_is_finished_by_the_next() {
    let mut cluster = Cluster::start(3).await;
    let index = cluster.a_follower().await;
    put(cluster.handle(index), "a", "1").await;
    let term = cluster.handle(index).status().term;
    for index in [0, 1, 2] {
        cluster.kill(index).await;
    }
    let promised = term + 7;
    save_vote(&cluster, index, promised);
    let handle = force(&mut cluster, index).await;
    assert!(handle.status().term > promised, "a vote that was given is kept");
    cluster.kill(index).await;
    for _ in 0..2 {
        let handle = force(&mut cluster, index).await;
        assert_eq!(get(&handle, "a").await.as_deref(), Some("1"));
        assert_eq!(handle.members().len(), 1);
        cluster.kill(index).await;
    }
    let handle = cluster.launch(index).await;
    assert_eq!(get(&handle, "a").await.as_deref(), Some("1"));
}

/// A vote for itself, in the form that docs/formats.md draws.
fn save_vote(cluster: &Cluster, index: usize, term: u64) {
    let mut log = wal::Config::new(cluster.data_dir(index).join("member").join("wal"));
    let replica::Identity { cluster_id, member_id } = cluster.identity(index);
    log.identity = Some(wal::Identity { cluster_id, member_id });
    let (wal, _) = wal::open(log, std::sync::Arc::new(wal::RealDisk::new())).unwrap();
    let vote = [&term.to_le_bytes()[..], &member_id.to_le_bytes()[..], &[0]].concat();
    let (sender, saved) = std::sync::mpsc::channel();
    wal.save_vote(Bytes::from(vote), Box::new(move |result| drop(sender.send(result))));
    saved.recv().unwrap().unwrap();
    wal.close();
}
