//! Objects are created only in a namespace that exists and stays; some namespaces cannot be deleted.

use apimachinery::kinds;
use apimachinery::status::{Cause, GroupResource, Status};

use super::{Attributes, Operation};
use crate::options::Freshness;
use crate::registry::{Registry, group_resource};
use crate::strategy::namespace::is_terminating;

const NAMESPACES: GroupResource<'static> = GroupResource::new("", "namespaces");
/// Source: upstream plugin/namespace/lifecycle `immortalNamespaces`.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) async fn check(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), Status> {
    let write = attributes.write;
    if attributes.operation == Operation::Delete {
        if attributes.is_main("", "namespaces") && IMMORTAL.contains(&attributes.name) {
            return Err(Status::forbidden(NAMESPACES, attributes.name, "this namespace may not be deleted"));
        }
        return Ok(());
    }
    if attributes.operation == Operation::Update || !write.resource.namespaced {
        return Ok(());
    }
    let Some(namespaces) = kinds::find("", "v1", "namespaces") else { return Ok(()) };
    let found = match registry.cached(namespaces, write.namespace) {
        Some(found) => Some(found),
        // It may have been created just now through another member.
        None => registry.find(namespaces, write.namespace, Freshness::Consistent, write.deadline).await?,
    };
    let Some(namespace) = found else { return Err(Status::not_found(NAMESPACES, write.namespace)) };
    if !is_terminating(namespace.value()) {
        return Ok(());
    }
    let why = format!(
        "unable to create new content in namespace {} because it is being terminated",
        write.namespace
    );
    let status = Status::forbidden(group_resource(write.resource), attributes.name, why);
    Err(status.with_cause(Cause {
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {} is being terminated", write.namespace),
        field: "metadata.namespace".to_owned(),
    }))
}
