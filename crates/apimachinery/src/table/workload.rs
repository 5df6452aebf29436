//! Workloads: deployments, replica sets, stateful sets, daemon sets, jobs, and what belongs to them.

use serde_json::json;

use super::field::{condition, containers, count, flag, labels, list, name, number, scalar, text, text_or};
use super::{AGE, Column, NAME, Now, Printer, boolean, integer, text as column, wide};
use crate::quantity;
use crate::selector::{self, LabelSelector};
use crate::{Value, meta, time};

const CONTAINERS: Column = wide("Containers", "Names of each container in the template.");
const IMAGES: Column = wide("Images", "Images referenced by each container in the template.");
const SELECTOR: Column = wide("Selector", "Label selector of the pods that belong to this object.");
const DESIRED: Column = integer("Desired", "The number of desired pods.");
const CURRENT: Column = integer("Current", "The number of pods that exist.");
const READY: Column = integer("Ready", "The number of pods that are ready.");

pub(super) const PRINTERS: &[Printer] = &[
    Printer {
        group: "apps",
        plural: "deployments",
        columns: &[
            NAME,
            column("Ready", "Number of the pod with ready state"),
            column(
                "Up-to-date",
                "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
            ),
            column(
                "Available",
                "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
            ),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        cells: deployment,
    },
    Printer {
        group: "apps",
        plural: "replicasets",
        columns: &[NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR],
        cells: |set, now| replicas(set, now, selector::format(set.pointer("/spec/selector"))),
    },
    Printer {
        group: "",
        plural: "replicationcontrollers",
        columns: &[NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR],
        cells: |set, now| replicas(set, now, labels(set, "/spec/selector")),
    },
    Printer {
        group: "apps",
        plural: "statefulsets",
        columns: &[NAME, column("Ready", "Number of the pod with ready state"), AGE, CONTAINERS, IMAGES],
        cells: stateful_set,
    },
    Printer {
        group: "apps",
        plural: "daemonsets",
        columns: &[
            NAME,
            DESIRED,
            CURRENT,
            READY,
            integer("Up-to-date", "The total number of nodes that are running updated daemon pod"),
            integer(
                "Available",
                "The number of nodes that should be running the daemon pod and have one available",
            ),
            column("Node Selector", "Labels that a node must have for the pod to fit on it."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        cells: daemon_set,
    },
    Printer {
        group: "batch",
        plural: "jobs",
        columns: &[
            NAME,
            column("Status", "Status of the job."),
            column("Completions", "The number of pods which reached phase Succeeded."),
            column("Duration", "Time required to complete the job."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        cells: job,
    },
    Printer {
        group: "batch",
        plural: "cronjobs",
        columns: &[
            NAME,
            column("Schedule", "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron."),
            column("Timezone", "The time zone name for the given schedule."),
            boolean("Suspend", "Whether subsequent executions are suspended."),
            integer("Active", "Jobs that are running now."),
            column("Last Schedule", "When a job was last successfully scheduled."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        cells: cron_job,
    },
    Printer {
        group: "apps",
        plural: "controllerrevisions",
        columns: &[
            NAME,
            column("Controller", "Controller of the object"),
            column("Revision", "Revision indicates the revision of the state represented by Data."),
            AGE,
        ],
        cells: controller_revision,
    },
    Printer {
        group: "",
        plural: "podtemplates",
        columns: &[
            NAME,
            column("Containers", "Names of each container in the template."),
            column("Images", "Images referenced by each container in the template."),
            column("Pod Labels", "The labels for the pod template."),
        ],
        cells: |template, _| {
            let (names, images) = containers(template, "/template");
            vec![
                name(template),
                json!(names),
                json!(images),
                json!(labels(template, "/template/metadata/labels")),
            ]
        },
    },
    Printer {
        group: "policy",
        plural: "poddisruptionbudgets",
        columns: &[
            NAME,
            column("Min Available", "The minimum number of pods that must be available."),
            column("Max Unavailable", "The maximum number of pods that may be unavailable."),
            integer("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
            AGE,
        ],
        cells: disruption_budget,
    },
    Printer {
        group: "autoscaling",
        plural: "horizontalpodautoscalers",
        columns: &[
            NAME,
            column("Reference", "The object that is scaled."),
            column("Targets", "Current and wanted values of the metrics."),
            column("MinPods", "Lower limit for the number of replicas."),
            column("MaxPods", "Upper limit for the number of replicas."),
            column("Replicas", "Current number of replicas of pods managed by this autoscaler."),
            AGE,
        ],
        cells: autoscaler,
    },
];

fn deployment(object: &Value, now: Now) -> Vec<Value> {
    let (names, images) = containers(object, "/spec/template");
    let selector = match LabelSelector::from_value(object.pointer("/spec/selector")) {
        Ok(selector) => selector.to_string(),
        Err(_) => "<invalid>".to_owned(),
    };
    vec![
        name(object),
        json!(format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"))),
        json!(number(object, "/status/updatedReplicas")),
        json!(number(object, "/status/availableReplicas")),
        now.age(object),
        json!(names),
        json!(images),
        json!(selector),
    ]
}

fn replicas(object: &Value, now: Now, selector: String) -> Vec<Value> {
    let (names, images) = containers(object, "/spec/template");
    vec![
        name(object),
        json!(number(object, "/spec/replicas")),
        json!(number(object, "/status/replicas")),
        json!(number(object, "/status/readyReplicas")),
        now.age(object),
        json!(names),
        json!(images),
        json!(selector),
    ]
}

fn stateful_set(object: &Value, now: Now) -> Vec<Value> {
    let (names, images) = containers(object, "/spec/template");
    let ready = format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"));
    vec![name(object), json!(ready), now.age(object), json!(names), json!(images)]
}

fn daemon_set(object: &Value, now: Now) -> Vec<Value> {
    let (names, images) = containers(object, "/spec/template");
    vec![
        name(object),
        json!(number(object, "/status/desiredNumberScheduled")),
        json!(number(object, "/status/currentNumberScheduled")),
        json!(number(object, "/status/numberReady")),
        json!(number(object, "/status/updatedNumberScheduled")),
        json!(number(object, "/status/numberAvailable")),
        json!(labels(object, "/spec/template/spec/nodeSelector")),
        now.age(object),
        json!(names),
        json!(images),
        json!(selector::format(object.pointer("/spec/selector"))),
    ]
}

fn job(object: &Value, now: Now) -> Vec<Value> {
    let succeeded = number(object, "/status/succeeded");
    let parallelism = number(object, "/spec/parallelism");
    let completions = match object.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let started = time::parse_s(text(object, "/status/startTime"));
    let completed = time::parse_s(text(object, "/status/completionTime"));
    let duration =
        started.map(|started| time::human_duration(completed.unwrap_or(now.0) - started)).unwrap_or_default();
    let holds = |type_: &str| condition(object, type_) == Some("True");
    let status = if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if meta::of(object).deletion_timestamp().is_some() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else {
        "Running"
    };
    let (names, images) = containers(object, "/spec/template");
    vec![
        name(object),
        json!(status),
        json!(completions),
        json!(duration),
        now.age(object),
        json!(names),
        json!(images),
        json!(selector::format(object.pointer("/spec/selector"))),
    ]
}

fn cron_job(object: &Value, now: Now) -> Vec<Value> {
    let last = match text(object, "/status/lastScheduleTime") {
        "" => "<none>".to_owned(),
        last => time::age(last, now.0),
    };
    let suspend = match object.pointer("/spec/suspend") {
        None | Some(Value::Null) => "<unset>",
        Some(_) if flag(object, "/spec/suspend") => "True",
        Some(_) => "False",
    };
    let (names, images) = containers(object, "/spec/jobTemplate/spec/template");
    vec![
        name(object),
        json!(text(object, "/spec/schedule")),
        json!(text_or(object, "/spec/timeZone", "<none>")),
        json!(suspend),
        json!(count(object, "/status/active")),
        json!(last),
        now.age(object),
        json!(names),
        json!(images),
        json!(selector::format(object.pointer("/spec/jobTemplate/spec/selector"))),
    ]
}

fn controller_revision(object: &Value, now: Now) -> Vec<Value> {
    let controller = match meta::of(object).controller() {
        Some(owner) => {
            let group =
                owner.api_version.split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
            format!("{}{}/{}", owner.kind.to_lowercase(), group.to_lowercase(), owner.name)
        }
        None => "<none>".to_owned(),
    };
    vec![name(object), json!(controller), json!(number(object, "/revision")), now.age(object)]
}

fn disruption_budget(object: &Value, now: Now) -> Vec<Value> {
    let bound = |pointer: &str| object.pointer(pointer).map_or("N/A".to_owned(), scalar);
    vec![
        name(object),
        json!(bound("/spec/minAvailable")),
        json!(bound("/spec/maxUnavailable")),
        json!(number(object, "/status/disruptionsAllowed")),
        now.age(object),
    ]
}

fn autoscaler(object: &Value, now: Now) -> Vec<Value> {
    let target = format!(
        "{}/{}",
        text(object, "/spec/scaleTargetRef/kind"),
        text(object, "/spec/scaleTargetRef/name")
    );
    let minimum = object.pointer("/spec/minReplicas").map_or("<unset>".to_owned(), scalar);
    vec![
        name(object),
        json!(target),
        json!(metrics(object)),
        json!(minimum),
        json!(number(object, "/spec/maxReplicas")),
        json!(number(object, "/status/currentReplicas")),
        now.age(object),
    ]
}

/// The first two metrics as `current/wanted`.
fn metrics(object: &Value) -> String {
    const SHOWN: usize = 2;
    let specs = list(object, "/spec/metrics");
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let statuses = list(object, "/status/currentMetrics");
    let texts: Vec<String> =
        specs.iter().enumerate().map(|(index, spec)| metric(spec, statuses.get(index))).collect();
    let shown = texts.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if texts.len() > SHOWN { format!("{shown} + {} more...", texts.len() - SHOWN) } else { shown }
}

fn metric(spec: &Value, status: Option<&Value>) -> String {
    let source = match text(spec, "/type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let amount = |value: &Value| quantity::canonical(&scalar(value)).unwrap_or_else(|_| scalar(value));
    let wanted =
        |field: &str| spec.pointer(&format!("/{source}/target/{field}")).filter(|value| !value.is_null());
    let current =
        |field: &str| status.and_then(|status| status.pointer(&format!("/{source}/current/{field}")));
    let current_text = |field: &str| current(field).map_or("<unknown>".to_owned(), amount);
    let average = wanted("averageValue").map(amount);
    match (source, average) {
        ("pods", average) => {
            format!("{}/{}", current_text("averageValue"), average.unwrap_or("0".to_owned()))
        }
        ("resource" | "containerResource", Some(average)) => {
            let resource = text(spec, &format!("/{source}/name"));
            format!("{resource}: {}/{average}", current_text("averageValue"))
        }
        ("resource" | "containerResource", None) => {
            let percent = |value: Option<&Value>, absent: &str| {
                value.map_or(absent.to_owned(), |value| format!("{}%", scalar(value)))
            };
            let resource = text(spec, &format!("/{source}/name"));
            let now = percent(current("averageUtilization"), "<unknown>");
            format!("{resource}: {now}/{}", percent(wanted("averageUtilization"), "<auto>"))
        }
        (_, Some(average)) => format!("{}/{average} (avg)", current_text("averageValue")),
        (_, None) => {
            let value = wanted("value").map_or("0".to_owned(), amount);
            format!("{}/{value}", current_text("value"))
        }
    }
}
