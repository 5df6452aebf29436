//! Server-side apply as stories: who writes what, what the object and its owners are afterwards.

use serde_json::json;

use super::*;

const NOW_S: i64 = 1_700_000_000;

fn write<'a>(manager: &'a str, type_name: &'a str, api_version: &'a str, kind: &'a str) -> Write<'a> {
    Write {
        schema: Schema::builtin(),
        type_name,
        api_version,
        kind,
        subresource: "",
        manager,
        ignored: &[&["status"]],
        now_s: NOW_S,
    }
}

fn deployment(manager: &str) -> Write<'_> {
    write(manager, "apps.v1.Deployment", "apps/v1", "Deployment")
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn configmap(manager: &str) -> Write<'_> {
    write(manager, "core.v1.ConfigMap", "v1", "ConfigMap")
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

/// `manager/Apply: fields`, one line per entry.
fn owners(object: &Value) -> String {
    let entries = meta::of(object).managed_fields().iter();
    let lines = entries.map(|entry| {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        format!("{}/{}: {}", text("manager"), text("operation"), entry["fieldsV1"])
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The server gives a new object an identity.
fn stored(mut object: Value) -> Value {
    meta::of_mut(&mut object).set_uid("u1");
    object
}

#[test]
fn applying_to_nothing_creates_and_owns() {
    let object = apply(configmap("a"), &Value::Null, &map(json!({"k": "1"})), false).unwrap();
    assert_eq!(object["data"], json!({"k": "1"}));
    assert_eq!(
        meta::of(&object).managed_fields(),
        [json!({
            "manager": "a", "operation": "Apply", "apiVersion": "v1", "time": "2023-11-14T22:13:20Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}},
        })]
    );
}

#[test]
fn what_a_manager_no_longer_wants_is_removed_unless_others_own_it() {
    let first =
        stored(apply(configmap("a"), &Value::Null, &map(json!({"k": "1", "l": "2"})), false).unwrap());
    let second = apply(configmap("b"), &first, &map(json!({"l": "2", "m": "3"})), false).unwrap();
    assert_eq!(second["data"], json!({"k": "1", "l": "2", "m": "3"}));
    let third = apply(configmap("a"), &second, &map(json!({})), false).unwrap();
    assert_eq!(third["data"], json!({"l": "2", "m": "3"}), "k was only a's, l is b's too");
    let fourth = apply(configmap("b"), &third, &map(json!({"m": "3"})), false).unwrap();
    assert_eq!(fourth["data"], json!({"m": "3"}), "the last owner is gone");
}

#[test]
fn taking_a_field_from_another_is_a_conflict_unless_forced() {
    let live = stored(apply(configmap("a"), &Value::Null, &map(json!({"k": "1", "l": "1"})), false).unwrap());
    let error = apply(configmap("b"), &live, &map(json!({"k": "2"})), false).unwrap_err();
    let status = error.to_status();
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"a\": .data.k");
    assert_eq!(
        status.to_value()["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".data.k"}])
    );
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let error = apply(configmap("b"), &live, &map(json!({"k": "2", "l": "2"})), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .data.k\n- .data.l"
    );

    let forced = apply(configmap("b"), &live, &map(json!({"k": "2"})), true).unwrap();
    assert_eq!(forced["data"], json!({"k": "2", "l": "1"}));
    assert_eq!(owners(&forced), "a/Apply: {\"f:data\":{\"f:l\":{}}}\nb/Apply: {\"f:data\":{\"f:k\":{}}}");
    // the same value is shared, not a conflict
    let shared = apply(configmap("b"), &live, &map(json!({"k": "1"})), false).unwrap();
    assert_eq!(shared["data"], live["data"]);
    assert_eq!(
        owners(&shared),
        "b/Apply: {\"f:data\":{\"f:k\":{}}}\na/Apply: {\"f:data\":{\"f:k\":{},\"f:l\":{}}}"
    );
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let spec = json!({"replicas": 2, "template": {"spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}});
    let live = stored(apply(deployment("a"), &Value::Null, &config(spec.clone()), false).unwrap());
    let later = Write { now_s: NOW_S + 100, ..deployment("a") };
    assert_eq!(apply(later, &live, &config(spec), false).unwrap(), live);
}

#[test]
fn updates_take_ownership_and_apply_sees_them() {
    let mut live = map(json!({"k": "1", "l": "1"}));
    record_update(configmap("kubectl-create"), &Value::Null, &mut live);
    let live = stored(live);
    assert_eq!(owners(&live), "kubectl-create/Update: {\"f:data\":{\".\":{},\"f:k\":{},\"f:l\":{}}}");

    let mut changed = live.clone();
    changed["data"]["k"] = json!("2");
    record_update(configmap("edit"), &live, &mut changed);
    assert_eq!(
        owners(&changed),
        "edit/Update: {\"f:data\":{\"f:k\":{}}}\nkubectl-create/Update: {\"f:data\":{\".\":{},\"f:l\":{}}}"
    );
    let error = apply(configmap("b"), &changed, &map(json!({"k": "3"})), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"edit\" using v1: .data.k");

    // nothing changed: nobody's time moves
    let mut same = changed.clone();
    record_update(Write { now_s: NOW_S + 9, ..configmap("other") }, &changed, &mut same);
    assert_eq!(same, changed);
    // a removed field has no owner
    let mut removed = changed.clone();
    removed["data"].as_object_mut().unwrap().remove("l");
    record_update(configmap("edit"), &changed, &mut removed);
    assert_eq!(
        owners(&removed),
        "edit/Update: {\"f:data\":{\"f:k\":{}}}\nkubectl-create/Update: {\"f:data\":{}}"
    );
}

#[test]
fn an_object_that_nobody_tracked_belongs_to_before_first_apply() {
    let live = stored(map(json!({"k": "1"})));
    let error = apply(configmap("a"), &live, &map(json!({"k": "2"})), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.k"
    );
    let object = apply(configmap("a"), &live, &map(json!({"l": "2"})), false).unwrap();
    assert_eq!(
        owners(&object),
        "a/Apply: {\"f:data\":{\"f:l\":{}}}\nbefore-first-apply/Update: {\"f:data\":{\".\":{},\"f:k\":{}}}"
    );
    // and updates of it do not begin to track
    let mut updated = live.clone();
    updated["data"]["k"] = json!("9");
    record_update(configmap("x"), &live, &mut updated);
    assert_eq!(owners(&updated), "");
}

#[test]
fn lists_of_items_are_owned_item_by_item() {
    let spec = |containers: Value| json!({"template": {"spec": {"containers": containers}}});
    let live = stored(
        apply(deployment("a"), &Value::Null, &config(spec(json!([{"name": "one", "image": "i:1"}]))), false)
            .unwrap(),
    );
    let both = apply(deployment("b"), &live, &config(spec(json!([{"name": "two", "image": "j:1"}]))), false)
        .unwrap();
    let names = |object: &Value| {
        let items = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&both), "one two");
    assert!(owners(&both).contains(
        r#"b/Apply: {"f:spec":{"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"two\"}":{".":{},"f:image":{},"f:name":{}}}}}}}"#
    ));
    let error = apply(deployment("b"), &both, &config(spec(json!([{"name": "one", "image": "x"}]))), false)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"a\": .spec.template.spec.containers[name=\"one\"].image"
    );
    let rest = apply(deployment("b"), &both, &config(json!({})), false).unwrap();
    assert_eq!(names(&rest), "one");
}

#[test]
fn a_port_without_protocol_is_the_tcp_port() {
    let service = write("a", "core.v1.Service", "v1", "Service");
    let ports = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}});
    let mut live = stored(apply(service, &Value::Null, &ports(json!([{"port": 80}])), false).unwrap());
    live["spec"]["ports"][0]["protocol"] = json!("TCP"); // as defaults do
    let again = apply(
        service,
        &live,
        &ports(json!([{"port": 80, "name": "web"}, {"port": 80, "protocol": "UDP"}])),
        false,
    )
    .unwrap();
    assert_eq!(
        again["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP", "name": "web"}, {"port": 80, "protocol": "UDP"}])
    );
}

#[test]
fn the_order_of_a_merged_list_is_the_configurations() {
    let merged = |live: &[&str], wanted: &[&str]| {
        let items = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        let (live, wanted) = (json!({"containers": items(live)}), json!({"containers": items(wanted)}));
        let view = View { schema: Schema::builtin() };
        let merged = merge(view, view.root("core.v1.PodSpec"), Some(&live), Some(&wanted)).unwrap();
        let items = merged["containers"].as_array().unwrap().iter();
        items.map(|item| item["name"].as_str().unwrap()).collect::<String>()
    };
    let table: [(&[&str], &[&str], &str); 6] = [
        (&["a", "b"], &["c"], "abc"),
        (&["a", "b", "c"], &["c", "a"], "bca"),
        (&["a", "b"], &["b", "a"], "ba"),
        (&["a", "x", "b"], &["a", "b", "n"], "axbn"),
        (&[], &["b", "a"], "ba"),
        (&["a", "b", "c", "d"], &["d", "b"], "acdb"),
    ];
    for (live, wanted, expected) in table {
        let result = merged(live, wanted);
        let mut sorted: Vec<char> = result.chars().collect();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), result.len(), "{live:?} {wanted:?}: {result}");
        assert_eq!(result, expected, "{live:?} {wanted:?}");
    }
}

#[test]
fn atomic_parts_are_owned_as_one_piece() {
    let selector = |labels: Value| config(json!({"selector": {"matchLabels": labels}}));
    let live = stored(apply(deployment("a"), &Value::Null, &selector(json!({"x": "1"})), false).unwrap());
    assert_eq!(owners(&live), "a/Apply: {\"f:spec\":{\"f:selector\":{}}}");
    let error = apply(deployment("b"), &live, &selector(json!({"y": "1"})), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"a\": .spec.selector");
}

#[test]
fn finalizers_are_a_set() {
    let with = |finalizers: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "finalizers": finalizers}});
    let live = stored(apply(configmap("a"), &Value::Null, &with(json!(["x/a"])), false).unwrap());
    let both = apply(configmap("b"), &live, &with(json!(["x/b"])), false).unwrap();
    assert_eq!(both["metadata"]["finalizers"], json!(["x/a", "x/b"]));
    let rest = apply(configmap("a"), &both, &with(json!([])), false).unwrap();
    assert_eq!(rest["metadata"]["finalizers"], json!(["x/b"]));
    assert!(owners(&both).contains(r#""f:finalizers":{"v:\"x/a\"":{}}"#), "{}", owners(&both));
}

#[test]
fn the_status_is_not_owned_through_the_object() {
    let mut wanted = config(json!({"replicas": 1}));
    wanted["status"] = json!({"replicas": 5});
    let object = apply(deployment("a"), &Value::Null, &wanted, false).unwrap();
    assert_eq!(owners(&object), "a/Apply: {\"f:spec\":{\"f:replicas\":{}}}");
    let status =
        Write { subresource: "status", ignored: &[&["spec"], &["metadata"]], ..deployment("controller") };
    let live = stored(object);
    let mut updated = live.clone();
    updated["status"] = json!({"replicas": 7});
    record_update(status, &live, &mut updated);
    let entries = meta::of(&updated).managed_fields();
    assert_eq!(
        (&entries[1]["subresource"], &entries[1]["manager"]),
        (&json!("status"), &json!("controller"))
    );
    assert_eq!(entries[1]["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
    let again = Write { subresource: "status", ignored: &[&["spec"], &["metadata"]], ..deployment("a") };
    let mut wanted = config(json!({}));
    wanted["status"] = json!({"replicas": 1});
    let error = apply(again, &updated, &wanted, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"controller\" with subresource \"status\" using apps/v1: .status.replicas"
    );
}

#[test]
fn managed_fields_can_be_reset() {
    let live = stored(apply(configmap("a"), &Value::Null, &map(json!({"k": "1"})), false).unwrap());
    for reset in [json!([]), json!([{}])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = reset;
        record_update(configmap("x"), &live, &mut new);
        assert!(meta::of(&new).managed_fields().is_empty());
    }
    // left out or malformed, they are kept
    for sent in [Value::Null, json!([{"manager": "m", "operation": "Dream"}])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = sent;
        record_update(configmap("x"), &live, &mut new);
        assert_eq!(owners(&new), owners(&live));
    }
}

#[test]
fn old_update_managers_are_merged() {
    let mut live = stored(map(json!({})));
    record_update(configmap("m00"), &Value::Null, &mut live);
    for index in 1..=15_i64 {
        let mut new = live.clone();
        new["data"][format!("k{index:02}")] = json!("1");
        // an object that is not tracked yet would stay so
        let before = if index == 1 { Value::Null } else { live.clone() };
        let name = format!("m{index:02}");
        record_update(Write { now_s: NOW_S + index, ..configmap(&name) }, &before, &mut new);
        live = new;
    }
    let names: Vec<&str> =
        meta::of(&live).managed_fields().iter().map(|entry| entry["manager"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    assert_eq!((names[0], names[9]), ("ancient-changes", "m15"));
    let owned = owners(&live);
    for index in 1..=15 {
        assert_eq!(owned.matches(&format!("f:k{index:02}")).count(), 1, "{owned}");
    }
}

#[test]
fn kubectl_moves_from_client_side_to_server_side_apply() {
    let mut live = map(json!({"k": "1", "l": "1"}));
    let applied = map(json!({"k": "1", "l": "1"})).to_string();
    meta::of_mut(&mut live).set_annotation(LAST_APPLIED, &applied);
    record_update(configmap("kubectl-client-side-apply"), &Value::Null, &mut live);
    let live = stored(live);
    let object = apply(configmap("kubectl"), &live, &map(json!({"k": "2"})), false).unwrap();
    assert_eq!(object["data"]["k"], "2");
    let annotation: Value =
        serde_json::from_str(meta::of(&object).annotation(LAST_APPLIED).unwrap()).unwrap();
    assert_eq!(annotation, map(json!({"k": "2"})));
    // what somebody else changed since is a conflict still
    let mut changed = live.clone();
    changed["data"]["k"] = json!("9");
    record_update(configmap("edit"), &live, &mut changed);
    let error = apply(configmap("kubectl"), &changed, &map(json!({"k": "2"})), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"edit\" using v1: .data.k");
}

#[test]
fn unusable_configurations_are_refused_with_the_field() {
    let table = [
        (json!({"apiVersion": "v1", "kind": "Secret"}), "invalid object type: v1, Kind=Secret"),
        (
            json!({"apiVersion": "v2", "kind": "ConfigMap"}),
            "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"managedFields": []}}),
            "metadata.managedFields must be nil",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "n"}, "spec": 1}),
            "failed to create typed patch object (n/m; v1, Kind=ConfigMap): .spec: field not declared in schema",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "finalizers": ["a", "a"]}}),
            "failed to create typed patch object (/m; v1, Kind=ConfigMap): .metadata.finalizers: duplicate entries for key [=\"a\"]",
        ),
    ];
    for (config, message) in table {
        let error = apply(configmap("a"), &Value::Null, &config, false).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.to_status().code), (message, 400));
    }
    let nameless = config(json!({"template": {"spec": {"containers": [{"image": "i"}]}}}));
    let error = apply(deployment("a"), &Value::Null, &nameless, false).unwrap_err();
    assert!(
        error.to_string().contains(
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits"
        ),
        "{error}"
    );
}

#[test]
fn sets_survive_their_json_form() {
    let table = [
        json!({}),
        json!({"f:a": {}}),
        json!({"f:a": {".": {}, "f:b": {}}}),
        json!({"f:a": {"k:{\"name\":\"x\",\"port\":80}": {".": {}, "f:y": {}}, "v:\"s\"": {}, "v:3": {}, "i:2": {}}}),
    ];
    for text in table {
        assert_eq!(FieldSet::from_value(&text).to_value(), text);
    }
    // unknown kinds of steps are dropped, junk is no set
    assert_eq!(
        FieldSet::from_value(&json!({"q:x": {}, "f:a": {}, "v:{": {}, "nothing": {}})).to_value(),
        json!({"f:a": {}})
    );
    assert_eq!(FieldSet::from_value(&json!([1])).to_value(), json!({}));
}
