//! Strategic merge patch: maps merge, lists merge by a key that the schema names, directives say the rest.
//!
//! Directives: `$patch: replace|delete|merge`, `$retainKeys`, `$deleteFromPrimitiveList/x`, `$setElementOrder/x`.
//! Lists end in the order `$setElementOrder` > patch > live. Expects a defaulted live object: merge keys must be there.
//! Source: apimachinery `pkg/util/strategicpatch`. Not here: computing a patch (clients do that).

mod order;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Map;

use super::PatchError;
use super::apply::path::Scalar;
use crate::Value;
use crate::schema::{Field, Kind, Schema, Type};
use order::{Items, arrange};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";

/// Applies `patch` to an object of the given type. Fields that the schema does not know are replaced, not merged.
pub fn strategic(
    schema: &Schema,
    type_name: &str,
    object: &mut Value,
    patch: Value,
) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::BadRequest("invalid JSON document".to_owned()));
    };
    let mut result = match object {
        Value::Object(fields) => fields.clone(),
        _ => Map::new(),
    };
    let shape = schema.type_(type_name).map_or(Shape::Unknown, Shape::Struct);
    Merge { schema }.map(&mut result, patch, shape)?;
    *object = Value::Object(result);
    Ok(())
}

/// What the schema says about a value whose members are looked up.
#[derive(Clone, Copy)]
enum Shape<'s> {
    Struct(&'s Type),
    Map(&'s Kind),
    Unknown,
}

/// What the schema says about one member.
struct Facts<'s> {
    /// Of the member, or of its items if it is a list.
    shape: Shape<'s>,
    merges: bool,
    merge_key: Option<&'s str>,
}

struct Merge<'s> {
    schema: &'s Schema,
}

impl<'s> Merge<'s> {
    fn facts(&self, shape: Shape<'s>, member: &str) -> Facts<'s> {
        let unknown = Facts { shape: Shape::Unknown, merges: false, merge_key: None };
        match shape {
            Shape::Struct(parent) => parent.field(member).map_or(unknown, |field| self.field_facts(field)),
            Shape::Map(kind) => Facts { shape: self.shape(kind), ..unknown },
            Shape::Unknown => unknown,
        }
    }

    fn field_facts(&self, field: &'s Field) -> Facts<'s> {
        let kind = match &field.kind {
            Kind::Array(items) => items,
            kind => kind,
        };
        Facts { shape: self.shape(kind), merges: field.patch_merge, merge_key: field.merge_key }
    }

    fn shape(&self, kind: &'s Kind) -> Shape<'s> {
        match kind {
            Kind::Ref(name) => self.schema.type_(name).map_or(Shape::Unknown, Shape::Struct),
            Kind::Map(values) => Shape::Map(values),
            _ => Shape::Unknown,
        }
    }

    fn map(
        &self,
        live: &mut Map<String, Value>,
        mut patch: Map<String, Value>,
        shape: Shape<'s>,
    ) -> Result<(), PatchError> {
        if let Some(directive) = patch.shift_remove(DIRECTIVE) {
            *live = replaced_map(&directive, patch)?;
            return Ok(());
        }
        retain_keys(live, &mut patch)?;
        self.ordered_lists(live, &mut patch, shape)?;
        for (key, value) in patch {
            if let Some(list) = key.strip_prefix(DELETE_PREFIX) {
                delete_scalars(live, list, &value)?;
                continue;
            }
            if value.is_null() {
                live.shift_remove(&key);
                continue;
            }
            let merged = match (live.get_mut(&key), value) {
                (Some(Value::Object(old)), Value::Object(new)) => {
                    self.map(old, new, self.facts(shape, &key).shape)?;
                    continue;
                }
                (Some(Value::Array(old)), Value::Array(new)) => {
                    let facts = self.facts(shape, &key);
                    if facts.merges {
                        *old = self.list(std::mem::take(old), new, &facts)?;
                        continue;
                    }
                    without_directives(Value::Array(new))
                }
                (_, value) => without_directives(value),
            };
            match merged {
                Some(value) => live.insert(key, value),
                None => live.shift_remove(&key),
            };
        }
        Ok(())
    }

    /// Merges every list that comes with a `$setElementOrder`, and takes both out of the patch.
    fn ordered_lists(
        &self,
        live: &mut Map<String, Value>,
        patch: &mut Map<String, Value>,
        shape: Shape<'s>,
    ) -> Result<(), PatchError> {
        let directives: Vec<String> =
            patch.keys().filter(|key| key.starts_with(ORDER_PREFIX)).cloned().collect();
        for directive in directives {
            let Some(Value::Array(order)) = patch.shift_remove(&directive) else {
                return Err(bad("invalid patch format of setElementOrder list"));
            };
            let Some(key) = directive.strip_prefix(ORDER_PREFIX) else { continue };
            let facts = self.facts(shape, key);
            let items = Items::new(facts.merge_key);
            let changes = match patch.get(key) {
                None => None,
                Some(Value::Array(_)) => patch.shift_remove(key),
                Some(_) => return Err(bad("invalid patch format of setElementOrder list")),
            };
            let changes = changes.and_then(|changes| match changes {
                Value::Array(changes) => Some(changes),
                _ => None,
            });
            items.check_order(changes.as_deref().unwrap_or_default(), &order)?;
            let old = match live.get(key) {
                None | Some(Value::Null) => None,
                Some(Value::Array(old)) => Some(old.clone()),
                Some(_) => return Err(bad(&format!("{key} is not a list"))),
            };
            let merged = match (old.clone(), changes) {
                (None, None) => continue,
                (Some(old), None) => old,
                (None, Some(new)) => match without_directives(Value::Array(new)) {
                    Some(Value::Array(new)) => new,
                    _ => Vec::new(),
                },
                (Some(old), Some(new)) if facts.merges => self.list(old, new, &facts)?,
                (Some(_), Some(new)) => new,
            };
            let arranged = arrange(&items, merged, &order, &old.unwrap_or_default())?;
            live.insert(key.to_owned(), Value::Array(arranged));
        }
        Ok(())
    }

    fn list(&self, live: Vec<Value>, patch: Vec<Value>, facts: &Facts<'s>) -> Result<Vec<Value>, PatchError> {
        let Some(first) = live.first().or(patch.first()) else { return Ok(live) };
        if first.is_array() {
            return Err(PatchError::Unprocessable("lists of lists are not supported".to_owned()));
        }
        let maps = first.is_object();
        if live.iter().chain(&patch).any(|item| item.is_object() != maps) {
            return Err(bad("list element types are not identical"));
        }
        if !maps {
            let mut known: BTreeSet<Scalar> = live.iter().cloned().map(Scalar).collect();
            let mut merged = live.clone();
            merged.extend(patch.iter().filter(|item| known.insert(Scalar((*item).clone()))).cloned());
            return arrange(&Items::new(None), merged, &patch, &live);
        }
        let Some(merge_key) = facts.merge_key else {
            return Err(bad("cannot merge lists without merge key"));
        };
        let items = Items::new(Some(merge_key));
        let (mut merged, patch) = special_items(live, patch, merge_key)?;
        let before = merged.clone();
        let mut known = BTreeMap::new();
        for (index, item) in merged.iter().enumerate() {
            if let Some(key) = item.get(merge_key) {
                known.entry(Scalar(key.clone())).or_insert(index);
            }
        }
        let mut order = Vec::with_capacity(patch.len());
        for item in patch {
            let Value::Object(item) = item else { continue };
            let key = item.get(merge_key).cloned().ok_or_else(|| no_merge_key(&item, merge_key))?;
            order.push(Value::Object(Map::from_iter([(merge_key.to_owned(), key.clone())])));
            match known.get(&Scalar(key.clone())).and_then(|index| merged.get_mut(*index)) {
                Some(Value::Object(old)) => self.map(old, item, facts.shape)?,
                _ => {
                    if let Some(item) = without_directives(Value::Object(item)) {
                        known.insert(Scalar(key), merged.len());
                        merged.push(item);
                    }
                }
            }
        }
        arrange(&items, merged, &order, &before)
    }
}

/// `$patch` in a map: `replace` keeps only the patch, `delete` leaves nothing.
fn replaced_map(directive: &Value, patch: Map<String, Value>) -> Result<Map<String, Value>, PatchError> {
    match directive.as_str() {
        Some("replace") => Ok(patch),
        Some("delete") => Ok(Map::new()),
        _ => Err(unknown_directive(directive, &patch)),
    }
}

/// Carries out the items of a patch list that are directives: the live list after that, and the other items.
fn special_items(
    live: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let (mut live, mut rest, mut replace, mut deleted) = (live, Vec::new(), false, BTreeSet::new());
    for item in patch {
        let Value::Object(fields) = &item else { continue };
        let Some(directive) = fields.get(DIRECTIVE) else {
            rest.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let key = fields.get(merge_key).ok_or_else(|| no_merge_key(fields, merge_key))?;
                deleted.insert(Scalar(key.clone()));
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(bad("merging lists cannot yet be specified in the patch")),
            _ => return Err(unknown_directive(directive, fields)),
        }
    }
    if replace {
        return Ok((rest, Vec::new()));
    }
    if !deleted.is_empty() {
        live.retain(|old| old.get(merge_key).is_none_or(|key| !deleted.contains(&Scalar(key.clone()))));
    }
    Ok((live, rest))
}

/// Drops every live field that `$retainKeys` does not name; the patch may set only named ones.
fn retain_keys(live: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(keys) = patch.shift_remove(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || bad("invalid patch format of retainKeys");
    let Value::Array(keys) = keys else { return Err(malformed()) };
    let keys: BTreeSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let named = |key: &str| keys.contains(key);
    let is_directive = |key: &str| key.starts_with(DELETE_PREFIX) || key.starts_with(ORDER_PREFIX);
    if patch.iter().any(|(key, value)| !value.is_null() && !is_directive(key) && !named(key)) {
        return Err(malformed());
    }
    live.retain(|key, _| named(key));
    Ok(())
}

fn delete_scalars(live: &mut Map<String, Value>, list: &str, gone: &Value) -> Result<(), PatchError> {
    if gone.is_null() {
        live.shift_remove(list);
        return Ok(());
    }
    let Value::Array(gone) = gone else { return Err(bad("invalid patch format of primitive list")) };
    if let Some(Value::Array(items)) = live.get_mut(list) {
        let gone: BTreeSet<Scalar> = gone.iter().cloned().map(Scalar).collect();
        items.retain(|item| !gone.contains(&Scalar(item.clone())));
    }
    Ok(())
}

/// A new value without nulls and directives; `None` if the value itself is one to delete.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) => {
            if fields.get(DIRECTIVE).is_some_and(|directive| directive != "replace") {
                return None;
            }
            let fields = fields.into_iter().filter(|(key, value)| {
                let is_directive = key == DIRECTIVE
                    || key == RETAIN_KEYS
                    || key.starts_with(DELETE_PREFIX)
                    || key.starts_with(ORDER_PREFIX);
                !value.is_null() && !is_directive
            });
            let fields = fields.filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(fields.collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        scalar => Some(scalar),
    }
}

fn bad(message: &str) -> PatchError {
    PatchError::BadRequest(message.to_owned())
}

fn no_merge_key(item: &Map<String, Value>, merge_key: &str) -> PatchError {
    let item = Value::Object(item.clone());
    PatchError::BadRequest(format!("map: {item} does not contain declared merge key: {merge_key}"))
}

fn unknown_directive(directive: &Value, patch: &Map<String, Value>) -> PatchError {
    let patch = Value::Object(patch.clone());
    PatchError::BadRequest(format!("unknown patch type: {directive} in map: {patch}"))
}
