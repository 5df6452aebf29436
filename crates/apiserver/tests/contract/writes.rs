//! Create, update, patch, delete and the subresources.

use serde_json::{Value, json};

use crate::client::{names, start, start_on, version};
use crate::fake_etcd::FakeEtcd;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn a_name_is_taken_once_and_generated_names_are_fresh() {
    let server = start().await;
    server.config_map("a", json!({})).await;
    let again = server.post(MAPS, &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(again.error(), (409, "configmaps \"a\" already exists".to_owned()));
    assert_eq!(again.json()["reason"], "AlreadyExists");
    let generated = server.post(MAPS, &json!({"metadata": {"generateName": "web-"}})).await.json();
    let name = generated["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    let nameless = server.post(MAPS, &json!({"data": {}})).await;
    assert_eq!(
        nameless.error(),
        (
            422,
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"
                .to_owned()
        )
    );
}

#[tokio::test]
async fn bodies_that_do_not_fit_are_refused_with_upstreams_texts() {
    let server = start().await;
    let server = &server;
    let post = |body: Value| async move { server.post(PODS, &body).await.error() };
    let mut elsewhere = pod("a");
    elsewhere["metadata"]["namespace"] = json!("kube-system");
    assert_eq!(
        post(elsewhere).await,
        (
            400,
            "the namespace of the provided object does not match the namespace sent on the request"
                .to_owned()
        )
    );
    let mut other = pod("a");
    other["apiVersion"] = json!("apps/v1");
    assert_eq!(
        post(other).await,
        (
            400,
            "the API version in the data (apps/v1) does not match the expected API version (v1)".to_owned()
        )
    );
    let mut other = pod("a");
    other["kind"] = json!("Node");
    assert!(post(other).await.1.starts_with("Node in version \"v1\" cannot be handled as a Pod"));
    let mut versioned = pod("a");
    versioned["metadata"]["resourceVersion"] = json!("5");
    assert_eq!(
        post(versioned).await,
        (400, "resourceVersion should not be set on objects to be created".to_owned())
    );
    let mut empty = pod("a");
    empty["spec"]["containers"] = json!([]);
    assert_eq!(post(empty).await, (422, "Pod \"a\" is invalid: spec.containers: Required value".to_owned()));
    let text = server.send("POST", PODS, &[("content-type", "text/plain")], "x").await;
    assert_eq!(text.code, 415);
    let junk = server.send("POST", PODS, &[], "{\"a\":").await;
    assert_eq!((junk.code, &junk.json()["reason"]), (400, &json!("BadRequest")));
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_dropped() {
    let server = start().await;
    let body = json!({"metadata": {"name": "a"}, "dta": {"k": "v"}});
    let strict = server.post(&format!("{MAPS}?fieldValidation=Strict"), &body).await;
    assert_eq!(
        strict.error(),
        (400, "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"dta\"".to_owned())
    );
    let warned = server.post(MAPS, &body).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"dta\\\"\"");
    assert!(warned.json().get("dta").is_none());
    let ignored = server
        .post(&format!("{MAPS}?fieldValidation=Ignore"), &json!({"metadata": {"name": "b"}, "x": 1}))
        .await;
    assert!(ignored.code == 201 && !ignored.headers.contains_key("warning"));
    let odd = server.post(&format!("{MAPS}?fieldValidation=Sometimes"), &body).await;
    assert_eq!(odd.code, 422);
}

#[tokio::test]
async fn objects_need_a_namespace_that_exists_and_stays() {
    let server = start().await;
    let missing =
        server.post("/api/v1/namespaces/nowhere/configmaps", &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(missing.error(), (404, "namespaces \"nowhere\" not found".to_owned()));
    let created = server.post("/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await.json();
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(created["status"]["phase"], "Active");
    assert_eq!(created["metadata"]["labels"]["kubernetes.io/metadata.name"], "team");
    let inside = "/api/v1/namespaces/team/configmaps";
    assert_eq!(server.post(inside, &json!({"metadata": {"name": "a"}})).await.code, 201);
    let deleted = server.delete("/api/v1/namespaces/team").await.json();
    assert_eq!(deleted["status"]["phase"], "Terminating");
    // The answer of the delete precedes its event; a consistent read waits for that.
    server.get("/api/v1/namespaces").await;
    let refused = server.post(inside, &json!({"metadata": {"name": "b"}})).await;
    assert_eq!(
        refused.error(),
        (403, "configmaps \"b\" is forbidden: unable to create new content in namespace team because it is being terminated".to_owned())
    );
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut finalized = server.get("/api/v1/namespaces/team").await.json();
    finalized["spec"]["finalizers"] = json!([]);
    assert_eq!(server.put("/api/v1/namespaces/team/finalize", &finalized).await.code, 200);
    assert_eq!(server.get("/api/v1/namespaces/team").await.code, 404);
    let immortal = server.delete("/api/v1/namespaces/default").await;
    assert_eq!(
        immortal.error(),
        (403, "namespaces \"default\" is forbidden: this namespace may not be deleted".to_owned())
    );
}

#[tokio::test]
async fn an_outdated_update_conflicts_and_an_idle_one_writes_nothing() {
    let server = start().await;
    let first = server.config_map("a", json!({})).await;
    let path = format!("{MAPS}/a");
    let mut second = first.clone();
    second["data"]["k"] = json!("2");
    let second = server.put(&path, &second).await.json();
    assert!(version(&second) > version(&first));
    let mut stale = first.clone();
    stale["data"]["k"] = json!("3");
    let conflict = server.put(&path, &stale).await;
    assert_eq!(
        conflict.error(),
        (409, "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again".to_owned())
    );
    let before = server.etcd.revision();
    let idle = server.put(&path, &second).await;
    assert_eq!((idle.code, version(&idle.json()), server.etcd.revision()), (200, version(&second), before));
    let unconditional = server.put(&path, &json!({"metadata": {"name": "a"}, "data": {"k": "4"}})).await;
    assert_eq!((unconditional.code, &unconditional.json()["data"]["k"]), (200, &json!("4")));
    assert_eq!(unconditional.json()["metadata"]["uid"], first["metadata"]["uid"]);
    let mut other = first.clone();
    other["metadata"]["uid"] = json!("someone-else");
    other["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(server.put(&path, &other).await.code, 409);
    let missing = server.put(&format!("{MAPS}/b"), &json!({"metadata": {"name": "b"}})).await;
    assert_eq!(missing.error(), (404, "configmaps \"b\" not found".to_owned()));
    let renamed = server.put(&path, &json!({"metadata": {"name": "b"}})).await;
    assert_eq!(
        renamed.error(),
        (400, "the name of the object (b) does not match the name on the URL (a)".to_owned())
    );
}

#[tokio::test]
async fn an_update_is_decided_on_the_store_not_on_an_outdated_cache() {
    let server = start().await;
    let first = server.config_map("a", json!({})).await;
    server.get(MAPS).await;
    server.etcd.with_faults(|faults| faults.cut_watches = true);
    let mut second = first.clone();
    second["data"]["k"] = json!("2");
    let second = server.put(&format!("{MAPS}/a"), &second).await;
    assert_eq!(second.code, 200);
    // The cache still has the first version; the client has the second.
    let mut third = second.json();
    third["data"]["k"] = json!("3");
    let third = server.put(&format!("{MAPS}/a"), &third).await;
    assert_eq!((third.code, &third.json()["data"]["k"]), (200, &json!("3")));
    assert_eq!(server.get(&format!("{MAPS}/a")).await.json()["data"]["k"], "3");
    assert_eq!(server.delete(&format!("{MAPS}/a")).await.code, 200);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 404);
    assert_eq!(server.delete(&format!("{MAPS}/a")).await.code, 404);
    server.etcd.with_faults(|faults| faults.cut_watches = false);
}

#[tokio::test]
async fn concurrent_patches_are_all_applied() {
    let server = start().await;
    server.config_map("a", json!({})).await;
    let path = format!("{MAPS}/a");
    let patches: Vec<Value> = (0..16).map(|round| json!({"data": {format!("k{round}"): "v"}})).collect();
    let answers =
        futures_util::future::join_all(patches.iter().map(|patch| server.patch("merge", &path, patch))).await;
    assert!(answers.iter().all(|answer| answer.code == 200));
    let data = server.get(&path).await.json()["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 17);
}

#[tokio::test]
async fn the_three_kinds_of_patch_do_what_they_are_for() {
    let server = start().await;
    server.post(PODS, &pod("a")).await;
    let path = format!("{PODS}/a");
    let merged = server.patch("merge", &path, &json!({"metadata": {"labels": {"x": "y"}}})).await.json();
    assert_eq!(merged["metadata"]["labels"]["x"], "y");
    let operations = json!([{"op": "test", "path": "/metadata/labels/x", "value": "y"}, {"op": "remove", "path": "/metadata/labels"}]);
    let patched = server.patch("json", &path, &operations).await;
    assert!(patched.code == 200 && patched.json()["metadata"].get("labels").is_none(), "{:?}", patched.bytes);
    let image = json!({"spec": {"containers": [{"name": "c", "image": "j"}]}});
    let strategic = server.patch("strategic-merge", &path, &image).await.json();
    assert_eq!(strategic["spec"]["containers"][0]["image"], "j");
    assert_eq!(strategic["spec"]["containers"].as_array().unwrap().len(), 1);
    let stale = json!({"metadata": {"resourceVersion": "1", "labels": {"x": "z"}}});
    assert_eq!(server.patch("merge", &path, &stale).await.code, 409);
    assert_eq!(server.patch("merge", &format!("{PODS}/b"), &json!({})).await.code, 404);
    let unknown =
        server.patch("merge", &format!("{path}?fieldValidation=Strict"), &json!({"spec": {"foo": 1}})).await;
    assert_eq!(unknown.code, 422);
    assert!(
        unknown.error().1.contains("strict decoding error: unknown field \"spec.foo\""),
        "{}",
        unknown.error().1
    );
    let odd = server.send("PATCH", &path, &[("content-type", "application/json")], "{}").await;
    assert_eq!(odd.code, 415);
}

#[tokio::test]
async fn a_dry_run_answers_and_stores_nothing() {
    let server = start().await;
    server.config_map("a", json!({})).await;
    let before = server.etcd.revision();
    let created = server.post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "b"}})).await;
    assert_eq!(created.code, 201);
    assert!(created.json()["metadata"].get("resourceVersion").is_none());
    assert_eq!(
        server.post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "a"}})).await.code,
        409
    );
    let patched = server.patch("merge", &format!("{MAPS}/a?dryRun=All"), &json!({"data": {"k": "2"}})).await;
    assert_eq!(patched.json()["data"]["k"], "2");
    assert_eq!(server.delete(&format!("{MAPS}/a?dryRun=All")).await.code, 200);
    assert_eq!(server.etcd.revision(), before);
    assert_eq!(names(&server.get(MAPS).await.json()), ["a"]);
    assert_eq!(
        server.post(&format!("{MAPS}?dryRun=Some"), &json!({"metadata": {"name": "c"}})).await.code,
        422
    );
}

#[tokio::test]
async fn a_delete_removes_at_once_or_waits_for_finalizers() {
    let server = start().await;
    let created = server.config_map("a", json!({})).await;
    let wrong = json!({"preconditions": {"uid": "other"}});
    let refused = server.send("DELETE", &format!("{MAPS}/a"), &[], wrong.to_string()).await;
    assert_eq!((refused.code, &refused.json()["reason"]), (409, &json!("Conflict")));
    let deleted = server.delete(&format!("{MAPS}/a")).await.json();
    assert_eq!((&deleted["kind"], &deleted["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(
        deleted["details"],
        json!({"name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"]})
    );
    let held = json!({"metadata": {"name": "b", "finalizers": ["example.com/hold"]}});
    server.post(MAPS, &held).await;
    let pending = server.delete(&format!("{MAPS}/b")).await.json();
    assert_eq!(pending["kind"], "ConfigMap");
    assert!(pending["metadata"]["deletionTimestamp"].is_string());
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    assert_eq!(server.patch("merge", &format!("{MAPS}/b"), &more).await.code, 422);
    let mut events = server.watch(&format!("{MAPS}?watch=1&resourceVersion={}", version(&pending))).await;
    let freed = server.patch("merge", &format!("{MAPS}/b"), &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(freed.code, 200, "{:?}", freed.bytes);
    assert_eq!(events.brief().await, "DELETED b");
    assert_eq!(server.get(&format!("{MAPS}/b")).await.code, 404);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = start().await;
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        server.config_map(name, json!({"app": app})).await;
    }
    let deleted = server.delete(&format!("{MAPS}?labelSelector=app%3Dx")).await.json();
    assert_eq!(
        (&deleted["kind"], names(&deleted)),
        (&json!("ConfigMapList"), vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(names(&server.get(MAPS).await.json()), ["c"]);
}

#[tokio::test]
async fn a_pod_is_pending_until_it_is_bound_once() {
    let server = start().await;
    let mut sent = pod("a");
    sent["status"] = json!({"phase": "Running"});
    let created = server.post(PODS, &sent).await.json();
    assert_eq!(created["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(created["spec"]["priority"], 0);
    let keys: Vec<_> = created["spec"]["tolerations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|toleration| &toleration["key"])
        .collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    let bound = server.post(&format!("{PODS}/a/binding"), &binding).await;
    assert_eq!((bound.code, &bound.json()["status"]), (201, &json!("Success")));
    let now = server.get(&format!("{PODS}/a")).await.json();
    assert_eq!(now["spec"]["nodeName"], "n1");
    assert_eq!(now["status"]["conditions"][0]["type"], "PodScheduled");
    let again = server.post(&format!("{PODS}/a/binding"), &binding).await;
    assert_eq!(
        again.error(),
        (
            409,
            "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\""
                .to_owned()
        )
    );
    assert_eq!(
        server
            .post(&format!("{PODS}/b/binding"), &json!({"metadata": {"name": "b"}, "target": {"name": "n"}}))
            .await
            .code,
        404
    );
    let graceful = server.delete(&format!("{PODS}/a")).await.json();
    assert_eq!(graceful["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(server.get(&format!("{PODS}/a")).await.code, 200);
    let forced = server.delete(&format!("{PODS}/a?gracePeriodSeconds=0")).await;
    assert_eq!((forced.code, &forced.json()["kind"]), (200, &json!("Pod")));
    assert_eq!(server.get(&format!("{PODS}/a")).await.code, 404);
}

#[tokio::test]
async fn status_and_scale_are_parts_of_their_own() {
    let server = start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let body = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let created = server.post(path, &body).await;
    assert_eq!(created.code, 201, "{:?}", created.bytes);
    assert_eq!(
        (&created.json()["metadata"]["generation"], &created.json()["spec"]["replicas"]),
        (&json!(1), &json!(1))
    );
    let status = server
        .patch(
            "merge",
            &format!("{path}/d/status"),
            &json!({"status": {"replicas": 1}, "spec": {"replicas": 9}}),
        )
        .await
        .json();
    assert_eq!((&status["status"]["replicas"], &status["spec"]["replicas"]), (&json!(1), &json!(1)));
    let scale = server.get(&format!("{path}/d/scale")).await.json();
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b"}));
    let scaled =
        server.patch("merge", &format!("{path}/d/scale"), &json!({"spec": {"replicas": 3}})).await.json();
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    let now = server.get(&format!("{path}/d")).await.json();
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(3), &json!(2)));
}

#[tokio::test]
async fn services_get_addresses_of_their_own_and_give_them_back() {
    let server = start().await;
    let path = "/api/v1/namespaces/default/services";
    let kubernetes = server.get(&format!("{path}/kubernetes")).await.json();
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.0.0.1");
    let service = |name: &str, extra: Value| {
        let mut spec = json!({"ports": [{"port": 80}], "selector": {"a": "b"}});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let a = server.post(path, &service("a", json!({"type": "NodePort"}))).await.json();
    let address = a["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.0.0.") && a["spec"]["clusterIPs"] == json!([address]), "{a}");
    let node_port = a["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30000..=32767).contains(&node_port));
    server.get("/apis/networking.k8s.io/v1/ipaddresses").await;
    let taken = server.post(path, &service("b", json!({"clusterIP": address}))).await;
    assert_eq!(taken.code, 422, "{:?}", taken.bytes);
    let outside = server.post(path, &service("b", json!({"clusterIP": "10.9.0.1"}))).await;
    assert_eq!(outside.code, 422);
    let headless = server.post(path, &service("h", json!({"clusterIP": "None"}))).await.json();
    assert_eq!(headless["spec"]["clusterIP"], "None");
    assert_eq!(server.delete(&format!("{path}/a")).await.code, 200);
    server.get("/apis/networking.k8s.io/v1/ipaddresses").await;
    let reused = server.post(path, &service("b", json!({"clusterIP": address}))).await;
    assert_eq!(reused.code, 201, "{:?}", reused.bytes);
}

/// Found by faults (`faults --workload api --seed 301 --seconds 60`): the address of the service `kubernetes` was claimed
/// before the service was written, so another member that started meanwhile ended, and a kill in between would have
/// kept every server from starting, for ever.
#[tokio::test]
async fn a_service_and_the_claim_of_its_address_come_and_go_in_one_revision() {
    let etcd = FakeEtcd::new();
    let (server, _second, _third) =
        tokio::join!(start_on(etcd.clone()), start_on(etcd.clone()), start_on(etcd.clone()));
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, metadata: Value| {
        let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        service["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        service
    };
    let created = |name: &str, metadata: Value| {
        let (server, service) = (&server, service(name, metadata));
        async move { assert_eq!(server.post(path, &service).await.code, 201) }
    };
    created("deleted", json!({})).await;
    assert_eq!(server.delete(&format!("{path}/deleted")).await.code, 200);
    created("held", json!({"finalizers": ["a.b/c"]})).await;
    assert_eq!(server.delete(&format!("{path}/held")).await.code, 200);
    let freed = json!({"metadata": {"finalizers": null}});
    assert_eq!(server.patch("merge", &format!("{path}/held"), &freed).await.code, 200);
    created("renamed", json!({})).await;
    let elsewhere = json!({"spec": {"type": "ExternalName", "externalName": "a.b", "clusterIP": null}});
    let answer = server.patch("merge", &format!("{path}/renamed"), &elsewhere).await;
    assert_eq!(answer.code, 200, "{:?}", answer.bytes);
    assert!(answer.json()["spec"].get("clusterIPs").is_none(), "{:?}", answer.bytes);
    let stolen = json!({"spec": {"type": "ClusterIP", "externalName": null, "clusterIP": "10.0.0.1"}});
    assert_eq!(server.patch("merge", &format!("{path}/renamed"), &stolen).await.code, 422);
    server.etcd.with_faults(|faults| faults.lose_next_answer = true);
    assert_eq!(server.post(path, &service("unknown", json!({}))).await.code, 504);
    let (mut before, mut changes) = (Vec::new(), 0);
    for revision in 1..=etcd.revision() {
        let parsed = |prefix: &str| -> Vec<Value> {
            let values = etcd.values_at(revision, prefix);
            values.iter().map(|value| serde_json::from_str(value).unwrap()).collect()
        };
        let services = parsed("/registry/services/specs/");
        let mut of_services: Vec<Value> = services
            .iter()
            .filter(|service| service["spec"]["clusterIP"].is_string())
            .map(|service| json!([service["spec"]["clusterIP"], service["metadata"]["name"]]))
            .collect();
        of_services.sort_by_key(Value::to_string);
        let claims = parsed("/registry/ipaddresses/");
        let claims: Vec<Value> = claims
            .iter()
            .map(|claim| json!([claim["metadata"]["name"], claim["spec"]["parentRef"]["name"]]))
            .collect();
        assert_eq!(claims, of_services, "revision {revision}");
        changes += usize::from(claims != before);
        before = claims;
    }
    assert_eq!((changes, before.len()), (8, 2), "{before:?}");
}

#[tokio::test]
async fn both_versions_of_an_event_are_one_object_with_a_lease() {
    let server = start().await;
    let core = json!({
        "metadata": {"name": "e", "namespace": "default"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started", "message": "hello", "type": "Normal", "source": {"component": "kubelet"},
    });
    let created = server.post("/api/v1/namespaces/default/events", &core).await;
    assert_eq!(created.code, 201, "{:?}", created.bytes);
    let other = server.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.json();
    assert_eq!((&other["note"], &other["regarding"]["name"]), (&json!("hello"), &json!("p")));
    assert_eq!(other["apiVersion"], "events.k8s.io/v1");
    let list = server
        .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp,reason%3DStarted")
        .await
        .json();
    assert_eq!(names(&list), ["e"]);
    let (stored, lease) = server.etcd.value("/registry/events/default/e").unwrap();
    assert!(lease != 0 && stored.contains("\"message\":\"hello\""));
}

#[tokio::test]
async fn protobuf_bodies_are_taken_as_kubectl_sends_them() {
    let server = start().await;
    let proto = "application/vnd.kubernetes.protobuf";
    server.config_map("a", json!({"l": "m"})).await;
    let bytes = server.send("GET", &format!("{MAPS}/a"), &[("accept", proto)], "").await.bytes;
    server.delete(&format!("{MAPS}/a")).await;
    // The same bytes, as a client would send them anew: without what only the server sets.
    let versioned = server.send("POST", MAPS, &[("content-type", proto)], bytes.clone()).await;
    assert_eq!(
        versioned.error(),
        (400, "resourceVersion should not be set on objects to be created".to_owned())
    );
    let dry = server
        .send(
            "POST",
            &format!("{MAPS}?dryRun=All"),
            &[("content-type", "application/json"), ("accept", proto)],
            json!({"metadata": {"name": "n"}, "data": {"k": "v"}}).to_string(),
        )
        .await;
    let posted = server.send("POST", MAPS, &[("content-type", proto)], dry.bytes).await;
    assert_eq!((posted.code, &posted.json()["data"]["k"]), (201, &json!("v")), "{:?}", posted.bytes);
    let junk = server.send("POST", MAPS, &[("content-type", proto)], "k8s\0junk").await;
    assert_eq!(junk.code, 400);
}

#[tokio::test]
async fn an_unknown_outcome_is_said_to_be_unknown() {
    let server = start().await;
    server.etcd.with_faults(|faults| faults.lose_next_answer = true);
    let answer = server.post(MAPS, &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(answer.code, 504);
    assert!(answer.error().1.contains("the outcome of the write is unknown"), "{}", answer.error().1);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 200);
}

#[tokio::test]
async fn decisions_are_objects_like_others_but_bounded() {
    let server = start().await;
    let path = "/apis/scheduling.binnacle.dev/v1alpha1/namespaces/default/decisions";
    let decision = |text: &str| json!({"metadata": {"name": "p"}, "spec": {"podUid": "u", "attempt": 1}, "status": {"result": "Scheduled", "message": text}});
    let big = server.post(path, &decision(&"x".repeat(300_000))).await;
    assert_eq!(big.code, 413, "{:?}", &big.bytes[..200.min(big.bytes.len())]);
    let created = server.post(path, &decision("fine")).await;
    assert_eq!(created.code, 201, "{:?}", created.bytes);
    let accept = [("accept", "application/vnd.kubernetes.protobuf,application/json")];
    let got = server.send("GET", &format!("{path}/p"), &accept, "").await;
    assert_eq!(got.headers["content-type"], "application/json");
    assert_eq!(got.json()["status"]["message"], "fine");
}

#[tokio::test]
async fn what_is_not_there_or_not_built_says_so() {
    let server = start().await;
    server.post(PODS, &pod("a")).await;
    assert_eq!(server.get(&format!("{PODS}/a/log")).await.code, 501);
    assert_eq!(server.get(&format!("{PODS}/a/nonsense")).await.code, 404);
    assert_eq!(server.post("/api/v1/pods", &pod("b")).await.code, 405);
    assert_eq!(server.post(&format!("{PODS}/a"), &pod("a")).await.code, 405);
}

#[tokio::test]
async fn an_eviction_deletes_unless_a_budget_forbids_it() {
    let server = start().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    assert_eq!(server.post(budgets, &budget).await.code, 201);
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    let set = server.patch("merge", &format!("{budgets}/b/status"), &status).await;
    assert_eq!(set.code, 200, "{:?}", set.bytes);
    for name in ["a", "b", "c"] {
        let mut pod = pod(name);
        pod["metadata"]["labels"] = json!({"app": if name == "c" { "y" } else { "x" }});
        server.post(PODS, &pod).await;
        let ready =
            json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(server.patch("merge", &format!("{PODS}/{name}/status"), &ready).await.code, 200);
    }
    let evict = |name: &'static str| {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}});
        let server = &server;
        async move { server.post(&format!("{PODS}/{name}/eviction"), &eviction).await }
    };
    assert_eq!(evict("a").await.code, 201);
    let refused = evict("b").await;
    assert_eq!(
        refused.error(),
        (429, "Cannot evict pod as it would violate the pod's disruption budget.".to_owned())
    );
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "DisruptionBudget");
    assert_eq!(evict("c").await.code, 201);
    assert_eq!(names(&server.get(PODS).await.json()), ["b"]);
}

#[tokio::test]
async fn debug_containers_and_sizes_of_a_pod_change_through_paths_of_their_own() {
    let server = start().await;
    server.post(PODS, &pod("a")).await;
    let path = format!("{PODS}/a");
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "d"}]}});
    assert_eq!(server.patch("strategic-merge", &path, &debug).await.code, 422);
    let added = server.patch("strategic-merge", &format!("{path}/ephemeralcontainers"), &debug).await;
    assert_eq!(
        (added.code, &added.json()["spec"]["ephemeralContainers"][0]["name"]),
        (200, &json!("debug")),
        "{:?}",
        added.bytes
    );
    assert_eq!(added.json()["metadata"]["generation"], 2);
    let removed = server
        .patch(
            "merge",
            &format!("{path}/ephemeralcontainers"),
            &json!({"spec": {"ephemeralContainers": null}}),
        )
        .await;
    assert_eq!(removed.code, 422, "{:?}", removed.bytes);
    let size = json!({"spec": {"containers": [{"name": "c", "image": "ignored", "resources": {"requests": {"cpu": "1"}}}]}});
    let resized = server.patch("strategic-merge", &format!("{path}/resize"), &size).await;
    assert_eq!(resized.code, 200, "{:?}", resized.bytes);
    let container = &resized.json()["spec"]["containers"][0];
    assert_eq!((&container["image"], &container["resources"]["requests"]["cpu"]), (&json!("i"), &json!("1")));
    let over = json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "500m"}}}]}});
    assert_eq!(server.patch("strategic-merge", &format!("{path}/resize"), &over).await.code, 422);
}
