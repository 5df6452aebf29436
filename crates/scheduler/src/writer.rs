//! Writes decisions to the API server: the binding, the pod's condition, an event, and the account.
//!
//! Invariants: the binding comes first, the rest follows only if it succeeded; the account is best effort and never holds
//! up a pod. A failure that says the same as the pod's condition already says is not written again. What became of a
//! binding is reported only once it is certain; until then the same one is sent again. Nothing is sent after the end of
//! the term, also not by a process that slept through it; answers to bindings that were on their way then are waited for
//! a moment, and those without one are remembered for the next term.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use apimachinery::meta;
use kubeclient::{Client, Error, EventRecorder, EventType, Patch, RecordedEvent, Term};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::cycle::Cycle;
use crate::decision;
use crate::pod::{Pod, PodUid, items, text};

/// Pause before a binding without a certain answer is sent again; it doubles.
const AGAIN_AFTER_FIRST: Duration = Duration::from_secs(1);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(8);
/// No server works that long on a request: what has not been written by then will not be.
const CERTAIN_AFTER: Duration = Duration::from_secs(120);
/// How long after the end of a term the answers to its bindings are waited for.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// What became of a binding.
pub(crate) struct Bound {
    pub(crate) pod: Arc<Pod>,
    /// The chosen one.
    pub(crate) node: String,
    /// Where the pod is now, which an earlier binding may have decided; an error: this binding will never be written.
    pub(crate) result: Result<String, Error>,
}

/// Bindings that were on their way when a term ended, by pod: they may still be written, long after.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unsettled(Arc<Mutex<BTreeMap<PodUid, String>>>);

impl Unsettled {
    fn add(&self, uid: &PodUid, node: &str) {
        let mut bindings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bindings.insert(uid.clone(), node.to_owned());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(crate) fn take(&self) -> BTreeMap<PodUid, String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a binding ended.
enum End {
    /// The pod is on that node, or this binding will never be written.
    Certain(Result<String, Error>),
    /// The term is over; it may be written still.
    Open,
    /// The term was over before anything was sent.
    NotSent,
}

#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) recorder: EventRecorder,
    pub(crate) bound: mpsc::Sender<Bound>,
    pub(crate) unsettled: Unsettled,
    /// Every task that writes.
    pub(crate) tasks: TaskTracker,
    pub(crate) term: Term,
}

impl Writer {
    /// Binds the pod to the chosen node; the result comes through the channel.
    pub(crate) fn bind(&self, pod: Arc<Pod>, cycle: Cycle, attempt: u32, state: String) {
        let Some(node) = cycle.chosen.clone() else { return };
        let writer = self.clone();
        self.tasks.spawn(async move {
            let result = match writer.bind_until_certain(&pod, &node).await {
                End::Certain(result) => result,
                End::Open => return writer.unsettled.add(&pod.uid, &node),
                End::NotSent => return,
            };
            let succeeded = result.as_ref().is_ok_and(|found| *found == node);
            // The loop may have ended; then nobody counts any more.
            drop(writer.bound.send(Bound { pod: pod.clone(), node: node.clone(), result }).await);
            if succeeded {
                let note = format!("Successfully assigned {} to {node}", pod.full_name());
                writer.event(&pod, EventType::Normal, "Scheduled", "Binding", note);
                writer
                    .term
                    .ended()
                    .run_until_cancelled(writer.write_account(&pod, &cycle, attempt, &state))
                    .await;
            }
        });
    }

    /// The node that the pod is on. An answer that leaves open whether the binding was or will be written is followed by
    /// the same binding: whichever of them comes first, the pod is on that node, and the others are refused.
    async fn bind_until_certain(&self, pod: &Pod, node: &str) -> End {
        let started = Instant::now();
        let mut pause = AGAIN_AFTER_FIRST;
        let mut sent_before = false;
        let over = |sent| if sent { End::Open } else { End::NotSent };
        loop {
            if !self.term.holds() {
                return over(sent_before);
            }
            let Some(answer) = self.within_handover(self.post_binding(pod, node)).await else {
                return End::Open;
            };
            let error = match answer {
                Ok(()) => return End::Certain(Ok(node.to_owned())),
                Err(error) if error.is_not_found() => return End::Certain(Err(error)),
                Err(error) => error,
            };
            let late = started.elapsed() > CERTAIN_AFTER;
            let refused = !error.is_transient() && !matches!(error, Error::Answer { .. });
            if refused || late {
                // Refused, but perhaps because an earlier try was successful, or another scheduler's. Where it stands on no
                // node after a refusal, an earlier try may still be on its way.
                match self.term.ended().run_until_cancelled(self.node_of(pod)).await {
                    Some(Ok(Some(found))) => return End::Certain(Ok(found)),
                    Some(Ok(None)) if late || !sent_before => return End::Certain(Err(error)),
                    None if !sent_before => return End::Certain(Err(error)),
                    Some(Err(_)) if late => return End::Certain(Err(error)),
                    Some(_) | None => {}
                }
            }
            sent_before |= !refused;
            debug!(pod = pod.full_name(), node, %error, "no certain answer to the binding, it is sent again");
            if self.term.ended().run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return over(sent_before);
            }
            pause = (pause * 2).min(AGAIN_AFTER_MAX);
        }
    }

    /// `None`: the term ended, and a while later there is no answer.
    async fn within_handover<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let too_late = async {
            self.term.ended().cancelled().await;
            tokio::time::sleep(ANSWERS_WITHIN).await;
        };
        tokio::select! {
            answer = answer => Some(answer),
            () = too_late => None,
        }
    }

    /// Where the pod is by a read that misses nothing; `None`: on no node, or gone.
    async fn node_of(&self, pod: &Pod) -> Result<Option<String>, Error> {
        let pods = self.client.api("", "v1", "pods").namespace(&pod.namespace);
        let found = pods.get_opt(&pod.name).await?.filter(|found| meta::of(found).uid() == &*pod.uid);
        Ok(found.map(|found| text(&found["spec"]["nodeName"])).filter(|node| !node.is_empty()))
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
        self.tasks.spawn(async move {
            let writes = async {
                if let Err(error) = writer.patch_condition(&pod, &message).await
                    && !error.is_not_found()
                {
                    warn!(pod = pod.full_name(), %error, "cannot write the condition PodScheduled");
                }
                writer.write_account(&pod, &cycle, attempt, &state).await;
            };
            writer.term.ended().run_until_cancelled(writes).await;
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
