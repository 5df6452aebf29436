//! Server-side apply, and the bookkeeping of who owns which field.
//!
//! `apply` merges a configuration into an object, refuses to take fields from others unless forced, and removes what
//! the same manager no longer wants. `record_update` notes who changed what in any other write. Both rewrite
//! `metadata.managedFields` and are pure: the time is a parameter. Texts of conflicts are upstream's.
//! Source: apimachinery `pkg/util/managedfields`, structured-merge-diff `merge/update.go`.
//! Not here: defaults and validation of the result, retries (the registry).

mod managers;
pub(super) mod path;
mod set;
mod shape;
mod walk;

use super::PatchError;
use crate::schema::Schema;
use crate::status::{Cause, Status};
use crate::{Value, meta, time};
use managers::{Manager, Managers, Owned};
use path::Step;
use set::FieldSet;
use shape::{Shape, View};
use walk::{Comparison, compare, field_set, merge, remove, validate};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Never owned: what identifies the object, and what the server sets.
const STRIPPED: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// One write, as far as ownership is concerned.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    pub schema: &'a Schema,
    /// Schema type of the object, such as `apps.v1.Deployment`.
    pub type_name: &'a str,
    /// Version of the request, such as `apps/v1`.
    pub api_version: &'a str,
    pub kind: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub manager: &'a str,
    /// Fields that this write cannot change, by name: `[["status"]]` for the object itself when it has a status
    /// subresource, `[["spec"], ["metadata"]]` for the status.
    pub ignored: &'a [&'a [&'a str]],
    /// Seconds since the Unix epoch.
    pub now_s: i64,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields that the configuration would change.
    #[error("{}", .0.message)]
    Conflict(Box<Status>),
    #[error(transparent)]
    Patch(#[from] PatchError),
}

impl ApplyError {
    pub fn to_status(&self) -> Status {
        match self {
            ApplyError::Conflict(status) => status.as_ref().clone(),
            ApplyError::Patch(error) => error.to_status(),
        }
    }
}

/// The object after applying `config`. `live` is null or empty when the object does not exist. The result is equal to
/// `live` when nothing changes.
pub fn apply(write: Write<'_>, live: &Value, config: &Value, force: bool) -> Result<Value, ApplyError> {
    write.check_config(config)?;
    let empty = Value::Object(serde_json::Map::new());
    let live = if live.is_object() { live } else { &empty };
    let managed = Managers::read(live).ok_or_else(|| {
        PatchError::Unprocessable("failed to decode managed fields of the live object".to_owned())
    })?;
    let mut bare = live.clone();
    meta::of_mut(&mut bare).remove("managedFields");
    let managed = if managed.is_empty() { write.owners_before(&bare) } else { managed };
    let result = match write.merged(&bare, config, managed.clone(), force) {
        Err(Refusal::Conflicts(conflicts)) if write.manager == "kubectl" => {
            let allowed = write.owned_by_last_applied(&bare);
            let rest: Vec<Conflict> = conflicts.into_iter().filter(|(_, path)| !allowed.has(path)).collect();
            if rest.is_empty() {
                write.merged(&bare, config, managed, true)
            } else {
                Err(Refusal::Conflicts(rest))
            }
        }
        result => result,
    };
    let (mut object, managers) = result.map_err(|refusal| match refusal {
        Refusal::Conflicts(conflicts) => ApplyError::Conflict(Box::new(conflict_status(&conflicts))),
    })?;
    if write.manager == "kubectl"
        && meta::of(&object).annotation(LAST_APPLIED).is_some_and(|text| !text.is_empty())
    {
        let mut applied = config.clone();
        meta::of_mut(&mut applied).remove_annotation(LAST_APPLIED);
        meta::of_mut(&mut object).set_annotation(LAST_APPLIED, &applied.to_string());
    }
    managers.write(&mut object);
    Ok(object)
}

/// Notes in `new` who changed what since `live` (null when the object is created). Never fails: an object whose
/// managed fields cannot be read starts over without any.
pub fn record_update(write: Write<'_>, live: &Value, new: &mut Value) {
    let managed = write.managers_for_update(live, new);
    meta::of_mut(new).remove("managedFields");
    if managed.is_empty() && !meta::of(live).uid().is_empty() {
        return; // nobody tracks this object, and only a creation starts to
    }
    let mut old = if live.is_object() { live.clone() } else { Value::Object(serde_json::Map::new()) };
    meta::of_mut(&mut old).remove("managedFields");
    let mut managers = write.updated(&old, new, managed, write.manager);
    managers.cap();
    managers.write(new);
}

type Conflict = (Manager, Vec<Step>);

enum Refusal {
    Conflicts(Vec<Conflict>),
}

impl<'a> Write<'a> {
    fn view(&self) -> View<'a> {
        View { schema: self.schema }
    }

    fn shape(&self) -> Shape<'a> {
        self.view().root(self.type_name)
    }

    fn check_config(&self, config: &Value) -> Result<(), PatchError> {
        let bad = |message: String| Err(PatchError::BadRequest(message));
        let sent = meta::of(config);
        if sent.kind() != self.kind {
            return bad(format!("invalid object type: {}, Kind={}", sent.api_version(), sent.kind()));
        }
        if sent.api_version() != self.api_version {
            return bad(format!(
                "Incorrect version specified in apply patch. Specified patch version: {}, expected: {}",
                sent.api_version(),
                self.api_version
            ));
        }
        if sent.field("managedFields").is_some_and(|fields| !fields.is_null()) {
            return bad("metadata.managedFields must be nil".to_owned());
        }
        let mut errors = Vec::new();
        validate(self.view(), self.shape(), config, "", &mut errors);
        if errors.is_empty() {
            return Ok(());
        }
        let what = format!("{}/{}; {}, Kind={}", sent.namespace(), sent.name(), self.api_version, self.kind);
        let errors = if let [only] = errors.as_slice() {
            only.clone()
        } else {
            format!("errors:\n  {}", errors.join("\n  "))
        };
        bad(format!("failed to create typed patch object ({what}): {errors}"))
    }

    /// An object that nobody tracked belongs to whoever wrote it before.
    fn owners_before(&self, live: &Value) -> Managers {
        let empty = Value::Object(serde_json::Map::new());
        self.updated(&empty, live, Managers::default(), BEFORE_FIRST_APPLY)
    }

    fn managers_for_update(&self, live: &Value, new: &Value) -> Managers {
        let of_live = || Managers::read(live).unwrap_or_default();
        if !self.subresource.is_empty() {
            return of_live();
        }
        // an empty list, or a list of one empty entry, resets
        let sent = meta::of(new).field("managedFields").and_then(Value::as_array);
        if let Some(entries) = sent
            && (entries.is_empty()
                || (entries.len() == 1 && entries[0].as_object().is_some_and(|entry| entry.is_empty())))
        {
            return Managers::default();
        }
        match Managers::read(new) {
            Some(managers) if !managers.is_empty() => managers,
            _ => of_live(),
        }
    }

    fn ignored_set(&self) -> FieldSet {
        FieldSet::of_fields(self.ignored)
    }

    fn compare(&self, old: &Value, new: &Value) -> Comparison {
        compare(self.view(), self.shape(), old, new)
    }

    /// Managers after an update by `name`: it owns what it changed, the others lose that and what is gone.
    fn updated(&self, old: &Value, new: &Value, mut managers: Managers, name: &str) -> Managers {
        let comparison = self.compare(old, new);
        self.take_from_others(&comparison.without(&self.ignored_set()), &mut managers, None);
        let own = comparison.changed().recursive_difference(&self.ignored_set());
        let own = own.difference(&FieldSet::of_fields(STRIPPED));
        if !own.is_empty() {
            let manager = Manager::new(name, false, self.api_version, self.subresource);
            let before = managers.entries.remove(&manager).map(|owned| owned.set).unwrap_or_default();
            let owned = Owned {
                set: own.union(&before),
                api_version: self.api_version.to_owned(),
                time: Some(time::format_s(self.now_s)),
            };
            managers.entries.insert(manager, owned);
        }
        managers
    }

    fn take_from_others(&self, comparison: &Comparison, managers: &mut Managers, except: Option<&Manager>) {
        let changed = comparison.changed();
        for (manager, owned) in &mut managers.entries {
            if Some(manager) != except {
                let lost = owned.set.intersection(&changed);
                owned.set = owned.set.difference(&lost).difference(&comparison.removed);
            }
        }
        managers.drop_empty();
    }

    /// `live` and `config` have no managed fields.
    fn merged(
        &self,
        live: &Value,
        config: &Value,
        mut managers: Managers,
        force: bool,
    ) -> Result<(Value, Managers), Refusal> {
        let (view, shape) = (self.view(), self.shape());
        let merged = merge(view, shape, Some(live), Some(config)).unwrap_or_else(|| live.clone());
        let own = field_set(view, shape, config).recursive_difference(&self.ignored_set());
        let manager = Manager::new(self.manager, true, self.api_version, self.subresource);
        let last = managers.entries.remove(&manager);
        let last_time = last.as_ref().and_then(|last| last.time.clone());
        let owned = Owned { set: own, api_version: self.api_version.to_owned(), time: last_time };
        managers.entries.insert(manager.clone(), owned);
        let mut object = match last.filter(|last| !last.set.is_empty()) {
            Some(last) => self.pruned(&merged, &managers, &last.set),
            None => merged,
        };
        if has_null(config) {
            drop_nulls(&mut object);
        }

        let comparison = self.compare(live, &object).without(&self.ignored_set());
        let changed = comparison.changed();
        let mut conflicts: Vec<Conflict> = Vec::new();
        for (other, owned) in managers.entries.iter().filter(|(other, _)| **other != manager) {
            let lost = owned.set.intersection(&changed);
            conflicts.extend(lost.paths().into_iter().map(|path| (other.clone(), path)));
        }
        if !force && !conflicts.is_empty() {
            return Err(Refusal::Conflicts(conflicts));
        }
        self.take_from_others(&comparison, &mut managers, Some(&manager));
        if let Some(owned) = managers.entries.get_mut(&manager) {
            owned.set = owned.set.difference(&FieldSet::of_fields(STRIPPED));
            if object != *live {
                owned.time = Some(time::format_s(self.now_s));
            }
        }
        managers.drop_empty();
        Ok((object, managers))
    }

    /// Removes what this manager applied last time, did not apply now, and nobody else owns.
    fn pruned(&self, merged: &Value, managers: &Managers, last: &FieldSet) -> Value {
        let (view, shape) = (self.view(), self.shape());
        let named = |set: &FieldSet| view.with_named_fields(set, shape);
        let fields = |value: &Value| named(&field_set(view, shape, value));
        let without = |set: &FieldSet| {
            remove(view, shape, merged, set).unwrap_or_else(|| Value::Object(serde_json::Map::new()))
        };
        let last = named(last);
        let all = fields(merged);
        let pruned = without(&last);
        // what anybody owns, or this manager has applied again, comes back
        let owned = managers.entries.values().fold(FieldSet::default(), |all, owned| all.union(&owned.set));
        let pruned = without(&all.difference(&fields(&pruned).union(&named(&owned))));
        // and so does what hangs below, unless it was this manager's
        without(&all.difference(&fields(&pruned)).intersection(&last))
    }

    /// Fields that client-side apply set last and that nobody changed since: kubectl may take them over.
    fn owned_by_last_applied(&self, live: &Value) -> FieldSet {
        let text = meta::of(live).annotation(LAST_APPLIED).unwrap_or_default();
        let Ok(applied) = serde_json::from_str::<Value>(text) else { return FieldSet::default() };
        if meta::of(&applied).api_version() != self.api_version {
            return FieldSet::default();
        }
        let comparison = self.compare(&applied, live);
        let fields = field_set(self.view(), self.shape(), &applied);
        fields.difference(&comparison.modified).difference(&comparison.added).difference(&comparison.removed)
    }
}

/// A null in a configuration means "not set"; it is owned but not stored.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().any(has_null),
        Value::Array(items) => items.iter().any(has_null),
        _ => false,
    }
}

fn text_of(path: &[Step]) -> String {
    path.iter().map(ToString::to_string).collect()
}

fn conflict_status(conflicts: &[Conflict]) -> Status {
    let causes = conflicts.iter().map(|(manager, path)| Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", manager.describe()),
        field: text_of(path),
    });
    let message = if let [(manager, path)] = conflicts {
        format!("Apply failed with 1 conflict: conflict with {}: {}", manager.describe(), text_of(path))
    } else {
        let mut lines = Vec::new();
        let mut before = None;
        for (manager, path) in conflicts {
            if before != Some(manager) {
                lines.push(format!("conflicts with {}:", manager.describe()));
                before = Some(manager);
            }
            lines.push(format!("- {}", text_of(path)));
        }
        format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
    };
    Status::apply_conflict(message, causes.collect())
}

#[cfg(test)]
mod tests;
