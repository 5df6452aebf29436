//! Input -> output tables.

use super::*;
use serde_json::json;

#[test]
fn documents_become_trees() {
    for (input, expected) in [
        (
            "a: 1\nb: [x, 2.5, true, null]\nc: {d: \"1\"}\n",
            json!({"a": 1, "b": ["x", 2.5, true, null], "c": {"d": "1"}}),
        ),
        (
            "apiVersion: v1\nmetadata:\n  name: a\n  labels:\n    \"x/y\": '5'\n",
            json!({"apiVersion": "v1", "metadata": {"name": "a", "labels": {"x/y": "5"}}}),
        ),
        ("{\"a\": {\"b\": [1, \"two\"]}}", json!({"a": {"b": [1, "two"]}})),
        (
            "data:\n  script: |\n    line one\n    line two\n",
            json!({"data": {"script": "line one\nline two\n"}}),
        ),
        ("a: &x {k: v}\nb: *x\n", json!({"a": {"k": "v"}, "b": {"k": "v"}})),
        ("1: a\n", json!({"1": "a"})),
        ("time: 2026-01-02T03:04:05Z\n", json!({"time": "2026-01-02T03:04:05Z"})),
    ] {
        let (value, complaints) = decode(input.as_bytes()).unwrap_or_else(|error| panic!("{input}: {error}"));
        assert_eq!(value, expected, "{input}");
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

#[test]
fn repeated_members_are_noticed() {
    let (value, complaints) = decode(b"a:\n  b: 1\n  b: 2\n").unwrap();
    assert_eq!(value, json!({"a": {"b": 2}}));
    assert_eq!(complaints, ["duplicate field \"a.b\""]);
}

#[test]
fn broken_deep_and_growing_documents_are_errors() {
    for broken in ["a: [", "a: b: c", "a: *nothing", "a: 1\n---\nb: 2\n", "\u{0}"] {
        let error = decode(broken.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("error converting YAML to JSON: "), "{broken}: {error}");
    }
    assert!(decode("[".repeat(5000).as_bytes()).is_err());
    let indented: String = (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let error = decode(indented.as_bytes()).unwrap_err();
    assert!(matches!(error, DecodeError::TooDeep), "{error}");
    assert!(decode(&[0xff, 0xfe, 0x00]).is_err());

    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let previous = format!("*a{}", level - 1);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![previous; 10].join(", ")));
    }
    assert!(decode(laughs.as_bytes()).is_err());
}

#[test]
fn trees_survive_the_trip_through_text() {
    for value in [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "true", "b": "1", "c": "null", "d": "", "e": "x: y\n# z\n"}}),
        json!({"list": [{"a": [1, 2]}, [], {}, "- x", "~", "0x10", "1e3", "yes"]}),
    ] {
        let text = encode(&value);
        assert_eq!(decode(text.as_bytes()).unwrap().0, value, "{text}");
    }
    assert_eq!(encode(&json!({"a": [{"b": 1, "c": []}], "d": {}})), "a:\n- b: 1\n  c: []\nd: {}\n");
}
