//! The body of a write: decoded, of the right kind, in the right namespace, with unknown fields dealt with.
//!
//! Texts are upstream's (`pkg/endpoints/handlers/{create,rest}.go`).

use apimachinery::kinds::Resource;
use apimachinery::schema::Schema;
use apimachinery::status::{FieldError, GroupKind, Path, Status};
use apimachinery::{Value, json, meta};
use bytes::Bytes;

use crate::negotiate;
use crate::options::FieldValidation;

/// A type that a body can have.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) type_name: String,
}

impl Expected {
    pub(crate) fn of(resource: &Resource) -> Expected {
        Expected {
            api_version: resource.api_version(),
            kind: resource.kind.to_owned(),
            type_name: resource.type_name.to_owned(),
        }
    }

    pub(crate) fn named(api_version: &str, kind: &str, type_name: &str) -> Expected {
        Expected {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            type_name: type_name.to_owned(),
        }
    }

    fn version(&self) -> &str {
        self.api_version.rsplit('/').next().unwrap_or_default()
    }
}

/// Reads a body that must be of the expected kind. Warnings are for the `Warning` header.
pub(crate) fn read(
    expected: &Expected,
    content_type: &str,
    body: &Bytes,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let (mut value, mut found) =
        negotiate::decode(content_type, body).map_err(|status| match status.code {
            400 => {
                let summary: String = String::from_utf8_lossy(&body[..body.len().min(30)]).into_owned();
                let kind = &expected.kind;
                let text = format!(
                    "the object provided is unrecognized (must be of type {kind}): {} ({summary:?})",
                    status.message
                );
                Status::bad_request(text)
            }
            _ => status,
        })?;
    check_type(expected, &value)?;
    let refuse = |why: &dyn std::fmt::Display| {
        let (kind, version) = (&expected.kind, expected.version());
        Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    };
    found.extend(
        json::prune(Schema::builtin(), &expected.type_name, &mut value).map_err(|error| refuse(&error))?,
    );
    meta::of_mut(&mut value).set_type(&expected.api_version, &expected.kind);
    match validation {
        FieldValidation::Strict if !found.is_empty() => {
            Err(refuse(&format_args!("strict decoding error: {}", found.join(", "))))
        }
        FieldValidation::Warn => {
            warnings.extend(found);
            Ok(value)
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(value),
    }
}

/// Checks the fields of an object that a patch made.
pub(crate) fn check_patched(
    expected: &Expected,
    value: &mut Value,
    mut found: Vec<String>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let before = value.clone();
    let refuse = |why: String| {
        let error = FieldError::invalid(&Path::new("patch"), before.to_string(), why);
        Status::invalid(GroupKind::new("", ""), "", &[error])
    };
    found.extend(
        json::prune(Schema::builtin(), &expected.type_name, value)
            .map_err(|error| refuse(error.to_string()))?,
    );
    match validation {
        FieldValidation::Strict if !found.is_empty() => {
            Err(refuse(format!("strict decoding error: {}", found.join(", "))))
        }
        FieldValidation::Warn => {
            // An edit may be tried more than once.
            *warnings = found;
            Ok(())
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(()),
    }
}

fn check_type(expected: &Expected, value: &Value) -> Result<(), Status> {
    if !value.is_object() {
        let kind = &expected.kind;
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): the body is not an object"
        )));
    }
    let sent = meta::of(value);
    let (api_version, kind) = (sent.api_version(), sent.kind());
    if !api_version.is_empty() && api_version != expected.api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version
        )));
    }
    if !kind.is_empty() && kind != expected.kind {
        return Err(Status::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {}: the kind in the data does not match the kind of the resource",
            expected.version(),
            expected.kind
        )));
    }
    Ok(())
}

/// The body's namespace must be the path's; an absent one takes it, and kinds of the cluster have none.
pub(crate) fn place(value: &mut Value, namespace: &str) -> Result<(), Status> {
    let sent = meta::of(value).namespace();
    if sent == namespace {
        return Ok(());
    }
    if !sent.is_empty() && !namespace.is_empty() {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    meta::of_mut(value).set_namespace(namespace);
    Ok(())
}

/// The body's name must be the path's; an absent one takes it.
pub(crate) fn name(value: &mut Value, name: &str) -> Result<(), Status> {
    let sent = meta::of(value).name();
    if sent.is_empty() {
        meta::of_mut(value).set_name(name);
        return Ok(());
    }
    if sent != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({sent}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}
