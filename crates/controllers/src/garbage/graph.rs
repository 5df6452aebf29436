//! Who owns whom, as seen through the watches.
//!
//! Invariants: pure. An object becomes a suspect when it changes or when one of its owners is not among the objects
//! seen, or goes; a suspect is only a place to look. Memory: one small item per object that is or has an owner, or is
//! being deleted by one of the collector's finalizers, plus the uid of every object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::Value;
use apimachinery::kinds::Resource;
use apimachinery::meta::{self, OwnerReference};

pub(super) type Uid = Arc<str>;

/// What must be known of an object.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) resource: &'static Resource,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) owners: Vec<Owner>,
    pub(super) deleting: bool,
    /// Waits for its dependents to be deleted.
    pub(super) foreground: bool,
    /// Waits for its dependents to be released.
    pub(super) orphans: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) blocks_deletion: bool,
}

impl Item {
    pub(super) fn of(resource: &'static Resource, object: &Value) -> Item {
        let meta = meta::of(object);
        let owner = |reference: OwnerReference<'_>| Owner {
            api_version: reference.api_version.to_owned(),
            kind: reference.kind.to_owned(),
            name: reference.name.to_owned(),
            uid: reference.uid.into(),
            blocks_deletion: reference.block_owner_deletion,
        };
        Item {
            resource,
            namespace: meta.namespace().to_owned(),
            name: meta.name().to_owned(),
            uid: meta.uid().into(),
            owners: meta.owner_references().map(owner).collect(),
            deleting: meta.deletion_timestamp().is_some(),
            foreground: meta.has_finalizer("foregroundDeletion"),
            orphans: meta.has_finalizer("orphan"),
        }
    }

    /// True if the owner's foreground deletion waits for this object.
    pub(super) fn blocks(&self, owner: &Uid) -> bool {
        self.owners.iter().any(|reference| reference.uid == *owner && reference.blocks_deletion)
    }
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    items: BTreeMap<Uid, Item>,
    dependents: BTreeMap<Uid, BTreeSet<Uid>>,
    suspects: BTreeSet<Uid>,
}

impl Graph {
    pub(super) fn update(&mut self, item: Item) {
        let uid = item.uid.clone();
        self.unlink(&uid);
        for owner in &item.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let ownerless = item.owners.iter().any(|owner| !self.items.contains_key(&owner.uid));
        let finishing = item.deleting && (item.foreground || item.orphans);
        self.items.insert(uid.clone(), item);
        if ownerless || finishing {
            self.suspects.insert(uid);
        }
    }

    /// The object is gone: its dependents are suspects, and so is an owner that waited for it.
    pub(super) fn remove(&mut self, item: &Item) {
        let Some(known) = self.unlink(&item.uid) else { return };
        self.suspects.remove(&item.uid);
        self.suspects.extend(self.dependents.get(&item.uid).into_iter().flatten().cloned());
        for owner in &known.owners {
            if self.items.get(&owner.uid).is_some_and(|owner| owner.deleting) {
                self.suspects.insert(owner.uid.clone());
            }
        }
    }

    fn unlink(&mut self, uid: &Uid) -> Option<Item> {
        let item = self.items.remove(uid)?;
        for owner in &item.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        Some(item)
    }

    pub(super) fn suspect(&mut self, uid: &Uid) {
        self.suspects.insert(uid.clone());
    }

    pub(super) fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    pub(super) fn take_suspects(&mut self) -> Vec<Item> {
        let suspects = std::mem::take(&mut self.suspects);
        suspects.iter().filter_map(|uid| self.items.get(uid).cloned()).collect()
    }

    pub(super) fn dependents(&self, uid: &Uid) -> Vec<Item> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.items.get(uid).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::kinds::find;
    use serde_json::json;

    use super::*;

    fn item(uid: &str, owner: Option<&str>, deleting_with: Option<&str>) -> Item {
        let mut metadata = json!({"name": uid, "namespace": "default", "uid": uid});
        if let Some(owner) = owner {
            metadata["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod", "name": owner, "uid": owner,
                                                  "blockOwnerDeletion": true}]);
        }
        if let Some(finalizer) = deleting_with {
            metadata["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
            metadata["finalizers"] = json!([finalizer]);
        }
        Item::of(find("", "v1", "pods").unwrap(), &json!({"metadata": metadata}))
    }

    fn suspects(graph: &mut Graph) -> Vec<String> {
        graph.take_suspects().iter().map(|item| item.uid.to_string()).collect()
    }

    #[test]
    fn an_object_is_suspect_while_its_owner_is_not_known() {
        let mut graph = Graph::default();
        graph.update(item("child", Some("owner"), None));
        assert_eq!(suspects(&mut graph), ["child"]);
        graph.update(item("owner", None, None));
        graph.update(item("child", Some("owner"), None));
        assert!(suspects(&mut graph).is_empty());
    }

    #[test]
    fn dependents_are_suspects_once_their_owner_is_gone() {
        let mut graph = Graph::default();
        graph.update(item("owner", None, None));
        graph.update(item("child", Some("owner"), None));
        graph.remove(&item("owner", None, None));
        assert_eq!(suspects(&mut graph), ["child"]);
    }

    #[test]
    fn an_owner_that_waits_is_looked_at_when_a_dependent_goes() {
        let mut graph = Graph::default();
        graph.update(item("owner", None, None));
        graph.update(item("child", Some("owner"), None));
        graph.update(item("owner", None, Some("foregroundDeletion")));
        assert_eq!(suspects(&mut graph), ["owner"]);
        assert!(graph.dependents(&"owner".into()).iter().any(|child| child.blocks(&"owner".into())));
        graph.remove(&item("child", None, None));
        assert_eq!(suspects(&mut graph), ["owner"]);
        assert!(graph.dependents(&"owner".into()).is_empty());
    }
}
