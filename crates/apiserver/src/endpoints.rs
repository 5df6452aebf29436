//! From an authorized request about objects to its answer: one generic endpoint per verb.
//!
//! Invariant: nothing here runs without an `Authorized`. Which kinds, verbs and subresources exist is read from the
//! table of kinds; what exists but is not built answers 501 and says so.
//! Not here: what a write means (registry), paths that are not about objects, reviews.

mod apply;
mod body;
mod eviction;
mod patch;
mod read;
mod subresource;
mod watch;
mod write;

use std::time::Duration;

use apimachinery::kinds::{self, Resource};
use apimachinery::status::Status;
use futures_util::future::BoxFuture;
use http::Response;
use http::header::USER_AGENT;
use tokio::time::Instant;

use crate::authz::{Attributes, Decision};
use crate::negotiate::{self, Answer, Offer};
use crate::options::WriteOptions;
use crate::registry::{Write, group_resource};
use crate::{ApiServer, Authorized, Body};

/// Source: upstream metav1 validation `FieldManagerMaxLength`.
const MANAGER_LENGTH_MAX: usize = 128;
/// Deadline of a write whose request has none.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// One request, read as far as all endpoints need it.
pub(crate) struct Call<'a> {
    server: &'a ApiServer,
    request: Authorized,
    resource: &'static Resource,
    /// "" for kinds of the whole cluster, and for reads across all namespaces.
    namespace: String,
    name: String,
    subresource: String,
}

/// Boxed: the compiler proves this large future `Send` once, here, instead of inside every connection's.
pub(crate) fn dispatch(
    server: &ApiServer,
    request: Authorized,
) -> BoxFuture<'_, Result<Response<Body>, Status>> {
    Box::pin(route(server, request))
}

async fn route(server: &ApiServer, request: Authorized) -> Result<Response<Body>, Status> {
    let info = request.info();
    let resource = kinds::find(&info.api_group, &info.api_version, &info.resource)
        .ok_or_else(Status::no_such_resource)?;
    // `/api/v1/namespaces/x` counts as lying in namespace x; every other kind of the cluster has none.
    let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
    if !resource.namespaced && !is_namespace && !info.namespace.is_empty() {
        return Err(Status::no_such_resource());
    }
    let verb = info.verb.clone();
    let name = info.parts.get(1).cloned().unwrap_or_default();
    let call = Call {
        server,
        resource,
        namespace: if resource.namespaced { info.namespace.clone() } else { String::new() },
        name,
        subresource: info.subresource.clone(),
        request,
    };
    call.check_path(&verb)?;
    if !call.subresource.is_empty() {
        return subresource::dispatch(call, &verb).await;
    }
    let verbs = &resource.verbs;
    match verb.as_str() {
        "get" if verbs.get => read::get(call).await,
        "list" if verbs.list => read::list(call).await,
        "watch" if verbs.watch => watch::watch(call).await,
        "create" if is_bindings(resource) => subresource::bind(call).await,
        "create" if verbs.create => write::create(call).await,
        "update" if verbs.update => write::update(call).await,
        "patch" if verbs.patch => patch::patch(call).await,
        "delete" if verbs.delete => write::delete(call).await,
        "deletecollection" if verbs.delete_collection => write::delete_collection(call).await,
        "get" | "list" | "watch" | "create" | "update" | "patch" | "delete" | "deletecollection" => {
            Err(Status::method_not_allowed(group_resource(resource), &verb))
        }
        _ => Err(Status::http_method_not_allowed()),
    }
}

/// `POST /namespaces/x/bindings`, the older spelling of `pods/{name}/binding`.
fn is_bindings(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "bindings"
}

impl<'a> Call<'a> {
    /// Routes that upstream does not have: writes without a namespace, creates with a name.
    fn check_path(&self, verb: &str) -> Result<(), Status> {
        let segments = self.request.info().parts.len();
        if segments > 3 && self.subresource != "proxy" {
            return Err(Status::no_such_resource());
        }
        let across = self.resource.namespaced && self.namespace.is_empty();
        if across && !matches!(verb, "list" | "watch") {
            return Err(Status::http_method_not_allowed());
        }
        if verb == "create" && segments == 2 {
            return Err(Status::http_method_not_allowed());
        }
        if matches!(verb, "update" | "patch") && self.name.is_empty() {
            return Err(Status::http_method_not_allowed());
        }
        Ok(())
    }

    fn query(&self) -> &str {
        self.request.parts().uri.query().unwrap_or_default()
    }

    fn deadline(&self) -> Instant {
        self.request.deadline().unwrap_or_else(|| Instant::now() + WRITE_TIMEOUT)
    }

    /// How to answer with one object, or with a list.
    fn answer(&self, list: bool) -> Result<Answer, Status> {
        let offer = Offer { protobuf: has_protobuf(self.resource), shapes: Some(list) };
        negotiate::answer(&self.request.parts().headers, self.query(), offer)
    }

    fn content_type(&self) -> String {
        negotiate::content_type(&self.request.parts().headers)
    }

    fn write(&self, options: WriteOptions) -> Write<'_> {
        Write {
            server: self.server,
            caller: self.request.caller(),
            resource: self.resource,
            namespace: &self.namespace,
            subresource: &self.subresource,
            manager: self.manager(&options),
            applies: false,
            options,
            deadline: self.deadline(),
        }
    }

    /// The name that the client gave, or what its user agent says before the slash.
    fn manager(&self, options: &WriteOptions) -> String {
        if !options.field_manager.is_empty() {
            return options.field_manager.clone();
        }
        let agent = self.request.parts().headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        let agent = agent.unwrap_or_default().split('/').next().unwrap_or_default();
        let name: String = agent.chars().filter(|c| !c.is_control()).take(MANAGER_LENGTH_MAX).collect();
        if name.is_empty() { "unknown".to_owned() } else { name }
    }

    /// A PUT or apply that finds nothing creates, which is a right of its own.
    async fn authorize_create(&self) -> Result<(), Status> {
        let of_request = Attributes::of_request(self.request.caller(), self.request.info());
        let attributes = Attributes { verb: "create", ..of_request };
        match self.server.authorizer().decide_settled(self.server, &attributes).await {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) => Err(attributes.forbidden(&reason)),
        }
    }
}

/// Our own group has no published protobuf form, so its clients get JSON.
fn has_protobuf(resource: &Resource) -> bool {
    resource.group != "scheduling.binnacle.dev"
}
