//! Delete: preconditions, grace, finalizers; at once only when nothing stands in the way.
//!
//! Rules are upstream's (apiserver `pkg/registry/rest/delete.go`, `pkg/registry/generic/registry/store.go`).

use std::sync::Arc;

use apimachinery::Value;
use apimachinery::kinds::Resource;
use apimachinery::meta;
use apimachinery::status::Status;
use apimachinery::time;
use serde_json::json;

use super::{Registry, Write, group_resource};
use crate::admission::{Attributes, Operation};
use crate::object::Object;
use crate::options::{DeleteOptions, Propagation};
use crate::render::{now_s, view};
use crate::storage::{self, Swapped};
use crate::strategy;

const ATTEMPTS_MAX: usize = 64;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What became of a delete; the object as it was last, in the client's version.
pub(crate) enum Deleted {
    Gone(Arc<Object>),
    /// Finalizers or a grace period keep it for now.
    Pending(Arc<Object>),
}

enum Next {
    Remove,
    /// Being deleted already, and this request changes nothing about that.
    Leave,
    Put(Value),
}

impl Registry {
    pub(crate) async fn delete(
        &self,
        write: &Write<'_>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let stored = write.stored();
        let item = write.item(name);
        let mut current = self.cached(stored, &item);
        let mut fresh = false;
        for _ in 0..ATTEMPTS_MAX {
            let Some(old) = current.take() else {
                if fresh {
                    return Err(Status::not_found(group_resource(write.resource), name));
                }
                current = self.fetch(stored, &item).await?.0;
                fresh = true;
                continue;
            };
            let attributes = Attributes { write, operation: Operation::Delete, name, old: Some(old.value()) };
            let next = match check_preconditions(write.resource, name, &old, options) {
                Ok(()) => {
                    self.admission.validate(self, &attributes, old.value()).await?;
                    decide(stored, old.value(), options)
                }
                Err(_) if !fresh => Next::Leave,
                Err(status) => return Err(status),
            };
            if matches!(next, Next::Leave) && !fresh {
                current = self.fetch(stored, &item).await?.0;
                fresh = true;
                continue;
            }
            match self.delete_next(write, &item, &old, next).await? {
                Ok(deleted) => return Ok(deleted),
                Err(found) => {
                    current = found;
                    fresh = true;
                }
            }
        }
        Err(Status::modified(group_resource(write.resource), name))
    }

    async fn delete_next(
        &self,
        write: &Write<'_>,
        item: &str,
        old: &Arc<Object>,
        next: Next,
    ) -> Result<Result<Deleted, Option<Arc<Object>>>, Status> {
        let stored = write.stored();
        let key = self.storage.key(stored, item);
        let swapped = match next {
            Next::Leave => return Ok(Ok(Deleted::Pending(view(write.resource, old)))),
            Next::Remove if write.options.dry_run => return Ok(Ok(Deleted::Gone(view(write.resource, old)))),
            Next::Remove => {
                let beside = self.addresses.release(self, stored, old.value()).await?;
                match self.storage.delete(&key, old.revision(), &beside, write.deadline).await? {
                    Swapped::At(revision) => {
                        let gone = Arc::new(old.at_revision(revision));
                        return Ok(Ok(Deleted::Gone(view(write.resource, &gone))));
                    }
                    changed => changed,
                }
            }
            Next::Put(value) if write.options.dry_run => {
                let object = Arc::new(Object::new(value, old.revision(), old.size_bytes()));
                return Ok(Ok(Deleted::Pending(view(write.resource, &object))));
            }
            Next::Put(value) => {
                let bytes = storage::encode(&value);
                let size_bytes = bytes.len();
                match self
                    .storage
                    .update(&key, old.revision(), bytes, self.ttl_s(stored), &[], write.deadline)
                    .await?
                {
                    Swapped::At(revision) => {
                        let object = Arc::new(Object::new(value, revision, size_bytes));
                        return Ok(Ok(Deleted::Pending(view(write.resource, &object))));
                    }
                    changed => changed,
                }
            }
        };
        match swapped {
            Swapped::Changed(found) => {
                Ok(Err(found.map(|found| self.adopt(stored, item, found)).transpose()?))
            }
            // Its address changed meanwhile: the same again.
            Swapped::At(_) | Swapped::Hindered => Ok(Err(Some(old.clone()))),
        }
    }
}

fn check_preconditions(
    resource: &Resource,
    name: &str,
    old: &Object,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let uid = meta::of(old.value()).uid();
    if let Some(expected) = options.precondition_uid.as_deref().filter(|expected| *expected != uid) {
        let why = format!("Precondition failed: UID in precondition: {expected}, UID in object meta: {uid}");
        return Err(Status::conflict(group_resource(resource), name, why));
    }
    let revision = old.revision().to_string();
    if let Some(expected) =
        options.precondition_resource_version.as_deref().filter(|expected| *expected != revision)
    {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {expected}, ResourceVersion in object meta: {revision}"
        );
        return Err(Status::conflict(group_resource(resource), name, why));
    }
    Ok(())
}

/// What to do with an object whose preconditions hold.
fn decide(stored: &Resource, old: &Value, options: &DeleteOptions) -> Next {
    let view = meta::of(old);
    if view.deletion_timestamp().is_some() {
        return decide_again(stored, old, options);
    }
    let finalizers = finalizers_after(stored, old, options);
    let grace_s = strategy::grace_period_s(stored, old, options.grace_period_s);
    let mut new = old.clone();
    let held = strategy::begin_deletion(stored, &mut new) || !finalizers.is_empty();
    if !held && grace_s == 0 {
        return Next::Remove;
    }
    meta::of_mut(&mut new).set_finalizers(&finalizers);
    mark_deleted(&mut new, now_s().saturating_add(grace_s), grace_s, stored);
    Next::Put(new)
}

/// A delete of what is being deleted can only shorten the grace period.
fn decide_again(stored: &Resource, old: &Value, options: &DeleteOptions) -> Next {
    let view = meta::of(old);
    let left_s = view.deletion_grace_period_s().unwrap_or(0);
    let held = view.finalizers().next().is_some() || strategy::is_held(stored, old);
    let wanted_s = match (stored.strategy.graceful_delete, options.grace_period_s) {
        (true, Some(grace_s)) => grace_s.max(0),
        (true, None) => left_s,
        (false, _) => 0,
    };
    if wanted_s == 0 && !held {
        return Next::Remove;
    }
    if wanted_s >= left_s {
        return Next::Leave;
    }
    let due_s = view.deletion_timestamp().and_then(time::parse_s).unwrap_or_else(now_s);
    let mut new = old.clone();
    let meta_due = time::format_s(due_s.saturating_sub(left_s).saturating_add(wanted_s));
    meta::of_mut(&mut new).set_deletion(&meta_due, wanted_s);
    Next::Put(new)
}

fn mark_deleted(value: &mut Value, due_s: i64, grace_s: i64, stored: &Resource) {
    let generation = meta::of(value).generation();
    let mut meta = meta::of_mut(value);
    if stored.kind == "Namespace" && stored.group.is_empty() {
        // Namespaces have no grace period; upstream leaves the field out.
        meta.set("deletionTimestamp", Some(json!(time::format_s(due_s))));
        return;
    }
    meta.set_deletion(&time::format_s(due_s), grace_s);
    if generation > 0 {
        meta.set_generation(generation + 1);
    }
}

/// The finalizers that the propagation policy asks for, with those of others kept.
fn finalizers_after(stored: &Resource, old: &Value, options: &DeleteOptions) -> Vec<String> {
    let view = meta::of(old);
    let orphan = match (options.orphan_dependents, options.propagation) {
        (Some(orphan), _) => orphan,
        (None, Some(policy)) => policy == Propagation::Orphan,
        (None, None) => view.has_finalizer(ORPHAN) || orphans_by_default(stored),
    };
    let foreground = match (options.orphan_dependents, options.propagation) {
        (Some(_), _) => false,
        (None, Some(policy)) => policy == Propagation::Foreground,
        (None, None) => view.has_finalizer(FOREGROUND) && !orphan,
    };
    let others = view.finalizers().filter(|name| *name != ORPHAN && *name != FOREGROUND);
    let mut finalizers: Vec<String> = others.map(str::to_owned).collect();
    if orphan {
        finalizers.push(ORPHAN.to_owned());
    }
    if foreground {
        finalizers.push(FOREGROUND.to_owned());
    }
    finalizers
}

/// Kinds whose dependents stay behind for compatibility with clients from before garbage collection.
fn orphans_by_default(stored: &Resource) -> bool {
    matches!((stored.group, stored.plural), ("", "replicationcontrollers") | ("batch", "jobs"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::kinds::find;

    fn outcome(group: &str, plural: &str, object: Value, options: DeleteOptions) -> String {
        let stored = find(group, "v1", plural).unwrap();
        match decide(stored, &object, &options) {
            Next::Remove => "remove".to_owned(),
            Next::Leave => "leave".to_owned(),
            Next::Put(new) => {
                let meta = meta::of(&new);
                let finalizers: Vec<_> = meta.finalizers().collect();
                format!("put grace {:?} finalizers {finalizers:?}", meta.deletion_grace_period_s())
            }
        }
    }

    #[test]
    fn what_a_delete_does_depends_on_grace_finalizers_and_policy() {
        let policy =
            |propagation| DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        let grace = |grace_s| DeleteOptions { grace_period_s: Some(grace_s), ..DeleteOptions::default() };
        let none = DeleteOptions::default;
        let bound = || json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        let terminating = || {
            let mut pod = bound();
            meta::of_mut(&mut pod).set_deletion("2026-01-01T00:00:30Z", 30);
            pod
        };
        for (plural, object, options, expected) in [
            ("configmaps", json!({"metadata": {"name": "a"}}), none(), "remove"),
            ("configmaps", json!({"metadata": {"name": "a"}}), grace(30), "remove"),
            (
                "configmaps",
                json!({"metadata": {"finalizers": ["x/y"]}}),
                none(),
                "put grace Some(0) finalizers [\"x/y\"]",
            ),
            (
                "configmaps",
                json!({"metadata": {}}),
                policy(Propagation::Foreground),
                "put grace Some(0) finalizers [\"foregroundDeletion\"]",
            ),
            (
                "configmaps",
                json!({"metadata": {}}),
                policy(Propagation::Orphan),
                "put grace Some(0) finalizers [\"orphan\"]",
            ),
            (
                "configmaps",
                json!({"metadata": {"finalizers": ["orphan"]}}),
                policy(Propagation::Background),
                "remove",
            ),
            ("pods", json!({"metadata": {}, "spec": {}}), none(), "remove"),
            ("pods", bound(), none(), "put grace Some(30) finalizers []"),
            ("pods", bound(), grace(5), "put grace Some(5) finalizers []"),
            ("pods", bound(), grace(0), "remove"),
            ("pods", terminating(), none(), "leave"),
            ("pods", terminating(), grace(60), "leave"),
            ("pods", terminating(), grace(10), "put grace Some(10) finalizers []"),
            ("pods", terminating(), grace(0), "remove"),
            (
                "namespaces",
                json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}}),
                none(),
                "put grace None finalizers []",
            ),
            ("namespaces", json!({"metadata": {}, "spec": {}}), none(), "remove"),
        ] {
            assert_eq!(
                outcome("", plural, object.clone(), options.clone()),
                expected,
                "{plural} {object} {options:?}"
            );
        }
    }
}
