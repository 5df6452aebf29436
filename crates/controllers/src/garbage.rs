//! Garbage collection: objects go with their owners.
//!
//! Invariants: an object is deleted only after the API server itself said that every owner is gone (the graph of what was
//! seen only says where to look), and only if it is still the object that was looked at (precondition on its uid).
//! An owner in another namespace counts as gone. Not here: which objects are connected (graph.rs).

mod graph;

use std::time::Duration;

use apimachinery::kinds::{Resource, find_kind, resources, storage_resource};
use apimachinery::meta;
use futures_util::stream::{SelectAll, StreamExt as _, unfold};
use kubeclient::{Client, DeleteOptions, Error, Informer, InformerEvent, InformerOptions, Patch};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use graph::{Graph, Item, Owner};

/// Pause before an object that could not be handled is looked at again.
const RETRY: Duration = Duration::from_secs(2);

/// Runs until `term` is cancelled.
pub(crate) async fn run(client: Client, term: CancellationToken) {
    let mut events = SelectAll::new();
    let mut unsynced = 0_usize;
    for row in resources().iter().filter(|row| is_collected(row)) {
        let informer = Informer::start(
            client.api(row.group, row.version, row.plural),
            InformerOptions { buffer: 64, ..InformerOptions::default() },
            term.clone(),
        );
        unsynced += 1;
        events.push(Box::pin(unfold(informer, move |mut informer| async move {
            let event = informer.next().await?;
            Some(((row, event), informer))
        })));
    }
    let mut graph = Graph::default();
    loop {
        let wait = async {
            match graph.has_suspects() && unsynced == 0 {
                true => tokio::time::sleep(RETRY).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = term.cancelled() => return,
            event = events.next() => match event {
                None => return,
                Some((_, InformerEvent::Synced)) => unsynced -= 1,
                Some((row, InformerEvent::Applied { object, .. })) => graph.update(Item::of(row, &object)),
                Some((row, InformerEvent::Deleted { object })) => graph.remove(&Item::of(row, &object)),
            },
            () = wait => {}
        }
        if unsynced > 0 {
            continue; // an owner that was not seen yet is not gone
        }
        for item in graph.take_suspects() {
            if let Err(error) = collect(&client, &graph, &item).await {
                warn!(kind = item.resource.kind, name = item.name, %error, "cannot collect yet");
                graph.suspect(&item.uid);
            }
        }
    }
}

/// Resources that can own or be owned: all that can be watched and deleted, except events.
fn is_collected(row: &'static Resource) -> bool {
    let stored = storage_resource(row);
    row.verbs.watch
        && row.verbs.delete
        && row.plural != "events"
        && (stored.group, stored.version) == (row.group, row.version)
}

/// Does what the object's state asks for: deletes it if its owners are gone, completes a foreground deletion or orphaning.
async fn collect(client: &Client, graph: &Graph, item: &Item) -> Result<(), Error> {
    if item.deleting {
        return finish_deletion(client, graph, item).await;
    }
    let mut gone = Vec::new();
    for owner in &item.owners {
        if is_gone(client, item, owner).await? {
            gone.push(owner);
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    let api = client
        .api(item.resource.group, item.resource.version, item.resource.plural)
        .namespace(&item.namespace);
    let result = if gone.len() == item.owners.len() {
        debug!(kind = item.resource.kind, name = item.name, "deleting: its owners are gone");
        let options = DeleteOptions { uid: item.uid.to_string(), ..DeleteOptions::background() };
        api.delete(&item.name, &options).await.map(drop)
    } else {
        let Some(object) = api.get_opt(&item.name).await? else { return Ok(()) };
        let references = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        let kept: Vec<_> = references
            .into_iter()
            .filter(|reference| gone.iter().all(|owner| reference["uid"] != *owner.uid))
            .collect();
        let patch = json!({"metadata": {"uid": &*item.uid, "ownerReferences": kept,
                                        "resourceVersion": meta::of(&object).resource_version()}});
        api.patch(&item.name, &Patch::Merge(patch)).await.map(drop)
    };
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

async fn is_gone(client: &Client, item: &Item, owner: &Owner) -> Result<bool, Error> {
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    let Some(row) = find_kind(group, version, &owner.kind) else {
        return Ok(false); // a kind that is not served: nothing can be said
    };
    if row.namespaced && item.namespace.is_empty() {
        return Ok(true); // a cluster-wide object cannot be owned by one in a namespace
    }
    let api = client.api(row.group, row.version, row.plural);
    let api = if row.namespaced { api.namespace(&item.namespace) } else { api };
    let found = api.get_opt(&owner.name).await?;
    Ok(found.is_none_or(|object| meta::of(&object).uid() != &*owner.uid))
}

/// `foregroundDeletion`: dependents first, then the owner. `orphan`: dependents lose their reference, then the owner goes.
async fn finish_deletion(client: &Client, graph: &Graph, item: &Item) -> Result<(), Error> {
    let dependents = graph.dependents(&item.uid);
    for dependent in &dependents {
        let row = dependent.resource;
        let api = client.api(row.group, row.version, row.plural).namespace(&dependent.namespace);
        let result = if item.orphans {
            let Some(object) = api.get_opt(&dependent.name).await? else { continue };
            let references = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            let kept: Vec<_> =
                references.into_iter().filter(|reference| reference["uid"] != *item.uid).collect();
            let patch = json!({"metadata": {"uid": &*dependent.uid, "ownerReferences": kept}});
            api.patch(&dependent.name, &Patch::Merge(patch)).await.map(drop)
        } else if item.foreground && !dependent.deleting {
            let options = DeleteOptions {
                uid: dependent.uid.to_string(),
                propagation_policy: "Foreground".to_owned(),
                ..DeleteOptions::default()
            };
            api.delete(&dependent.name, &options).await.map(drop)
        } else {
            Ok(())
        };
        match result {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    let blocked = item.foreground && dependents.iter().any(|dependent| dependent.blocks(&item.uid));
    if !blocked && (item.orphans || item.foreground) {
        remove_finalizer(client, item).await?;
    }
    Ok(())
}

async fn remove_finalizer(client: &Client, item: &Item) -> Result<(), Error> {
    let row = item.resource;
    let api = client.api(row.group, row.version, row.plural).namespace(&item.namespace);
    let Some(object) = api.get_opt(&item.name).await? else { return Ok(()) };
    if meta::of(&object).uid() != &*item.uid {
        return Ok(());
    }
    let own = ["foregroundDeletion", "orphan"];
    let kept: Vec<&str> =
        meta::of(&object).finalizers().filter(|finalizer| !own.contains(finalizer)).collect();
    let patch = json!({"metadata": {"finalizers": kept,
                                    "resourceVersion": meta::of(&object).resource_version()}});
    match api.patch(&item.name, &Patch::Merge(patch)).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
