//! Amounts of resources: what a node offers, what pods ask for.
//!
//! Invariants: cpu in millicores, memory and ephemeral storage in bytes, everything else in whole units, all as upstream
//! counts them (rounded up). Sums saturate instead of wrapping, so absurd requests stay absurd.
//! Source of the rules: k8s.io/component-helpers resource `PodRequests`, scheduler `GetNonzeroRequests`.

use std::collections::BTreeMap;

use apimachinery::Value;
use apimachinery::quantity::Quantity;

/// What a container without a cpu request counts for when nodes are scored, in millicores.
const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container without a memory request counts for when nodes are scored, in bytes.
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// Amounts by resource; missing means zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) milli_cpu: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) ephemeral_storage_bytes: i64,
    /// Number of pods; only nodes offer it.
    pub(crate) pods: i64,
    /// Extended resources and huge pages, in whole units.
    pub(crate) scalar: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a `ResourceList`; a quantity that does not parse counts as zero (the API server refuses those).
    pub(crate) fn from_list(list: &Value) -> Resources {
        let mut resources = Resources::default();
        for (name, value) in list.as_object().into_iter().flatten() {
            let Ok(quantity) = Quantity::from_value(value) else { continue };
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.to_millis(),
                "memory" => resources.memory_bytes = quantity.to_units(),
                "ephemeral-storage" => resources.ephemeral_storage_bytes = quantity.to_units(),
                "pods" => resources.pods = quantity.to_units(),
                _ => drop(resources.scalar.insert(name.clone(), quantity.to_units())),
            }
        }
        resources
    }

    pub(crate) fn add(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_add);
    }

    pub(crate) fn subtract(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_sub);
    }

    /// The larger of both, resource by resource.
    fn raise_to(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Resources, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory_bytes = with(self.memory_bytes, other.memory_bytes);
        self.ephemeral_storage_bytes = with(self.ephemeral_storage_bytes, other.ephemeral_storage_bytes);
        self.pods = with(self.pods, other.pods);
        for (name, amount) in &other.scalar {
            let own = self.scalar.entry(name.clone()).or_default();
            *own = with(*own, *amount);
        }
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.milli_cpu == 0
            && self.memory_bytes == 0
            && self.ephemeral_storage_bytes == 0
            && self.scalar.values().all(|amount| *amount == 0)
    }
}

/// What a pod asks for: the larger of (containers and sidecars) and the peak of the init containers, plus overhead.
/// Requests of the pod as a whole replace those of its containers.
pub(crate) fn pod_requests(spec: &Value) -> Resources {
    requests(spec, Resources::from_list)
}

/// The same for scoring: a container that does not say counts with the default for cpu and memory.
pub(crate) fn pod_requests_for_scoring(spec: &Value) -> Resources {
    requests(spec, |list| {
        let mut resources = Resources::from_list(list);
        if list.get("cpu").is_none() {
            resources.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if list.get("memory").is_none() {
            resources.memory_bytes = DEFAULT_MEMORY_BYTES;
        }
        resources
    })
}

fn requests(spec: &Value, of_list: impl Fn(&Value) -> Resources) -> Resources {
    let of = |container: &Value| of_list(&container["resources"]["requests"]);
    let mut total = Resources::default();
    for container in spec["containers"].as_array().into_iter().flatten() {
        total.add(&of(container));
    }
    let (mut sidecars, mut init_peak) = (Resources::default(), Resources::default());
    for container in spec["initContainers"].as_array().into_iter().flatten() {
        let mut running = of(container);
        if container["restartPolicy"] == "Always" {
            total.add(&running);
            sidecars.add(&running);
            running = sidecars.clone();
        } else {
            running.add(&sidecars);
        }
        init_peak.raise_to(&running);
    }
    total.raise_to(&init_peak);
    let whole = &spec["resources"]["requests"];
    let stated = Resources::from_list(whole);
    if whole.get("cpu").is_some() {
        total.milli_cpu = stated.milli_cpu;
    }
    if whole.get("memory").is_some() {
        total.memory_bytes = stated.memory_bytes;
    }
    total.add(&Resources::from_list(&spec["overhead"]));
    total
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_always() {
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        let spec = json!({
            "initContainers": [
                {"resources": cpu("100m"), "restartPolicy": "Always"},
                {"resources": cpu("900m")}],
            "containers": [{"resources": cpu("200m")}, {"resources": cpu("300m")}],
            "overhead": {"cpu": "10m"}});
        assert_eq!(pod_requests(&spec).milli_cpu, 1010); // 900 + 100 while the init container runs, + overhead
    }

    #[test]
    fn a_container_that_asks_for_nothing_counts_for_scoring_only() {
        let spec = json!({"containers": [{}, {"resources": {"requests": {"cpu": "1", "memory": "0"}}}]});
        assert_eq!(pod_requests(&spec).milli_cpu, 1000);
        let scoring = pod_requests_for_scoring(&spec);
        assert_eq!((scoring.milli_cpu, scoring.memory_bytes), (1100, DEFAULT_MEMORY_BYTES));
    }

    #[test]
    fn absurd_requests_do_not_wrap() {
        let big = json!({"resources": {"requests": {"memory": "9223372036854775807"}}});
        let spec = json!({"containers": [big, big]});
        assert_eq!(pod_requests(&spec).memory_bytes, i64::MAX);
    }
}
