//! Runs every script against a cluster of one and one of three, and the table of who may call what.
//!
//! `ETCD_BIN=/path/to/etcd` runs the same against a real etcd. Not here: what is expected (scripts/).

#![expect(clippy::unwrap_used, reason = "a cluster that does not start has failed the test")]

use std::path::Path;
use std::time::{Duration, Instant};

use etcd_contract::{
    matrix, script,
    target::{self, Target},
};
use harness::{certificates::Authority, etcd::EtcdTls};
use wire::{ClientTls, etcdserverpb as pb};

/// Those that do not look after users themselves, so that they run with authentication, too.
const SCRIPTS: &[(&str, &str)] = &[
    ("keys", include_str!("../scripts/keys.script")),
    ("txn", include_str!("../scripts/txn.script")),
    ("watch", include_str!("../scripts/watch.script")),
    ("leases", include_str!("../scripts/leases.script")),
    ("locks", include_str!("../scripts/locks.script")),
    ("members", include_str!("../scripts/members.script")),
    ("kubernetes", include_str!("../scripts/kubernetes.script")),
    ("gateway", include_str!("../scripts/gateway.script")),
];
const USERS: (&str, &str) = ("users", include_str!("../scripts/users.script"));
const MATRIX: &str = include_str!("../scripts/matrix.txt");
const EQUAL_TIME_MAX: Duration = Duration::from_secs(30);
const FLAGS: &[&str] = &["--bcrypt-cost", "4"];

async fn keeps(target: &Target, scripts: &[(&str, &str)]) {
    let (mut ran, mut failures) = (0, Vec::new());
    for (name, text) in scripts {
        let (cases, failed) = script::run(target, name, text).await.unwrap();
        ran += cases;
        failures.extend(failed);
    }
    assert!(failures.is_empty(), "{} of {ran} cases failed:\n{}", failures.len(), failures.join("\n"));
    assert!(ran >= scripts.len(), "only {ran} cases ran");
}

#[tokio::test]
async fn one_member_keeps_the_contract() {
    let target = Target::start(1, FLAGS).await.unwrap();
    keeps(&target, SCRIPTS).await;
    keeps(&target, &[USERS]).await;
}

#[tokio::test]
async fn three_members_keep_the_contract() {
    let target = Target::start(3, FLAGS).await.unwrap();
    keeps(&target, SCRIPTS).await;
    keeps(&target, &[USERS, ("leadership", include_str!("../scripts/leadership.script"))]).await;
    if target::foreign_program().is_some() {
        // In etcd 3.6.16 the member that was asked tells another hash than the two others for good
        // (three runs of three), with the same compact revision. Why is not known.
        return;
    }
    // Equal once the last compaction is over on all of them.
    let begin = Instant::now();
    loop {
        let hashes = member_hashes(&target).await;
        if hashes.iter().all(|hash| *hash == hashes[0]) {
            break;
        }
        assert!(begin.elapsed() < EQUAL_TIME_MAX, "members hold different keys: {hashes:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Of every member at the revision of now: the hash of all keys and versions, and from where they are.
async fn member_hashes(target: &Target) -> Vec<(u32, i64)> {
    let revision = target.revision().await.unwrap();
    let mut hashes = Vec::new();
    for number in 1..=3 {
        let client = wire::Client::new(target.member(number).unwrap());
        // A linearizable read first, so that the member has come as far.
        let read = pb::RangeRequest { key: "a".into(), ..Default::default() };
        client.kv.clone().range(read).await.unwrap();
        let request = pb::HashKvRequest { revision };
        let answer = client.maintenance.clone().hash_kv(request).await.unwrap().into_inner();
        hashes.push((answer.hash, answer.compact_revision));
    }
    hashes
}

#[tokio::test]
async fn three_members_with_authentication_keep_the_contract() {
    let target = Target::start(3, FLAGS).await.unwrap();
    target.secure().await.unwrap();
    keeps(&target, SCRIPTS).await;
}

#[tokio::test]
async fn a_member_that_tells_progress_tells_it_in_time() {
    // The name that all of 3.4 to 3.6 understand.
    let interval = "--experimental-watch-progress-notify-interval=500ms";
    let target = Target::start(1, &[interval]).await.unwrap();
    keeps(&target, &[("progress", include_str!("../scripts/progress.script"))]).await;
}

#[tokio::test]
async fn a_member_without_space_says_so_and_takes_deletions() {
    let target = Target::start(1, &["--quota-backend-bytes=1048576"]).await.unwrap();
    keeps(&target, &[("quota", include_str!("../scripts/quota.script"))]).await;
}

#[tokio::test]
async fn signed_tokens_tell_which_users_and_roles_they_know() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "a key that only the members of this cluster have").unwrap();
    let token = format!("--auth-token=jwt,sign-method=HS256,priv-key={}", key.display());
    let target = Target::start(1, &[FLAGS, &[&token]].concat()).await.unwrap();
    keeps(&target, &[("jwt", include_str!("../scripts/jwt.script"))]).await;
}

#[tokio::test]
async fn without_a_leader_every_call_ends_with_the_text_for_it() {
    let mut target = Target::start(3, FLAGS).await.unwrap();
    let put = pb::PutRequest { key: "a".into(), value: "1".into(), ..Default::default() };
    target.client.kv.clone().put(put).await.unwrap();
    target.cluster.kill(0).unwrap();
    target.cluster.kill(1).unwrap();
    let no_leader = async {
        loop {
            let status = target.client.maintenance.clone().status(pb::StatusRequest {}).await;
            if status.is_ok_and(|status| status.get_ref().leader == 0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), no_leader).await.unwrap();
    let text = include_str!("../scripts/no-leader.script");
    let (ran, failures) = script::run_without_leader(&target, "no-leader", text).await.unwrap();
    assert!(failures.is_empty(), "of {ran} cases failed:\n{}", failures.join("\n"));
}

#[tokio::test]
async fn a_learner_serves_little_until_it_is_promoted() {
    let mut target = Target::start(1, FLAGS).await.unwrap();
    let number = target.cluster.prepare_joining().unwrap();
    let peer = target.cluster.peer_url(number).to_owned();
    let add = pb::MemberAddRequest { peer_ur_ls: vec![peer], is_learner: true };
    let mut members = target.client.cluster.clone();
    let id = members.member_add(add).await.unwrap().into_inner().member.unwrap().id;
    let promote = pb::MemberPromoteRequest { id };
    let early = members.member_promote(promote).await.unwrap_err();
    let not_ready = "etcdserver: can only promote a learner member which is in sync with leader";
    assert_eq!((early.code(), early.message()), (tonic::Code::FailedPrecondition, not_ready));
    target.cluster.revive(number).unwrap();
    let learner = wire::Client::new(target.member(2).unwrap());
    let read = pb::RangeRequest { key: "a".into(), serializable: true, ..Default::default() };
    let started = async {
        while learner.kv.clone().range(read.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), started).await.unwrap();
    keeps(&target, &[("learner", include_str!("../scripts/learner.script"))]).await;
    let promoted = async {
        while let Err(status) = members.member_promote(promote).await {
            assert_eq!(status.message(), not_ready);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), promoted).await.unwrap();
    let again = members.member_promote(promote).await.unwrap_err();
    let twice = "etcdserver: can only promote a learner member";
    assert_eq!((again.code(), again.message()), (tonic::Code::FailedPrecondition, twice));
    let linearizable = pb::RangeRequest { key: "a".into(), ..Default::default() };
    let served = async {
        while learner.kv.clone().range(linearizable.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), served).await.unwrap();
}

#[test]
fn every_rpc_has_a_row_that_says_who_may_call_it() {
    let unlisted = matrix::unlisted(MATRIX).unwrap();
    assert!(unlisted.is_empty(), "no row in scripts/matrix.txt for {unlisted:?}");
}

#[test]
fn every_rpc_has_a_route_of_the_gateway_or_a_reason_for_none() {
    let unrouted = matrix::unrouted().unwrap();
    assert!(unrouted.is_empty(), "{unrouted:?}");
}

#[tokio::test]
async fn nobody_comes_further_than_the_table_says() {
    let target = Target::start(1, &[FLAGS, &["--log-level=debug"]].concat()).await.unwrap();
    let failures = matrix::run(&target, MATRIX).await.unwrap();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[tokio::test]
async fn who_shows_a_certificate_comes_no_further_than_its_user_and_nowhere_through_the_gateway() {
    if target::foreign_program().is_some() {
        return; // a real etcd's gateway shows a certificate of its own
    }
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::root("contract").unwrap();
    let authority_path = dir.path().join("ca.crt");
    std::fs::write(&authority_path, authority.certificate_pem()).unwrap();
    let server = authority.server(dir.path(), "server", &["127.0.0.1"]).unwrap();
    let client = authority.client(dir.path(), "both", &[]).unwrap();
    let read = |path: &Path| Some(std::fs::read(path).unwrap());
    let known = ClientTls {
        ca_pem: read(&authority_path),
        cert_pem: read(&client.certificate),
        key_pem: read(&client.key),
        ..ClientTls::default()
    };
    let tls = EtcdTls {
        certificate: &server.certificate,
        key: &server.key,
        client_authority: Some(&authority_path),
    };
    let target = Target::start_with_tls(1, Some(&tls), Some(known), FLAGS).await.unwrap();
    let failures = matrix::run_certified(&target, MATRIX, "both").await.unwrap();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[tokio::test]
async fn over_tls_a_client_needs_the_authority_and_a_certificate_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::root("contract").unwrap();
    let authority_path = dir.path().join("ca.crt");
    std::fs::write(&authority_path, authority.certificate_pem()).unwrap();
    let server = authority.server(dir.path(), "server", &["127.0.0.1"]).unwrap();
    let client = authority.client(dir.path(), "ana", &[]).unwrap();
    let read = |path: &Path| Some(std::fs::read(path).unwrap());
    let trusting = ClientTls { ca_pem: read(&authority_path), ..ClientTls::default() };
    let known =
        ClientTls { cert_pem: read(&client.certificate), key_pem: read(&client.key), ..trusting.clone() };
    let tls = EtcdTls {
        certificate: &server.certificate,
        key: &server.key,
        client_authority: Some(&authority_path),
    };
    let target = Target::start_with_tls(1, Some(&tls), Some(known.clone()), FLAGS).await.unwrap();
    keeps(&target, SCRIPTS).await;
    let put = pb::PutRequest { key: "a".into(), value: "1".into(), ..Default::default() };
    target.client.kv.clone().put(put.clone()).await.unwrap();
    let foreign = Authority::root("another").unwrap().certificate_pem().as_bytes().to_vec();
    let distrusting = ClientTls { ca_pem: Some(foreign), ..known };
    for stranger in [trusting, distrusting] {
        let endpoints = [target.url.clone()];
        let timeout = Duration::from_secs(5);
        let transport = wire::Transport::connect(&endpoints, Some(stranger), timeout).unwrap();
        let refused = wire::Client::new(transport).kv.put(put.clone()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    }
}
