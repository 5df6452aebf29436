//! PATCH: the current object, changed by the patch, goes the way of an update.
//!
//! Without a resource version in the patch it is applied again to whatever a concurrent writer left.
//! Not here: how patches merge (apimachinery).

use apimachinery::schema::Schema;
use apimachinery::status::{FieldError, GroupKind, Path, Status};
use apimachinery::{Value, json, meta, patch};
use http::{Response, StatusCode};

use super::body::{self, Expected};
use super::{Call, apply, subresource};
use crate::options::WriteOptions;
use crate::registry::{Part, Source, Updated, group_resource};
use crate::{Body, render};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY_YAML: &str = "application/apply-patch+yaml";
const APPLY_CBOR: &str = "application/apply-patch+cbor";
const ACCEPTED: &[&str] = &[JSON_PATCH, MERGE_PATCH, STRATEGIC, APPLY_YAML];

/// A patch as it was sent.
enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// The second value names duplicate fields of the patch.
    fn read(content_type: &str, bytes: &[u8]) -> Result<(Patch, Vec<String>), Status> {
        if matches!(content_type, APPLY_YAML | APPLY_CBOR) {
            return Err(Status::not_implemented("server-side apply of a scale or in CBOR"));
        }
        if !ACCEPTED.contains(&content_type) {
            return Err(Status::unsupported_media_type(ACCEPTED));
        }
        let (value, found) = json::decode(bytes)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        let patch = match content_type {
            JSON_PATCH => Patch::Json(value),
            MERGE_PATCH => Patch::Merge(value),
            _ => Patch::Strategic(value),
        };
        Ok((patch, found))
    }

    fn apply(&self, type_name: &str, value: &mut Value) -> Result<(), Status> {
        match self {
            Patch::Json(operations) => patch::json_patch(value, operations),
            Patch::Merge(changes) => patch::merge_patch(value, changes),
            Patch::Strategic(changes) => {
                patch::strategic(Schema::builtin(), type_name, value, changes.clone())
            }
        }
        .map_err(|error| error.to_status())
    }
}

pub(super) async fn patch(call: Call<'_>) -> Result<Response<Body>, Status> {
    patch_part(call, Part::Main).await
}

pub(super) async fn patch_part(mut call: Call<'_>, part: Part) -> Result<Response<Body>, Status> {
    if call.content_type() == APPLY_YAML {
        return apply::apply(call, part).await;
    }
    let answer = call.answer(false)?;
    let options = WriteOptions::parse(call.query(), "PatchOptions")?;
    let bytes = call.request.read_body().await?;
    let (patch, found) = Patch::read(&call.content_type(), &bytes)?;
    let expected = Expected::of(call.resource);
    let mut warnings = Vec::new();
    let validation = options.field_validation;
    let name = call.name.clone();
    let mut edit = |current: &Value| {
        let mut value = render::typed(call.resource, current);
        patch.apply(&expected.type_name, &mut value)?;
        body::check_patched(&expected, &mut value, found.clone(), validation, &mut warnings)?;
        keep_type_and_name(&mut value, current, &expected, &name)?;
        Ok(value)
    };
    if options.force {
        let error = FieldError::forbidden(&Path::new("force"), "may not be specified for non-apply patch");
        return Err(Status::invalid(GroupKind::new("meta.k8s.io", "PatchOptions"), "", &[error]));
    }
    let write = call.write(options);
    let updated = call.server.registry().update(&write, &call.name, part, Source::Patch, &mut edit).await?;
    let Updated::Object(object) = updated else {
        return Err(Status::not_found(group_resource(call.resource), &call.name));
    };
    let mut response = render::object(&answer, StatusCode::OK, call.resource, &object)?;
    render::warn(&mut response, &warnings);
    Ok(response)
}

/// A patch cannot turn an object into another one.
fn keep_type_and_name(
    value: &mut Value,
    current: &Value,
    expected: &Expected,
    name: &str,
) -> Result<(), Status> {
    let sent = meta::of(value);
    if sent.kind() != expected.kind || sent.api_version() != expected.api_version {
        return Err(Status::bad_request(format!(
            "the patch changes the type of the object to {} {}",
            sent.api_version(),
            sent.kind()
        )));
    }
    body::name(value, name)?;
    body::place(value, meta::of(current).namespace())
}

pub(super) async fn patch_scale(mut call: Call<'_>) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(call.query(), "PatchOptions")?;
    let bytes = call.request.read_body().await?;
    let (patch, _) = Patch::read(&call.content_type(), &bytes)?;
    let type_name = subresource::scale_type().type_name;
    let mut edit = |current: &Value| {
        let mut scale = current.clone();
        patch.apply(&type_name, &mut scale)?;
        Ok(scale)
    };
    subresource::write_scale(call, options, &mut edit).await
}
