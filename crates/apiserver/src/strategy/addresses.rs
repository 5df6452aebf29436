//! Cluster addresses and node ports of services.
//!
//! Invariant: an address is claimed by its IPAddress object (upstream's layout since 1.33), which comes and goes in the
//! transaction that writes or deletes the service: whichever member serves it and whenever that member dies, no address
//! has two services, and none stays claimed without one.
//! Node ports are chosen among those that no service in the cache has. Only IPv4 ranges are supported.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use apimachinery::kinds::{self, Resource};
use apimachinery::status::{FieldError, Path, Status};
use apimachinery::{Value, meta, time};
use rand::Rng as _;
use serde_json::json;

use crate::Config;
use crate::registry::{Registry, Write, group_kind, item};
use crate::render::now_s;
use crate::storage::{self, Beside};

/// Addresses tried before the range counts as full.
const ATTEMPTS_MAX: u32 = 2_048;
const HEADLESS: &str = "None";

pub(crate) struct Addresses {
    network: Ipv4Addr,
    prefix_bits: u32,
    node_ports: (u16, u16),
}

impl Addresses {
    pub(crate) fn new(config: &Config) -> Result<Addresses, String> {
        let range = config.service_cluster_ip_range.trim();
        let wrong =
            || format!("--service-cluster-ip-range {range} is not an IPv4 range of the form 10.0.0.0/24");
        let (network, bits) = range.split_once('/').ok_or_else(wrong)?;
        let network: Ipv4Addr = network.parse().map_err(|_| wrong())?;
        let prefix_bits: u32 = bits.parse().map_err(|_| wrong())?;
        if !(8..=30).contains(&prefix_bits) {
            return Err(format!("--service-cluster-ip-range {range}: the prefix must have 8 to 30 bits"));
        }
        let mask = u32::MAX << (32 - prefix_bits);
        let network = Ipv4Addr::from(u32::from(network) & mask);
        Ok(Addresses { network, prefix_bits, node_ports: config.service_node_port_range })
    }

    /// Usable addresses.
    fn hosts(&self) -> u32 {
        (1 << (32 - self.prefix_bits)) - 2
    }

    /// The `index`-th usable address, from 0.
    fn host(&self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + 1 + index % self.hosts())
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(u32::from(self.network));
        offset >= 1 && offset <= self.hosts()
    }

    /// The address of the `kubernetes` service.
    pub(crate) fn first(&self) -> Ipv4Addr {
        self.host(0)
    }

    /// Fills in what a service needs; what is given must be written with it. `old` is what an update replaces.
    pub(crate) async fn claim(
        &self,
        registry: &Registry,
        write: &Write<'_>,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Vec<Beside>, Status> {
        let stored = write.stored();
        if !is_service(stored) {
            return Ok(Vec::new());
        }
        if let Some(old) = old {
            keep_allocated(service, old);
        }
        self.claim_node_ports(registry, service);
        let external = is_external(service);
        if external {
            // It has no address, whatever it had or asks for. Source: upstream service `dropTypeDependentFields`.
            let spec = super::fields_of(service, "spec");
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.remove(field);
            }
        }
        let wanted = text(service, "clusterIP").to_owned();
        let kept = old
            .is_some_and(|old| !is_external(old) && !wanted.is_empty() && text(old, "clusterIP") == wanted);
        let mut beside = match old {
            Some(old) if !kept => self.release(registry, stored, old).await?,
            _ => Vec::new(),
        };
        if external {
            return Ok(beside);
        }
        if wanted == HEADLESS || kept {
            super::fields_of(service, "spec").insert("clusterIPs".to_owned(), json!([wanted]));
            set_family(service);
            return Ok(beside);
        }
        let name = meta::of(service).name().to_owned();
        let owner = json!({"group": "", "resource": "services", "namespace": write.namespace, "name": name});
        let address = match wanted.as_str() {
            "" => self.free_address(registry)?,
            wanted => self.named_address(registry, write, wanted, &name).await?,
        };
        super::fields_of(service, "spec").insert("clusterIP".to_owned(), json!(address));
        super::fields_of(service, "spec").insert("clusterIPs".to_owned(), json!([address]));
        set_family(service);
        beside.push(claim_of(registry, &address, &owner)?);
        Ok(beside)
    }

    /// One that nobody has as far as the cache knows; the transaction tells.
    fn free_address(&self, registry: &Registry) -> Result<String, Status> {
        let resource = addresses_resource()?;
        let hosts = self.hosts();
        // The lower band is left to addresses that people choose, as upstream does.
        let reserved = (hosts / 16).clamp(16, 256).min(hosts / 2);
        let start = rand::rng().random_range(0..hosts);
        for round in [reserved..hosts, 0..reserved] {
            let length = round.end - round.start;
            for step in 0..length.min(ATTEMPTS_MAX) {
                let address = self.host(round.start + (start + step) % length).to_string();
                if registry.cached(resource, &address).is_none() {
                    return Ok(address);
                }
            }
        }
        Err(Status::internal("failed to allocate a serviceIP: range is full"))
    }

    async fn named_address(
        &self,
        registry: &Registry,
        write: &Write<'_>,
        wanted: &str,
        name: &str,
    ) -> Result<String, Status> {
        let spec = Path::new("spec");
        let path = spec.child("clusterIPs");
        let refuse = |why: String| {
            let error = FieldError::invalid(&path, json!([wanted]), why);
            Status::invalid(group_kind(write.resource), name, &[error])
        };
        let Some(address) = wanted.parse::<Ipv4Addr>().ok() else {
            return Err(refuse("must be a valid IPv4 address".to_owned()));
        };
        if !self.contains(address) {
            return Err(refuse(format!(
                "failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {}/{}",
                self.network, self.prefix_bits
            )));
        }
        match registry.fetch(addresses_resource()?, wanted).await?.0 {
            None => Ok(wanted.to_owned()),
            Some(_) => {
                Err(refuse(format!("failed to allocate IP {wanted}: provided IP is already allocated")))
            }
        }
    }

    /// Gives back the addresses of a service, in the transaction in which it goes or loses them.
    pub(crate) async fn release(
        &self,
        registry: &Registry,
        stored: &Resource,
        service: &Value,
    ) -> Result<Vec<Beside>, Status> {
        let mut beside = Vec::new();
        if !is_service(stored) {
            return Ok(beside);
        }
        let resource = addresses_resource()?;
        let addresses = service.get("spec").and_then(|spec| spec.get("clusterIPs")).and_then(Value::as_array);
        let addresses = addresses.into_iter().flatten().filter_map(Value::as_str);
        for address in addresses.filter(|address| !matches!(*address, "" | HEADLESS)) {
            let Some(claim) = registry.fetch(resource, address).await?.0 else { continue };
            let parent = claim.value().get("spec").and_then(|spec| spec.get("parentRef"));
            let field = |field: &str| parent.and_then(|parent| parent.get(field)).and_then(Value::as_str);
            let meta = meta::of(service);
            if field("name") == Some(meta.name()) && field("namespace") == Some(meta.namespace()) {
                let key = registry.storage().key(resource, address);
                beside.push(Beside::Delete { key, expected: claim.revision() });
            }
        }
        Ok(beside)
    }

    fn claim_node_ports(&self, registry: &Registry, service: &mut Value) {
        if !matches!(text(service, "type"), "NodePort" | "LoadBalancer") {
            return;
        }
        let mine = item(meta::of(service).namespace(), meta::of(service).name());
        let mut taken = taken_node_ports(registry, &mine);
        taken.extend(node_ports(service));
        let (low, high) = self.node_ports;
        let Some(ports) = super::fields_of(service, "spec").get_mut("ports").and_then(Value::as_array_mut)
        else {
            return;
        };
        for port in ports {
            if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0 || low > high {
                continue;
            }
            let count = u32::from(high - low) + 1;
            let start = rand::rng().random_range(0..count);
            let free = (0..count).map(|step| i64::from(low) + i64::from((start + step) % count));
            if let Some(free) = free.into_iter().find(|port| !taken.contains(port)) {
                taken.insert(free);
                port["nodePort"] = json!(free);
            }
        }
    }
}

fn is_service(stored: &Resource) -> bool {
    stored.group.is_empty() && stored.plural == "services"
}

fn is_external(service: &Value) -> bool {
    text(service, "type") == "ExternalName"
}

fn claim_of(registry: &Registry, address: &str, owner: &Value) -> Result<Beside, Status> {
    let resource = addresses_resource()?;
    let value = json!({
        "kind": resource.kind, "apiVersion": resource.api_version(),
        "metadata": {
            "name": address, "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": time::format_s(now_s()), "generation": 1,
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": owner},
    });
    Ok(Beside::Create { key: registry.storage().key(resource, address), value: storage::encode(&value) })
}

fn addresses_resource() -> Result<&'static Resource, Status> {
    kinds::find("networking.k8s.io", "v1", "ipaddresses").ok_or_else(Status::no_such_resource)
}

fn taken_node_ports(registry: &Registry, mine: &str) -> HashSet<i64> {
    let services = kinds::find("", "v1", "services").and_then(|resource| registry.cache().kind(resource));
    let Some(services) = services else { return HashSet::new() };
    let objects = services.objects();
    let others = objects.iter().filter(|(item, _): &(&Arc<str>, _)| item.as_ref() != mine);
    others.flat_map(|(_, object)| node_ports(object.value())).collect()
}

fn node_ports(service: &Value) -> Vec<i64> {
    let ports = service.get("spec").and_then(|spec| spec.get("ports")).and_then(Value::as_array);
    let numbers = ports.into_iter().flatten().filter_map(|port| port.get("nodePort").and_then(Value::as_i64));
    numbers.filter(|port| *port != 0).collect()
}

/// An update that leaves allocated fields out keeps them. Source: upstream service `patchAllocatedValues`.
fn keep_allocated(service: &mut Value, old: &Value) {
    if is_external(service) || is_external(old) {
        return;
    }
    if text(service, "clusterIP").is_empty() && !text(old, "clusterIP").is_empty() {
        super::fields_of(service, "spec").insert("clusterIP".to_owned(), json!(text(old, "clusterIP")));
    }
    if !matches!(text(service, "type"), "NodePort" | "LoadBalancer") {
        return;
    }
    let old_ports = old.get("spec").and_then(|spec| spec.get("ports")).and_then(Value::as_array);
    let Some(ports) = super::fields_of(service, "spec").get_mut("ports").and_then(Value::as_array_mut) else {
        return;
    };
    for port in ports.iter_mut().filter(|port| port.get("nodePort").is_none()) {
        let same =
            |known: &&Value| ["port", "protocol"].iter().all(|field| known.get(*field) == port.get(*field));
        let known =
            old_ports.into_iter().flatten().find(same).and_then(|known| known.get("nodePort")).cloned();
        if let Some(known) = known {
            port["nodePort"] = known;
        }
    }
}

fn set_family(service: &mut Value) {
    let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
    spec.entry("ipFamilyPolicy").or_insert_with(|| json!("SingleStack"));
}

fn text<'a>(service: &'a Value, field: &str) -> &'a str {
    service.get("spec").and_then(|spec| spec.get(field)).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_has_a_first_and_a_last_usable_address() {
        let config = Config { service_cluster_ip_range: "10.96.0.7/24".to_owned(), ..Config::default() };
        let addresses = Addresses::new(&config).unwrap();
        assert_eq!(addresses.first().to_string(), "10.96.0.1");
        assert_eq!(addresses.hosts(), 254);
        assert_eq!(addresses.host(253).to_string(), "10.96.0.254");
        for (address, inside) in
            [("10.96.0.0", false), ("10.96.0.1", true), ("10.96.0.254", true), ("10.96.0.255", false)]
        {
            assert_eq!(addresses.contains(address.parse().unwrap()), inside, "{address}");
        }
        for range in ["10.0.0.0", "fd00::/64", "10.0.0.0/31", "x/24"] {
            let config = Config { service_cluster_ip_range: range.to_owned(), ..Config::default() };
            assert!(Addresses::new(&config).is_err(), "{range}");
        }
    }

    #[test]
    fn an_update_keeps_what_was_allocated() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.9", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}});
        keep_allocated(&mut new, &old);
        assert_eq!(new["spec"]["clusterIP"], "10.0.0.9");
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
        assert!(new["spec"]["ports"][1].get("nodePort").is_none());
    }
}
