//! Every type survives the trip through bytes; bytes that Go made are read; junk is refused.

use super::*;
use crate::json;
use crate::schema::{Kind, Schema};
use serde_json::json;

/// A small generator of numbers: the same seed gives the same samples.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn text(&mut self) -> String {
        ["", "a", "x-y.z/0", "größe", "a \"quoted\" line\n"][self.below(5) as usize].to_owned()
    }

    /// Any value of a kind; structs get thinner with depth. No empty list: bytes cannot tell it from none.
    fn value(&mut self, kind: &Kind, depth: u64) -> Value {
        match kind {
            Kind::String => Value::from(self.text()),
            Kind::Bool => Value::from(self.below(2) == 1),
            Kind::Int32 => Value::from([0, 1, -1, i32::MAX, i32::MIN][self.below(5) as usize]),
            Kind::Int64 => Value::from([0, 1, -1, i64::MAX, i64::MIN][self.below(5) as usize]),
            Kind::Double => Value::from([0.0, 0.5, -1e300][self.below(3) as usize]),
            Kind::Bytes => Value::from(["", "aGk=", "AP8="][self.below(3) as usize]),
            Kind::Quantity => Value::from(["0", "100m", "1Gi", "12k"][self.below(4) as usize]),
            Kind::IntOrString => {
                [json!(0), json!(8080), json!("http"), json!("25%")][self.below(4) as usize].clone()
            }
            Kind::Time => {
                Value::from(["2026-01-02T03:04:05Z", "1970-01-01T00:00:00Z"][self.below(2) as usize])
            }
            Kind::MicroTime => Value::from("2026-01-02T03:04:05.678901Z"),
            Kind::Raw | Kind::FieldsV1 => json!({"f:metadata": {}, "x": [1, null, {"y": self.text()}]}),
            Kind::Json => [json!("a"), json!(1.5), json!({"a": [true]})][self.below(3) as usize].clone(),
            Kind::SchemaOrBool => {
                [json!(true), json!(false), json!({"type": "string"})][self.below(3) as usize].clone()
            }
            Kind::SchemaOrArray => {
                [json!([{"type": "a"}]), json!({"type": "string"})][self.below(2) as usize].clone()
            }
            Kind::SchemaOrStrings => {
                [json!(["a", "b"]), json!({"type": "string"})][self.below(2) as usize].clone()
            }
            Kind::Ref(name) => {
                let mut object = Object::new();
                for field in &Schema::builtin().type_(name).unwrap().fields {
                    if field.tag != 0 && self.below(2 + depth * depth) == 0 {
                        object.insert(field.name.to_owned(), self.value(&field.kind, depth + 1));
                    }
                }
                Value::Object(object)
            }
            Kind::Array(item) => (0..=self.below(2)).map(|_| self.value(item, depth)).collect(),
            Kind::Map(item) => {
                (0..=self.below(2)).map(|key| (format!("k{key}"), self.value(item, depth))).collect()
            }
        }
    }
}

#[test]
fn every_type_survives_the_trip_through_bytes() {
    let schema = Schema::builtin();
    let mut numbers = Numbers(1);
    let mut names: Vec<&str> = schema.type_names().collect();
    names.sort_unstable();
    for name in names {
        for _ in 0..8 {
            let mut value = numbers.value(&Kind::Ref(schema.name(name).unwrap()), 0);
            json::prune(schema, name, &mut value).unwrap_or_else(|error| panic!("{name}: {error} {value}"));
            let bytes = encode(name, &value).unwrap_or_else(|error| panic!("{name}: {error} {value}"));
            let decoded = decode(name, &bytes).unwrap_or_else(|error| panic!("{name}: {error} {value}"));
            assert_eq!(decoded, value, "{name}");
        }
    }
}

/// Without what JSON shows as null: Go's lists, maps and times that nobody set.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// One object of each kind, and the JSON and bytes that Go's own types make of it (`go run . vectors` in xtask/go).
#[test]
fn objects_are_read_and_written_as_go_does() {
    let lines: Vec<&str> = include_str!("go_vectors.jsonl").lines().collect();
    assert!(lines.len() > 60);
    for line in lines {
        let vector: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| vector[name].as_str().unwrap();
        let type_name = type_name(text("apiVersion"), text("kind")).unwrap();
        let expected = without_nulls(&vector["json"]);
        let mut sent = vector["sent"].clone();
        json::prune(Schema::builtin(), type_name, &mut sent).unwrap();
        assert_eq!(without_nulls(&sent), expected, "{type_name} from JSON");
        let hex = text("protobuf").as_bytes().chunks(2);
        let bytes: Vec<u8> =
            hex.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        assert_eq!(
            without_nulls(&decode(type_name, &bytes).unwrap()),
            expected,
            "{type_name} from Go's bytes"
        );
        assert_eq!(
            decode(type_name, &encode(type_name, &sent).unwrap()).unwrap(),
            sent,
            "{type_name} through ours"
        );
    }
}

#[test]
fn cut_and_flipped_bytes_never_panic() {
    let mut numbers = Numbers(2);
    for name in
        ["core.v1.Pod", "apps.v1.Deployment", "apiextensions.v1.CustomResourceDefinition", "meta.v1.Status"]
    {
        let mut value = numbers.value(&Kind::Ref(name), 0);
        json::prune(Schema::builtin(), name, &mut value).unwrap();
        let bytes = encode(name, &value).unwrap();
        for cut in 0..bytes.len() {
            let _ = decode(name, &bytes[..cut]);
        }
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1 << (position % 8);
            let _ = decode(name, &flipped);
            let _ = decode_object(&encode_envelope("v1", "Pod", &flipped));
        }
    }
}

proptest::proptest! {
    #[test]
    fn junk_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = decode("core.v1.Pod", &bytes);
        let _ = decode_object(&bytes);
        let _ = decode_object(&encode_envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", &bytes));
    }
}

#[test]
fn junk_is_refused_with_a_reason() {
    let deep = (0..200).fold(Vec::new(), |inner, _| {
        let mut out = Writer::with_capacity(inner.len() + 6);
        out.message(28, |out| out.raw(&inner)); // `not` of a schema
        out.into_bytes()
    });
    let many = [0x12, 0x00].repeat(600_000); // containers
    for (type_name, bytes, expected) in [
        ("core.v1.Pod", &[0x0a, 0x05][..], "proto: unexpected EOF"),
        ("core.v1.Pod", &[0x0b], "proto: illegal wireType"),
        ("core.v1.Pod", &[0x02, 0x00], "proto: illegal tag"),
        ("core.v1.Pod", &[0xff; 11], "proto: integer overflow"),
        ("core.v1.Pod", &[0x08, 0x01], "proto: wrong wireType for field metadata"),
        ("core.v1.ConfigMap", &[0x12, 0x03, 0x0a, 0x01, 0xff], "string field data contains invalid UTF-8"),
        ("core.v1.Nothing", &[], "no type core.v1.Nothing in the schema"),
        ("apiextensions.v1.JSONSchemaProps", &deep, "exceeded max depth of 100"),
        ("core.v1.PodSpec", &many, "more than 500000 values in one object"),
    ] {
        assert_eq!(decode(type_name, bytes).unwrap_err().to_string(), expected);
    }
    for (bytes, expected) in [
        (
            b"{}".to_vec(),
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ),
        (
            encode_envelope("example.com/v1", "Thing", b""),
            "no kind \"Thing\" is registered for version \"example.com/v1\"",
        ),
        (
            encode_envelope("apps.example.com/v1", "Deployment", b""),
            "no kind \"Deployment\" is registered for version \"apps.example.com/v1\"",
        ),
    ] {
        assert_eq!(decode_object(&bytes).unwrap_err().to_string(), expected);
    }
}

#[test]
fn unknown_numbers_are_skipped_and_empty_values_follow_go() {
    for (type_name, bytes, expected) in [
        // 99: varint, fixed64, bytes, fixed32
        (
            "core.v1.ConfigMap",
            &[0x98, 6, 1, 0x99, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0x9a, 6, 1, 65, 0x9d, 6, 0, 0, 0, 0][..],
            json!({"metadata": {}}),
        ),
        // hostNetwork false is no pointer and goes; automountServiceAccountToken false is one and stays
        ("core.v1.PodSpec", &[0x58, 0, 0xa8, 1, 0], json!({"automountServiceAccountToken": false})),
        // emptyDir {} inside volumeSource
        ("core.v1.Volume", &[0x0a, 1, b'v', 0x12, 2, 0x12, 0], json!({"name": "v", "emptyDir": {}})),
        // a zero creationTimestamp is an empty message
        ("meta.v1.ObjectMeta", &[0x0a, 1, b'n', 0x12, 0, 0x42, 0], json!({"name": "n"})),
        // packed numbers
        ("core.v1.PodSecurityContext", &[0x22, 2, 1, 2], json!({"supplementalGroups": [1, 2]})),
    ] {
        assert_eq!(decode(type_name, bytes).unwrap(), expected, "{type_name}");
    }
}

#[test]
fn kinds_lead_to_types() {
    for (api_version, kind, expected) in [
        ("v1", "Pod", Some("core.v1.Pod")),
        ("apps/v1", "DeploymentList", Some("apps.v1.DeploymentList")),
        ("rbac.authorization.k8s.io/v1", "Role", Some("rbac.v1.Role")),
        ("policy/v1", "Eviction", Some("policy.v1.Eviction")),
        ("autoscaling/v1", "Scale", Some("autoscaling.v1.Scale")),
        ("apps/v1", "DeleteOptions", Some("meta.v1.DeleteOptions")),
        ("meta.k8s.io/v1", "PartialObjectMetadataList", Some("meta.v1.PartialObjectMetadataList")),
        ("v1", "Status", Some("meta.v1.Status")),
        ("scheduling.binnacle.dev/v1alpha1", "Decision", Some("binnacle.v1alpha1.Decision")),
        ("apps/v1beta1", "Deployment", None),
        ("core/v1", "Pod", None),
        ("v1", "Nothing", None),
    ] {
        assert_eq!(type_name(api_version, kind), expected, "{api_version} {kind}");
    }
}

#[test]
fn an_object_travels_in_an_envelope() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": []}, "status": {}});
    let bytes = encode_object(&pod).unwrap();
    assert_eq!(&bytes[..4], MAGIC);
    let envelope = decode_envelope(&bytes).unwrap();
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("v1", "Pod"));
    assert_eq!(
        decode_object(&bytes).unwrap().to_string(),
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{},"status":{}}"#
    );

    let unnamed = encode_envelope("", "", &[]);
    assert_eq!(
        decode_object_as(&unnamed, "v1", "DeleteOptions").unwrap(),
        json!({"apiVersion": "v1", "kind": "DeleteOptions"})
    );
}

#[test]
fn a_list_from_encoded_items_is_the_list_encoded_whole() {
    let items = [json!({"metadata": {"name": "a"}, "data": {"k": "v"}}), json!({"metadata": {"name": "b"}})];
    let encoded: Vec<Vec<u8>> = items.iter().map(|item| encode("core.v1.ConfigMap", item).unwrap()).collect();
    let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}, "items": items});
    let pieces =
        encode_list("v1", "ConfigMapList", &list["metadata"], encoded.iter().map(Vec::as_slice)).unwrap();
    assert_eq!(pieces, encode_object(&list).unwrap());
    assert_eq!(decode_object(&pieces).unwrap(), list);
}

#[test]
fn a_watch_frame_is_a_length_and_an_event() {
    let frame = watch_frame("ADDED", b"k8s\0x");
    assert_eq!(frame, [b"\0\0\0\x10\x0a\x05ADDED\x12\x07\x0a\x05k8s\0x".as_slice()].concat());
}

#[test]
fn a_value_that_does_not_fit_names_its_field() {
    let error =
        encode("core.v1.Pod", &json!({"spec": {"containers": [{"name": "a"}, {"name": 5}]}})).unwrap_err();
    assert_eq!(error.to_string(), "field spec.containers[1].name holds what its type cannot: a number");
}
