//! The service `kubernetes` in namespace `default`, through which pods find this API.
//!
//! Invariant: running it again, also on several members at once, changes nothing that is already right. Each member adds
//! its own address. Not here: namespaces and roles (default_objects.rs); removing the address of a member that is gone.

use apimachinery::kinds::{self, Resource};
use apimachinery::status::Status;
use apimachinery::{Value, meta};
use serde_json::json;
use tokio::time::{Duration, Instant};

use crate::options::WriteOptions;
use crate::registry::{Part, Source, Updated, Write};
use crate::{ApiServer, User};

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
const PORT: u16 = 443;
const TIMEOUT: Duration = Duration::from_secs(30);
/// Tries against other members that do the same at the same time.
const ATTEMPTS: usize = 5;

pub(crate) async fn kubernetes_service(server: &ApiServer) -> Result<(), Status> {
    let config = server.config();
    let address = config.advertised().to_string();
    let port = config.secure_port;
    let service = json!({
        "metadata": {"name": NAME, "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": server.registry().addresses().first().to_string(),
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": PORT, "targetPort": port}],
        },
    });
    ensure(server, find("", "services")?, service, &|_| None).await?;
    let subset = json!({
        "addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    let endpoints = json!({
        "metadata": {"name": NAME, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [subset],
    });
    ensure(server, find("", "endpoints")?, endpoints, &|current| {
        let mut subsets = current.get("subsets").and_then(Value::as_array).cloned().unwrap_or_default();
        if subsets.contains(&subset) {
            return None;
        }
        subsets.push(subset.clone());
        let mut new = current.clone();
        new["subsets"] = Value::Array(subsets);
        Some(new)
    })
    .await?;
    ensure_slice(server, &address, port).await
}

/// A slice has one list of ports, so each member whose port differs from the first one's has a slice of its own.
async fn ensure_slice(server: &ApiServer, address: &str, port: u16) -> Result<(), Status> {
    let slices = find("discovery.k8s.io", "endpointslices")?;
    let slice = |name: &str| {
        json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": NAME}},
            "addressType": "IPv4",
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        })
    };
    let mut name = NAME.to_owned();
    let item = format!("{NAMESPACE}/{NAME}");
    let first = server.registry().fetch(slices, &item).await?.0;
    if first.is_some_and(|first| first.value().get("ports") != slice(NAME).get("ports")) {
        name = format!("{NAME}-{}-{port}", address.replace(['.', ':'], "-"));
    }
    ensure(server, slices, slice(&name), &|current| {
        let mut endpoints = current.get("endpoints").and_then(Value::as_array).cloned().unwrap_or_default();
        let known = endpoints.iter().any(|endpoint| endpoint.get("addresses") == Some(&json!([address])));
        if known || current.get("ports") != slice(&name).get("ports") {
            return None;
        }
        endpoints.push(json!({"addresses": [address], "conditions": {"ready": true}}));
        let mut new = current.clone();
        new["endpoints"] = Value::Array(endpoints);
        Some(new)
    })
    .await
}

fn find(group: &str, plural: &str) -> Result<&'static Resource, Status> {
    kinds::find(group, "v1", plural).ok_or_else(Status::no_such_resource)
}

/// Creates `wanted`, or completes what is there; `complete` answers None when it is right already.
async fn ensure(
    server: &ApiServer,
    resource: &'static Resource,
    wanted: Value,
    complete: &(dyn Fn(&Value) -> Option<Value> + Sync),
) -> Result<(), Status> {
    let caller = User::server();
    let write = Write {
        server,
        caller: &caller,
        resource,
        namespace: NAMESPACE,
        subresource: "",
        options: WriteOptions::default(),
        manager: "kube-apiserver".to_owned(),
        applies: false,
        deadline: Instant::now() + TIMEOUT,
    };
    let mut wanted = wanted;
    meta::of_mut(&mut wanted).set_namespace(NAMESPACE).set_type(&resource.api_version(), resource.kind);
    let name = meta::of(&wanted).name().to_owned();
    let mut last = Status::modified(crate::registry::group_resource(resource), &name);
    for _ in 0..ATTEMPTS {
        let mut edit = |current: &Value| Ok(complete(current).unwrap_or_else(|| current.clone()));
        match server.registry().update(&write, &name, Part::Main, Source::Patch, &mut edit).await? {
            Updated::Object(_) => return Ok(()),
            Updated::Missing => {}
        }
        match server.registry().create(&write, wanted.clone()).await {
            Ok(_) => return Ok(()),
            // Another member was faster, with the object or with its address.
            Err(status) if matches!(status.code, 409 | 422) => last = status,
            Err(status) => return Err(status),
        }
    }
    Err(last)
}
