//! Patches as tables: live object, patch, result.

use serde_json::json;

use super::*;
use crate::schema::Schema;

fn strategic_result(type_name: &str, live: Value, patch: Value) -> Result<Value, String> {
    let mut object = live;
    strategic(Schema::builtin(), type_name, &mut object, patch).map_err(|error| error.to_string())?;
    Ok(object)
}

fn check(type_name: &str, table: Vec<(&str, Value, Value, Value)>) {
    for (rule, live, patch, expected) in table {
        assert_eq!(strategic_result(type_name, live, patch), Ok(expected), "{rule}");
    }
}

#[test]
fn maps_merge_and_null_deletes() {
    check(
        "core.v1.Pod",
        vec![
            (
                "labels merge",
                json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
                json!({"metadata": {"labels": {"b": "3", "c": "4", "a": null}}}),
                json!({"metadata": {"labels": {"b": "3", "c": "4"}}}),
            ),
            (
                "null for something absent is nothing",
                json!({"spec": {}}),
                json!({"spec": {"nodeName": null, "affinity": {"nodeAffinity": null}}}),
                json!({"spec": {"affinity": {}}}),
            ),
            (
                "$patch replace keeps only the patch",
                json!({"metadata": {"labels": {"a": "1"}}}),
                json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
                json!({"metadata": {"labels": {"b": "2"}}}),
            ),
            (
                "$patch delete empties",
                json!({"metadata": {"labels": {"a": "1"}}}),
                json!({"metadata": {"labels": {"$patch": "delete"}}}),
                json!({"metadata": {"labels": {}}}),
            ),
            (
                "another type replaces",
                json!({"metadata": {"labels": {"a": "1"}}}),
                json!({"metadata": {"labels": "x"}}),
                json!({"metadata": {"labels": "x"}}),
            ),
            (
                "lists without a merge key are replaced",
                json!({"spec": {"containers": [{"name": "a", "command": ["x", "y"]}]}}),
                json!({"spec": {"containers": [{"name": "a", "command": ["z"]}]}}),
                json!({"spec": {"containers": [{"name": "a", "command": ["z"]}]}}),
            ),
        ],
    );
}

#[test]
fn lists_merge_by_key() {
    check(
        "core.v1.Pod",
        vec![
            (
                "items merge by name; a new one comes after the last known one that follows no other",
                json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}}),
                json!({"spec": {"containers": [{"name": "a", "tty": true}, {"name": "c"}]}}),
                json!({"spec": {"containers": [{"name": "a", "image": "1", "tty": true}, {"name": "c"}, {"name": "b"}]}}),
            ),
            (
                "$patch delete removes the item",
                json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
                json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
                json!({"spec": {"containers": [{"name": "b"}]}}),
            ),
            (
                "$patch replace replaces the list",
                json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
                json!({"spec": {"containers": [{"name": "c"}, {"$patch": "replace"}]}}),
                json!({"spec": {"containers": [{"name": "c"}]}}),
            ),
            (
                "ports merge by containerPort",
                json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}),
                json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]}]}}),
                json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "web"}, {"containerPort": 81}]}]}}),
            ),
            (
                "conditions of a status merge by type",
                json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "PodScheduled", "status": "True"}]}}),
                json!({"status": {"$setElementOrder/conditions": [{"type": "Ready"}, {"type": "PodScheduled"}], "conditions": [{"type": "Ready", "status": "True"}]}}),
                json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]}}),
            ),
            (
                "lists of scalars unite",
                json!({"metadata": {"finalizers": ["a", "b"]}}),
                json!({"metadata": {"finalizers": ["b", "c"]}}),
                json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
            ),
            (
                "$deleteFromPrimitiveList removes scalars",
                json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["c", "a"]}}),
                json!({"metadata": {"finalizers": ["c", "a"]}}),
            ),
            (
                "new values lose directives and nulls",
                json!({}),
                json!({"spec": {"volumes": [{"name": "v", "emptyDir": null, "$retainKeys": ["name"]}, {"name": "w", "$patch": "delete"}]}}),
                json!({"spec": {"volumes": [{"name": "v"}]}}),
            ),
        ],
    );
}

#[test]
fn retain_keys_clears_what_it_does_not_name() {
    check(
        "apps.v1.Deployment",
        vec![
            (
                "a union changes its member",
                json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
                json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
                json!({"spec": {"strategy": {"type": "Recreate"}}}),
            ),
            (
                "in a list item",
                json!({"spec": {"template": {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}}}),
                json!({"spec": {"template": {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}}}}),
                json!({"spec": {"template": {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}}}),
            ),
        ],
    );
}

#[test]
fn set_element_order_decides_and_server_items_keep_their_places() {
    let live = |names: &[&str]| {
        let items: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"spec": {"containers": items}})
    };
    let named = |names: &[&str]| -> Vec<Value> { names.iter().map(|name| json!({"name": name})).collect() };
    let table = [
        (["a", "b", "c"].as_slice(), ["c", "a"].as_slice(), [].as_slice(), "b c a"),
        (&["a", "b", "c"], &["b", "a"], &[], "b a c"),
        (&["a", "x", "b"], &["a", "b", "n"], &["n"], "a x b n"),
        (&["a", "x", "b"], &["n", "a", "b"], &["n"], "n a x b"),
        (&["x"], &["a"], &["a"], "a x"),
    ];
    for (before, order, patch, expected) in table {
        let patch =
            json!({"spec": {"$setElementOrder/containers": named(order), "containers": named(patch)}});
        let result = strategic_result("core.v1.Pod", live(before), patch).unwrap();
        let names = result["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["name"].as_str().unwrap());
        assert_eq!(names.collect::<Vec<_>>().join(" "), expected, "{before:?} {order:?}");
    }
}

#[test]
fn malformed_strategic_patches_are_refused_and_change_nothing() {
    let live = json!({"metadata": {"finalizers": ["a"]}, "spec": {"containers": [{"name": "a"}]}});
    let table = [
        (json!([]), "invalid JSON document"),
        (json!({"spec": {"$patch": "merge"}}), "unknown patch type: \"merge\" in map: {}"),
        (json!({"spec": {"$retainKeys": "x"}}), "invalid patch format of retainKeys"),
        (json!({"spec": {"$retainKeys": ["x"], "nodeName": "n"}}), "invalid patch format of retainKeys"),
        (
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}),
            "invalid patch format of primitive list",
        ),
        (
            json!({"spec": {"$setElementOrder/containers": "a"}}),
            "invalid patch format of setElementOrder list",
        ),
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            "map: {\"image\":\"x\"} does not contain declared merge key: name",
        ),
        (json!({"spec": {"containers": ["a"]}}), "list element types are not identical"),
        (
            json!({"spec": {"containers": [{"$patch": "merge"}]}}),
            "merging lists cannot yet be specified in the patch",
        ),
    ];
    for (patch, message) in table {
        let mut object = live.clone();
        let error = strategic(Schema::builtin(), "core.v1.Pod", &mut object, patch).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(object, live);
    }
}

#[test]
fn json_patches_apply_whole_or_not_at_all() {
    let live = json!({"metadata": {"labels": {"a": "1"}}, "list": [1, 2]});
    let table = [
        (
            json!([{"op": "add", "path": "/metadata/labels/b~1c", "value": "2"}, {"op": "remove", "path": "/list/0"}]),
            Ok(json!({"metadata": {"labels": {"a": "1", "b/c": "2"}}, "list": [2]})),
        ),
        (
            json!([{"op": "add", "path": "/list/-", "value": 3}, {"op": "test", "path": "/list/0", "value": 9}]),
            Err("test operation does not apply to /list/0: value did not match"),
        ),
        (
            json!([{"op": "remove", "path": "/x"}]),
            Err("remove operation does not apply to /x: path is invalid"),
        ),
        (
            json!([{"op": "move", "from": "/list", "path": "/moved"}]),
            Ok(json!({"metadata": {"labels": {"a": "1"}}, "moved": [1, 2]})),
        ),
    ];
    for (patch, expected) in table {
        let mut object = live.clone();
        let result = json_patch(&mut object, &patch).map_err(|error| error.to_string());
        match expected {
            Ok(expected) => assert_eq!((result, object), (Ok(()), expected)),
            Err(message) => assert_eq!((result, object), (Err(message.to_owned()), live.clone())),
        }
    }
    let mut object = live.clone();
    assert!(matches!(json_patch(&mut object, &json!({"op": "add"})), Err(PatchError::BadRequest(_))));
    assert!(matches!(
        json_patch(&mut object, &json!([{"op": "fly", "path": "/a"}])),
        Err(PatchError::BadRequest(_))
    ));
}

#[test]
fn json_patches_are_bounded() {
    let many: Vec<Value> = (0..10_001).map(|_| json!({"op": "add", "path": "/a", "value": 1})).collect();
    let error = json_patch(&mut json!({}), &Value::Array(many)).unwrap_err();
    assert_eq!(error.to_status().code, 413);
    let doubling: Vec<Value> = (0..40).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})).collect();
    let mut bomb = vec![json!({"op": "add", "path": "/a", "value": ["x".repeat(1000)]})];
    bomb.extend(doubling);
    let error = json_patch(&mut json!({}), &Value::Array(bomb)).unwrap_err();
    assert!(error.to_string().contains("exceeding the limit"), "{error}");
}

#[test]
fn merge_patches_follow_rfc_7386() {
    let mut object = json!({"a": {"b": 1, "c": 2}, "d": [1]});
    merge_patch(&mut object, &json!({"a": {"b": null, "e": {"f": null, "g": 1}}, "d": [2]})).unwrap();
    assert_eq!(object, json!({"a": {"c": 2, "e": {"g": 1}}, "d": [2]}));
    assert!(merge_patch(&mut object, &json!([])).is_err());
}

/// A list of this many items fits into the largest body; work must not grow with its square.
#[test]
fn long_lists_merge_in_little_time() {
    let count = 10_000;
    let names = |from: usize| (from..from + count).map(|index| format!("x/{index}")).collect::<Vec<String>>();
    let started = std::time::Instant::now();
    let live = json!({"metadata": {"finalizers": names(0)}});
    let patch = json!({"metadata": {"finalizers": names(count / 2), "$deleteFromPrimitiveList/finalizers": names(count)}});
    let result = strategic_result("core.v1.Pod", live, patch).unwrap();
    assert_eq!(result["metadata"]["finalizers"].as_array().unwrap().len(), count);
    let items =
        |from: usize| names(from).into_iter().map(|name| json!({"name": name})).collect::<Vec<Value>>();
    let live = json!({"spec": {"containers": items(0)}});
    let patch =
        json!({"spec": {"containers": items(count / 2), "$setElementOrder/containers": items(count / 2)}});
    let result = strategic_result("core.v1.Pod", live.clone(), patch).unwrap();
    assert_eq!(result["spec"]["containers"].as_array().unwrap().len(), count + count / 2);
    let write = apply::Write {
        schema: Schema::builtin(),
        type_name: "core.v1.Pod",
        api_version: "v1",
        kind: "Pod",
        subresource: "",
        manager: "a",
        ignored: &[],
        now_s: 0,
    };
    let config = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": items(count / 2)}});
    let result = apply::apply(write, &live, &config, false).unwrap();
    assert_eq!(result["spec"]["containers"].as_array().unwrap().len(), count + count / 2);
    assert!(started.elapsed() < std::time::Duration::from_secs(15), "{:?}", started.elapsed());
}

/// More by `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => items.into_iter().filter(|item| !item.is_null()).map(without_nulls).collect(),
        scalar => scalar,
    }
}

/// Trees made of names that mean something in a pod, so that random ones reach deep into the merging code.
fn tree() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let names = prop::sample::select(vec![
        "metadata",
        "spec",
        "status",
        "labels",
        "finalizers",
        "ownerReferences",
        "containers",
        "initContainers",
        "ports",
        "name",
        "uid",
        "containerPort",
        "protocol",
        "env",
        "value",
        "volumes",
        "emptyDir",
        "conditions",
        "type",
        "image",
        "managedFields",
        "annotations",
        "containerStatuses",
        "state",
        "terminated",
        "tolerations",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$setElementOrder/finalizers",
        "$deleteFromPrimitiveList/finalizers",
        "nodeSelector",
        "resources",
        "limits",
        "cpu",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..4_i64).prop_map(Value::from),
        prop::sample::select(vec!["a", "b", "delete", "replace", "merge", "TCP", ""]).prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 80, 5, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            3 => prop::collection::vec((names.clone(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())),
        ]
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: cases(), failure_persistence: None, ..Default::default() })]

    /// Whatever the trees are, patching ends with a result or an error, and a strategic patch leaves no directive.
    #[test]
    fn no_tree_breaks_a_patch(live in tree(), patch in tree()) {
        let mut object = json!({"metadata": {"name": "p"}, "spec": live, "status": {}});
        let _ = json_patch(&mut object.clone(), &patch);
        let _ = merge_patch(&mut object.clone(), &patch);
        let whole = json!({"spec": patch, "metadata": {"labels": {"a": "b"}}});
        if let Ok(()) = strategic(Schema::builtin(), "core.v1.Pod", &mut object, whole) {
            assert_eq!(object["metadata"]["labels"]["a"], "b");
        }
    }

    /// The same configuration twice is the same as once, and no tree breaks the bookkeeping.
    #[test]
    fn applying_is_idempotent(live in tree(), spec in tree()) {
        let write = apply::Write {
            schema: Schema::builtin(), type_name: "core.v1.Pod", api_version: "v1", kind: "Pod", subresource: "",
            manager: "a", ignored: &[&["status"]], now_s: 0,
        };
        let object = |spec: &Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "u"}, "spec": spec});
        // what is stored has no nulls
        let live = without_nulls(live);
        let mut updated = object(&spec);
        apply::record_update(write, &object(&live), &mut updated);
        if let Ok(once) = apply::apply(write, &object(&live), &object(&spec), true) {
            let twice = apply::apply(write, &once, &object(&spec), false).unwrap();
            let again = apply::apply(write, &twice, &object(&spec), false).unwrap();
            proptest::prop_assert_eq!(&again, &twice);
            // an object that lost its last owner gets "before-first-apply" as one, which is no change of content
            let content = |object: &Value| {
                let mut object = object.clone();
                crate::meta::of_mut(&mut object).remove("managedFields");
                object
            };
            proptest::prop_assert_eq!(content(&twice), content(&once));
        }
    }

    /// Any tree can be shown in any table.
    #[test]
    fn no_tree_breaks_a_table(object in tree(), index in 0..1000_usize) {
        let resources = crate::kinds::resources();
        let resource = &resources[index % resources.len()];
        assert_eq!(crate::table::cells(resource, &object, 0).len(), crate::table::columns(resource).len());
    }
}
