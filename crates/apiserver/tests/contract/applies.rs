//! Server-side apply, and who owns which field.

use serde_json::{Value, json};

use crate::client::{Answer, Server, start, version};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn apply(server: &Server, path: &str, manager: &str, config: &Value) -> Answer {
    let separator = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{separator}fieldManager={manager}");
    server.send("PATCH", &path, &[("content-type", "application/apply-patch+yaml")], config.to_string()).await
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

/// `manager operation subresource` of every entry.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .map(|entry| {
            format!("{} {} {}", text(entry, "manager"), text(entry, "operation"), text(entry, "subresource"))
        })
        .map(|line| line.trim().to_owned())
        .collect()
}

#[tokio::test]
async fn applying_creates_updates_and_repeats_without_a_write() {
    let server = start().await;
    let path = format!("{MAPS}/a");
    let created = apply(&server, &path, "one", &map(json!({"x": "1", "y": "1"}))).await;
    assert_eq!((created.code, managers(&created.json())), (201, vec!["one Apply".to_owned()]));
    let again = apply(&server, &path, "one", &map(json!({"x": "1", "y": "1"}))).await;
    assert_eq!((again.code, version(&again.json())), (200, version(&created.json())));
    let dropped = apply(&server, &path, "one", &map(json!({"x": "2"}))).await;
    assert_eq!((dropped.code, &dropped.json()["data"]), (200, &json!({"x": "2"})));
    let dry = apply(&server, &format!("{path}?dryRun=All"), "one", &map(json!({"x": "3"}))).await;
    assert_eq!(dry.json()["data"]["x"], "3");
    assert_eq!(server.get(&path).await.json()["data"]["x"], "2");
}

#[tokio::test]
async fn taking_a_field_from_its_owner_is_a_conflict_unless_forced() {
    let server = start().await;
    let path = format!("{MAPS}/a");
    apply(&server, &path, "one", &map(json!({"x": "1"}))).await;
    let conflict = apply(&server, &path, "two", &map(json!({"x": "2", "z": "2"}))).await;
    assert_eq!(
        conflict.error(),
        (409, "Apply failed with 1 conflict: conflict with \"one\": .data.x".to_owned())
    );
    let cause = &conflict.json()["details"]["causes"][0];
    assert_eq!((&cause["reason"], &cause["field"]), (&json!("FieldManagerConflict"), &json!(".data.x")));
    let forced =
        apply(&server, &format!("{path}?force=true"), "two", &map(json!({"x": "2", "z": "2"}))).await;
    assert_eq!((forced.code, &forced.json()["data"]), (200, &json!({"x": "2", "z": "2"})));
}

#[tokio::test]
async fn other_writes_own_what_they_change() {
    let server = start().await;
    let created = server.config_map("a", json!({})).await;
    assert_eq!(managers(&created), ["unknown Update"]);
    let path = format!("{MAPS}/a");
    let conflict = apply(&server, &path, "one", &map(json!({"k": "mine"}))).await;
    assert_eq!(conflict.code, 409, "{:?}", conflict.bytes);
    let shared = apply(&server, &path, "one", &map(json!({"k": "v"}))).await.json();
    assert_eq!(managers(&shared), ["one Apply", "unknown Update"]);
    let patched =
        server.patch("merge", &format!("{path}?fieldManager=editor"), &json!({"data": {"k": "w"}})).await;
    assert_eq!(managers(&patched.json()), ["editor Update", "unknown Update"]);
    let idle =
        server.patch("merge", &format!("{path}?fieldManager=other"), &json!({"data": {"k": "w"}})).await;
    assert_eq!(version(&idle.json()), version(&patched.json()));
}

#[tokio::test]
async fn status_has_managers_of_its_own_and_defaults_belong_to_nobody() {
    let server = start().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}});
    let config = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    });
    let path = format!("{DEPLOYMENTS}/d");
    let created = apply(&server, &path, "one", &config).await;
    assert_eq!((created.code, &created.json()["spec"]["replicas"]), (201, &json!(1)), "{:?}", created.bytes);
    let scaled = server
        .patch("merge", &format!("{path}/scale?fieldManager=hpa"), &json!({"spec": {"replicas": 3}}))
        .await;
    assert_eq!(scaled.code, 200, "{:?}", scaled.bytes);
    let again = apply(&server, &path, "one", &config).await.json();
    assert_eq!(again["spec"]["replicas"], 3, "what nobody applied stays as others set it");
    server
        .patch(
            "merge",
            &format!("{path}/status?fieldManager=controller"),
            &json!({"status": {"replicas": 3}}),
        )
        .await;
    let now = server.get(&path).await.json();
    assert_eq!(managers(&now), ["one Apply", "controller Update status", "hpa Update scale"]);
}

#[tokio::test]
async fn an_apply_must_say_who_and_what() {
    let server = start().await;
    let path = format!("{MAPS}/a");
    let anonymous = server
        .send("PATCH", &path, &[("content-type", "application/apply-patch+yaml")], map(json!({})).to_string())
        .await;
    assert_eq!(
        anonymous.error(),
        (422, "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch".to_owned())
    );
    assert_eq!(apply(&server, &path, "one", &json!({"metadata": {"name": "a"}})).await.code, 400);
    let unknown = apply(
        &server,
        &path,
        "one",
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "foo": 1}),
    )
    .await;
    assert!(
        unknown.code == 400 && unknown.error().1.contains(".foo: field not declared in schema"),
        "{:?}",
        unknown.bytes
    );
    let forced = server.patch("merge", &format!("{path}?force=true"), &json!({})).await;
    assert_eq!(forced.code, 422);
}
