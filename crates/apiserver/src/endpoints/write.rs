//! POST, PUT and DELETE of objects.

use apimachinery::schema::Schema;
use apimachinery::status::Status;
use apimachinery::{Value, meta};
use futures_util::{StreamExt, stream};
use http::{Response, StatusCode};

use super::Call;
use super::body::{self, Expected};
use crate::negotiate::{self, Answer};
use crate::options::{DeleteOptions, Freshness, ListOptions, WriteOptions};
use crate::registry::{Deleted, Part, Source, Updated, Write, group_resource};
use crate::render::{self, ListMeta};
use crate::selection::Selection;
use crate::{Body, strategy};

/// Deletes of one collection under way at once: enough to share a few fsyncs.
const DELETES_AT_ONCE: usize = 16;

pub(super) async fn create(mut call: Call<'_>) -> Result<Response<Body>, Status> {
    let answer = call.answer(false)?;
    let options = WriteOptions::parse(call.query(), "CreateOptions")?;
    let bytes = call.request.read_body().await?;
    let mut warnings = Vec::new();
    let expected = Expected::of(call.resource);
    let mut value =
        body::read(&expected, &call.content_type(), &bytes, options.field_validation, &mut warnings)?;
    body::place(&mut value, &call.namespace)?;
    let object = call.server.registry().create(&call.write(options), value).await?;
    let mut response = render::object(&answer, StatusCode::CREATED, call.resource, &object)?;
    render::warn(&mut response, &warnings);
    Ok(response)
}

pub(super) async fn update(call: Call<'_>) -> Result<Response<Body>, Status> {
    replace(call, Part::Main).await
}

/// PUT of the object or of one part of it.
pub(super) async fn replace(mut call: Call<'_>, part: Part) -> Result<Response<Body>, Status> {
    let answer = call.answer(false)?;
    let options = WriteOptions::parse(call.query(), "UpdateOptions")?;
    let bytes = call.request.read_body().await?;
    let mut warnings = Vec::new();
    let expected = Expected::of(call.resource);
    let mut value =
        body::read(&expected, &call.content_type(), &bytes, options.field_validation, &mut warnings)?;
    body::place(&mut value, &call.namespace)?;
    body::name(&mut value, &call.name)?;
    let registry = call.server.registry();
    let write = call.write(options);
    let mut edit = |_: &Value| Ok(value.clone());
    let updated = registry.update(&write, &call.name, part, Source::Whole, &mut edit).await?;
    let (code, object) = match updated {
        Updated::Object(object) => (StatusCode::OK, object),
        Updated::Missing => {
            let value = creatable(&write, &call.name, part, value)?;
            call.authorize_create().await?;
            let created = call.server.registry().create(&write, value).await?;
            (StatusCode::CREATED, created)
        }
    };
    let mut response = render::object(&answer, code, call.resource, &object)?;
    render::warn(&mut response, &warnings);
    Ok(response)
}

/// What a PUT of something missing may create, or why it may not.
fn creatable(write: &Write<'_>, name: &str, part: Part, mut value: Value) -> Result<Value, Status> {
    if part != Part::Main || !write.resource.strategy.create_on_update {
        return Err(Status::not_found(group_resource(write.resource), name));
    }
    let sent = meta::of(&value);
    if !sent.resource_version().is_empty() && sent.resource_version() != "0" {
        return Err(Status::modified(group_resource(write.resource), name));
    }
    if !sent.uid().is_empty() {
        let why = format!("Precondition failed: UID in precondition: {}, UID in object meta: ", sent.uid());
        return Err(Status::conflict(group_resource(write.resource), name, why));
    }
    meta::of_mut(&mut value).remove("resourceVersion");
    Ok(value)
}

pub(super) async fn delete(mut call: Call<'_>) -> Result<Response<Body>, Status> {
    let answer = call.answer(false)?;
    let options = delete_options(&mut call).await?;
    let write = call.write(WriteOptions { dry_run: options.dry_run, ..WriteOptions::default() });
    let deleted = call.server.registry().delete(&write, &call.name, &options).await?;
    match deleted {
        Deleted::Pending(object) => {
            let accepted = options.orphan_dependents == Some(false);
            let code = if accepted { StatusCode::ACCEPTED } else { StatusCode::OK };
            render::object(&answer, code, call.resource, &object)
        }
        Deleted::Gone(object) if strategy::returns_deleted_object(write.stored()) => {
            render::object(&answer, StatusCode::OK, call.resource, &object)
        }
        Deleted::Gone(object) => {
            let uid = meta::of(object.value()).uid();
            let status = Status::success(group_resource(call.resource), &call.name, uid);
            let plain = Answer { shape: negotiate::Shape::Object, ..answer };
            let mut value = status.to_value();
            if let Some(fields) = value.as_object_mut() {
                // Upstream leaves the code out of this one Status.
                fields.shift_remove("code");
            }
            render::value(&plain, StatusCode::OK, &value)
        }
    }
}

pub(super) async fn delete_collection(mut call: Call<'_>) -> Result<Response<Body>, Status> {
    let answer = call.answer(true)?;
    let list_options = ListOptions::parse(call.query())?;
    let selection =
        Selection::parse(call.resource, &list_options.label_selector, &list_options.field_selector)?;
    let options = delete_options(&mut call).await?;
    let registry = call.server.registry();
    let consistent = ListOptions { freshness: Freshness::Consistent, ..list_options };
    let (items, list_meta) =
        registry.list(call.resource, &call.namespace, &selection, &consistent, call.deadline()).await?;
    let write = call.write(WriteOptions { dry_run: options.dry_run, ..WriteOptions::default() });
    let mut deleted = Vec::with_capacity(items.len());
    let names: Vec<String> = items.iter().map(|object| meta::of(object.value()).name().to_owned()).collect();
    let mut deletes = Vec::with_capacity(names.len());
    for name in &names {
        deletes.push(registry.delete(&write, name, &options));
    }
    let mut deletes = stream::iter(deletes).buffered(DELETES_AT_ONCE);
    while let Some(result) = deletes.next().await {
        match result {
            Ok(Deleted::Gone(object) | Deleted::Pending(object)) => deleted.push(object),
            // Someone else was faster.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    render::list(
        &answer,
        call.resource,
        &ListMeta { revision: list_meta.revision, ..ListMeta::default() },
        &deleted,
    )
}

/// DeleteOptions of any group version, in the body or the query.
pub(super) async fn delete_options(call: &mut Call<'_>) -> Result<DeleteOptions, Status> {
    let bytes = call.request.read_body().await?;
    if bytes.is_empty() {
        return DeleteOptions::parse(call.query(), None);
    }
    let (mut value, _) = negotiate::decode(&call.content_type(), &bytes)?;
    let kind = meta::of(&value).kind();
    if !kind.is_empty() && kind != "DeleteOptions" {
        return Err(Status::bad_request(format!(
            "decoded object cannot be converted to DeleteOptions: {kind}"
        )));
    }
    apimachinery::json::prune(Schema::builtin(), "meta.v1.DeleteOptions", &mut value)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    DeleteOptions::parse(call.query(), Some(&value))
}
