//! Three members in one process: every one of them serves, learners join, a lost quorum is said.

use std::time::Duration;

use futures_util::future::join_all;
use store::{ClusterState, Config};
use tempfile::TempDir;
use tonic::Code;
use wire::etcdserverpb as pb;

use crate::one::{self, Member, event_texts};

pub(crate) async fn three(change: impl Fn(&mut Config)) -> Vec<Member> {
    let folders: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let mut configs: Vec<Config> = folders
        .iter()
        .enumerate()
        .map(|(number, folder)| one::config(&format!("m{number}"), folder))
        .collect();
    let list: Vec<_> = configs
        .iter()
        .map(|config| (config.name.clone(), config.initial_advertise_peer_urls[0].clone()))
        .collect();
    for config in &mut configs {
        config.initial_cluster = list.clone();
        config.heartbeat_interval_ms = 50;
        config.election_timeout_ms = 500;
        change(config);
    }
    let members = configs.into_iter().zip(folders).map(|(config, folder)| Member::run(config, folder, None));
    join_all(members).await
}

#[tokio::test]
async fn every_member_reads_writes_watches_and_keeps_leases() {
    let members = three(|_| {}).await;
    let mut watches = Vec::new();
    for member in &members {
        let mut watch = member.watch().await;
        watch.create(one::prefix("k")).await;
        watches.push(watch);
    }
    for (number, member) in members.iter().enumerate() {
        let revision = member.put(&format!("k{number}"), "v").await;
        for other in &members {
            let kv = other.get(&format!("k{number}")).await.expect("a linearizable read sees the write");
            assert_eq!(kv.mod_revision, revision);
        }
    }
    for watch in &mut watches {
        assert_eq!(event_texts(&watch.events(3).await), ["PUT k0=v @2", "PUT k1=v @3", "PUT k2=v @4"]);
    }
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 5 };
    members[0].client.lease.clone().lease_grant(grant).await.unwrap();
    for member in &members {
        let mut lease = member.client.lease.clone();
        let keep = tokio_stream::iter([pb::LeaseKeepAliveRequest { id: 5 }]);
        let answer =
            lease.lease_keep_alive(keep).await.unwrap().into_inner().message().await.unwrap().unwrap();
        assert_eq!(answer.ttl, 60);
        let asked = pb::LeaseTimeToLiveRequest { id: 5, keys: false };
        assert!(lease.lease_time_to_live(asked).await.unwrap().into_inner().ttl >= 58);
    }
    let mut hashes = Vec::new();
    for member in &members {
        let asked = pb::HashKvRequest { revision: 4 };
        hashes.push(member.client.maintenance.clone().hash_kv(asked).await.unwrap().into_inner().hash);
    }
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    join_all(members.into_iter().map(Member::stop)).await;
}

/// clientv3's software transactions take a revision from one member and read at it, serializable, from another.
#[tokio::test]
async fn a_revision_that_one_member_told_can_be_read_at_every_other_at_once() {
    let members = three(|_| {}).await;
    for round in 0..40 {
        let revision = members[round % 3].put("k", &round.to_string()).await;
        let get = pb::RangeRequest { key: "k".into(), revision, serializable: true, ..Default::default() };
        let range = pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(get.clone())) };
        for other in &members {
            let txn = pb::TxnRequest { success: vec![range.clone()], ..Default::default() };
            other.client.kv.clone().txn(txn).await.unwrap();
            let answer = other.client.kv.clone().range(get.clone()).await.unwrap().into_inner();
            assert_eq!(answer.kvs[0].mod_revision, revision);
        }
    }
    let get = pb::RangeRequest { key: "k".into(), revision: 1000, serializable: true, ..Default::default() };
    let refused = members[0].client.kv.clone().range(get).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: mvcc: required revision is a future revision");
    join_all(members.into_iter().map(Member::stop)).await;
}

#[tokio::test]
async fn without_a_quorum_local_reads_go_on_and_the_rest_says_why_not() {
    let mut members = three(|_| {}).await;
    members[0].put("k", "v").await;
    members[2].get("k").await.unwrap();
    let mut watch = members[2].watch_with("hasleader", "true").await.unwrap();
    watch.create(one::prefix("k")).await;
    let rest = members.split_off(2);
    join_all(members.into_iter().map(Member::stop)).await;
    let alone = &rest[0];
    let end = watch.end().await;
    assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: no leader"));

    let put = || pb::PutRequest { key: "k".into(), ..Default::default() };
    let refused = alone.client.kv.clone().put(one::with(put(), "hasleader", "true")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));
    let get = pb::RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
    assert_eq!(alone.client.kv.clone().range(get.clone()).await.unwrap().into_inner().count, 1);
    let linearizable = pb::RangeRequest { serializable: false, ..get };
    let (mut reader, mut writer) = (alone.client.kv.clone(), alone.client.kv.clone());
    let (read, written) = tokio::join!(reader.range(linearizable), writer.put(put()));
    assert_eq!(read.unwrap_err().code(), Code::Unavailable);
    assert_eq!(written.unwrap_err().code(), Code::Unavailable);
    join_all(rest.into_iter().map(Member::stop)).await;
}

#[tokio::test]
async fn a_learner_catches_up_and_is_promoted() {
    let first = Member::start().await;
    first.put("k", "v").await;
    let folder = TempDir::new().unwrap();
    let mut config = one::config("two", &folder);
    let peer_urls = vec![config.initial_advertise_peer_urls[0].to_string()];
    let mut cluster = first.client.cluster.clone();
    let add = pb::MemberAddRequest { peer_ur_ls: peer_urls.clone(), is_learner: true };
    let added = cluster.member_add(add.clone()).await.unwrap().into_inner();
    let id = added.member.unwrap().id;
    assert_eq!(added.members.len(), 2);
    let twice = cluster.member_add(add).await.unwrap_err();
    assert_eq!(
        (twice.code(), twice.message()),
        (Code::FailedPrecondition, "etcdserver: Peer URLs already exists")
    );
    let wrong = pb::MemberAddRequest { peer_ur_ls: vec!["nonsense".into()], is_learner: true };
    assert_eq!(
        cluster.member_add(wrong).await.unwrap_err().message(),
        "etcdserver: given member URLs are invalid"
    );

    config.initial_cluster_state = ClusterState::Existing;
    config.initial_cluster = vec![
        ("one".to_owned(), first.config().initial_advertise_peer_urls[0].clone()),
        ("two".to_owned(), config.initial_advertise_peer_urls[0].clone()),
    ];
    let second = Member::run_unready(config, folder, None).await;
    let refused = second.try_put("k").await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::FailedPrecondition, "etcdserver: rpc not supported for learner")
    );
    let promoted = async {
        while let Err(status) = cluster.member_promote(pb::MemberPromoteRequest { id }).await {
            assert!(status.message().contains("in sync with leader"), "{status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), promoted).await.unwrap();
    let voter = cluster.member_promote(pb::MemberPromoteRequest { id }).await.unwrap_err();
    assert_eq!(voter.message(), "etcdserver: can only promote a learner member");
    second.store().ready().await;
    assert_eq!(second.get("k").await.map(|kv| kv.mod_revision), Some(2));
    second.put("k", "two").await;
    let list = pb::MemberListRequest { linearizable: true };
    let members = second.client.cluster.clone().member_list(list).await.unwrap().into_inner().members;
    let names: Vec<_> = members.iter().map(|member| (member.name.as_str(), member.is_learner)).collect();
    assert!(names.contains(&("one", false)) && names.iter().all(|(_, learner)| !learner), "{names:?}");
    join_all([second, first].into_iter().map(Member::stop)).await;
}

/// More keys than one visit to the store takes, and writes in between: all parts are of one revision.
#[tokio::test]
async fn a_transaction_that_reads_much_is_answered_as_of_one_moment() {
    let member = Member::start().await;
    let mut kv = member.client.kv.clone();
    for batch in 0..50 {
        let put = |number: usize| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                key: format!("k{:05}", batch * 100 + number).into(),
                value: "old".into(),
                ..Default::default()
            })),
        };
        let success = (0..100).map(put).collect();
        kv.txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();
    }
    let all = pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let range = |asked: pb::RangeRequest| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(asked)),
    };
    let descending = pb::RangeRequest { sort_order: 2, limit: 4000, ..all.clone() };
    let count = pb::RangeRequest { count_only: true, ..all.clone() };
    let nested = pb::TxnRequest { success: vec![range(count), range(all.clone())], ..Default::default() };
    let nested = pb::RequestOp { request: Some(pb::request_op::Request::RequestTxn(nested)) };
    let txn = pb::TxnRequest { success: vec![range(descending), nested, range(all)], ..Default::default() };

    let writer = async {
        for number in 0..200 {
            member.put(&format!("k{number:05}"), "new").await;
        }
    };
    let reader = async {
        for _ in 0..10 {
            let answer = kv.clone().txn(txn.clone()).await.unwrap().into_inner();
            let revision = answer.header.unwrap().revision;
            let (mut texts, mut counts) = (Vec::new(), Vec::new());
            let mut parts = answer.responses;
            while let Some(part) = parts.pop() {
                match part.response.unwrap() {
                    pb::response_op::Response::ResponseRange(part) => {
                        let newest = part.kvs.iter().map(|kv| kv.mod_revision).max();
                        assert!(newest.is_none_or(|newest| newest <= revision));
                        counts.push((part.kvs.len(), part.count, part.more));
                        if part.kvs.len() == 5000 {
                            texts.push(part.kvs);
                        }
                    }
                    pb::response_op::Response::ResponseTxn(part) => parts.extend(part.responses),
                    other => panic!("{other:?}"),
                }
            }
            counts.sort_unstable();
            assert_eq!(
                counts,
                [(0, 5000, false), (4000, 5000, true), (5000, 5000, false), (5000, 5000, false)]
            );
            assert_eq!(texts[0], texts[1], "two reads of one transaction");
        }
    };
    tokio::join!(writer, reader);
    member.stop().await;
}
