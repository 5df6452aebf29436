//! Short ways to read an object for printing: what is absent reads as empty, zero, or false.

use serde_json::json;

use crate::{Value, meta};

pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The text, or `other` when it is absent or empty.
pub(super) fn text_or<'a>(object: &'a Value, pointer: &str, other: &'a str) -> &'a str {
    match text(object, pointer) {
        "" => other,
        text => text,
    }
}

pub(super) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

pub(super) fn flag(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
}

pub(super) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn count(object: &Value, pointer: &str) -> i64 {
    let length = match object.pointer(pointer) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(fields)) => fields.len(),
        _ => 0,
    };
    i64::try_from(length).unwrap_or(i64::MAX)
}

pub(super) fn texts<'a>(object: &'a Value, pointer: &str) -> Vec<&'a str> {
    list(object, pointer).iter().filter_map(Value::as_str).collect()
}

pub(super) fn name(object: &Value) -> Value {
    json!(meta::of(object).name())
}

/// A scalar as Go prints it: `IntOrString`, numbers.
pub(super) fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The status of a condition, if the object has it.
pub(super) fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a str> {
    let conditions = list(object, "/status/conditions");
    let found = conditions.iter().find(|condition| text(condition, "/type") == type_)?;
    Some(text(found, "/status"))
}

/// Labels as `a=b,c=d`, sorted; `<none>` when there are none.
pub(super) fn labels(object: &Value, pointer: &str) -> String {
    let map = object.pointer(pointer).and_then(Value::as_object);
    let mut pairs: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// Names and images of the containers of a pod template, each joined by commas.
pub(super) fn containers(object: &Value, template: &str) -> (String, String) {
    let containers = list(object, &format!("{template}/spec/containers"));
    let joined =
        |field: &str| containers.iter().map(|container| text(container, field)).collect::<Vec<_>>().join(",");
    (joined("/name"), joined("/image"))
}
