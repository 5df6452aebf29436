//! Texts and shapes of Status errors, as tables.

use serde_json::json;

use super::*;

const PODS: GroupResource<'static> = GroupResource::new("", "pods");
const DEPLOYMENTS: GroupResource<'static> = GroupResource::new("apps", "deployments");

#[test]
fn errors_read_as_upstream_writes_them() {
    let spec = Path::new("spec");
    let containers = spec.child("containers");
    let first = containers.index(0);
    let name = first.child("name");
    let table: Vec<(Status, u16, &str, &str)> = vec![
        (Status::not_found(PODS, "x"), 404, "NotFound", r#"pods "x" not found"#),
        (Status::not_found(DEPLOYMENTS, "x"), 404, "NotFound", r#"deployments.apps "x" not found"#),
        (Status::already_exists(PODS, "x"), 409, "AlreadyExists", r#"pods "x" already exists"#),
        (
            Status::modified(PODS, "x"),
            409,
            "Conflict",
            r#"Operation cannot be fulfilled on pods "x": the object has been modified; please apply your changes to the latest version and try again"#,
        ),
        (
            Status::invalid(GroupKind::new("", "Pod"), "x", &[FieldError::required(&name, "")]),
            422,
            "Invalid",
            r#"Pod "x" is invalid: spec.containers[0].name: Required value"#,
        ),
        (
            Status::invalid(
                GroupKind::new("apps", "Deployment"),
                "x",
                &[
                    FieldError::required(&name, "a"),
                    FieldError::required(&name, "a"),
                    FieldError::invalid(&spec.child("replicas"), -1, "must be greater than or equal to 0"),
                ],
            ),
            422,
            "Invalid",
            r#"Deployment.apps "x" is invalid: [spec.containers[0].name: Required value: a, spec.replicas: Invalid value: -1: must be greater than or equal to 0]"#,
        ),
        (
            Status::forbidden(
                PODS,
                "",
                r#"User "u" cannot list resource "pods" in API group "" in the namespace "d""#,
            ),
            403,
            "Forbidden",
            r#"pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "d""#,
        ),
        (
            Status::forbidden(GroupResource::new("", ""), "", r#"User "u" cannot get path "/x""#),
            403,
            "Forbidden",
            r#"forbidden: User "u" cannot get path "/x""#,
        ),
        (Status::unauthorized(), 401, "Unauthorized", "Unauthorized"),
        (Status::too_old_resource_version(3, 9), 410, "Expired", "too old resource version: 3 (9)"),
        (
            Status::too_large_resource_version(9, 3, 1),
            504,
            "Timeout",
            "Timeout: Too large resource version: 9, current: 3",
        ),
        (
            Status::method_not_allowed(DEPLOYMENTS, "create"),
            405,
            "MethodNotAllowed",
            r#"create is not supported on resources of kind "deployments.apps""#,
        ),
        (Status::internal("boom"), 500, "InternalError", "Internal error occurred: boom"),
        (
            Status::unsupported_media_type(&["application/json", "application/yaml"]),
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml",
        ),
    ];
    for (status, code, reason, message) in table {
        assert_eq!((status.code, status.reason.as_str(), status.message.as_str()), (code, reason, message));
        let value = status.to_value();
        assert_eq!(Status::from_value(&value), Some(status), "{value}");
    }
}

#[test]
fn a_status_object_has_upstreams_shape_and_order() {
    let text = Status::not_found(PODS, "x").to_value().to_string();
    assert_eq!(
        text,
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"x\" not found","reason":"NotFound","details":{"name":"x","kind":"pods"},"code":404}"#
    );
    let text = Status::success(DEPLOYMENTS, "x", "u1").to_value().to_string();
    assert_eq!(
        text,
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"x","group":"apps","kind":"deployments","uid":"u1"}}"#
    );
    let invalid = Status::invalid(
        GroupKind::new("", "Pod"),
        "x",
        &[FieldError::not_supported(
            &Path::new("spec").child("restartPolicy"),
            "Never2",
            &["Always", "Never"],
        )],
    );
    assert_eq!(
        invalid.to_value()["details"],
        json!({"name": "x", "kind": "Pod", "causes": [{
            "reason": "FieldValueNotSupported",
            "message": r#"Unsupported value: "Never2": supported values: "Always", "Never""#,
            "field": "spec.restartPolicy"
        }]})
    );
}

#[test]
fn field_errors_show_values_as_go_prints_them() {
    let path = Path::new("spec");
    let table = [
        (FieldError::invalid(&path, "a\"b", "bad"), r#"spec: Invalid value: "a\"b": bad"#),
        (FieldError::invalid(&path, json!(null), ""), "spec: Invalid value: null"),
        (
            FieldError::invalid(&path, json!({"a": "<b>"}), ""),
            "spec: Invalid value: {\"a\":\"\\u003cb\\u003e\"}",
        ),
        (FieldError::invalid(&path, true, ""), "spec: Invalid value: true"),
        (FieldError::duplicate(&path.index(2), "x"), r#"spec[2]: Duplicate value: "x""#),
        (FieldError::forbidden(&path.key("k"), "no"), "spec[k]: Forbidden: no"),
        (FieldError::too_long(&path, 253), "spec: Too long: may not be more than 253 bytes"),
        (FieldError::too_many(&path, 3, 1), "spec: Too many: 3: must have at most 1 item"),
        (FieldError::not_found(&path, "v"), r#"spec: Not found: "v""#),
    ];
    for (error, text) in table {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn quoting_escapes_what_go_escapes() {
    let table = [
        ("a", r#""a""#),
        ("é", "\"é\""),
        ("\n\t", r#""\n\t""#),
        ("\0", r#""\x00""#),
        ("\u{200b}", "\"\\u200b\""),
    ];
    for (text, quoted) in table {
        assert_eq!(quote(text), quoted);
    }
}

#[test]
fn only_status_objects_are_read_as_status() {
    assert_eq!(Status::from_value(&json!({"kind": "Pod", "apiVersion": "v1"})), None);
    let odd = json!({"kind": "Status", "apiVersion": "v1", "reason": "New", "code": "x", "details": []});
    let status = Status::from_value(&odd).unwrap();
    assert_eq!((status.reason, status.code, status.details), (Reason::Other("New".into()), 500, None));
}
