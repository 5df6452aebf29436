//! Adding, promoting, changing and removing members.

use replica::{FatalReason, Handle, Identity, Member, MembershipError, Surroundings, cluster_id, discover};
use std::time::Duration;

use crate::rig::{Cluster, Node, eventually, free_port, get, put, url};

async fn publish_all(cluster: &Cluster) {
    for index in cluster.running() {
        cluster.publish(index).await;
    }
}

/// Starts a member that was added, the way its process would: it asks the cluster who it is.
pub(crate) async fn join(cluster: &Cluster, port: u16, name: &str) -> Node {
    let known = cluster.config(0).advertise_peer_urls;
    let found =
        discover(&Surroundings::system().network, &known, None, Duration::from_secs(2)).await.unwrap();
    let me = found.members.iter().find(|member| member.peer_urls == [url(port)]).expect("listed");
    let mut config = cluster.config(0);
    config.identity = Identity { cluster_id: found.cluster_id, member_id: me.id };
    config.name = name.to_owned();
    config.data_dir = cluster.data_dir(0).with_file_name(name);
    config.initial_members = found.members.clone();
    config.new_cluster = false;
    config.listen_peer_urls = vec![format!("127.0.0.1:{port}").parse().unwrap()];
    Node::start(config).await.unwrap()
}

/// The leader may not have heard yet how far the learner is.
async fn promoted(handle: &Handle, id: u64) -> Vec<Member> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match handle.promote_member(id).await {
            Err(MembershipError::LearnerNotReady) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result => return result.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_learner_joins_is_promoted_when_it_has_caught_up_and_is_removed() {
    let cluster = Cluster::start(3).await;
    publish_all(&cluster).await;
    for n in 0..100 {
        put(cluster.handle(0), &format!("k{n}"), "x").await;
    }
    let port = free_port();
    let follower = cluster.a_follower().await;
    let (learner, members) = cluster.handle(follower).add_member(vec![url(port)], true).await.unwrap();
    assert!(learner.is_learner);
    assert_eq!(members.len(), 4);
    let refused = cluster.handle(follower).promote_member(learner.id).await;
    assert_eq!(refused, Err(MembershipError::LearnerNotReady));
    let again = cluster.handle(follower).add_member(vec![url(free_port())], true).await;
    assert_eq!(again.err(), Some(MembershipError::TooManyLearners));
    let clash = cluster.handle(follower).add_member(vec![url(port)], false).await;
    assert_eq!(clash.err(), Some(MembershipError::PeerUrlExists));

    let node = join(&cluster, port, "joined").await;
    eventually("the learner to catch up", || (node.handle.status().revision == 101).then_some(())).await;
    assert!(node.handle.status().is_learner);
    assert_eq!(get(&node.handle, "k99").await.as_deref(), Some("x"));
    let members = promoted(cluster.handle(follower), learner.id).await;
    assert!(members.iter().all(|member| !member.is_learner));
    let refused = cluster.handle(follower).promote_member(learner.id).await;
    assert_eq!(refused, Err(MembershipError::MemberNotLearner));
    put(&node.handle, "by the new member", "1").await;

    let mut fatal = Box::pin(node.handle.fatal());
    let members = cluster.handle(follower).remove_member(learner.id).await.unwrap();
    assert_eq!(members.len(), 3);
    let reason =
        tokio::time::timeout(Duration::from_secs(30), &mut fatal).await.expect("the removed member ends");
    assert_eq!(reason, FatalReason::Removed);
    assert_eq!(
        cluster.handle(follower).remove_member(learner.id).await,
        Err(MembershipError::MemberNotFound)
    );
    put(cluster.handle(0), "after", "1").await;
    node.handle.kill().await;
    node.join().await;
}

#[tokio::test]
async fn a_single_member_grows_to_three_and_a_member_that_never_starts_costs_no_quorum() {
    let cluster = Cluster::start(1).await;
    publish_all(&cluster).await;
    let (first, second) = (free_port(), free_port());
    let (member, members) = cluster.handle(0).add_member(vec![url(first)], false).await.unwrap();
    assert!(!member.is_learner && member.name.is_empty());
    assert_eq!(members.len(), 2);
    // Not started: a third one is refused, and writes go on.
    put(cluster.handle(0), "a", "1").await;
    let refused = cluster.handle(0).add_member(vec![url(second)], false).await;
    assert_eq!(refused.err(), Some(MembershipError::NotEnoughStartedMembers));

    let node = join(&cluster, first, "second").await;
    eventually("the second member to become a voter", || {
        let status = node.handle.status();
        (!status.is_learner && status.revision == 2).then_some(())
    })
    .await;
    put(&node.handle, "b", "2").await;
    assert_eq!(get(cluster.handle(0), "b").await.as_deref(), Some("2"));
    node.handle.kill().await;
    node.join().await;
}

#[tokio::test]
async fn peer_urls_are_changed_and_checked() {
    let cluster = Cluster::start(3).await;
    publish_all(&cluster).await;
    // Not the leader: nobody could reach it under its new address.
    let id = cluster.id(cluster.a_follower().await);
    let bad = cluster.handle(0).update_member(id, vec!["127.0.0.1:1".to_owned()]).await;
    assert_eq!(bad, Err(MembershipError::InvalidUrls));
    let members = cluster.handle(0).update_member(id, vec![url(14_999)]).await.unwrap();
    let changed = members.iter().find(|member| member.id == id).unwrap();
    assert_eq!(changed.peer_urls, [url(14_999)]);
    assert_eq!(changed.client_urls.len(), 1);
    let unknown = cluster.handle(0).update_member(12_345, vec![url(14_998)]).await;
    assert_eq!(unknown, Err(MembershipError::MemberNotFound));
    assert_eq!(cluster.identity(0).cluster_id, cluster_id(&[cluster.id(0), cluster.id(1), cluster.id(2)]));
}

#[tokio::test]
async fn the_leader_can_be_removed() {
    let cluster = Cluster::start(3).await;
    publish_all(&cluster).await;
    let leader = cluster.leader().await;
    let survivor = (leader + 1) % 3;
    cluster.handle(survivor).remove_member(cluster.id(leader)).await.unwrap();
    let fatal = cluster.handle(leader).fatal();
    let reason = tokio::time::timeout(Duration::from_secs(30), fatal).await.expect("the removed leader ends");
    assert_eq!(reason, FatalReason::Removed);
    put(cluster.handle(survivor), "after", "1").await;
    assert_eq!(cluster.handle(survivor).members().len(), 2);
}
