//! Server-side apply: the configuration of one manager, merged into the object or becoming it.
//!
//! Not here: merging and ownership (apimachinery).

use apimachinery::patch::apply;
use apimachinery::status::{FieldError, GroupKind, Path, Status};
use apimachinery::{Value, json, meta, schema::Schema, yaml};
use http::{Response, StatusCode};

use super::Call;
use super::body::{self, Expected};
use crate::options::{FieldValidation, WriteOptions};
use crate::registry::{Part, Source, Updated, Write, group_resource};
use crate::{Body, render};

/// Tries when others create and delete the object meanwhile.
const ATTEMPTS_MAX: usize = 5;

pub(super) async fn apply(mut call: Call<'_>, part: Part) -> Result<Response<Body>, Status> {
    let answer = call.answer(false)?;
    let options = WriteOptions::parse(call.query(), "PatchOptions")?;
    if options.field_manager.is_empty() {
        let error = FieldError::required(&Path::new("fieldManager"), "is required for apply patch");
        return Err(Status::invalid(GroupKind::new("meta.k8s.io", "PatchOptions"), "", &[error]));
    }
    let bytes = call.request.read_body().await?;
    let (mut config, duplicates) =
        yaml::decode(&bytes).map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
    let mut warnings = Vec::new();
    match options.field_validation {
        FieldValidation::Strict if !duplicates.is_empty() => {
            let why = format!("error strict decoding YAML: {}", duplicates.join(", "));
            return Err(Status::bad_request(why));
        }
        FieldValidation::Warn => warnings = duplicates,
        FieldValidation::Strict | FieldValidation::Ignore => {}
    }
    if !config.is_object() {
        return Err(Status::bad_request("error decoding YAML: the configuration is not an object"));
    }
    body::place(&mut config, &call.namespace)?;
    body::name(&mut config, &call.name)?;
    let force = options.force;
    let write = Write { applies: true, ..call.write(options) };
    let registry = call.server.registry();
    let (mut code, mut applied) = (StatusCode::OK, None);
    for _ in 0..ATTEMPTS_MAX {
        let mut edit = |current: &Value| merged(&write, Some(current), &config, force);
        match registry.update(&write, &call.name, part, Source::Patch, &mut edit).await? {
            Updated::Object(object) => {
                applied = Some(object);
                break;
            }
            Updated::Missing if part != Part::Main => {
                return Err(Status::not_found(group_resource(call.resource), &call.name));
            }
            Updated::Missing if !meta::of(&config).resource_version().is_empty() => {
                return Err(Status::modified(group_resource(call.resource), &call.name));
            }
            Updated::Missing => {}
        }
        call.authorize_create().await?;
        match registry.create(&write, merged(&write, None, &config, force)?).await {
            Ok(object) => {
                (code, applied) = (StatusCode::CREATED, Some(object));
                break;
            }
            // Somebody created it just now.
            Err(status) if status.code == 409 => {}
            Err(status) => return Err(status),
        }
    }
    let object = applied.ok_or_else(|| Status::modified(group_resource(call.resource), &call.name))?;
    let mut response = render::object(&answer, code, call.resource, &object)?;
    render::warn(&mut response, &warnings);
    Ok(response)
}

/// The object with the configuration applied. `current` None: there is none yet.
fn merged(write: &Write<'_>, current: Option<&Value>, config: &Value, force: bool) -> Result<Value, Status> {
    let resource = write.resource;
    let live = current.map_or(Value::Null, |current| render::typed(resource, current));
    let api_version = resource.api_version();
    let mut value = apply::apply(write.ownership(&api_version), &live, config, force)
        .map_err(|error| error.to_status())?;
    // The configuration itself was checked; this only writes its values as all others are.
    json::prune(Schema::builtin(), &Expected::of(resource).type_name, &mut value)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    Ok(value)
}
