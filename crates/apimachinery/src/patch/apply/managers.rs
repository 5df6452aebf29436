//! `metadata.managedFields`: who owns what, read and written.
//!
//! Entries are kept in upstream's order. At most ten managers that updated are kept apart; older ones are merged.
//! Source: apimachinery `pkg/util/managedfields/internal`.

use std::collections::BTreeMap;

use serde_json::{Map, json};

use super::set::FieldSet;
use crate::status::quote;
use crate::{Value, meta, time};

const UPDATE_MANAGERS_MAX: usize = 10;
const OLD_MANAGER: &str = "ancient-changes";

/// Who: a name, how it wrote, in which version (updates only), through which subresource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) applies: bool,
    /// Empty when it applies: a manager can apply in any version.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Owned {
    pub(super) set: FieldSet,
    pub(super) api_version: String,
    /// RFC 3339, seconds.
    pub(super) time: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Managers {
    pub(super) entries: BTreeMap<Manager, Owned>,
}

impl Manager {
    pub(super) fn new(name: &str, applies: bool, api_version: &str, subresource: &str) -> Manager {
        let name = if name.is_empty() { "unknown" } else { name };
        let api_version = if applies { "" } else { api_version };
        Manager {
            name: name.to_owned(),
            applies,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    /// As conflicts name it: `"kubectl" using apps/v1`.
    pub(super) fn describe(&self) -> String {
        let mut text = quote(&self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", quote(&self.subresource)));
        }
        if !self.applies {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

impl Managers {
    /// `None` if an entry is malformed.
    pub(super) fn read(object: &Value) -> Option<Managers> {
        let mut managers = Managers::default();
        for entry in meta::of(object).managed_fields() {
            let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
            let applies = match text("operation") {
                "Apply" => true,
                "Update" => false,
                _ => return None,
            };
            if text("apiVersion").is_empty() || text("fieldsType") != "FieldsV1" {
                return None;
            }
            let manager = Manager::new(text("manager"), applies, text("apiVersion"), text("subresource"));
            let set = entry.get("fieldsV1").map(FieldSet::from_value).unwrap_or_default();
            let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
            managers.entries.insert(manager, Owned { set, api_version: text("apiVersion").to_owned(), time });
        }
        Some(managers)
    }

    pub(super) fn write(&self, object: &mut Value) {
        let seconds = |owned: &Owned| owned.time.as_deref().and_then(time::parse_s).unwrap_or(0);
        let mut sorted: Vec<(&Manager, &Owned)> = self.entries.iter().collect();
        sorted.sort_by(|(a, a_owned), (b, b_owned)| {
            (!a.applies, seconds(a_owned), &a.name, &a_owned.api_version, &a.subresource).cmp(&(
                !b.applies,
                seconds(b_owned),
                &b.name,
                &b_owned.api_version,
                &b.subresource,
            ))
        });
        let entries = sorted.into_iter().map(|(manager, owned)| {
            let mut entry = Map::new();
            entry.insert("manager".to_owned(), json!(manager.name));
            entry.insert("operation".to_owned(), json!(if manager.applies { "Apply" } else { "Update" }));
            entry.insert("apiVersion".to_owned(), json!(owned.api_version));
            if let Some(time) = &owned.time {
                entry.insert("time".to_owned(), json!(time));
            }
            entry.insert("fieldsType".to_owned(), json!("FieldsV1"));
            entry.insert("fieldsV1".to_owned(), owned.set.to_value());
            if !manager.subresource.is_empty() {
                entry.insert("subresource".to_owned(), json!(manager.subresource));
            }
            Value::Object(entry)
        });
        meta::of_mut(object).set_managed_fields(entries.collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn drop_empty(&mut self) {
        self.entries.retain(|_, owned| !owned.set.is_empty());
    }

    /// Merges the oldest managers that updated, so that the list does not grow for ever.
    pub(super) fn cap(&mut self) {
        let updaters = self.entries.iter().filter(|(manager, _)| !manager.applies);
        let mut updaters: Vec<(i64, Manager)> = updaters
            .map(|(manager, owned)| {
                (owned.time.as_deref().and_then(time::parse_s).unwrap_or(0), manager.clone())
            })
            .collect();
        updaters.sort();
        let mut count = updaters.len();
        let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
        for (_, manager) in updaters {
            if count <= UPDATE_MANAGERS_MAX {
                return;
            }
            let version = manager.api_version.clone();
            let Some(first) = first_of.get(&version).cloned() else {
                first_of.insert(version, manager);
                continue;
            };
            let bucket = Manager::new(OLD_MANAGER, false, &version, "");
            if !self.entries.contains_key(&bucket)
                && let Some(owned) = self.entries.remove(&first)
            {
                self.entries.insert(bucket.clone(), owned);
            }
            if let Some(owned) = self.entries.remove(&manager)
                && let Some(old) = self.entries.get_mut(&bucket)
            {
                old.set = std::mem::take(&mut old.set).union(&owned.set);
                old.time = owned.time;
            }
            count -= 1;
        }
    }
}
