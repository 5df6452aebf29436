//! Plain HTTP on the client port: probes, version, metrics and the JSON gateway.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use wire::etcdserverpb as pb;

use crate::{cluster::three, one::Member};

async fn open(member: &Member, method: &str, path: &str, body: &str) -> TcpStream {
    let url = &member.store().client_urls()[0];
    let mut stream = TcpStream::connect((url.host().unwrap(), url.port().unwrap())).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Status and body.
async fn ask(member: &Member, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut text = String::new();
    open(member, method, path, body).await.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub(crate) async fn metrics(member: &Member) -> String {
    ask(member, "GET", "/metrics", "").await.1
}

#[tokio::test]
async fn probes_answer_as_in_etcd() {
    let member = Member::start().await;
    let all = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n";
    for (method, path, status, body) in [
        ("GET", "/health", 200, "{\"health\":\"true\",\"reason\":\"\"}"),
        ("GET", "/health?serializable=true", 200, "{\"health\":\"true\",\"reason\":\"\"}"),
        ("POST", "/health", 405, "Method Not Allowed\n"),
        ("GET", "/livez", 200, "ok\n"),
        ("GET", "/livez?verbose", 200, "[+]serializable_read ok\nok\n"),
        ("GET", "/readyz?verbose&exclude=non_learner", 200, all),
        ("GET", "/readyz/linearizable_read", 200, "ok\n"),
        ("GET", "/readyz?exclude=unknown&exclude=", 200, "ok\n"),
        ("GET", "/readyz/data_corruption", 200, "ok\n"),
        ("GET", "/readyz/data_corruption?verbose", 200, "[+]data_corruption ok\nok\n"),
        (
            "GET",
            "/readyz/data_corruption?verbose&exclude=data_corruption",
            200,
            "[+]data_corruption ok\nok\n",
        ),
        ("GET", "/readyz/unknown", 404, "404 page not found\n"),
        ("GET", "/readyz/", 404, "404 page not found\n"),
        ("GET", "/livez/data_corruption", 404, "404 page not found\n"),
        ("GET", "/livez/serializable_read/", 404, "404 page not found\n"),
        ("POST", "/livez/serializable_read", 405, "Method Not Allowed\n"),
        ("GET", "/unknown", 404, "404 page not found\n"),
    ] {
        assert_eq!(ask(&member, method, path, "").await, (status, body.to_owned()), "{method} {path}");
    }
    let (_, version) = ask(&member, "GET", "/version", "").await;
    assert!(version.starts_with(&format!("{{\"etcdserver\":\"{}\"", store::VERSION)), "{version}");
    member.stop().await;
}

#[tokio::test]
async fn a_full_store_is_unhealthy_unless_that_is_excluded() {
    let member = Member::start_with(|config| config.quota_backend_bytes = 1).await;
    member.try_put("k").await.unwrap_err();
    let (status, body) = ask(&member, "GET", "/health", "").await;
    assert_eq!((status, body.as_str()), (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n"));
    assert_eq!(ask(&member, "GET", "/health?exclude=NOSPACE", "").await.0, 200);
    member.stop().await;
}

#[tokio::test]
async fn a_corrupt_member_is_alive_and_not_ready() {
    let member = Member::start().await;
    let raise = r#"{"action":"ACTIVATE","alarm":"CORRUPT"}"#;
    assert_eq!(ask(&member, "POST", "/v3/maintenance/alarm", raise).await.0, 200);
    let failed = "[-]data_corruption failed: alarm activated: CORRUPT\n";
    let rest = "[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\n";
    for (path, status, body) in [
        ("/readyz", 503, format!("{failed}{rest}\n")),
        ("/readyz?verbose", 503, format!("{failed}{rest}\n")),
        ("/readyz?exclude=data_corruption", 200, "ok\n".to_owned()),
        ("/readyz/data_corruption", 503, format!("{failed}\n")),
        ("/readyz/linearizable_read", 200, "ok\n".to_owned()),
        ("/livez", 200, "ok\n".to_owned()),
        ("/health", 503, "{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}\n".to_owned()),
    ] {
        assert_eq!(ask(&member, "GET", path, "").await, (status, body), "{path}");
    }
    member.stop().await;
}

#[tokio::test]
async fn metrics_have_the_names_that_dashboards_use() {
    let member = Member::start().await;
    member.put("k", "v").await;
    let (_, page) = ask(&member, "GET", "/metrics", "").await;
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_debugging_mvcc_current_revision 2",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    for name in [
        "etcd_server_leader_changes_seen_total",
        "etcd_server_proposals_pending",
        "etcd_server_proposals_failed_total",
        "etcd_server_proposals_committed_total",
        "etcd_server_proposals_applied_total",
        "etcd_disk_wal_fsync_duration_seconds_bucket",
        "etcd_disk_backend_commit_duration_seconds_bucket",
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "etcd_server_quota_backend_bytes",
        "etcd_network_client_grpc_sent_bytes_total",
        "etcd_network_client_grpc_received_bytes_total",
        "process_resident_memory_bytes",
    ] {
        assert!(page.lines().any(|line| line.starts_with(name)), "{name}");
    }
    member.stop().await;
}

/// Everything that etcd's own dashboard and alerts ask for, and what it tells about peers, disks and snapshots.
const NAMES: &[&str] = &[
    "etcd_cluster_version",
    "etcd_debugging_auth_revision",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_renewed_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_mvcc_compact_revision",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_mvcc_delete_total",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_put_total",
    "etcd_debugging_mvcc_range_total",
    "etcd_debugging_mvcc_txn_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_debugging_server_lease_expired_total",
    "etcd_debugging_snap_save_total_duration_seconds_bucket",
    "etcd_debugging_store_watchers",
    "etcd_disk_backend_commit_duration_seconds_bucket",
    "etcd_disk_backend_defrag_duration_seconds_bucket",
    "etcd_disk_backend_snapshot_duration_seconds_bucket",
    "etcd_disk_wal_fsync_duration_seconds_bucket",
    "etcd_disk_wal_write_bytes_total",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_put_total",
    "etcd_mvcc_range_total",
    "etcd_mvcc_txn_total",
    "etcd_network_active_peers",
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "etcd_network_disconnected_peers_total",
    "etcd_network_known_peers",
    "etcd_network_peer_received_bytes_total",
    "etcd_network_peer_received_failures_total",
    "etcd_network_peer_round_trip_time_seconds_bucket",
    "etcd_network_peer_sent_bytes_total",
    "etcd_network_peer_sent_failures_total",
    "etcd_network_snapshot_receive_failures",
    "etcd_network_snapshot_receive_inflights_total",
    "etcd_network_snapshot_receive_success",
    "etcd_network_snapshot_receive_total_duration_seconds_bucket",
    "etcd_network_snapshot_send_failures",
    "etcd_network_snapshot_send_inflights_total",
    "etcd_network_snapshot_send_success",
    "etcd_network_snapshot_send_total_duration_seconds_bucket",
    "etcd_server_has_leader",
    "etcd_server_health_failures",
    "etcd_server_health_success",
    "etcd_server_id",
    "etcd_server_is_leader",
    "etcd_server_is_learner",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_learner_promote_successes",
    "etcd_server_lease_expired_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
    "etcd_server_quota_backend_bytes",
    "etcd_server_read_indexes_failed_total",
    "etcd_server_slow_apply_total",
    "etcd_server_slow_read_indexes_total",
    "etcd_server_version",
    "etcd_snap_db_fsync_duration_seconds_bucket",
    "etcd_snap_db_save_total_duration_seconds_bucket",
    "etcd_snap_fsync_duration_seconds_bucket",
    "grpc_server_handled_total",
    "grpc_server_handling_seconds_bucket",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
    "grpc_server_started_total",
    "process_open_fds",
    "process_resident_memory_bytes",
];

#[tokio::test]
async fn every_name_of_the_official_dashboard_and_alerts_is_served_with_a_number() {
    let members = three(|config| config.metrics_extensive = true).await;
    members[0].put("k", "v").await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let page = loop {
        let (_, page) = ask(&members[0], "GET", "/metrics", "").await;
        let is_active = |line: &&str| line.starts_with("etcd_network_active_peers{") && line.ends_with("} 1");
        if page.lines().filter(is_active).count() == 2 {
            break page;
        }
        assert!(tokio::time::Instant::now() < deadline, "both peers answer some time:\n{page}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let values = |name: &str| -> Vec<f64> {
        let of_name = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        };
        page.lines().filter(of_name).map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    };
    for name in NAMES {
        assert!(!values(name).is_empty(), "{name}\n{page}");
    }
    for name in ["etcd_network_peer_sent_bytes_total", "etcd_network_peer_received_bytes_total"] {
        assert!(values(name).iter().all(|bytes| *bytes > 0.0), "{name} {:?}", values(name));
    }
    assert!(values("etcd_network_peer_round_trip_time_seconds_count").iter().all(|count| *count > 0.0));
    assert_eq!(values("etcd_mvcc_put_total"), [1.0]);
    // One series for each code of each method, as in etcd.
    let of_put = |line: &&str| line.starts_with("grpc_server_handled_total{") && line.contains("\"Put\"");
    assert_eq!(page.lines().filter(of_put).count(), 17);
    join_all(members.into_iter().map(Member::stop)).await;
}

/// What `metrics.names` promises: every name of etcd with the same kind, but for those that it says are absent, and those
/// are explained to operators.
#[tokio::test]
async fn every_name_of_etcds_page_is_served_or_its_absence_explained() {
    let member = Member::start().await;
    let (_, page) = ask(&member, "GET", "/metrics", "").await;
    let operations = include_str!("../../../../docs/operations.md");
    let lines = include_str!("metrics.names").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let [sign, name, kind] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let is_served = page.contains(&format!("# TYPE {name} {kind}\n"));
        match sign {
            "+" => assert!(is_served, "{name} {kind} is not served"),
            "-" => {
                assert!(!page.contains(&format!("# TYPE {name} ")), "{name} is served");
                assert!(
                    operations.contains(name),
                    "docs/operations.md does not explain the absence of {name}"
                );
            }
            _ => panic!("{line}"),
        }
    }
    member.stop().await;
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    let member = Member::start().await;
    member.put("k", "value").await;
    member.put("k", "value").await;
    member.get("k").await.unwrap();
    let grant = pb::LeaseGrantRequest { ttl: 100, id: 7 };
    member.client.lease.clone().lease_grant(grant).await.unwrap();
    let compact = pb::CompactionRequest { revision: 3, physical: true };
    member.client.kv.clone().compact(compact).await.unwrap();
    member.client.maintenance.clone().hash_kv(pb::HashKvRequest::default()).await.unwrap();
    let create = pb::WatchCreateRequest { key: "k".into(), start_revision: 3, ..Default::default() };
    let create = pb::watch_request::RequestUnion::CreateRequest(create);
    let requests = tokio_stream::iter([pb::WatchRequest { request_union: Some(create) }]);
    let requests = futures_util::StreamExt::chain(requests, futures_util::stream::pending());
    let mut watch = member.client.watch.clone().watch(requests).await.unwrap().into_inner();
    while watch.message().await.unwrap().unwrap().events.is_empty() {}
    let expected = [
        "etcd_debugging_lease_ttl_total_sum 100",
        "etcd_debugging_mvcc_db_compaction_keys_total 1",
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count 1",
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_bucket{le=\"1\"}",
        "etcd_debugging_mvcc_events_total 1",
        "etcd_debugging_mvcc_pending_events_total 0",
        "etcd_debugging_mvcc_slow_watcher_total 0",
        "etcd_debugging_mvcc_total_put_size_in_bytes 12",
        "etcd_debugging_mvcc_watch_stream_total 1",
        "etcd_debugging_mvcc_watcher_total 1",
        "etcd_mvcc_hash_rev_duration_seconds_count 1",
        "etcd_server_apply_duration_seconds_count{op=\"Compaction\",success=\"true\",version=\"v3\"} 1",
        "etcd_server_apply_duration_seconds_count{op=\"Put\",success=\"true\",version=\"v3\"} 2",
        "etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"stream\"} 1",
        "etcd_server_feature_enabled{name=\"LeaseCheckpoint\",stage=\"ALPHA\"} 0",
        "etcd_server_range_duration_seconds_count{success=\"true\"}",
    ];
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let (_, page) = ask(&member, "GET", "/metrics", "").await;
        let missing: Vec<_> = expected
            .iter()
            .filter(|wanted| {
                !page.lines().any(|line| line == **wanted || line.starts_with(&format!("{wanted} ")))
            })
            .collect();
        if missing.is_empty() {
            break;
        }
        // Counted right after what was waited for.
        assert!(tokio::time::Instant::now() < deadline, "{missing:?}\n{page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    member.stop().await;
}

#[tokio::test]
async fn the_gateway_speaks_json() {
    let member = Member::start().await;
    let (status, body) = ask(&member, "POST", "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#).await;
    assert!(status == 200 && body.contains("\"revision\":\"2\""), "{status} {body}");
    let (_, body) = ask(&member, "POST", "/v3beta/kv/range", r#"{"key":"Zm9v"}"#).await;
    let kv = r#""kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","value":"YmFy"}],"count":"1"}"#;
    assert!(body.ends_with(kv), "{body}");
    let body =
        |code: i32, text: &str| format!("{{\"error\":\"{text}\",\"message\":\"{text}\",\"code\":{code}}}");
    let no_key: &str = &body(3, "etcdserver: key is not provided");
    let no_method: &str = &body(12, "Method Not Allowed");
    let no_path: &str = &body(5, "Not Found");
    let wrong = |text: &str| body(3, text);
    for (method, path, request, status, answer) in [
        ("POST", "/v3/kv/range", "", 400, no_key),
        ("POST", "/v3/kv/range", "{}", 400, no_key),
        ("POST", "/v3/kv/range?key=Zm9v", "{}", 400, no_key),
        ("GET", "/v3/kv/range", "", 501, no_method),
        ("PUT", "/v3/kv/put", "{}", 501, no_method),
        ("DELETE", "/v3/watch", "", 501, no_method),
        ("GET", "/v3/kv/nothing", "", 404, no_path),
        ("POST", "/v3/kv/nothing", "{}", 404, no_path),
        ("POST", "/v3/kv/range/", "{}", 404, no_path),
        ("POST", "/v3/", "{}", 404, no_path),
        ("POST", "/v3", "{}", 307, ""),
        ("POST", "/v3alpha/kv/range", "{}", 404, "404 page not found\n"),
        ("POST", "/v3/kv/put", "{", 400, &wrong("unexpected EOF")),
        ("POST", "/v3/kv/put", "x", 400, &wrong("invalid character 'x' looking for beginning of value")),
        ("POST", "/v3/kv/put", "[]", 400, &wrong("proto: syntax error (line 1:1): unexpected token [")),
        ("POST", "/v3/kv/put", "null", 400, &wrong("proto: syntax error (line 1:1): unexpected token null")),
        ("POST", "/v3/election/resign", "{}", 500, &body(2, r#"\"leader\" field must be provided"#)),
    ] {
        assert_eq!(
            ask(&member, method, path, request).await,
            (status, answer.to_owned()),
            "{method} {path} {request}"
        );
    }
    for sloppy in [
        r#"{"key":"Zm9v"} {"key":"Zm9v"}"#,
        r#"{"key":"Zm9v"}x"#,
        r#"{"key":"Zm9v","unknown":1}"#,
        r#"{"key":"Zm9v","limit":null}"#,
        r#"{"key":"Zm9v","rangeEnd":""}"#,
        r#"{"key":"Zm9v","sort_order":"UNKNOWN"}"#,
    ] {
        assert_eq!(ask(&member, "POST", "/v3/kv/range", sloppy).await.0, 200, "{sloppy}");
    }
    let long = format!("{{\"key\":\"{}\"}}", "A".repeat(2_900_000));
    let refused = body(8, "grpc: received message larger than max (2175005 vs. 2097152)");
    assert_eq!(ask(&member, "POST", "/v3/kv/put", &long).await, (429, refused));
    assert_eq!(ask(&member, "POST", "/v3/kv/range", "junk").await.0, 400);

    let request = r#"{"create_request":{"key":"Zm9v","start_revision":"2"}}"#;
    let mut lines = BufReader::new(open(&member, "POST", "/v3/watch", request).await).lines();
    let mut line = async |part: &str| loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if line.contains(part) {
            break line;
        }
    };
    line(r#""created":true"#).await;
    line(r#""events":[{"kv":{"key":"Zm9v","create_revision":"2""#).await;
    member.put("foo", "again").await;
    line(r#""mod_revision":"3""#).await;
    member.stop().await;
}

#[tokio::test]
async fn the_gateway_shares_the_streams_of_one_connection() {
    let member = Member::start_with(|config| config.concurrent_streams_max = 2).await;
    let watch = r#"{"create_request":{"key":"Zm9v"}}"#;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = BufReader::new(open(&member, "POST", "/v3/watch", watch).await);
        let mut line = String::new();
        while !line.contains("created") {
            line.clear();
            assert!(stream.read_line(&mut line).await.unwrap() > 0, "the watch begins");
        }
        streams.push(stream);
    }
    let range = || ask(&member, "POST", "/v3/kv/range", r#"{"key":"Zm9v"}"#);
    let waited = tokio::time::timeout(std::time::Duration::from_millis(500), range()).await;
    assert!(waited.is_err(), "{waited:?}");
    streams.pop();
    assert_eq!(range().await.0, 200);
    member.stop().await;
}

#[tokio::test]
async fn debugging_is_open_only_if_asked_for() {
    let member = Member::start().await;
    for path in ["/debug/vars", "/debug/pprof/", "/debug/pprof/heap"] {
        assert_eq!(ask(&member, "GET", path, "").await.0, 404, "{path}");
    }
    member.stop().await;
    let member = Member::start_with(|config| config.debug = true).await;
    let (status, vars) = ask(&member, "GET", "/debug/vars", "").await;
    assert!(status == 200 && vars.contains("\"raftState\":\"StateLeader\""), "{status} {vars}");
    let (status, index) = ask(&member, "GET", "/debug/pprof/", "").await;
    assert!(status == 200 && index.contains("no pprof profiles"), "{status} {index}");
    assert_eq!(ask(&member, "GET", "/debug/pprof/heap", "").await.0, 501);
    assert_eq!(ask(&member, "POST", "/debug/vars", "").await.0, 405);
    member.stop().await;
}
