//! Get and list: media types, consistency, pages.

use serde_json::json;

use crate::client::{names, start, start_on, version};
use crate::fake_etcd::FakeEtcd;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn an_object_comes_back_as_it_was_stored_with_what_the_server_adds() {
    let server = start().await;
    let created = server.config_map("a", json!({"x": "y"})).await;
    assert_eq!((&created["kind"], &created["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(created["metadata"]["uid"].as_str().unwrap().len(), 36);
    let got = server.get(&format!("{MAPS}/a")).await;
    assert_eq!((got.code, got.json()), (200, created));
    let missing = server.get(&format!("{MAPS}/b")).await;
    assert_eq!(missing.error(), (404, "configmaps \"b\" not found".to_owned()));
    assert_eq!(missing.json()["details"], json!({"name": "b", "kind": "configmaps"}));
}

#[tokio::test]
async fn items_of_a_list_carry_no_type_and_the_list_says_its_revision() {
    let server = start().await;
    let empty = server.get("/api/v1/namespaces/default/secrets").await.json();
    assert_eq!((&empty["kind"], &empty["items"]), (&json!("SecretList"), &json!([])));
    server.config_map("b", json!({})).await;
    let last = server.config_map("a", json!({})).await;
    let list = server.get(MAPS).await.json();
    assert_eq!(names(&list), ["a", "b"]);
    assert!(list["items"][0].get("kind").is_none());
    assert!(version(&list) >= version(&last));
}

#[tokio::test]
async fn a_list_shows_every_acknowledged_write_even_one_of_another_server() {
    let server = start().await;
    for round in 0..20 {
        let name = format!("m{round}");
        let value = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"}});
        server.etcd.put(&format!("/registry/configmaps/default/{name}"), &value.to_string());
        assert!(names(&server.get(MAPS).await.json()).contains(&name), "{name}");
    }
    // Writes elsewhere in the store move its revision, and the list's.
    let elsewhere = server.etcd.put("/other/key", "x");
    assert!(version(&server.get(MAPS).await.json()) >= elsewhere);
}

#[tokio::test]
async fn a_list_is_paged_at_one_revision_whatever_happens_meanwhile() {
    let server = start().await;
    for name in ["a", "b", "c", "d", "e"] {
        server.config_map(name, json!({})).await;
    }
    let first = server.get(&format!("{MAPS}?limit=2")).await.json();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    server.delete(&format!("{MAPS}/c")).await;
    server.config_map("bb", json!({})).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.json();
    assert_eq!((names(&second), version(&second)), (vec!["c".to_owned(), "d".to_owned()], version(&first)));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.json();
    assert_eq!(names(&third), ["e"]);
    assert!(third["metadata"].get("continue").is_none());
    assert_eq!(names(&server.get(MAPS).await.json()), ["a", "b", "bb", "d", "e"]);
}

#[tokio::test]
async fn a_token_of_a_forgotten_revision_expires_with_one_that_goes_on() {
    let server = start_on(FakeEtcd::with_a_past()).await;
    for name in ["a", "b"] {
        server.config_map(name, json!({})).await;
    }
    let old = json!({"v": "meta.k8s.io/v1", "rv": 5, "start": "default/a\0"});
    let token = base64_url(&old.to_string());
    let expired = server.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!((expired.code, &expired.json()["reason"]), (410, &json!("Expired")));
    let next = expired.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    assert_eq!(names(&server.get(&format!("{MAPS}?limit=1&continue={next}")).await.json()), ["b"]);
    assert_eq!(server.get(&format!("{MAPS}?continue=junk!")).await.code, 400);
}

fn base64_url(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

#[tokio::test]
async fn exact_and_not_older_than_mean_what_they_say() {
    let server = start().await;
    let a = version(&server.config_map("a", json!({})).await);
    let b = version(&server.config_map("b", json!({})).await);
    let server = &server;
    let list = |query: String| async move { server.get(&format!("{MAPS}?{query}")).await };
    let exact = list(format!("resourceVersion={a}&resourceVersionMatch=Exact")).await.json();
    assert_eq!((names(&exact), version(&exact)), (vec!["a".to_owned()], a));
    let newer = list(format!("resourceVersion={a}&resourceVersionMatch=NotOlderThan")).await.json();
    assert!(version(&newer) >= a);
    let newer = list(format!("resourceVersion={b}")).await.json();
    assert_eq!(names(&newer), ["a", "b"]);
    let legacy = list(format!("resourceVersion={a}&limit=9")).await.json();
    assert_eq!(names(&legacy), ["a"]);
    let any = list("resourceVersion=0&limit=1".to_owned()).await.json();
    assert!(any["metadata"].get("continue").is_none());
    let future = list(format!("resourceVersion={}", b + 1000)).await;
    assert_eq!(future.code, 504);
    assert!(
        future
            .error()
            .1
            .starts_with(&format!("Timeout: Too large resource version: {}, current: ", b + 1000))
    );
    assert_eq!(future.json()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn selectors_choose_by_label_and_field() {
    let server = start().await;
    server.config_map("a", json!({"app": "x"})).await;
    server.config_map("b", json!({"app": "y"})).await;
    for (query, expected) in [
        ("labelSelector=app%3Dx", vec!["a"]),
        ("labelSelector=app%20in%20(x,y)", vec!["a", "b"]),
        ("labelSelector=app!%3Dx", vec!["b"]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=metadata.name!%3Db", vec!["a"]),
        ("fieldSelector=metadata.namespace%3Ddefault&labelSelector=app", vec!["a", "b"]),
    ] {
        assert_eq!(names(&server.get(&format!("{MAPS}?{query}")).await.json()), expected, "{query}");
    }
    let unknown = server.get(&format!("{MAPS}?fieldSelector=data.k%3Dv")).await;
    assert_eq!(unknown.error(), (400, "field label not supported: data.k".to_owned()));
    let limited = server.get(&format!("{MAPS}?limit=1&labelSelector=app")).await.json();
    assert!(limited["metadata"].get("remainingItemCount").is_none());
}

#[tokio::test]
async fn tables_metadata_yaml_and_protobuf_are_answered_as_asked() {
    let server = start().await;
    server.config_map("a", json!({})).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let answer = server.send("GET", MAPS, &[("accept", table)], "").await.json();
    assert_eq!((&answer["kind"], &answer["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(answer["columnDefinitions"][0]["name"], "Name");
    assert_eq!(answer["rows"][0]["cells"][0], "a");
    assert_eq!(answer["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let answer = server.send("GET", MAPS, &[("accept", metadata)], "").await.json();
    assert_eq!(answer["kind"], "PartialObjectMetadataList");
    assert!(answer["items"][0].get("data").is_none());
    let yaml = server.send("GET", &format!("{MAPS}/a"), &[("accept", "application/yaml")], "").await;
    assert!(String::from_utf8_lossy(&yaml.bytes).contains("kind: ConfigMap"));
    let proto = [("accept", "application/vnd.kubernetes.protobuf,application/json")];
    for path in [MAPS.to_owned(), format!("{MAPS}/a")] {
        let answer = server.send("GET", &path, &proto, "").await;
        assert_eq!(answer.headers["content-type"], "application/vnd.kubernetes.protobuf");
        assert_eq!(&answer.bytes[..4], b"k8s\0");
    }
    let refused = server.send("GET", MAPS, &[("accept", "text/html")], "").await;
    assert_eq!(
        refused.error(),
        (
            406,
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
                .to_owned()
        )
    );
}

#[tokio::test]
async fn what_another_server_stored_as_protobuf_is_read() {
    let server = start().await;
    let proto = [("accept", "application/vnd.kubernetes.protobuf")];
    server.config_map("a", json!({})).await;
    let bytes = server.send("GET", &format!("{MAPS}/a"), &proto, "").await.bytes;
    let posted = server
        .send(
            "POST",
            "/api/v1/namespaces/kube-system/configmaps",
            &[("content-type", "application/vnd.kubernetes.protobuf")],
            bytes,
        )
        .await;
    assert_eq!(posted.code, 400, "the namespace differs");
}
