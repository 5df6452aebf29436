//! Create: what the server fills in, admission, validation, and one transaction.

use std::sync::Arc;

use apimachinery::Value;
use apimachinery::status::Status;
use apimachinery::{defaults, kinds, meta, names, time, validate};
use rand::Rng as _;

use super::{Registry, Write, group_kind, group_resource, is_unknown};
use crate::admission::{Attributes, Operation};
use crate::authz;
use crate::object::Object;
use crate::render::{now_s, view};
use crate::storage::{self, Created};
use crate::strategy;

/// Names tried for one `generateName`. Source: upstream registry/generic `maxNameGenerationCreateAttempts`.
const NAME_ATTEMPTS: usize = 8;
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

impl Registry {
    /// `value` has been checked against the schema and lies in the namespace of the request.
    pub(crate) async fn create(&self, write: &Write<'_>, mut value: Value) -> Result<Arc<Object>, Status> {
        if !meta::of(&value).resource_version().is_empty() {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        fill_metadata(&mut value, write.applies);
        defaults::apply(write.resource, &mut value);
        let generated = meta::of(&value).name().is_empty() && !meta::of(&value).generate_name().is_empty();
        let attempts = if generated { NAME_ATTEMPTS } else { 1 };
        let mut last_name = String::new();
        for _ in 0..attempts {
            let mut value = value.clone();
            if generated {
                let base = meta::of(&value).generate_name().to_owned();
                let name = names::generate_name(&base, |below| rand::rng().random_range(0..below));
                meta::of_mut(&mut value).set_name(&name);
            }
            last_name = meta::of(&value).name().to_owned();
            if let Some(object) = self.create_named(write, value, &last_name).await? {
                return Ok(view(write.resource, &object));
            }
        }
        match generated {
            true => Err(Status::generate_name_conflict(group_resource(write.resource), &last_name, 1)),
            false => Err(Status::already_exists(group_resource(write.resource), &last_name)),
        }
    }

    /// None: the name is taken.
    async fn create_named(
        &self,
        write: &Write<'_>,
        mut value: Value,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
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
        let claims = self.addresses.claim(self, write, &mut value, None).await?;
        let created = self.create_stored(write, &value, name).await;
        match &created {
            // After an unknown outcome the service may exist: better a lost address than one with two owners.
            Ok(Some(_)) => {}
            Err(status) if is_unknown(status) => {}
            Ok(None) | Err(_) => claims.release(self).await,
        }
        created
    }

    async fn create_stored(
        &self,
        write: &Write<'_>,
        value: &Value,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
        let stored = write.stored();
        let item = write.item(name);
        let bytes = storage::encode(value);
        strategy::check_size(stored, bytes.len())?;
        let size_bytes = bytes.len();
        if write.options.dry_run {
            let (existing, _) = self.fetch(stored, &item).await?;
            let object = || Arc::new(Object::unsaved(value.clone(), size_bytes));
            return Ok(existing.is_none().then(object));
        }
        let key = self.storage.key(stored, &item);
        match self.storage.create(&key, bytes, self.ttl_s(stored), write.deadline).await? {
            Created::At(revision) => {
                let object = Arc::new(Object::new(value.clone(), revision, size_bytes));
                self.kind(stored)?.remember(&item, &object);
                Ok(Some(object))
            }
            Created::Exists => Ok(None),
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
