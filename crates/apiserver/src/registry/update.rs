//! Update: edit what is there, on condition that it still is.
//!
//! The edit is tried on the cached state first. Only what was decided on the store's own state is final: any refusal
//! that could be due to an outdated cache is decided again after a read of the store.

use std::sync::Arc;

use apimachinery::Value;
use apimachinery::kinds::{from_storage, storage_resource, to_storage};
use apimachinery::status::{FieldError, FieldErrorKind, Status};
use apimachinery::{defaults, meta, validate};

use super::{Registry, Write, group_kind, group_resource, same_content};
use crate::admission::{Attributes, Operation};
use crate::authz;
use crate::object::Object;
use crate::render::view;
use crate::storage::{self, Beside, Swapped};
use crate::strategy;

/// Tries of one update against concurrent writers, within the deadline of the request.
const ATTEMPTS_MAX: usize = 64;
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Which part of an object a request may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
    /// `namespaces/finalize`: only `spec.finalizers`.
    Finalize,
    /// `pods/binding`: the server itself sets the node.
    Binding,
    /// `pods/ephemeralcontainers`: containers for debugging are added.
    EphemeralContainers,
    /// `pods/resize`: only the resources of containers.
    Resize,
}

/// How the new object comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The client sent all of it: without a resource version it replaces whatever is there, for kinds that allow it.
    Whole,
    /// Made from the current object, so it carries that one's resource version unless the client named another.
    Patch,
}

/// Makes the new object from the current one, both as the client's version shows them.
pub(crate) type Edit<'a> = &'a mut (dyn FnMut(&Value) -> Result<Value, Status> + Send);

/// What became of an update.
pub(crate) enum Updated {
    Object(Arc<Object>),
    /// Nothing was there; the caller may create it.
    Missing,
}

/// A decision about one state of the object.
enum Next {
    Unchanged,
    Put(Value),
    /// The last finalizer went, so the object goes with it.
    Remove(Value),
}

impl Registry {
    pub(crate) async fn update(
        &self,
        write: &Write<'_>,
        name: &str,
        part: Part,
        source: Source,
        edit: Edit<'_>,
    ) -> Result<Updated, Status> {
        let stored = write.stored();
        let item = write.item(name);
        let mut current = self.cached(stored, &item);
        let mut fresh = false;
        for _ in 0..ATTEMPTS_MAX {
            let Some(old) = current.take() else {
                if fresh {
                    return Ok(Updated::Missing);
                }
                current = self.fetch(stored, &item).await?.0;
                fresh = true;
                continue;
            };
            let next = self.decide(write, name, part, source, &old, edit).await;
            let (next, beside) = match next {
                Ok((Next::Unchanged, _)) | Err(_) if !fresh => {
                    current = self.fetch(stored, &item).await?.0;
                    fresh = true;
                    continue;
                }
                next => next?,
            };
            match self.write_next(write, &item, &old, next, &beside).await? {
                Ok(object) => return Ok(Updated::Object(view(write.resource, &object))),
                Err(found) => {
                    current = found;
                    fresh = true;
                }
            }
        }
        Err(Status::modified(group_resource(write.resource), name))
    }

    /// The inner error is what someone else left behind.
    async fn write_next(
        &self,
        write: &Write<'_>,
        item: &str,
        old: &Arc<Object>,
        next: Next,
        beside: &[Beside],
    ) -> Result<Result<Arc<Object>, Option<Arc<Object>>>, Status> {
        let stored = write.stored();
        let key = self.storage.key(stored, item);
        let removes = matches!(next, Next::Remove(_));
        let (value, swapped, size_bytes) = match next {
            Next::Unchanged => return Ok(Ok(old.clone())),
            Next::Put(value) | Next::Remove(value) if write.options.dry_run => {
                let size_bytes = old.size_bytes();
                return Ok(Ok(Arc::new(Object::new(value, old.revision(), size_bytes))));
            }
            Next::Put(value) => {
                let bytes = storage::encode(&value);
                strategy::check_size(stored, bytes.len())?;
                let size_bytes = bytes.len();
                let ttl_s = self.ttl_s(stored);
                let swapped =
                    self.storage.update(&key, old.revision(), bytes, ttl_s, beside, write.deadline).await?;
                (value, swapped, size_bytes)
            }
            Next::Remove(value) => {
                let swapped = self.storage.delete(&key, old.revision(), beside, write.deadline).await?;
                (value, swapped, old.size_bytes())
            }
        };
        match swapped {
            Swapped::At(revision) => {
                let object = Arc::new(Object::new(value, revision, size_bytes));
                if !removes {
                    self.kind(stored)?.remember(item, &object);
                }
                Ok(Ok(object))
            }
            // Another service was faster with the address.
            Swapped::Hindered => Ok(Err(Some(old.clone()))),
            Swapped::Changed(found) => {
                Ok(Err(found.map(|found| self.adopt(stored, item, found)).transpose()?))
            }
        }
    }

    async fn decide(
        &self,
        write: &Write<'_>,
        name: &str,
        part: Part,
        source: Source,
        old: &Arc<Object>,
        edit: Edit<'_>,
    ) -> Result<(Next, Vec<Beside>), Status> {
        let resource = write.resource;
        let stored = storage_resource(resource);
        let shown = view(resource, old);
        let mut new = edit(shown.value())?;
        check_identity(write, name, source, old, &new)?;
        keep_system_metadata(&mut new, old.value());
        if part != Part::Status {
            defaults::apply(resource, &mut new);
        }
        let attributes = Attributes { write, operation: Operation::Update, name, old: Some(old.value()) };
        if part == Part::Main {
            self.admission.mutate(self, &attributes, &mut new).await?;
        }
        let mut new = to_storage(resource, new);
        strategy::prepare_update(stored, part, &mut new, old.value());
        let mut errors = match part {
            Part::Status => {
                validate::update_status(resource, &from_storage(resource, new.clone()), shown.value())
            }
            // Their own checks were made where the edit was (strategy/pod.rs).
            Part::Binding => Vec::new(),
            Part::EphemeralContainers => strategy::pod::check_ephemeral_containers(&new, old.value()),
            Part::Resize => strategy::pod::check_resize(&new),
            Part::Main | Part::Finalize => {
                validate::update(resource, &from_storage(resource, new.clone()), shown.value())
            }
        };
        errors.extend(strategy::validate_update(&new, old.value()));
        if !errors.is_empty() {
            return Err(Status::invalid(group_kind(resource), name, &errors));
        }
        write.record(old.value(), &mut new);
        if same_content(&new, old.value()) {
            return Ok((Next::Unchanged, Vec::new()));
        }
        if resource.group == RBAC_GROUP {
            authz::escalation::check(
                write.server,
                write.caller,
                resource,
                write.namespace,
                &new,
                Some(old.value()),
            )
            .await?;
        }
        self.admission.validate(self, &attributes, &new).await?;
        if strategy::ends_with_last_finalizer(stored, &new) {
            let beside = self.addresses.release(self, stored, old.value()).await?;
            return Ok((Next::Remove(new), beside));
        }
        let beside = match part {
            Part::Main => self.addresses.claim(self, write, &mut new, Some(old.value())).await?,
            Part::Status | Part::Finalize | Part::Binding | Part::EphemeralContainers | Part::Resize => {
                Vec::new()
            }
        };
        Ok((Next::Put(new), beside))
    }
}

/// Name, uid and resource version of the new object must be those of the old one.
fn check_identity(
    write: &Write<'_>,
    name: &str,
    source: Source,
    old: &Object,
    new: &Value,
) -> Result<(), Status> {
    let meta = meta::of(new);
    let resource = group_resource(write.resource);
    let sent = meta.resource_version();
    if sent.is_empty() && source == Source::Whole && !write.resource.strategy.unconditional_update {
        let error = FieldError {
            kind: FieldErrorKind::Invalid,
            field: "metadata.resourceVersion".to_owned(),
            bad_value: None,
            detail: "0x0: must be specified for an update".to_owned(),
        };
        return Err(Status::invalid(group_kind(write.resource), name, &[error]));
    }
    if !sent.is_empty() && sent != "0" && sent != old.revision().to_string() {
        return Err(Status::modified(resource, name));
    }
    let uid = meta::of(old.value()).uid();
    if !meta.uid().is_empty() && meta.uid() != uid {
        let why =
            format!("Precondition failed: UID in precondition: {}, UID in object meta: {uid}", meta.uid());
        return Err(Status::conflict(resource, name, why));
    }
    Ok(())
}

/// What no client may change.
fn keep_system_metadata(new: &mut Value, old: &Value) {
    let old = meta::of(old);
    let mut meta = meta::of_mut(new);
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"]
    {
        meta.set(field, old.field(field).cloned());
    }
    meta.remove("selfLink");
    meta.set("resourceVersion", old.field("resourceVersion").cloned());
}
