//! Watch: where it begins, what it sends, how it ends.

use std::time::Duration;

use apiserver::Config;
use serde_json::json;

use crate::client::{SOON, brief, start, start_on, start_with, version};
use crate::fake_etcd::FakeEtcd;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WATCH_LIST: &str =
    "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

#[tokio::test]
async fn a_watch_from_a_revision_sends_what_came_after_in_order() {
    let server = start().await;
    let a = version(&server.config_map("a", json!({})).await);
    server.config_map("b", json!({})).await;
    let mut events = server.watch(&format!("{MAPS}?watch=1&resourceVersion={a}")).await;
    server.patch("merge", &format!("{MAPS}/b"), &json!({"data": {"k": "w"}})).await;
    server.delete(&format!("{MAPS}/b")).await;
    let added = events.next().await.unwrap();
    assert_eq!((brief(&added), &added["object"]["kind"]), ("ADDED b".to_owned(), &json!("ConfigMap")));
    let modified = events.next().await.unwrap();
    assert_eq!((brief(&modified), &modified["object"]["data"]["k"]), ("MODIFIED b".to_owned(), &json!("w")));
    let deleted = events.next().await.unwrap();
    assert_eq!(brief(&deleted), "DELETED b");
    assert!(version(&deleted) > version(&modified), "a deletion has its own revision");
    assert!(events.quiet().await);
}

#[tokio::test]
async fn a_watch_without_a_revision_begins_with_the_state() {
    let server = start().await;
    server.config_map("a", json!({})).await;
    for query in ["watch=1", "watch=1&resourceVersion=0"] {
        // Only "" promises to be current; the other has caught up once the first has.
        let mut events = server.watch(&format!("{MAPS}?{query}")).await;
        assert_eq!((events.code, events.brief().await), (200, "ADDED a".to_owned()), "{query}");
        assert!(events.quiet().await);
    }
}

#[tokio::test]
async fn a_watch_list_ends_its_initial_events_with_a_marked_bookmark() {
    let server = start().await;
    server.config_map("a", json!({})).await;
    let b = version(&server.config_map("b", json!({})).await);
    let mut events = server.watch(&format!("{MAPS}?{WATCH_LIST}")).await;
    assert_eq!(events.briefs(2).await, ["ADDED a", "ADDED b"]);
    let mark = events.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert!(version(&mark) >= b);
    server.config_map("c", json!({})).await;
    assert_eq!(events.brief().await, "ADDED c");
    let mut empty = server.watch(&format!("/api/v1/namespaces/default/secrets?{WATCH_LIST}")).await;
    assert_eq!(empty.brief().await, "BOOKMARK");
}

#[tokio::test]
async fn a_watch_list_is_consistent_with_writes_of_other_servers() {
    let server = start().await;
    let value =
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "z", "namespace": "default"}});
    let written = server.etcd.put("/registry/configmaps/default/z", &value.to_string());
    let mut events = server.watch(&format!("{MAPS}?{WATCH_LIST}")).await;
    assert_eq!(events.brief().await, "ADDED z");
    assert!(version(&events.next().await.unwrap()) >= written);
}

#[tokio::test]
async fn an_object_that_begins_or_ends_to_match_is_added_or_deleted() {
    let server = start().await;
    let before = version(&server.config_map("a", json!({"app": "x"})).await);
    let mut events =
        server.watch(&format!("{MAPS}?watch=1&resourceVersion={before}&labelSelector=app%3Dx")).await;
    let label = |value: &str| json!({"metadata": {"labels": {"app": value}}});
    server.config_map("other", json!({"app": "y"})).await;
    server.patch("merge", &format!("{MAPS}/a"), &label("y")).await;
    let gone = events.next().await.unwrap();
    assert_eq!(
        (brief(&gone), &gone["object"]["metadata"]["labels"]["app"]),
        ("DELETED a".to_owned(), &json!("x"))
    );
    assert!(version(&gone) > before);
    server.patch("merge", &format!("{MAPS}/a"), &label("x")).await;
    server.patch("merge", &format!("{MAPS}/a"), &json!({"data": {"k": "2"}})).await;
    server.delete(&format!("{MAPS}/a")).await;
    assert_eq!(events.briefs(3).await, ["ADDED a", "MODIFIED a", "DELETED a"]);
}

#[tokio::test]
async fn a_watch_of_one_namespace_or_name_sees_nothing_else() {
    let server = start().await;
    let now = version(&server.get("/api/v1/configmaps").await.json());
    let mut all = server.watch(&format!("/api/v1/configmaps?watch=1&resourceVersion={now}")).await;
    let mut one = server.watch(&format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Db")).await;
    let mut legacy = server.watch("/api/v1/watch/namespaces/default/configmaps/b").await;
    let elsewhere = format!("/api/v1/namespaces/kube-system/configmaps?watch=1&resourceVersion={now}");
    let mut system = server.watch(&elsewhere).await;
    server.config_map("a", json!({})).await;
    server.config_map("b", json!({})).await;
    assert_eq!(all.briefs(2).await, ["ADDED a", "ADDED b"]);
    assert_eq!(one.brief().await, "ADDED b");
    assert_eq!(legacy.brief().await, "ADDED b");
    assert!(system.quiet().await);
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout_with_a_last_bookmark() {
    let server = start().await;
    let mut events = server.watch(&format!("{MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true")).await;
    assert_eq!(events.briefs(2).await, ["BOOKMARK", "end"]);
    let mut plain = server.watch(&format!("{MAPS}?watch=1&timeoutSeconds=1")).await;
    assert_eq!(plain.brief().await, "end");
}

#[tokio::test]
async fn a_revision_from_before_the_history_is_gone() {
    let server = start_on(FakeEtcd::with_a_past()).await;
    let answer = server.get(&format!("{MAPS}?watch=1&resourceVersion=1&timeoutSeconds=1")).await;
    assert_eq!((answer.code, &answer.json()["reason"]), (410, &json!("Expired")));
    assert!(answer.error().1.starts_with("too old resource version: 1 ("));
}

#[tokio::test]
async fn a_watch_survives_a_broken_store_connection_without_gap_or_repeat() {
    let server = start().await;
    let mut events = server.watch(&format!("{MAPS}?watch=1")).await;
    server.config_map("a", json!({})).await;
    assert_eq!(events.brief().await, "ADDED a");
    server.etcd.with_faults(|faults| faults.cut_watches = true);
    server.config_map("b", json!({})).await;
    server.patch("merge", &format!("{MAPS}/b"), &json!({"data": {"k": "2"}})).await;
    assert!(events.quiet().await);
    server.etcd.with_faults(|faults| faults.cut_watches = false);
    server.config_map("c", json!({})).await;
    assert_eq!(events.briefs(3).await, ["ADDED b", "MODIFIED b", "ADDED c"]);
}

#[tokio::test]
async fn after_a_compaction_that_was_missed_watchers_are_told_and_the_state_is_right() {
    let server = start().await;
    let mut events = server.watch(&format!("{MAPS}?watch=1")).await;
    server.config_map("a", json!({})).await;
    assert_eq!(events.brief().await, "ADDED a");
    server.etcd.with_faults(|faults| faults.cut_watches = true);
    assert!(events.quiet().await);
    server.config_map("b", json!({})).await;
    server.delete(&format!("{MAPS}/a")).await;
    server.etcd.put("/other", "x");
    server.etcd.compact(server.etcd.revision());
    server.etcd.with_faults(|faults| faults.cut_watches = false);
    assert_eq!(events.briefs(2).await, ["ERROR 410", "end"]);
    let list = server.get(MAPS).await.json();
    assert_eq!(crate::client::names(&list), ["b"]);
}

#[tokio::test]
async fn rows_of_a_table_and_metadata_are_watched_too() {
    let server = start().await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut rows = server.watch_as(&format!("{MAPS}?watch=1"), table).await;
    let metadata = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let mut metadata = server.watch_as(&format!("{MAPS}?watch=1"), metadata).await;
    server.config_map("a", json!({})).await;
    server.config_map("b", json!({})).await;
    let first = rows.next().await.unwrap();
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert!(rows.next().await.unwrap()["object"]["columnDefinitions"].is_null());
    let event = metadata.next().await.unwrap();
    assert_eq!(event["object"]["kind"], "PartialObjectMetadata");
    assert!(event["object"].get("data").is_none());
}

#[tokio::test]
async fn a_protobuf_watch_sends_framed_envelopes() {
    let server = start().await;
    let mut events = server.watch_as(&format!("{MAPS}?watch=1"), "application/vnd.kubernetes.protobuf").await;
    assert_eq!(events.headers["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    server.config_map("a", json!({})).await;
    let frame = events.next_frame().await.unwrap();
    assert_eq!(&frame[..7], b"\x0a\x05ADDED");
    assert!(frame.windows(4).any(|window| window == b"k8s\0"));
}

#[tokio::test]
async fn a_slow_reader_holds_nobody_up() {
    let server = start().await;
    let mut slow = server.watch(&format!("{MAPS}?watch=1")).await;
    let mut quick = server.watch(&format!("{MAPS}?watch=1")).await;
    for round in 0..300 {
        server.config_map(&format!("m{round:03}"), json!({})).await;
        assert_eq!(quick.brief().await, format!("ADDED m{round:03}"));
    }
    assert_eq!(slow.briefs(300).await.last().unwrap(), "ADDED m299");
}

#[tokio::test]
async fn history_is_compacted_by_one_server_per_round_a_round_late() {
    let etcd = FakeEtcd::new();
    let config = || Config { etcd_compaction_interval: Duration::from_millis(200), ..Config::default() };
    let one = start_with(etcd.clone(), config()).await;
    let _two = start_with(etcd.clone(), config()).await;
    let before = version(&one.config_map("a", json!({})).await);
    let deadline = tokio::time::Instant::now() + SOON;
    while etcd.compacted() < before {
        assert!(tokio::time::Instant::now() < deadline, "compacted at {}", etcd.compacted());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The revision of the last round is still there.
    assert!(etcd.compacted() < etcd.revision());
    let (rounds, _) = etcd.value("compact_rev_key").unwrap();
    assert!(rounds.parse::<i64>().unwrap() >= before);
}
