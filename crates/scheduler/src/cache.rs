//! The nodes and the pods on them, as last seen through the watches, plus the pods that were placed but not yet seen.
//!
//! Invariants: a pod counts on at most one node. An assumed pod counts from the decision on, so that the next cycle sees
//! it; it stays until the watch confirms it or the binding fails. Nodes are in order of name, each at a fixed place until
//! one comes or goes, so that taking turns is fair.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Value, meta};

use crate::node::Node;
use crate::pod::{Pod, PodUid};

#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// Nodes that exist, in order of name.
    nodes: Vec<Node>,
    /// Nodes that only pods speak of.
    ghosts: BTreeMap<String, Node>,
    /// Where each counted pod is.
    places: BTreeMap<PodUid, String>,
    /// Assumed pods, not yet confirmed by the watch.
    assumed: BTreeMap<PodUid, Arc<Pod>>,
}

impl Cache {
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.position(name).ok().map(|position| &self.nodes[position])
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.nodes.binary_search_by(|node| node.name.as_str().cmp(name))
    }

    /// Takes a Node object over; pods that were waiting for it are found again.
    pub(crate) fn update_node(&mut self, object: &Value) {
        let name = meta::of(object).name().to_owned();
        match self.position(&name) {
            Ok(position) => self.nodes[position].update(object),
            Err(position) => {
                let mut node = self.ghosts.remove(&name).unwrap_or_default();
                node.update(object);
                self.nodes.insert(position, node);
            }
        }
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Ok(position) = self.position(name) {
            let mut node = self.nodes.remove(position);
            node.forget_object();
            if node.pod_count() > 0 {
                self.ghosts.insert(name.to_owned(), node);
            }
        }
    }

    /// Counts a pod that is bound, as the watch shows it; drops one that has finished. Confirms an assumed pod.
    /// Returns the node that gained room, if one did.
    pub(crate) fn update_pod(&mut self, pod: Arc<Pod>) -> Option<String> {
        if pod.node_name.is_empty() {
            return None; // not bound: an assumed pod stays assumed until its binding is seen
        }
        self.assumed.remove(&pod.uid);
        let before = self.take_away(&pod.uid);
        if pod.terminal {
            return before;
        }
        let moved = before.filter(|node| *node != pod.node_name);
        self.count(pod.node_name.clone(), pod);
        moved
    }

    /// Forgets a pod that was deleted; returns the node that gained room.
    pub(crate) fn remove_pod(&mut self, uid: &PodUid) -> Option<String> {
        self.assumed.remove(uid);
        self.take_away(uid)
    }

    /// Counts a pod on its chosen node before the binding is written.
    pub(crate) fn assume(&mut self, pod: Arc<Pod>, node: &str) {
        self.assumed.insert(pod.uid.clone(), pod.clone());
        self.take_away(&pod.uid);
        self.count(node.to_owned(), pod);
    }

    /// Takes an assumption back after a failed binding; false if the watch has confirmed it meanwhile.
    pub(crate) fn forget_assumed(&mut self, uid: &PodUid) -> bool {
        let was_assumed = self.assumed.remove(uid).is_some();
        if was_assumed {
            self.take_away(uid);
        }
        was_assumed
    }

    pub(crate) fn is_assumed(&self, uid: &PodUid) -> bool {
        self.assumed.contains_key(uid)
    }

    fn count(&mut self, node: String, pod: Arc<Pod>) {
        self.places.insert(pod.uid.clone(), node.clone());
        match self.position(&node) {
            Ok(position) => self.nodes[position].add_pod(pod),
            Err(_) => {
                let ghost = self.ghosts.entry(node.clone()).or_default();
                ghost.name = node;
                ghost.add_pod(pod);
            }
        }
    }

    fn take_away(&mut self, uid: &PodUid) -> Option<String> {
        let name = self.places.remove(uid)?;
        match self.position(&name) {
            Ok(position) => drop(self.nodes[position].remove_pod(uid)),
            Err(_) => {
                let ghost = self.ghosts.get_mut(&name)?;
                ghost.remove_pod(uid);
                if ghost.pod_count() == 0 {
                    self.ghosts.remove(&name);
                }
            }
        }
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str) -> Value {
        json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "4", "pods": "10"}}})
    }

    fn pod(uid: &str, node: &str, phase: &str) -> Arc<Pod> {
        let object = json!({"metadata": {"name": uid, "uid": uid}, "status": {"phase": phase},
            "spec": {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": "1"}}}]}});
        Arc::new(Pod::parse(Arc::new(object)))
    }

    fn used(cache: &Cache, node: &str) -> Option<i64> {
        cache.node(node).map(|node| node.requested.milli_cpu)
    }

    #[test]
    fn a_pod_counts_until_it_finishes_or_is_deleted() {
        let mut cache = Cache::default();
        cache.update_node(&node("n1"));
        cache.update_pod(pod("a", "n1", "Running"));
        cache.update_pod(pod("b", "n1", "Running"));
        assert_eq!(used(&cache, "n1"), Some(2000));
        assert_eq!(cache.update_pod(pod("a", "n1", "Succeeded")).as_deref(), Some("n1"));
        assert_eq!(cache.remove_pod(&"b".into()).as_deref(), Some("n1"));
        assert_eq!(used(&cache, "n1"), Some(0));
    }

    #[test]
    fn an_assumed_pod_counts_at_once_and_only_once_after_it_is_confirmed() {
        let mut cache = Cache::default();
        cache.update_node(&node("n1"));
        cache.assume(pod("a", "", "Pending"), "n1");
        assert_eq!(used(&cache, "n1"), Some(1000));
        cache.update_pod(pod("a", "n1", "Pending"));
        assert_eq!(used(&cache, "n1"), Some(1000));
        assert!(!cache.forget_assumed(&"a".into()), "a confirmed pod is not taken back");
        assert_eq!(used(&cache, "n1"), Some(1000));
    }

    #[test]
    fn a_failed_binding_gives_the_room_back() {
        let mut cache = Cache::default();
        cache.update_node(&node("n1"));
        cache.assume(pod("a", "", "Pending"), "n1");
        assert!(cache.forget_assumed(&"a".into()));
        assert_eq!(used(&cache, "n1"), Some(0));
    }

    #[test]
    fn pods_seen_before_their_node_count_once_it_comes() {
        let mut cache = Cache::default();
        cache.update_pod(pod("a", "n1", "Running"));
        assert!(cache.nodes().is_empty());
        cache.update_node(&node("n1"));
        assert_eq!(used(&cache, "n1"), Some(1000));
        cache.remove_node("n1");
        cache.update_node(&node("n1"));
        assert_eq!(used(&cache, "n1"), Some(1000));
    }
}
