//! Writes decisions to the API server: the binding, the pod's condition, an event, and the account.
//!
//! Invariants: the binding comes first, the rest follows only if it succeeded; the account is best effort and never holds
//! up a pod. A failure that says the same as the pod's condition already says is not written again.

use std::sync::Arc;

use kubeclient::{Client, Error, EventRecorder, EventType, Patch, RecordedEvent};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::cycle::Cycle;
use crate::decision;
use crate::pod::{Pod, items, text};

/// What became of a binding.
pub(crate) struct Bound {
    pub(crate) pod: Arc<Pod>,
    pub(crate) node: String,
    pub(crate) result: Result<(), Error>,
}

#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
    recorder: EventRecorder,
    bound: mpsc::Sender<Bound>,
}

impl Writer {
    pub(crate) fn new(client: Client, recorder: EventRecorder, bound: mpsc::Sender<Bound>) -> Writer {
        Writer { client, recorder, bound }
    }

    /// Binds the pod to the chosen node; the result comes through the channel.
    pub(crate) fn bind(&self, pod: Arc<Pod>, cycle: Cycle, attempt: u32, state: String) {
        let Some(node) = cycle.chosen.clone() else { return };
        let writer = self.clone();
        tokio::spawn(async move {
            let result = writer.post_binding(&pod, &node).await;
            let succeeded = result.is_ok();
            // The loop may have ended; then nobody counts any more.
            drop(writer.bound.send(Bound { pod: pod.clone(), node: node.clone(), result }).await);
            if succeeded {
                let note = format!("Successfully assigned {} to {node}", pod.full_name());
                writer.event(&pod, EventType::Normal, "Scheduled", "Binding", note);
                writer.write_account(&pod, &cycle, attempt, &state).await;
            }
        });
    }

    async fn post_binding(&self, pod: &Pod, node: &str) -> Result<(), Error> {
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": &*pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let pods = self.client.api("", "v1", "pods").namespace(&pod.namespace);
        pods.create_subresource(&pod.name, "binding", &binding).await.map(drop)
    }

    /// Says on the pod why no node took it.
    pub(crate) fn report_failure(&self, pod: Arc<Pod>, cycle: Cycle, attempt: u32, state: String) {
        let message = cycle.failure_message();
        self.event(&pod, EventType::Warning, "FailedScheduling", "Scheduling", message.clone());
        if condition_message(&pod.object).as_deref() == Some(&message) {
            return;
        }
        let writer = self.clone();
        tokio::spawn(async move {
            if let Err(error) = writer.patch_condition(&pod, &message).await
                && !error.is_not_found()
            {
                warn!(pod = pod.full_name(), %error, "cannot write the condition PodScheduled");
            }
            writer.write_account(&pod, &cycle, attempt, &state).await;
        });
    }

    async fn patch_condition(&self, pod: &Pod, message: &str) -> Result<(), Error> {
        let now = now();
        let patch = json!({"metadata": {"uid": &*pod.uid}, "status": {"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": null,
            "lastTransitionTime": now,
        }]}});
        let pods = self.client.api("", "v1", "pods").namespace(&pod.namespace);
        pods.patch_status(&pod.name, &Patch::Strategic(patch)).await.map(drop)
    }

    async fn write_account(&self, pod: &Pod, cycle: &Cycle, attempt: u32, state: &str) {
        let object = decision::object(pod, cycle, attempt, &now(), state);
        let api = self.client.api(decision::GROUP, decision::VERSION, "decisions").namespace(&pod.namespace);
        let result = match api.create(&object).await {
            Err(error) if error.is_already_exists() => api.update(&object).await,
            other => other,
        };
        if let Err(error) = result {
            debug!(pod = pod.full_name(), %error, "cannot write the decision");
        }
    }

    fn event(&self, pod: &Pod, kind: EventType, reason: &'static str, action: &'static str, note: String) {
        self.recorder.record(RecordedEvent {
            regarding: &pod.object,
            related: None,
            kind,
            reason,
            action,
            note: &note,
        });
    }
}

fn now() -> String {
    apimachinery::time::format_s(jiff::Timestamp::now().as_second())
}

fn condition_message(pod: &Value) -> Option<String> {
    items(&pod["status"]["conditions"])
        .find(|condition| condition["type"] == "PodScheduled")
        .map(|condition| text(&condition["message"]))
}
