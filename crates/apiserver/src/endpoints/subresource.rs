//! Parts of objects with a path of their own: status, scale, binding, eviction, finalize and what is not built yet.

use apimachinery::status::{GroupKind, Status};
use apimachinery::{Value, meta};
use http::{Response, StatusCode};
use serde_json::json;

use super::body::{self, Expected};
use super::{Call, eviction, patch, read, write};
use crate::options::{FieldValidation, WriteOptions};
use crate::registry::{Part, Source, Updated, group_resource};
use crate::render::now_s;
use crate::strategy::{pod, scale};
use crate::{Body, negotiate};
use apimachinery::kinds;

pub(super) async fn dispatch(call: Call<'_>, verb: &str) -> Result<Response<Body>, Status> {
    let resource = call.resource;
    let built = &resource.subresources;
    let not_allowed = || Err(Status::method_not_allowed(group_resource(resource), verb));
    match (call.subresource.as_str(), verb) {
        ("status", "get") if built.status => read::get(call).await,
        ("status", "update") if built.status => write::replace(call, Part::Status).await,
        ("status", "patch") if built.status => patch::patch_part(call, Part::Status).await,
        ("status", _) if built.status => not_allowed(),
        ("scale", "get") if built.scale => get_scale(call).await,
        ("scale", "update") if built.scale => update_scale(call).await,
        ("scale", "patch") if built.scale => patch::patch_scale(call).await,
        ("scale", _) if built.scale => not_allowed(),
        ("binding", "create") if built.binding => bind(call).await,
        ("binding", _) if built.binding => not_allowed(),
        ("finalize", "update") if built.finalize => write::replace(call, Part::Finalize).await,
        ("finalize", _) if built.finalize => not_allowed(),
        ("approval", "get") if built.approval => read::get(call).await,
        ("approval", "update") if built.approval => write::replace(call, Part::Status).await,
        ("approval", "patch") if built.approval => patch::patch_part(call, Part::Status).await,
        ("ephemeralcontainers", _) if built.ephemeral_containers => {
            part_of_pod(call, verb, Part::EphemeralContainers).await
        }
        ("resize", _) if built.resize => part_of_pod(call, verb, Part::Resize).await,
        ("eviction", "create") if built.eviction => eviction::evict(call).await,
        ("eviction", _) if built.eviction => not_allowed(),
        ("token", _) => {
            let what = format!("{}/{}", resource.plural, call.subresource);
            Err(Status::not_implemented(what))
        }
        ("log" | "exec" | "attach" | "portforward" | "proxy", _) => {
            let what = format!("{}/{} (there is no kubelet to talk to)", resource.plural, call.subresource);
            Err(Status::not_implemented(what))
        }
        _ => Err(Status::no_such_resource()),
    }
}

async fn part_of_pod(call: Call<'_>, verb: &str, part: Part) -> Result<Response<Body>, Status> {
    match verb {
        "get" => read::get(call).await,
        "update" => write::replace(call, part).await,
        "patch" => patch::patch_part(call, part).await,
        _ => Err(Status::method_not_allowed(group_resource(call.resource), verb)),
    }
}

/// POST of a Binding: to `pods/{name}/binding`, or to `bindings` with the pod's name in the body.
pub(super) async fn bind(mut call: Call<'_>) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(call.query(), "CreateOptions")?;
    let bytes = call.request.read_body().await?;
    let expected = Expected::named("v1", "Binding", "core.v1.Binding");
    let mut ignored = Vec::new();
    let mut binding =
        body::read(&expected, &call.content_type(), &bytes, options.field_validation, &mut ignored)?;
    body::place(&mut binding, &call.namespace)?;
    let sent = meta::of(&binding).name().to_owned();
    if call.name.is_empty() {
        call.name = sent.clone();
        call.resource = kinds::find("", "v1", "pods").ok_or_else(Status::no_such_resource)?;
    }
    if !sent.is_empty() && sent != call.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let errors = pod::check_binding(&binding);
    if !errors.is_empty() {
        return Err(Status::invalid(GroupKind::new("", "Binding"), &call.name, &errors));
    }
    let now_s = now_s();
    let name = call.name.clone();
    let mut edit = |current: &Value| pod::bind(current, &name, &binding, now_s);
    let write = call.write(options);
    let updated =
        call.server.registry().update(&write, &call.name, Part::Binding, Source::Patch, &mut edit).await?;
    match updated {
        Updated::Object(_) => {
            let headers = &call.request.parts().headers;
            let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
            negotiate::encode_object("meta.v1.Status", headers, StatusCode::CREATED, &done)
        }
        Updated::Missing => Err(Status::not_found(group_resource(call.resource), &call.name)),
    }
}

async fn get_scale(call: Call<'_>) -> Result<Response<Body>, Status> {
    let registry = call.server.registry();
    let freshness = crate::options::Freshness::Consistent;
    let object = registry.get(call.resource, &call.namespace, &call.name, freshness, call.deadline()).await?;
    answer_scale(&call, object.value())
}

async fn update_scale(mut call: Call<'_>) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(call.query(), "UpdateOptions")?;
    let bytes = call.request.read_body().await?;
    let mut warnings = Vec::new();
    let mut sent =
        body::read(&scale_type(), &call.content_type(), &bytes, FieldValidation::Ignore, &mut warnings)?;
    body::name(&mut sent, &call.name)?;
    write_scale(call, options, &mut |_| Ok(sent.clone())).await
}

pub(super) fn scale_type() -> Expected {
    Expected::named("autoscaling/v1", "Scale", "autoscaling.v1.Scale")
}

/// Changes the Scale of the current object with `edit`, and the object accordingly.
pub(super) async fn write_scale(
    call: Call<'_>,
    options: WriteOptions,
    edit: &mut (dyn FnMut(&Value) -> Result<Value, Status> + Send),
) -> Result<Response<Body>, Status> {
    let resource = call.resource;
    let name = call.name.clone();
    let mut edit = |current: &Value| {
        let sent = edit(&scale::of(resource, current))?;
        scale::apply(current, &sent)
            .map_err(|errors| Status::invalid(GroupKind::new("autoscaling", "Scale"), &name, &errors))
    };
    let write = call.write(options);
    let updated =
        call.server.registry().update(&write, &call.name, Part::Main, Source::Patch, &mut edit).await?;
    match updated {
        Updated::Object(object) => answer_scale(&call, object.value()),
        Updated::Missing => Err(Status::not_found(group_resource(resource), &call.name)),
    }
}

fn answer_scale(call: &Call<'_>, workload: &Value) -> Result<Response<Body>, Status> {
    let headers = &call.request.parts().headers;
    let scale = scale::of(call.resource, workload);
    negotiate::encode_object("autoscaling.v1.Scale", headers, StatusCode::OK, &scale)
}
