//! Namespaces: a phase, a finalizer in the spec, and a label with the name.

use apimachinery::{Value, meta};
use serde_json::json;

const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn prepare_create(value: &mut Value) {
    let name = meta::of(value).name().to_owned();
    meta::of_mut(value).set_label(NAME_LABEL, &name);
    let mut finalizers = finalizers(value);
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(json!(FINALIZER));
    }
    set_finalizers(value, Some(Value::Array(finalizers)));
}

/// Only `/finalize` changes the finalizers of the spec.
pub(super) fn keep_finalizers(new: &mut Value, old: &Value) {
    let name = meta::of(new).name().to_owned();
    meta::of_mut(new).set_label(NAME_LABEL, &name);
    set_finalizers(new, old.get("spec").and_then(|spec| spec.get("finalizers")).cloned());
}

pub(super) fn set_finalizers(value: &mut Value, finalizers: Option<Value>) {
    let finalizers = finalizers.filter(|list| list.as_array().is_some_and(|list| !list.is_empty()));
    let spec = super::fields_of(value, "spec");
    match finalizers {
        Some(finalizers) => spec.insert("finalizers".to_owned(), finalizers),
        None => spec.shift_remove("finalizers"),
    };
}

pub(super) fn begin_deletion(value: &mut Value) {
    super::fields_of(value, "status").insert("phase".to_owned(), json!("Terminating"));
}

pub(super) fn has_finalizers(value: &Value) -> bool {
    !finalizers(value).is_empty()
}

fn finalizers(value: &Value) -> Vec<Value> {
    let list = value.get("spec").and_then(|spec| spec.get("finalizers")).and_then(Value::as_array);
    list.cloned().unwrap_or_default()
}

pub(crate) fn is_terminating(value: &Value) -> bool {
    meta::of(value).deletion_timestamp().is_some()
        || value.get("status").and_then(|status| status.get("phase")).and_then(Value::as_str)
            == Some("Terminating")
}
