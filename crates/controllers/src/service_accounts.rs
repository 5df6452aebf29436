//! Gives every namespace its service account `default` and, if a CA is known, the ConfigMap `kube-root-ca.crt`.
//!
//! Invariants: what a person deleted by accident comes back; what differs in the ConfigMap is put right.

use kubeclient::{Client, Error, Informer, InformerEvent, InformerOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use apimachinery::meta;

const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";

/// Runs until `term` is cancelled.
pub(crate) async fn run(client: Client, root_ca_pem: Option<String>, term: CancellationToken) {
    let informer = |plural: &str, name: &str| {
        let field_selector = if name.is_empty() { String::new() } else { format!("metadata.name={name}") };
        let options = InformerOptions { field_selector, ..InformerOptions::default() };
        Informer::start(client.api("", "v1", plural), options, term.clone())
    };
    let mut namespaces = informer("namespaces", "");
    let mut accounts = informer("serviceaccounts", ACCOUNT);
    let mut config_maps = informer("configmaps", ROOT_CA);
    loop {
        let namespace = tokio::select! {
            event = namespaces.next() => match event {
                None => return,
                Some(InformerEvent::Applied { object, .. }) => Some(meta::of(&object).name().to_owned()),
                Some(_) => None,
            },
            event = accounts.next() => match event {
                None => return,
                Some(InformerEvent::Deleted { object }) => Some(meta::of(&object).namespace().to_owned()),
                Some(_) => None,
            },
            event = config_maps.next() => match event {
                None => return,
                Some(InformerEvent::Deleted { object } | InformerEvent::Applied { object, .. }) => {
                    Some(meta::of(&object).namespace().to_owned())
                }
                Some(InformerEvent::Synced) => None,
            },
        };
        let Some(namespace) = namespace else { continue };
        if let Err(error) = complete(&client, &namespace, root_ca_pem.as_deref()).await {
            warn!(namespace, %error, "cannot give the namespace its service account");
        }
    }
}

/// Creates what is missing, unless the namespace is ending.
async fn complete(client: &Client, name: &str, root_ca_pem: Option<&str>) -> Result<(), Error> {
    let namespace = client.api("", "v1", "namespaces").get_opt(name).await?;
    if namespace.is_none_or(|namespace| meta::of(&namespace).deletion_timestamp().is_some()) {
        return Ok(());
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": name}});
    ensure(client, "serviceaccounts", name, &account).await?;
    let Some(root_ca_pem) = root_ca_pem else { return Ok(()) };
    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ROOT_CA, "namespace": name},
                            "data": {"ca.crt": root_ca_pem}});
    ensure(client, "configmaps", name, &config_map).await
}

async fn ensure(client: &Client, plural: &str, namespace: &str, wanted: &Value) -> Result<(), Error> {
    let api = client.api("", "v1", plural).namespace(namespace);
    match api.get_opt(meta::of(wanted).name()).await? {
        Some(existing) if wanted.get("data") == existing.get("data") || wanted.get("data").is_none() => {
            Ok(())
        }
        Some(_) => api.update(wanted).await.map(drop),
        None => match api.create(wanted).await {
            Err(error) if error.is_already_exists() => Ok(()),
            other => other.map(drop),
        },
    }
}
