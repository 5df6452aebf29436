//! The objects that were delivered, and what a new sighting of an object means.
//!
//! Invariant: every event returned leads from one delivered state to the next; the same version of an object is never
//! returned twice. Pure: no clock, no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::meta;

use super::InformerEvent;
use crate::Value;

type Key = (String, String);

#[derive(Debug, Default)]
pub(super) struct State {
    objects: BTreeMap<Key, Arc<Value>>,
    /// While the whole state is read: what has been seen of it.
    seen: Option<BTreeSet<Key>>,
}

impl State {
    pub(super) fn begin_replace(&mut self) {
        self.seen = Some(BTreeSet::new());
    }

    pub(super) fn is_replacing(&self) -> bool {
        self.seen.is_some()
    }

    /// The object exists in this state.
    pub(super) fn apply(&mut self, object: Value) -> Vec<InformerEvent> {
        let key = key_of(&object);
        if let Some(seen) = &mut self.seen {
            seen.insert(key.clone());
        }
        let old = self.objects.get(&key).cloned();
        if let Some(old) = &old
            && !is_newer(&object, old)
        {
            return Vec::new();
        }
        let object = Arc::new(object);
        self.objects.insert(key, object.clone());
        match old {
            // deleted and created again while nobody watched
            Some(old) if meta::of(&old).uid() != meta::of(&object).uid() => {
                vec![InformerEvent::Deleted { object: old }, InformerEvent::Applied { object, old: None }]
            }
            old => vec![InformerEvent::Applied { object, old }],
        }
    }

    /// The object was deleted; `object` is its last state.
    pub(super) fn delete(&mut self, object: Value) -> Option<InformerEvent> {
        let key = key_of(&object);
        if let Some(seen) = &mut self.seen {
            seen.remove(&key);
        }
        self.objects.remove(&key)?;
        Some(InformerEvent::Deleted { object: Arc::new(object) })
    }

    /// The whole state has been seen: what was not in it is gone.
    pub(super) fn end_replace(&mut self) -> Vec<InformerEvent> {
        let Some(seen) = self.seen.take() else { return Vec::new() };
        let gone: Vec<Key> = self.objects.keys().filter(|key| !seen.contains(*key)).cloned().collect();
        let gone = gone.iter().filter_map(|key| self.objects.remove(key));
        gone.map(|object| InformerEvent::Deleted { object }).collect()
    }
}

fn key_of(object: &Value) -> Key {
    let meta = meta::of(object);
    (meta.namespace().to_owned(), meta.name().to_owned())
}

/// Versions of one object grow; those that are no numbers are only compared for equality.
fn is_newer(new: &Value, old: &Value) -> bool {
    let (new, old) = (meta::of(new).resource_version(), meta::of(old).resource_version());
    match (new.parse::<u64>(), old.parse::<u64>()) {
        (Ok(new), Ok(old)) => new > old,
        _ => new != old,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, uid: &str, version: u64) -> Value {
        json!({"metadata": {"name": name, "uid": uid, "resourceVersion": version.to_string()}})
    }

    /// `+a2` applied version 2 of a, `-a` deleted a.
    fn show(events: impl IntoIterator<Item = InformerEvent>) -> String {
        let text = |event: InformerEvent| match event {
            InformerEvent::Applied { object, .. } => {
                format!("+{}{}", meta::of(&object).name(), meta::of(&object).resource_version())
            }
            InformerEvent::Deleted { object } => format!("-{}", meta::of(&object).name()),
            InformerEvent::Synced => "synced".to_owned(),
        };
        events.into_iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_same_version_is_delivered_once() {
        let mut state = State::default();
        assert_eq!(show(state.apply(object("a", "1", 5))), "+a5");
        assert_eq!(show(state.apply(object("a", "1", 5))), "");
        assert_eq!(show(state.apply(object("a", "1", 4))), "");
        assert_eq!(show(state.apply(object("a", "1", 6))), "+a6");
        assert_eq!(show(state.delete(object("a", "1", 7))), "-a");
        assert_eq!(show(state.delete(object("a", "1", 7))), "");
    }

    #[test]
    fn reading_the_state_again_delivers_only_differences() {
        let mut state = State::default();
        for (name, version) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            state.apply(object(name, name, version));
        }
        state.begin_replace();
        assert_eq!(show(state.apply(object("a", "a", 1))), "");
        assert_eq!(show(state.apply(object("b", "b", 9))), "+b9");
        assert_eq!(show(state.apply(object("c", "other", 8))), "-c +c8");
        assert_eq!(show(state.end_replace()), "-d");
        assert_eq!(show(state.end_replace()), "");
    }
}
