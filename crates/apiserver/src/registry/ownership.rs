//! Who owns which field of what is written: `metadata.managedFields`.
//!
//! Kinds that are stored in another version than the client's keep no books: their owners would name fields that the
//! other version does not have. Not here: how ownership is computed (apimachinery), the apply request (endpoints).

use apimachinery::Value;
use apimachinery::kinds::storage_resource;
use apimachinery::meta;
use apimachinery::patch::apply;
use apimachinery::schema::Schema;

use super::Write;
use crate::render::now_s;

const STATUS: &[&[&str]] = &[&["status"]];
const ALL_BUT_STATUS: &[&[&str]] = &[&["spec"], &["metadata"]];

impl Write<'_> {
    /// This write as the books see it.
    pub(crate) fn ownership<'a>(&'a self, api_version: &'a str) -> apply::Write<'a> {
        let ignored = match self.subresource {
            "" if self.resource.subresources.status => STATUS,
            "status" => ALL_BUT_STATUS,
            _ => &[],
        };
        apply::Write {
            schema: Schema::builtin(),
            type_name: self.resource.type_name,
            api_version,
            kind: self.resource.kind,
            subresource: self.subresource,
            manager: &self.manager,
            ignored,
            now_s: now_s(),
        }
    }

    /// Notes in `new` what this write changes; `old` is null for a creation. An applied configuration has done so.
    pub(super) fn record(&self, old: &Value, new: &mut Value) {
        if self.applies {
            return;
        }
        if std::ptr::eq(storage_resource(self.resource), self.resource) {
            apply::record_update(self.ownership(&self.resource.api_version()), old, new);
        } else {
            let kept = meta::of(old).field("managedFields").cloned();
            meta::of_mut(new).set("managedFields", kept);
        }
    }
}
