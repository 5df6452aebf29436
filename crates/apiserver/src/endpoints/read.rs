//! GET of one object, and of a list.

use apimachinery::status::Status;
use http::{Response, StatusCode};

use super::Call;
use crate::options::{self, Freshness, ListOptions};
use crate::request_info::query_value;
use crate::selection::Selection;
use crate::{Body, render};

pub(super) async fn get(call: Call<'_>) -> Result<Response<Body>, Status> {
    let answer = call.answer(false)?;
    let revision = query_value(call.query(), "resourceVersion").unwrap_or_default();
    let freshness = match options::revision(&revision)? {
        None => Freshness::Consistent,
        Some(0) => Freshness::Any,
        Some(revision) => Freshness::NotOlderThan(revision),
    };
    let registry = call.server.registry();
    let object = registry.get(call.resource, &call.namespace, &call.name, freshness, call.deadline()).await?;
    render::object(&answer, StatusCode::OK, call.resource, &object)
}

pub(super) async fn list(call: Call<'_>) -> Result<Response<Body>, Status> {
    let answer = call.answer(true)?;
    let options = ListOptions::parse(call.query())?;
    let selection = Selection::parse(call.resource, &options.label_selector, &options.field_selector)?;
    let registry = call.server.registry();
    let (items, list_meta) =
        registry.list(call.resource, &call.namespace, &selection, &options, call.deadline()).await?;
    render::list(&answer, call.resource, &list_meta, &items)
}
