//! One member over its real port, through generated clients: what etcd's API promises, RPC by RPC.
//!
//! Every test starts a member of its own in a temporary directory. What needs several members or foreign clients is
//! not here.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "member/backup.rs"]
mod backup;
#[path = "member/cluster.rs"]
mod cluster;
#[path = "member/http.rs"]
mod http;
#[path = "member/login.rs"]
mod login;
#[path = "member/one.rs"]
mod one;
#[path = "member/refused.rs"]
mod refused;
#[path = "member/secure.rs"]
mod secure;
#[path = "member/sockets.rs"]
mod sockets;
#[path = "member/tls.rs"]
mod tls;
#[path = "member/watch.rs"]
mod watch;

use std::time::Duration;

use one::{Member, event_texts, kv_text};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::Code;
use wire::{etcdserverpb as pb, mvccpb, prefix_end, v3electionpb as election, v3lockpb as lock};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_streamed_range_is_the_same_as_the_range() {
    let member = Member::start().await;
    for number in 0..300 {
        member.put(&format!("k{number:03}"), "v").await;
    }
    let request =
        pb::RangeRequest { key: "k".into(), range_end: prefix_end(b"k"), limit: 250, ..Default::default() };
    let range = member.client.kv.clone().range(request.clone()).await.unwrap().into_inner();
    let mut stream = member.client.kv.clone().range_stream(request.clone()).await.unwrap().into_inner();
    let (mut kvs, mut last, mut chunks) = (Vec::new(), None, 0);
    while let Some(chunk) = stream.next().await {
        let mut chunk = chunk.unwrap().range_response.unwrap();
        kvs.append(&mut chunk.kvs);
        last = Some(chunk);
        chunks += 1;
    }
    let last = last.unwrap();
    assert!(chunks > 1);
    assert_eq!((kvs, last.count, last.more), (range.kvs, range.count, range.more));
    assert_eq!(last.header.unwrap().revision, range.header.unwrap().revision);
    let old = pb::RangeRequest { revision: 2, ..request.clone() };
    let mut stream = member.client.kv.clone().range_stream(old).await.unwrap().into_inner();
    let old = stream.next().await.unwrap().unwrap().range_response.unwrap();
    assert_eq!((old.kvs.len(), old.header.unwrap().revision), (1, 301), "the store's, not the asked one");
    let sorted = pb::RangeRequest { sort_target: 3, ..request };
    let refused = member.client.kv.clone().range_stream(sorted).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    member.stop().await;
}

#[tokio::test]
async fn requests_that_are_too_large_are_refused_with_etcds_texts() {
    let member = Member::start().await;
    let put = |size| pb::PutRequest { key: "k".into(), value: vec![0; size].into(), ..Default::default() };
    let refused = member.client.kv.clone().put(put(1_600_000)).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "etcdserver: request is too large")
    );
    let refused = member.client.kv.clone().put(put(3_000_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused.message().starts_with("grpc: received message larger than max ("),
        "{}",
        refused.message()
    );
    member.client.kv.clone().put(put(1_500_000)).await.unwrap();

    let operation = |key: String| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
            key: key.into(),
            ..Default::default()
        })),
    };
    let txn = |count| pb::TxnRequest {
        success: (0..count).map(|n| operation(n.to_string())).collect(),
        ..Default::default()
    };
    member.client.kv.clone().txn(txn(128)).await.unwrap();
    let refused = member.client.kv.clone().txn(txn(129)).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: too many operations in txn request");
    member.stop().await;
}

#[tokio::test]
async fn a_full_store_refuses_growth_until_the_alarm_is_switched_off() {
    let member = Member::start_with(|config| config.quota_backend_bytes = 50_000).await;
    let mut kv = member.client.kv.clone();
    let put = |key: &str| pb::PutRequest {
        key: key.to_owned().into(),
        value: vec![0; 4000].into(),
        ..Default::default()
    };
    let mut refused = None;
    for number in 0..20 {
        if let Err(status) = kv.put(put(&format!("k{number}"))).await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.expect("the quota is reached");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
    );
    let alarms = member.alarm(0).await;
    assert_eq!((alarms.len(), alarms[0].alarm), (1, pb::AlarmType::Nospace.into()));
    let revision = member.delete_all().await;
    member.compact(revision).await;
    kv.put(put("still")).await.unwrap_err();
    // As etcd's clients do it: each that is on, by its member and its kind.
    let request = pb::AlarmRequest { action: 2, member_id: alarms[0].member_id, alarm: alarms[0].alarm };
    member.client.maintenance.clone().alarm(request).await.unwrap();
    assert!(member.alarm(0).await.is_empty());
    kv.put(put("again")).await.unwrap();
    member.stop().await;
}

#[tokio::test]
async fn a_lease_ends_with_its_keys_and_not_before_its_time() {
    let member = Member::start().await;
    let mut lease = member.client.lease.clone();
    let granted = lease.lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 0 }).await.unwrap().into_inner();
    assert_eq!(granted.ttl, 2, "raised to the least");
    let put = pb::PutRequest { key: "a".into(), lease: granted.id, ..Default::default() };
    member.client.kv.clone().put(put).await.unwrap();
    let twice = lease.lease_grant(pb::LeaseGrantRequest { ttl: 9, id: granted.id }).await.unwrap_err();
    assert_eq!(
        (twice.code(), twice.message()),
        (Code::FailedPrecondition, "etcdserver: lease already exists")
    );

    let keep = tokio_stream::iter([
        pb::LeaseKeepAliveRequest { id: granted.id },
        pb::LeaseKeepAliveRequest { id: 4711 },
    ]);
    let answers: Vec<_> = lease
        .lease_keep_alive(keep)
        .await
        .unwrap()
        .into_inner()
        .map(|answer| answer.unwrap().ttl)
        .collect()
        .await;
    assert_eq!(answers, [2, 0], "an unknown lease has no time left");

    let begin = std::time::Instant::now();
    while member.get("a").await.is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(begin.elapsed() < 5 * SECOND);
    }
    assert!(begin.elapsed() > Duration::from_millis(1900), "{:?}", begin.elapsed());
    let gone = pb::LeaseTimeToLiveRequest { id: granted.id, keys: true };
    assert_eq!(lease.lease_time_to_live(gone).await.unwrap().into_inner().ttl, -1);
    let unknown = lease.lease_revoke(pb::LeaseRevokeRequest { id: granted.id }).await.unwrap_err();
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::NotFound, "etcdserver: requested lease not found")
    );
    member.stop().await;
}

/// In the moment between a deadline and the entry that ends the lease it could still begin anew on another leader.
#[tokio::test]
async fn a_keep_alive_says_that_a_lease_is_gone_only_when_it_is() {
    let member = Member::start().await;
    let mut tasks = Vec::new();
    for id in 1..=8 {
        // Spread over the rounds in which leases end.
        tokio::time::sleep(SECOND / 16).await;
        let mut lease = member.client.lease.clone();
        tasks.push(tokio::spawn(async move {
            lease.lease_grant(pb::LeaseGrantRequest { ttl: 2, id }).await.unwrap();
            tokio::time::sleep(2 * SECOND + SECOND / 100).await;
            let keep = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
            let mut answers = lease.lease_keep_alive(keep).await.unwrap().into_inner();
            assert_eq!(answers.message().await.unwrap().unwrap().ttl, 0);
            let asked = pb::LeaseTimeToLiveRequest { id, keys: false };
            assert_eq!(lease.lease_time_to_live(asked).await.unwrap().into_inner().ttl, -1, "lease {id}");
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    member.stop().await;
}

#[tokio::test]
async fn a_lock_passes_to_the_next_in_the_queue_and_a_leaver_is_forgotten() {
    let member = Member::start().await;
    let lock_as = |lease| {
        let mut client = member.client.lock.clone();
        async move { client.lock(lock::LockRequest { name: "l".into(), lease }).await.unwrap().into_inner().key }
    };
    for id in [1, 2, 3] {
        member.client.lease.clone().lease_grant(pb::LeaseGrantRequest { ttl: 100, id }).await.unwrap();
    }
    let first = lock_as(1).await;
    assert_eq!(first, "l/1");
    let leaver = tokio::spawn(lock_as(2));
    while member.get("l/2").await.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut third = tokio::spawn(lock_as(3));
    assert!(timeout(SECOND / 5, &mut third).await.is_err(), "held");
    leaver.abort();
    while member.get("l/2").await.is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(timeout(SECOND / 5, &mut third).await.is_err(), "still held");
    member.client.lock.clone().unlock(lock::UnlockRequest { key: first }).await.unwrap();
    assert_eq!(timeout(5 * SECOND, third).await.unwrap().unwrap(), "l/3");
    member.stop().await;
}

#[tokio::test]
async fn an_election_has_one_leader_that_observers_hear() {
    let member = Member::start().await;
    for id in [1, 2] {
        member.client.lease.clone().lease_grant(pb::LeaseGrantRequest { ttl: 100, id }).await.unwrap();
    }
    let mut client = member.client.election.clone();
    let nobody = client.leader(election::LeaderRequest { name: "e".into() }).await.unwrap_err();
    assert_eq!(nobody.message(), "election: no leader");
    let campaign = |lease, value: &'static str| election::CampaignRequest {
        name: "e".into(),
        lease,
        value: value.into(),
    };
    let first = client.campaign(campaign(1, "one")).await.unwrap().into_inner().leader.unwrap();
    let mut observed =
        client.observe(election::LeaderRequest { name: "e".into() }).await.unwrap().into_inner();
    let mut heard =
        async || kv_text(&timeout(5 * SECOND, observed.next()).await.unwrap().unwrap().unwrap().kv.unwrap());
    assert!(heard().await.starts_with("e/1=one"));
    client
        .proclaim(election::ProclaimRequest { leader: Some(first.clone()), value: "uno".into() })
        .await
        .unwrap();
    assert!(heard().await.starts_with("e/1=uno"));
    let mut second = member.client.election.clone();
    let second = tokio::spawn(async move { second.campaign(campaign(2, "two")).await.unwrap() });
    client.resign(election::ResignRequest { leader: Some(first.clone()) }).await.unwrap();
    timeout(5 * SECOND, second).await.unwrap().unwrap();
    assert!(heard().await.starts_with("e/2=two"));
    let late = election::ProclaimRequest { leader: Some(first), value: "late".into() };
    assert_eq!(client.proclaim(late).await.unwrap_err().message(), "election: not leader");
    member.stop().await;
}

#[tokio::test]
async fn with_users_nobody_reaches_more_than_was_granted() {
    let member = Member::start_with(|config| config.bcrypt_cost = 4).await;
    let mut auth = member.client.auth.clone();
    for (user, password) in [("root", "secret"), ("ana", "pw")] {
        let add =
            pb::AuthUserAddRequest { name: user.into(), password: password.into(), ..Default::default() };
        auth.user_add(add).await.unwrap();
    }
    for role in ["root", "reader"] {
        auth.role_add(pb::AuthRoleAddRequest { name: role.into() }).await.unwrap();
    }
    let refused = auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: root user does not have root role");
    for (user, role) in [("root", "root"), ("ana", "reader")] {
        auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() })
            .await
            .unwrap();
    }
    let perm =
        wire::authpb::Permission { perm_type: 0, key: "open/".into(), range_end: prefix_end(b"open/") };
    auth.role_grant_permission(pb::AuthRoleGrantPermissionRequest {
        name: "reader".into(),
        perm: Some(perm),
    })
    .await
    .unwrap();
    member.put("open/a", "1").await;
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();

    let mut kv = member.client.kv.clone();
    let get = |key: &str| pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let nameless = kv.range(get("open/a")).await.unwrap_err();
    assert_eq!(
        (nameless.code(), nameless.message()),
        (Code::InvalidArgument, "etcdserver: user name is empty")
    );
    let wrong = pb::AuthenticateRequest { name: "ana".into(), password: "guess".into() };
    let wrong = auth.authenticate(wrong).await.unwrap_err();
    assert_eq!(wrong.message(), "etcdserver: authentication failed, invalid user ID or password");
    let login = pb::AuthenticateRequest { name: "ana".into(), password: "pw".into() };
    let token = auth.authenticate(login).await.unwrap().into_inner().token;

    kv.range(one::with_token(get("open/a"), &token)).await.unwrap();
    let forged = kv.range(one::with_token(get("open/a"), "forged.1.x")).await.unwrap_err();
    assert_eq!((forged.code(), forged.message()), (Code::Unauthenticated, "etcdserver: invalid auth token"));
    let denied = kv.range(one::with_token(get("other"), &token)).await.unwrap_err();
    assert_eq!((denied.code(), denied.message()), (Code::PermissionDenied, "etcdserver: permission denied"));
    let put = pb::PutRequest { key: "open/a".into(), ..Default::default() };
    assert_eq!(kv.put(one::with_token(put, &token)).await.unwrap_err().code(), Code::PermissionDenied);
    let mut watch = member.watch_as(&token).await;
    let answer = watch.ask(one::prefix("other")).await;
    assert_eq!(
        (answer.canceled, answer.cancel_reason.as_str()),
        (true, "rpc error: code = PermissionDenied desc = etcdserver: permission denied")
    );
    watch.create(one::prefix("open/")).await;
    member.stop().await;
}

#[tokio::test]
async fn a_restarted_member_has_everything_and_goes_on_counting() {
    let mut member = Member::start().await;
    member.put("a", "1").await;
    member.put("b", "2").await;
    member = member.restart().await;
    assert_eq!(member.get("a").await.map(|kv| kv_text(&kv)).as_deref(), Some("a=1 @2"));
    assert_eq!(member.put("c", "3").await, 4);
    let mut watch = member.watch().await;
    watch.create(pb::WatchCreateRequest { start_revision: 2, ..one::prefix("") }).await;
    let events: Vec<mvccpb::Event> = watch.events(3).await;
    assert_eq!(event_texts(&events), ["PUT a=1 @2", "PUT b=2 @3", "PUT c=3 @4"]);
    member.stop().await;
}

#[tokio::test]
async fn a_client_goes_on_to_the_endpoint_that_answers() {
    let member = Member::start().await;
    let closed = format!("http://127.0.0.1:{}", one::free_port());
    let endpoints = [closed.clone(), member.store().client_urls()[0].to_string()];
    let client =
        |endpoints: &[String]| wire::Client::new(wire::Transport::connect(endpoints, None, SECOND).unwrap());
    client(&endpoints).kv.put(pb::PutRequest { key: "a".into(), ..Default::default() }).await.unwrap();
    let refused = client(&endpoints[..1]).kv.range(pb::RangeRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().starts_with(&closed), "{}", refused.message());
    member.stop().await;
}

#[tokio::test]
async fn calls_inside_the_process_need_no_socket_and_are_counted() {
    let member = Member::start().await;
    let client = wire::Client::new(wire::Transport::local(member.store().routes()));
    client.kv.clone().put(pb::PutRequest { key: "a".into(), ..Default::default() }).await.unwrap();
    let status = client.maintenance.clone().status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.version, store::VERSION);
    assert!(member.get("a").await.is_some());
    let page = http::metrics(&member).await;
    let put = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1";
    assert!(page.lines().any(|line| line == put), "{page}");
    member.stop().await;
}
