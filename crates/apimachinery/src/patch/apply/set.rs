//! Sets of fields: what a manager owns.
//!
//! A set is a tree; a node can be a member itself, have members below it, or both. Invariant: no child is empty.
//! The JSON form is `FieldsV1`. Source: structured-merge-diff `fieldpath/set.go`, `serialize.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, json};

use super::path::Step;
use crate::Value;

/// Deepest tree that is read; objects are never nearly that deep.
const DEPTH_MAX: usize = 128;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    pub(super) members: BTreeSet<Step>,
    pub(super) children: BTreeMap<Step, FieldSet>,
}

impl FieldSet {
    /// The set of whole fields by name, such as `[["metadata", "name"]]`.
    pub(super) fn of_fields(paths: &[&[&str]]) -> FieldSet {
        let mut set = FieldSet::default();
        for path in paths {
            let steps: Vec<Step> = path.iter().map(|name| Step::Field((*name).to_owned())).collect();
            set.insert(&steps);
        }
        set
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// The empty path is no field.
    pub(super) fn insert(&mut self, path: &[Step]) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut set = self;
        for step in parents {
            set = set.children.entry(step.clone()).or_default();
        }
        set.members.insert(last.clone());
    }

    pub(super) fn has(&self, path: &[Step]) -> bool {
        let Some((last, parents)) = path.split_last() else { return false };
        let mut set = self;
        for step in parents {
            let Some(child) = set.children.get(step) else { return false };
            set = child;
        }
        set.members.contains(last)
    }

    pub(super) fn union(mut self, other: &FieldSet) -> FieldSet {
        self.members.extend(other.members.iter().cloned());
        for (step, child) in &other.children {
            let merged = self.children.remove(step).unwrap_or_default().union(child);
            self.children.insert(step.clone(), merged);
        }
        self
    }

    pub(super) fn intersection(&self, other: &FieldSet) -> FieldSet {
        let children = self.children.iter().filter_map(|(step, child)| {
            let common = child.intersection(other.children.get(step)?);
            (!common.is_empty()).then(|| (step.clone(), common))
        });
        FieldSet {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: children.collect(),
        }
    }

    /// Without the fields of `other`; what lies below them stays.
    pub(super) fn difference(&self, other: &FieldSet) -> FieldSet {
        self.without(other, false)
    }

    /// Without the fields of `other` and everything below them.
    pub(super) fn recursive_difference(&self, other: &FieldSet) -> FieldSet {
        self.without(other, true)
    }

    fn without(&self, other: &FieldSet, recursive: bool) -> FieldSet {
        let children = self.children.iter().filter_map(|(step, child)| {
            if recursive && other.members.contains(step) {
                return None;
            }
            let rest = match other.children.get(step) {
                Some(other) => child.without(other, recursive),
                None => child.clone(),
            };
            (!rest.is_empty()).then(|| (step.clone(), rest))
        });
        FieldSet {
            members: self.members.difference(&other.members).cloned().collect(),
            children: children.collect(),
        }
    }

    /// Every path, members of a node before what lies deeper.
    pub(super) fn paths(&self) -> Vec<Vec<Step>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
        for step in &self.members {
            let mut path = prefix.clone();
            path.push(step.clone());
            paths.push(path);
        }
        for (step, child) in &self.children {
            prefix.push(step.clone());
            child.collect(prefix, paths);
            prefix.pop();
        }
    }

    pub(super) fn to_value(&self) -> Value {
        let mut steps: BTreeSet<&Step> = self.members.iter().collect();
        steps.extend(self.children.keys());
        let mut object = Map::new();
        for step in steps {
            let value = match self.children.get(step).map(FieldSet::to_value) {
                Some(Value::Object(below)) if self.members.contains(step) => {
                    let itself = (".".to_owned(), json!({}));
                    Value::Object(std::iter::once(itself).chain(below).collect())
                }
                Some(below) => below,
                None => json!({}),
            };
            object.insert(step.encode(), value);
        }
        Value::Object(object)
    }

    /// Steps that cannot be read are left out, as upstream leaves out kinds of steps that it does not know.
    pub(super) fn from_value(value: &Value) -> FieldSet {
        FieldSet::read(value, 0).0
    }

    /// The set below a node, and whether the node itself is a member.
    fn read(value: &Value, depth: usize) -> (FieldSet, bool) {
        let (mut set, mut member) = (FieldSet::default(), false);
        let fields = value.as_object().filter(|_| depth < DEPTH_MAX);
        for (key, value) in fields.into_iter().flatten() {
            if key == "." {
                member = true;
                continue;
            }
            let Some(step) = Step::decode(key) else { continue };
            let (below, is_member) = FieldSet::read(value, depth + 1);
            if is_member {
                set.members.insert(step.clone());
            }
            if !below.is_empty() {
                set.children.insert(step, below);
            }
        }
        let member = member || set.is_empty();
        (set, member)
    }
}
