//! Which objects a list, a watch or a delete of a collection is about.
//!
//! Both selectors are judged on the stored form of an object, so that all versions of a kind share one rule.
//! Not here: the grammar of selectors (apimachinery).

use apimachinery::Value;
use apimachinery::kinds::{self, Resource};
use apimachinery::selector::{FieldSelector, LabelSelector};
use apimachinery::status::Status;

pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    selects_all: bool,
}

impl Selection {
    pub(crate) fn parse(
        resource: &'static Resource,
        labels: &str,
        fields: &str,
    ) -> Result<Selection, Status> {
        let unreadable = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
        let labels = LabelSelector::parse(labels).map_err(|error| unreadable(&error))?;
        let fields = FieldSelector::parse(fields).map_err(|error| unreadable(&error))?;
        let stored = kinds::storage_resource(resource);
        for requirement in fields.requirements() {
            let field = requirement.field.as_str();
            let known = matches!(field, "metadata.name" | "metadata.namespace")
                || resource.selectable_fields.contains(&field)
                || stored.selectable_fields.contains(&stored_field(field));
            if !known {
                return Err(Status::bad_request(format!("field label not supported: {field}")));
            }
        }
        let selects_all = labels.is_empty() && fields.requirements().is_empty();
        Ok(Selection { labels, fields, selects_all })
    }

    /// No selector at all.
    pub(crate) fn selects_all(&self) -> bool {
        self.selects_all
    }

    /// The one name that can match, if the selector says so.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    /// `value` in its stored form.
    pub(crate) fn matches(&self, value: &Value) -> bool {
        self.selects_all
            || (self.labels.matches_object(value)
                && self.fields.matches(|field| field_text(value, stored_field(field))))
    }
}

/// Events are stored as core events; their newer version names some fields differently.
fn stored_field(field: &str) -> &str {
    match field {
        "regarding.kind" => "involvedObject.kind",
        "regarding.namespace" => "involvedObject.namespace",
        "regarding.name" => "involvedObject.name",
        "regarding.uid" => "involvedObject.uid",
        "regarding.apiVersion" => "involvedObject.apiVersion",
        "regarding.resourceVersion" => "involvedObject.resourceVersion",
        "regarding.fieldPath" => "involvedObject.fieldPath",
        "reportingController" => "reportingComponent",
        other => other,
    }
}

/// A field as text; an absent one is the zero value of its type.
fn field_text(value: &Value, field: &str) -> String {
    let path = match field {
        "name" => "metadata.name",
        "status.successful" => "status.succeeded",
        "source" => "source.component",
        other => other,
    };
    let found = path.split('.').try_fold(value, |value, part| value.get(part));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ => match field {
            "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
            "status.replicas" | "status.successful" => "0".to_owned(),
            "source" => meta_text(value, "reportingComponent"),
            _ => String::new(),
        },
    }
}

fn meta_text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods() -> &'static Resource {
        kinds::find("", "v1", "pods").unwrap()
    }

    #[test]
    fn fields_are_compared_as_text_and_absent_ones_as_zero() {
        let pod = json!({"metadata": {"name": "a", "namespace": "d", "labels": {"app": "x"}}, "spec": {"nodeName": "n1"}});
        for (labels, fields, expected) in [
            ("", "", true),
            ("app=x", "", true),
            ("app!=x", "", false),
            ("", "spec.nodeName=n1", true),
            ("", "spec.nodeName!=n1", false),
            ("", "status.phase=", true),
            ("", "status.phase!=Running,metadata.name=a", true),
            ("", "spec.hostNetwork=false", true),
        ] {
            let selection = Selection::parse(pods(), labels, fields).unwrap();
            assert_eq!(selection.matches(&pod), expected, "{labels} {fields}");
        }
    }

    #[test]
    fn an_unknown_field_is_a_bad_request() {
        let status = Selection::parse(pods(), "", "spec.nothing=1").err().unwrap();
        assert_eq!((status.code, status.message.as_str()), (400, "field label not supported: spec.nothing"));
        assert_eq!(Selection::parse(pods(), "a==b==c", "").err().unwrap().code, 400);
    }
}
