//! A node as the scheduler sees it: what it offers and what the pods on it already use.
//!
//! Invariants: `requested` is exactly the sum over `pods`; a pod is counted once, by uid, assumed or bound.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Value, meta};

use crate::pod::{Pod, PodUid, Taint, items};
use crate::resources::Resources;

#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// False for a name that pods refer to but that no Node object describes (yet, or any more).
    pub(crate) exists: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
    pub(crate) allocatable: Resources,
    /// Sum of the requests of `pods`.
    pub(crate) requested: Resources,
    /// The same with the defaults that scoring uses.
    pub(crate) requested_for_scoring: Resources,
    pods: BTreeMap<PodUid, Arc<Pod>>,
}

impl Node {
    /// Takes over what the Node object says; the pods stay.
    pub(crate) fn update(&mut self, object: &Value) {
        let meta = meta::of(object);
        self.name = meta.name().to_owned();
        self.exists = true;
        let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
        self.labels =
            labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        self.taints = items(&object["spec"]["taints"]).map(Taint::parse).collect();
        self.unschedulable = object["spec"]["unschedulable"].as_bool().unwrap_or(false);
        self.allocatable = Resources::from_list(&object["status"]["allocatable"]);
    }

    /// The object is gone; pods may still be on it.
    pub(crate) fn forget_object(&mut self) {
        *self = Node {
            name: std::mem::take(&mut self.name),
            requested: std::mem::take(&mut self.requested),
            requested_for_scoring: std::mem::take(&mut self.requested_for_scoring),
            pods: std::mem::take(&mut self.pods),
            ..Node::default()
        };
    }

    pub(crate) fn add_pod(&mut self, pod: Arc<Pod>) {
        self.remove_pod(&pod.uid);
        self.requested.add(&pod.requests);
        self.requested_for_scoring.add(&pod.requests_for_scoring);
        self.pods.insert(pod.uid.clone(), pod);
    }

    pub(crate) fn remove_pod(&mut self, uid: &PodUid) -> Option<Arc<Pod>> {
        let pod = self.pods.remove(uid)?;
        self.requested.subtract(&pod.requests);
        self.requested_for_scoring.subtract(&pod.requests_for_scoring);
        Some(pod)
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    pub(crate) fn pod_count(&self) -> i64 {
        i64::try_from(self.pods.len()).unwrap_or(i64::MAX)
    }
}
