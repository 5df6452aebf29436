//! Create: what the server fills in, admission, validation, and one transaction.

use std::sync::Arc;

use apimachinery::Value;
use apimachinery::status::Status;
use apimachinery::{defaults, kinds, meta, names, time, validate};
use rand::Rng as _;

use super::{Registry, Write, group_kind, group_resource};
use crate::admission::{Attributes, Operation};
use crate::authz;
use crate::object::Object;
use crate::render::{now_s, view};
use crate::storage::{self, Beside, Created};
use crate::strategy;

/// Names tried for one `generateName`, or addresses for one service. Source: upstream registry/generic
/// `maxNameGenerationCreateAttempts`.
const ATTEMPTS_MAX: usize = 8;
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// What became of the transaction.
enum Stored {
    Object(Arc<Object>),
    /// The name is taken.
    Exists,
    /// Another service was faster with the address.
    Hindered,
}

impl Registry {
    /// `value` has been checked against the schema and lies in the namespace of the request.
    pub(crate) async fn create(&self, write: &Write<'_>, mut value: Value) -> Result<Arc<Object>, Status> {
        if !meta::of(&value).resource_version().is_empty() {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        fill_metadata(&mut value, write.applies);
        defaults::apply(write.resource, &mut value);
        let generated = meta::of(&value).name().is_empty() && !meta::of(&value).generate_name().is_empty();
        let mut last_name = String::new();
        for _ in 0..ATTEMPTS_MAX {
            let mut value = value.clone();
            if generated {
                let base = meta::of(&value).generate_name().to_owned();
                let name = names::generate_name(&base, |below| rand::rng().random_range(0..below));
                meta::of_mut(&mut value).set_name(&name);
            }
            last_name = meta::of(&value).name().to_owned();
            match self.create_named(write, value, &last_name).await? {
                Stored::Object(object) => return Ok(view(write.resource, &object)),
                Stored::Exists if !generated => {
                    return Err(Status::already_exists(group_resource(write.resource), &last_name));
                }
                Stored::Exists | Stored::Hindered => {}
            }
        }
        match generated {
            true => Err(Status::generate_name_conflict(group_resource(write.resource), &last_name, 1)),
            false => Err(Status::modified(group_resource(write.resource), &last_name)),
        }
    }

    async fn create_named(&self, write: &Write<'_>, mut value: Value, name: &str) -> Result<Stored, Status> {
        let attributes = Attributes { write, operation: Operation::Create, name, old: None };
        self.admission.mutate(self, &attributes, &mut value).await?;
        write.record(&Value::Null, &mut value);
        let mut errors = validate::create(write.resource, &value);
        let mut value = kinds::to_storage(write.resource, value);
        strategy::prepare_create(write.stored(), &mut value);
        errors.extend(strategy::validate_create(write.stored(), &value));
        if !errors.is_empty() {
            return Err(Status::invalid(group_kind(write.resource), name, &errors));
        }
        if write.resource.group == RBAC_GROUP {
            authz::escalation::check(
                write.server,
                write.caller,
                write.resource,
                write.namespace,
                &value,
                None,
            )
            .await?;
        }
        self.admission.validate(self, &attributes, &value).await?;
        let beside = self.addresses.claim(self, write, &mut value, None).await?;
        self.create_stored(write, &value, name, &beside).await
    }

    async fn create_stored(
        &self,
        write: &Write<'_>,
        value: &Value,
        name: &str,
        beside: &[Beside],
    ) -> Result<Stored, Status> {
        let stored = write.stored();
        let item = write.item(name);
        let bytes = storage::encode(value);
        strategy::check_size(stored, bytes.len())?;
        let size_bytes = bytes.len();
        if write.options.dry_run {
            let (existing, _) = self.fetch(stored, &item).await?;
            return Ok(match existing {
                None => Stored::Object(Arc::new(Object::unsaved(value.clone(), size_bytes))),
                Some(_) => Stored::Exists,
            });
        }
        let key = self.storage.key(stored, &item);
        match self.storage.create(&key, bytes, self.ttl_s(stored), beside, write.deadline).await? {
            Created::At(revision) => {
                let object = Arc::new(Object::new(value.clone(), revision, size_bytes));
                self.kind(stored)?.remember(&item, &object);
                Ok(Stored::Object(object))
            }
            Created::Exists => Ok(Stored::Exists),
            Created::Hindered => Ok(Stored::Hindered),
        }
    }
}

/// What only the server may set.
fn fill_metadata(value: &mut Value, applies: bool) {
    let mut meta = meta::of_mut(value);
    for field in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta.remove(field);
    }
    if !applies {
        meta.remove("managedFields");
    }
    meta.set_uid(&uuid::Uuid::new_v4().to_string());
    meta.set_creation_timestamp(&time::format_s(now_s()));
}
