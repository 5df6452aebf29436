//! Walks over typed trees: the fields of an object, what differs between two, merging, removing fields.
//!
//! Source: structured-merge-diff `typed`. A value of another type than the schema says counts as a leaf; the request
//! path has refused it before. Null members of maps count as present, null maps and lists as empty.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Map;

use super::path::Step;
use super::set::FieldSet;
use super::shape::{Shape, View};
use crate::Value;

/// No field is in more than one of the three.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) added: FieldSet,
}

impl Comparison {
    pub(super) fn without(&self, ignored: &FieldSet) -> Comparison {
        Comparison {
            removed: self.removed.recursive_difference(ignored),
            modified: self.modified.recursive_difference(ignored),
            added: self.added.recursive_difference(ignored),
        }
    }

    pub(super) fn changed(&self) -> FieldSet {
        self.modified.clone().union(&self.added)
    }
}

/// A value as its shape sees it.
enum Parts<'v> {
    Leaf,
    Map(Option<&'v Map<String, Value>>),
    List(&'v [Value]),
}

fn parts<'v>(shape: Shape<'_>, value: Option<&'v Value>) -> Parts<'v> {
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_), Some(Value::Object(fields))) => Parts::Map(Some(fields)),
        (Shape::Struct(_) | Shape::Map(_), None | Some(Value::Null)) => Parts::Map(None),
        (Shape::Set | Shape::Keyed(..), Some(Value::Array(items))) => Parts::List(items),
        (Shape::Set | Shape::Keyed(..), None | Some(Value::Null)) => Parts::List(&[]),
        _ => Parts::Leaf,
    }
}

/// All fields of a value.
pub(super) fn field_set<'s>(view: View<'s>, shape: Shape<'s>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    collect(view, shape, value, &mut Vec::new(), &mut set);
    set
}

fn collect<'s>(view: View<'s>, shape: Shape<'s>, value: &Value, path: &mut Vec<Step>, set: &mut FieldSet) {
    match parts(shape, Some(value)) {
        Parts::Leaf => set.insert(path),
        Parts::Map(fields) => {
            for (name, value) in fields.into_iter().flatten() {
                let declared = matches!(shape, Shape::Struct(parent) if parent.field(name).is_some());
                path.push(Step::Field(name.clone()));
                collect(view, view.member(shape, name).unwrap_or(Shape::Leaf), value, path, set);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if empty || !declared {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Parts::List(items) => {
            for (step, items) in by_step(view, shape, items) {
                path.push(step);
                // an item that is there twice is owned as one piece
                if let [item] = items.as_slice() {
                    collect(view, view.item(shape), item, path, set);
                }
                set.insert(path);
                path.pop();
            }
        }
    }
}

/// What changes from `old` to `new`.
pub(super) fn compare<'s>(view: View<'s>, shape: Shape<'s>, old: &Value, new: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    differ(view, shape, Some(old), Some(new), &mut Vec::new(), &mut comparison);
    comparison
}

fn differ<'s>(
    view: View<'s>,
    shape: Shape<'s>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<Step>,
    found: &mut Comparison,
) {
    let leaf = match (parts(shape, old), parts(shape, new)) {
        (Parts::Map(a), Parts::Map(b)) if !is_empty(a) || !is_empty(b) => {
            for name in names(a, b) {
                path.push(Step::Field(name.clone()));
                let below = view.member(shape, name).unwrap_or(Shape::Leaf);
                differ(view, below, a.and_then(|a| a.get(name)), b.and_then(|b| b.get(name)), path, found);
                path.pop();
            }
            false
        }
        (Parts::List(a), Parts::List(b)) if !a.is_empty() || !b.is_empty() => {
            differ_items(view, shape, a, b, path, found);
            false
        }
        _ => true,
    };
    match (old, new) {
        (None, _) => found.added.insert(path),
        (Some(_), None) => found.removed.insert(path),
        (Some(old), Some(new)) if leaf && old != new => found.modified.insert(path),
        _ => {}
    }
}

fn differ_items<'s>(
    view: View<'s>,
    shape: Shape<'s>,
    old: &[Value],
    new: &[Value],
    path: &mut Vec<Step>,
    found: &mut Comparison,
) {
    let (old, new) = (by_step(view, shape, old), by_step(view, shape, new));
    let steps: BTreeSet<&Step> = old.keys().chain(new.keys()).collect();
    for step in steps {
        let (old, new) =
            (old.get(step).map_or(&[][..], Vec::as_slice), new.get(step).map_or(&[][..], Vec::as_slice));
        path.push(step.clone());
        match (old, new) {
            ([], [new]) => differ(view, view.item(shape), None, Some(new), path, found),
            ([old], []) => differ(view, view.item(shape), Some(old), None, path, found),
            ([old], [new]) => differ(view, view.item(shape), Some(old), Some(new), path, found),
            ([_, _, ..], [_, _, ..]) if old != new => found.modified.insert(path),
            ([_, _, ..], [_, _, ..]) => {}
            ([_, _, ..], rest) => {
                if let [new] = rest {
                    differ(view, view.item(shape), None, Some(new), path, found);
                }
                found.removed.insert(path);
            }
            (rest, _) => {
                if let [old] = rest {
                    differ(view, view.item(shape), Some(old), None, path, found);
                }
                found.added.insert(path);
            }
        }
        path.pop();
    }
}

fn by_step<'s, 'v>(view: View<'s>, shape: Shape<'s>, items: &'v [Value]) -> BTreeMap<Step, Vec<&'v Value>> {
    let mut index: BTreeMap<Step, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(step) = view.step(shape, item) {
            index.entry(step).or_default().push(item);
        }
    }
    index
}

fn is_empty(fields: Option<&Map<String, Value>>) -> bool {
    fields.is_none_or(Map::is_empty)
}

/// Names of both maps, each once: those of the first in its order, then new ones.
fn names<'v>(a: Option<&'v Map<String, Value>>, b: Option<&'v Map<String, Value>>) -> Vec<&'v String> {
    let mut names: Vec<&String> = a.into_iter().flatten().map(|(name, _)| name).collect();
    let new = b.into_iter().flatten().map(|(name, _)| name);
    names.extend(new.filter(|name| a.is_none_or(|a| !a.contains_key(*name))));
    names
}

/// `live` with everything that `config` says; `None` when nothing is left.
pub(super) fn merge<'s>(
    view: View<'s>,
    shape: Shape<'s>,
    live: Option<&Value>,
    config: Option<&Value>,
) -> Option<Value> {
    match (parts(shape, live), parts(shape, config)) {
        (Parts::Map(a), Parts::Map(b)) if !is_empty(a) || !is_empty(b) => {
            let mut merged = Map::new();
            for name in names(a, b) {
                let below = view.member(shape, name).unwrap_or(Shape::Leaf);
                let (live, config) = (a.and_then(|a| a.get(name)), b.and_then(|b| b.get(name)));
                if let Some(value) = merge(view, below, live, config) {
                    merged.insert(name.clone(), value);
                }
            }
            (!merged.is_empty()).then_some(Value::Object(merged))
        }
        (Parts::List(a), Parts::List(b)) if !a.is_empty() || !b.is_empty() => {
            let merged = merge_items(view, shape, a, b);
            (!merged.is_empty()).then_some(Value::Array(merged))
        }
        _ => config.or(live).cloned(),
    }
}

/// Items of the configuration keep its order; items that only the live list has keep their places between them.
fn merge_items<'s>(view: View<'s>, shape: Shape<'s>, live: &[Value], config: &[Value]) -> Vec<Value> {
    let (live_index, config_index) = (by_step(view, shape, live), by_step(view, shape, config));
    let live: Vec<(Option<Step>, &Value)> =
        live.iter().map(|item| (view.step(shape, item).ok(), item)).collect();
    let config: Vec<Step> = config.iter().filter_map(|item| view.step(shape, item).ok()).collect();
    let in_config = |step: &Step| config_index.contains_key(step);
    let mut shared = config.iter().filter(|step| live_index.contains_key(*step));
    let mut next_shared = shared.next();
    let mut done: BTreeSet<&Step> = BTreeSet::new();
    let mut merged = Vec::new();
    // an item that is there twice is not merged with the new one
    let only = |items: Option<&Vec<&Value>>| match items.map(Vec::as_slice) {
        Some([item]) => Some((*item).clone()),
        _ => None,
    };
    let take = |step: &Step| {
        let (live, config) = (only(live_index.get(step)), only(config_index.get(step)));
        merge(view, view.item(shape), live.as_ref(), config.as_ref())
    };
    let (mut l, mut c) = (0, 0);
    while l < live.len() || c < config.len() {
        if let Some((left, item)) = live.get(l) {
            let Some(left) = left.as_ref().filter(|left| in_config(left)) else {
                merged.push((*item).clone()); // only the live list has it
                l += 1;
                continue;
            };
            if config.get(c) == Some(left) {
                done.insert(left);
                merged.extend(take(left));
                (l, c) = (l + 1, c + 1);
                next_shared = shared.next();
                continue;
            }
            // merged already, or to be merged where the configuration has it
            if done.contains(left) || next_shared.is_some_and(|shared| shared != left) {
                l += 1;
                continue;
            }
        }
        if let Some(right) = config.get(c) {
            done.insert(right);
            merged.extend(take(right));
            c += 1;
            if next_shared == Some(right) {
                next_shared = shared.next();
            }
        } else {
            l += 1; // cannot be reached: what is left of the live list is in the configuration and done
        }
    }
    merged
}

/// The value without the fields of the set; `None` when nothing is left of a map or list that had something.
pub(super) fn remove<'s>(view: View<'s>, shape: Shape<'s>, value: &Value, gone: &FieldSet) -> Option<Value> {
    match parts(shape, Some(value)) {
        Parts::Map(Some(fields)) if !fields.is_empty() => {
            let rest = fields.iter().filter_map(|(name, value)| {
                let step = Step::Field(name.clone());
                if gone.members.contains(&step) {
                    return None;
                }
                let below = view.member(shape, name).unwrap_or(Shape::Leaf);
                let value = match gone.children.get(&step) {
                    Some(gone) => remove(view, below, value, gone)?,
                    None => value.clone(),
                };
                Some((name.clone(), value))
            });
            let rest: Map<String, Value> = rest.collect();
            (!rest.is_empty()).then_some(Value::Object(rest))
        }
        Parts::List(items) if !items.is_empty() => {
            let rest = items.iter().filter_map(|item| {
                let Ok(step) = view.step(shape, item) else { return Some(item.clone()) };
                if gone.members.contains(&step) {
                    return None;
                }
                match gone.children.get(&step) {
                    Some(gone) => remove(view, view.item(shape), item, gone),
                    None => Some(item.clone()),
                }
            });
            let rest: Vec<Value> = rest.collect();
            (!rest.is_empty()).then_some(Value::Array(rest))
        }
        _ => Some(value.clone()),
    }
}

/// What makes a configuration unusable: undeclared fields, items without keys, items that are there twice.
pub(super) fn validate<'s>(
    view: View<'s>,
    shape: Shape<'s>,
    value: &Value,
    path: &str,
    errors: &mut Vec<String>,
) {
    match parts(shape, Some(value)) {
        Parts::Leaf => {
            let expected = match shape {
                Shape::Leaf => return,
                Shape::Struct(_) | Shape::Map(_) => "map",
                Shape::Set | Shape::Keyed(..) => "list",
            };
            errors.push(format!("{path}: expected {expected}, got {value}"));
        }
        Parts::Map(fields) => {
            for (name, value) in fields.into_iter().flatten() {
                let path = format!("{path}.{name}");
                match view.member(shape, name) {
                    Some(below) => validate(view, below, value, &path, errors),
                    None => errors.push(format!("{path}: field not declared in schema")),
                }
            }
        }
        Parts::List(items) => {
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                match view.step(shape, item) {
                    Ok(step) if seen.contains(&step) => {
                        errors.push(format!("{path}: duplicate entries for key {step}"));
                    }
                    Ok(step) => {
                        validate(view, view.item(shape), item, &format!("{path}{step}"), errors);
                        seen.insert(step);
                    }
                    Err(error) => errors.push(format!("{path}: element {index}: {error}")),
                }
            }
        }
    }
}
