//! Ends namespaces: deletes what is in a terminating namespace, pods first, and then lets go of it.
//!
//! Invariants: the finalizer is removed only after every namespaced resource listed empty. A failure is tried again; a
//! namespace that is still not empty (finalizers, graceful deletion) is looked at again after a second.

use std::collections::BTreeSet;
use std::time::Duration;

use apimachinery::kinds::{Resource, resources, storage_resource};
use apimachinery::meta;
use kubeclient::{Client, DeleteOptions, Error, Informer, InformerEvent, InformerOptions, ListOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Pause before a namespace that is not empty yet is looked at again.
const RECHECK: Duration = Duration::from_secs(1);

/// Runs until `term` is cancelled.
pub(crate) async fn run(client: Client, term: CancellationToken) {
    let mut namespaces =
        Informer::start(client.api("", "v1", "namespaces"), InformerOptions::default(), term.clone());
    let mut terminating: BTreeSet<String> = BTreeSet::new();
    loop {
        let recheck = async {
            match terminating.is_empty() {
                true => std::future::pending().await,
                false => tokio::time::sleep(RECHECK).await,
            }
        };
        tokio::select! {
            event = namespaces.next() => match event {
                None => return,
                Some(InformerEvent::Applied { object, .. }) if meta::of(&object).deletion_timestamp().is_some() => {
                    terminating.insert(meta::of(&object).name().to_owned());
                }
                Some(InformerEvent::Deleted { object }) => {
                    terminating.remove(meta::of(&object).name());
                    continue;
                }
                Some(_) => continue,
            },
            () = recheck => {}
        }
        for name in terminating.clone() {
            match end(&client, &name).await {
                Ok(true) => {
                    info!(namespace = name, "namespace ended");
                    terminating.remove(&name);
                }
                Ok(false) => {}
                Err(error) => warn!(namespace = name, %error, "cannot end the namespace yet"),
            }
        }
    }
}

/// Deletes the content; true once the namespace has been let go.
async fn end(client: &Client, name: &str) -> Result<bool, Error> {
    let namespaced =
        || resources().iter().filter(|row| row.namespaced && row.verbs.delete_collection && is_stored(row));
    let pods_first = namespaced()
        .filter(|row| row.plural == "pods")
        .chain(namespaced().filter(|row| row.plural != "pods"));
    let mut empty = true;
    for row in pods_first {
        let api = client.api(row.group, row.version, row.plural).namespace(name);
        let first = ListOptions { limit: 1, ..ListOptions::default() };
        if api.list(&first).await?.items.is_empty() {
            continue;
        }
        api.delete_collection(&DeleteOptions::background(), &ListOptions::default()).await?;
        empty &= api.list(&first).await?.items.is_empty();
        if !empty && row.plural == "pods" {
            return Ok(false); // pods end before what they use
        }
    }
    if !empty {
        return Ok(false);
    }
    let namespaces = client.api("", "v1", "namespaces");
    let Some(mut namespace) = namespaces.get_opt(name).await? else { return Ok(true) };
    let finalizers = namespace["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
    let others: Vec<Value> = finalizers.into_iter().filter(|finalizer| finalizer != "kubernetes").collect();
    let done = others.is_empty();
    namespace["spec"]["finalizers"] = json!(others);
    match namespaces.update_subresource("finalize", &namespace).await {
        Ok(_) => Ok(done),
        Err(error) if error.is_not_found() => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

/// One row per stored form: events are in two groups but exist once.
fn is_stored(row: &'static Resource) -> bool {
    let owner = storage_resource(row);
    (owner.group, owner.version) == (row.group, row.version)
}
