//! What the API server reads: objects in three forms, and patches of them.

use apimachinery::{Value, json, kinds, patch, protobuf, schema::Schema, selector, yaml};
use serde_json::json;

use super::{Decoder, Target};

pub(super) fn targets() -> Vec<Target> {
    let base = Target { allocation_bytes: 1 << 20, ..Target::default() };
    let text = Target { is_text: true, ..base.clone() };
    vec![
        Target {
            name: "object in protobuf",
            samples: || protobuf::encode_object(&pod()).into_iter().collect(),
            decoder: Decoder::Encodes(|input| {
                let object = protobuf::decode_object(input).ok()?;
                protobuf::encode_object(&object).ok()
            }),
            ..base
        },
        Target {
            name: "object in JSON",
            samples: || vec![pod().to_string().into_bytes()],
            decoder: Decoder::Encodes(|input| pruned(json::decode(input).ok()?.0)),
            ..text.clone()
        },
        Target {
            name: "object in YAML",
            samples: || vec![yaml::encode(&pod()).into_bytes()],
            decoder: Decoder::Judges(|input| {
                yaml::decode(input).is_ok_and(|(object, _)| pruned(object).is_some())
            }),
            ..text.clone()
        },
        Target {
            name: "strategic patch",
            samples: || {
                vec![
                    json!({"spec": {"containers": [{"name": "main", "image": "b"}, {"$patch": "delete", "name": "x"}]}})
                        .to_string()
                        .into_bytes(),
                    json!({"metadata": {"labels": {"$patch": "replace", "a": "b"}}, "spec": {"$retainKeys": ["nodeName"], "nodeName": "n"}})
                        .to_string()
                        .into_bytes(),
                ]
            },
            decoder: Decoder::Judges(|input| {
                let Ok((patch, _)) = json::decode(input) else { return false };
                patch::strategic(Schema::builtin(), "core.v1.Pod", &mut pod(), patch).is_ok()
            }),
            ..text.clone()
        },
        Target {
            name: "merge patch",
            samples: || vec![json!({"metadata": {"labels": {"a": null}}}).to_string().into_bytes()],
            decoder: Decoder::Judges(|input| {
                json::decode(input).is_ok_and(|(patch, _)| patch::merge_patch(&mut pod(), &patch).is_ok())
            }),
            ..text.clone()
        },
        Target {
            name: "JSON patch",
            samples: || {
                vec![
                    json!([
                        {"op": "test", "path": "/metadata/name", "value": "a"},
                        {"op": "add", "path": "/metadata/labels/b~1c", "value": "d"},
                        {"op": "copy", "from": "/spec/containers/0", "path": "/spec/containers/-"},
                        {"op": "move", "from": "/metadata/labels/a", "path": "/metadata/labels/z"},
                        {"op": "remove", "path": "/spec/containers/0"},
                    ])
                    .to_string()
                    .into_bytes(),
                ]
            },
            decoder: Decoder::Judges(|input| {
                let Ok((patch, _)) = json::decode(input) else { return false };
                patch::json_patch(&mut pod(), &patch).is_ok()
            }),
            ..text.clone()
        },
        Target {
            name: "selector",
            samples: || vec![b"a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1".to_vec()],
            decoder: Decoder::Encodes(|input| {
                let parsed = selector::LabelSelector::parse(std::str::from_utf8(input).ok()?).ok()?;
                Some(parsed.to_string().into_bytes())
            }),
            ..text.clone()
        },
        Target {
            name: "quantity",
            samples: || vec![b"1.5Gi".to_vec(), b"100m".to_vec(), b"-1e3".to_vec()],
            decoder: Decoder::Encodes(|input| {
                let text = std::str::from_utf8(input).ok()?;
                Some(apimachinery::quantity::Quantity::parse(text).ok()?.to_string().into_bytes())
            }),
            ..text
        },
    ]
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "namespace": "default", "labels": {"a": "b"}, "generation": 7},
        "spec": {
            "containers": [{
                "name": "main",
                "image": "image",
                "resources": {"limits": {"cpu": "100m"}},
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "A", "value": "B"}],
            }],
            "terminationGracePeriodSeconds": 30,
        },
        "status": {"phase": "Pending"},
    })
}

/// As it would be stored, whatever kind it says it is.
fn pruned(mut object: Value) -> Option<Vec<u8>> {
    let api_version = object.get("apiVersion")?.as_str()?.to_owned();
    let kind = object.get("kind")?.as_str()?.to_owned();
    let type_name = protobuf::type_name(&api_version, &kind)?;
    json::prune(Schema::builtin(), type_name, &mut object).ok()?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    if let Some(resource) = kinds::find_kind(group, version, &kind) {
        apimachinery::defaults::apply(resource, &mut object);
        drop(apimachinery::validate::create(resource, &object));
    }
    Some(object.to_string().into_bytes())
}
