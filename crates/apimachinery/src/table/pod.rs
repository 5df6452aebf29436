//! Pods: readiness, status and restarts are worked out from phase, conditions and container states.

use serde_json::json;

use super::field::{condition, flag, list, name, number, text, text_or};
use super::{AGE, NAME, Now, Printer, text as column, wide};
use crate::{Value, meta, time};

pub(super) const PRINTERS: &[Printer] = &[Printer {
    group: "",
    plural: "pods",
    columns: &[
        NAME,
        column("Ready", "The aggregate readiness state of this pod for accepting traffic."),
        column("Status", "The aggregate status of the containers in this pod."),
        column(
            "Restarts",
            "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        ),
        AGE,
        wide(
            "IP",
            "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
        ),
        wide("Node", "NodeName indicates in which node this pod is scheduled."),
        wide("Nominated Node", "The node whose resources preemption is freeing for this pod."),
        wide("Readiness Gates", "Readiness gates whose condition is true, out of all of them."),
    ],
    cells,
}];

/// Completed pods are marked, so that clients can hide them.
pub(super) fn row_condition(pod: &Value) -> Option<Value> {
    let (reason, message) = match text(pod, "/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

fn cells(pod: &Value, now: Now) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match summary.last_restart_s {
        Some(last_s) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, time::human_duration(now.0 - last_s))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = match text(pod, "/status/podIPs/0/ip") {
        "" => text_or(pod, "/status/podIP", "<none>"),
        ip => ip,
    };
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        now.age(pod),
        json!(ip),
        json!(text_or(pod, "/spec/nodeName", "<none>")),
        json!(text_or(pod, "/status/nominatedNodeName", "<none>")),
        json!(readiness_gates(pod)),
    ]
}

struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart_s: Option<i64>,
}

fn summarize(pod: &Value) -> Summary {
    let phase = text(pod, "/status/phase");
    let mut summary = Summary {
        reason: text_or(pod, "/status/reason", phase).to_owned(),
        ready: 0,
        total: list(pod, "/spec/containers").len(),
        restarts: 0,
        last_restart_s: None,
    };
    let gated = |condition: &Value| {
        text(condition, "/type") == "PodScheduled" && text(condition, "/reason") == "SchedulingGated"
    };
    if list(pod, "/status/conditions").iter().any(gated) {
        summary.reason = "SchedulingGated".to_owned();
    }
    summary.total +=
        list(pod, "/spec/initContainers").iter().filter(|container| is_sidecar(container)).count();

    let (initializing, sidecars) = init_containers(pod, &mut summary);
    if !initializing || condition(pod, "Initialized") == Some("True") {
        (summary.restarts, summary.last_restart_s) = sidecars;
        app_containers(pod, &mut summary);
    }
    if meta::of(pod).deletion_timestamp().is_some() {
        if text(pod, "/status/reason") == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

/// An init container that keeps running beside the others.
fn is_sidecar(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

/// Looks at init containers up to the first that is not done. Answers whether one is not, and the sidecars' restarts.
fn init_containers(pod: &Value, summary: &mut Summary) -> (bool, (i64, Option<i64>)) {
    let specs = list(pod, "/spec/initContainers");
    let mut sidecars = (0, None);
    for (index, container) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
        let restarts = number(container, "/restartCount");
        let last_s = last_termination_s(container);
        let sidecar =
            specs.iter().any(|spec| text(spec, "/name") == text(container, "/name") && is_sidecar(spec));
        summary.restarts += restarts;
        summary.last_restart_s = summary.last_restart_s.max(last_s);
        if sidecar {
            sidecars = (sidecars.0 + restarts, sidecars.1.max(last_s));
        }
        let terminated = container.pointer("/state/terminated");
        if terminated.is_some_and(|state| number(state, "/exitCode") == 0) {
            continue;
        }
        if sidecar && flag(container, "/started") {
            summary.ready += usize::from(flag(container, "/ready"));
            continue;
        }
        let waiting = text(container, "/state/waiting/reason");
        summary.reason = match terminated {
            Some(state) => format!("Init:{}", termination(state)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", specs.len()),
        };
        return (true, sidecars);
    }
    (false, sidecars)
}

fn app_containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for container in list(pod, "/status/containerStatuses").iter().rev() {
        summary.restarts += number(container, "/restartCount");
        summary.last_restart_s = summary.last_restart_s.max(last_termination_s(container));
        let waiting = text(container, "/state/waiting/reason");
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if let Some(state) = container.pointer("/state/terminated") {
            summary.reason = termination(state);
        } else if flag(container, "/ready") && container.pointer("/state/running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        let ready = condition(pod, "Ready") == Some("True");
        summary.reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

fn termination(state: &Value) -> String {
    match (text(state, "/reason"), number(state, "/signal")) {
        ("", 0) => format!("ExitCode:{}", number(state, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn last_termination_s(container: &Value) -> Option<i64> {
    time::parse_s(text(container, "/lastState/terminated/finishedAt"))
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open =
        gates.iter().filter(|gate| condition(pod, text(gate, "/conditionType")) == Some("True")).count();
    format!("{open}/{}", gates.len())
}
