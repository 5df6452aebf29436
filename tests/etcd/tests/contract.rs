//! Runs every script against a cluster of one and one of three, and the table of who may call what.
//!
//! `ETCD_BIN=/path/to/etcd` runs the same against a real etcd. Not here: what is expected (scripts/).

#![expect(clippy::unwrap_used, reason = "a cluster that does not start has failed the test")]

use std::path::Path;

use etcd_contract::{matrix, script, target::Target};
use harness::{certificates::Authority, etcd::EtcdTls};
use wire::{ClientTls, etcdserverpb as pb};

const SCRIPTS: &[(&str, &str)] = &[
    ("keys", include_str!("../scripts/keys.script")),
    ("txn", include_str!("../scripts/txn.script")),
    ("watch", include_str!("../scripts/watch.script")),
    ("leases", include_str!("../scripts/leases.script")),
    ("users", include_str!("../scripts/users.script")),
    ("members", include_str!("../scripts/members.script")),
    ("kubernetes", include_str!("../scripts/kubernetes.script")),
    ("gateway", include_str!("../scripts/gateway.script")),
];
const MATRIX: &str = include_str!("../scripts/matrix.txt");
const FLAGS: &[&str] = &["--bcrypt-cost", "4"];

async fn keeps_the_contract(size: usize) {
    let target = Target::start(size, FLAGS).await.unwrap();
    let (mut ran, mut failures) = (0, Vec::new());
    for (name, text) in SCRIPTS {
        let (cases, failed) = script::run(&target, name, text).await.unwrap();
        ran += cases;
        failures.extend(failed);
    }
    assert!(failures.is_empty(), "{} of {ran} cases failed:\n{}", failures.len(), failures.join("\n"));
    assert!(ran > 40, "only {ran} cases ran");
}

#[tokio::test]
async fn one_member_keeps_the_contract() {
    keeps_the_contract(1).await;
}

#[tokio::test]
async fn three_members_keep_the_contract() {
    keeps_the_contract(3).await;
}

#[test]
fn every_rpc_has_a_row_that_says_who_may_call_it() {
    let unlisted = matrix::unlisted(MATRIX).unwrap();
    assert!(unlisted.is_empty(), "no row in scripts/matrix.txt for {unlisted:?}");
}

#[tokio::test]
async fn nobody_comes_further_than_the_table_says() {
    let target = Target::start(1, FLAGS).await.unwrap();
    let failures = matrix::run(&target, MATRIX).await.unwrap();
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
    let put = pb::PutRequest { key: "a".into(), value: "1".into(), ..Default::default() };
    target.client.kv.clone().put(put.clone()).await.unwrap();
    let foreign = Authority::root("another").unwrap().certificate_pem().as_bytes().to_vec();
    let distrusting = ClientTls { ca_pem: Some(foreign), ..known };
    for stranger in [trusting, distrusting] {
        let endpoints = [target.url.clone()];
        let timeout = std::time::Duration::from_secs(5);
        let transport = wire::Transport::connect(&endpoints, Some(stranger), timeout).unwrap();
        let refused = wire::Client::new(transport).kv.put(put.clone()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    }
}
