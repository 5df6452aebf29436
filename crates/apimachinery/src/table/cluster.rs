//! Nodes, namespaces, configuration, identity, events, leases, and our own decisions.

use std::collections::BTreeSet;

use serde_json::json;

use super::field::{condition, count, flag, list, name, number, text, text_or};
use super::{AGE, Column, NAME, Now, Printer, integer, text as column, wide};
use crate::{Value, meta, time};

const ROLE_LABEL_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";
const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const WEBHOOKS: &[Column] = &[
    NAME,
    integer("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"),
    AGE,
];
const BINDING: &[Column] = &[
    NAME,
    column("Role", "The role that is bound."),
    AGE,
    wide("Users", "Users in the binding"),
    wide("Groups", "Groups in the binding"),
    wide("ServiceAccounts", "ServiceAccounts in the binding"),
];

pub(super) const PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        plural: "nodes",
        columns: &[
            NAME,
            column("Status", "The status of the node"),
            column("Roles", "The roles of the node"),
            AGE,
            column("Version", "Kubelet Version reported by the node."),
            wide("Internal-IP", "Address of the node inside the cluster."),
            wide("External-IP", "Address of the node from outside."),
            wide(
                "OS-Image",
                "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
            ),
            wide(
                "Kernel-Version",
                "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
            ),
            wide(
                "Container-Runtime",
                "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
            ),
        ],
        cells: node,
    },
    Printer {
        group: "",
        plural: "namespaces",
        columns: &[NAME, column("Status", "The status of the namespace"), AGE],
        cells: |object, now| vec![name(object), json!(text(object, "/status/phase")), now.age(object)],
    },
    Printer {
        group: "",
        plural: "configmaps",
        columns: &[NAME, column("Data", "Number of keys."), AGE],
        cells: |object, now| {
            vec![name(object), json!(count(object, "/data") + count(object, "/binaryData")), now.age(object)]
        },
    },
    Printer {
        group: "",
        plural: "secrets",
        columns: &[NAME, column("Type", "What the secret is for."), column("Data", "Number of keys."), AGE],
        cells: |object, now| {
            vec![name(object), json!(text(object, "/type")), json!(count(object, "/data")), now.age(object)]
        },
    },
    Printer {
        group: "",
        plural: "serviceaccounts",
        columns: &[NAME, column("Secrets", "Secrets that pods of this account may use."), AGE],
        cells: |object, now| vec![name(object), json!(count(object, "/secrets")), now.age(object)],
    },
    Printer {
        group: "",
        plural: "events",
        columns: &[
            column("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
            column("Type", "Type of this event (Normal, Warning), new types could be added in the future"),
            column("Reason", "Why the event happened, for machines."),
            column("Object", "The object that this event is about."),
            wide("Subobject", "The part of the object that this event is about."),
            wide("Source", "The component reporting this event."),
            column("Message", "A human-readable description of the status of this operation."),
            wide("First Seen", "The time at which the event was first recorded."),
            wide("Count", "The number of times this event has occurred."),
            Column { priority: 1, ..NAME },
        ],
        cells: event,
    },
    Printer {
        group: "coordination.k8s.io",
        plural: "leases",
        columns: &[NAME, column("Holder", "The identity of the holder of the lease."), AGE],
        cells: |object, now| vec![name(object), json!(text(object, "/spec/holderIdentity")), now.age(object)],
    },
    Printer { group: RBAC, plural: "rolebindings", columns: BINDING, cells: role_binding },
    Printer { group: RBAC, plural: "clusterrolebindings", columns: BINDING, cells: role_binding },
    Printer {
        group: "certificates.k8s.io",
        plural: "certificatesigningrequests",
        columns: &[
            NAME,
            AGE,
            column("SignerName", "The signer that the request is meant for."),
            column("Requestor", "The user who made the request."),
            column("RequestedDuration", "How long the certificate should be valid."),
            column("Condition", "Conditions of the request."),
        ],
        cells: signing_request,
    },
    Printer {
        group: "node.k8s.io",
        plural: "runtimeclasses",
        columns: &[NAME, column("Handler", "The configuration of the container runtime that is used."), AGE],
        cells: |object, now| vec![name(object), json!(text(object, "/handler")), now.age(object)],
    },
    Printer { group: ADMISSION, plural: "mutatingwebhookconfigurations", columns: WEBHOOKS, cells: webhooks },
    Printer {
        group: ADMISSION,
        plural: "validatingwebhookconfigurations",
        columns: WEBHOOKS,
        cells: webhooks,
    },
    Printer {
        group: "flowcontrol.apiserver.k8s.io",
        plural: "flowschemas",
        columns: &[
            NAME,
            column("PriorityLevel", "The priority level that matching requests get."),
            column("MatchingPrecedence", "Lower numbers are tried first."),
            column("DistinguisherMethod", "How flows are told apart."),
            AGE,
            column("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"),
        ],
        cells: flow_schema,
    },
    Printer {
        group: "flowcontrol.apiserver.k8s.io",
        plural: "prioritylevelconfigurations",
        columns: &[
            NAME,
            column("Type", "Whether requests of this level are limited."),
            column("NominalConcurrencyShares", "The level's share of the server's concurrency."),
            column("Queues", "Number of queues."),
            column("HandSize", "Number of queues that a flow may use."),
            column("QueueLengthLimit", "Requests that may wait in a queue."),
            AGE,
        ],
        cells: priority_level,
    },
    Printer {
        group: "apiregistration.k8s.io",
        plural: "apiservices",
        columns: &[
            NAME,
            column("Service", "The reference to the service that hosts this API endpoint."),
            column("Available", "Whether this service is available."),
            AGE,
        ],
        cells: api_service,
    },
    Printer {
        group: "resource.k8s.io",
        plural: "resourceclaims",
        columns: &[
            NAME,
            column("State", "A summary of the current state (allocated, pending, reserved, etc.)."),
            AGE,
        ],
        cells: |object, now| vec![name(object), json!(resource_claim(object)), now.age(object)],
    },
    Printer {
        group: "resource.k8s.io",
        plural: "resourceslices",
        columns: &[
            NAME,
            column("Node", "The node that the devices belong to."),
            column("Driver", "The driver that offers the devices."),
            column("Pool", "The pool that the devices belong to."),
            AGE,
        ],
        cells: |object, now| {
            vec![
                name(object),
                json!(text(object, "/spec/nodeName")),
                json!(text(object, "/spec/driver")),
                json!(text(object, "/spec/pool/name")),
                now.age(object),
            ]
        },
    },
    Printer {
        group: "scheduling.binnacle.dev",
        plural: "decisions",
        columns: &[
            NAME,
            column("Result", "Scheduled, Unschedulable or Error."),
            column("Node", "The node that was chosen."),
            column("Feasible", "Nodes that passed all filters, out of those that were looked at."),
            AGE,
            wide("Message", "The decision in one sentence."),
        ],
        cells: decision,
    },
];

fn node(object: &Value, now: Now) -> Vec<Value> {
    let mut status = vec![match condition(object, "Ready") {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if flag(object, "/spec/unschedulable") {
        status.push("SchedulingDisabled");
    }
    let roles: BTreeSet<&str> = meta::of(object)
        .labels()
        .filter_map(
            |(key, value)| if key == ROLE_LABEL { Some(value) } else { key.strip_prefix(ROLE_LABEL_PREFIX) },
        )
        .filter(|role| !role.is_empty())
        .collect();
    let roles = roles.into_iter().collect::<Vec<_>>().join(",");
    let address = |type_: &str| {
        let found = list(object, "/status/addresses").iter().find(|address| text(address, "/type") == type_);
        found.map_or("<none>", |address| text(address, "/address"))
    };
    let info = |field: &str| text_or(object, &format!("/status/nodeInfo/{field}"), "<unknown>").to_owned();
    vec![
        name(object),
        json!(status.join(",")),
        json!(if roles.is_empty() { "<none>" } else { &roles }),
        now.age(object),
        json!(text(object, "/status/nodeInfo/kubeletVersion")),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(info("osImage")),
        json!(info("kernelVersion")),
        json!(info("containerRuntimeVersion")),
    ]
}

fn event(object: &Value, now: Now) -> Vec<Value> {
    let age = |pointer: &str| match text(object, pointer) {
        "" => None,
        timestamp => Some(time::age(timestamp, now.0)),
    };
    let unknown = "<unknown>".to_owned();
    let first = age("/firstTimestamp").or_else(|| age("/eventTime")).unwrap_or(unknown);
    let has_series = object.get("series").is_some_and(|series| !series.is_null());
    let (last, occurrences) = if has_series {
        (age("/series/lastObservedTime").unwrap_or("<unknown>".to_owned()), number(object, "/series/count"))
    } else {
        (age("/lastTimestamp").unwrap_or_else(|| first.clone()), number(object, "/count").max(1))
    };
    let kind = text(object, "/involvedObject/kind").to_lowercase();
    let target = match text(object, "/involvedObject/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = text_or(object, "/source/component", text(object, "/reportingComponent"));
    let source = match text_or(object, "/source/host", text(object, "/reportingInstance")) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    };
    vec![
        json!(last),
        json!(text(object, "/type")),
        json!(text(object, "/reason")),
        json!(target),
        json!(text(object, "/involvedObject/fieldPath")),
        json!(source),
        json!(text(object, "/message").trim()),
        json!(first),
        json!(occurrences),
        name(object),
    ]
}

fn role_binding(object: &Value, now: Now) -> Vec<Value> {
    let role = format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name"));
    let subjects = list(object, "/subjects");
    let of_kind = |kind: &'static str| subjects.iter().filter(move |subject| text(subject, "/kind") == kind);
    let named =
        |kind| of_kind(kind).map(|subject| text(subject, "/name").to_owned()).collect::<Vec<_>>().join(", ");
    let accounts = of_kind("ServiceAccount").map(|subject| match text(subject, "/namespace") {
        "" => text(subject, "/name").to_owned(),
        namespace => format!("{namespace}/{}", text(subject, "/name")),
    });
    let accounts = accounts.collect::<Vec<_>>().join(", ");
    vec![
        name(object),
        json!(role),
        now.age(object),
        json!(named("User")),
        json!(named("Group")),
        json!(accounts),
    ]
}

fn signing_request(object: &Value, now: Now) -> Vec<Value> {
    let duration = object.pointer("/spec/expirationSeconds").and_then(Value::as_i64);
    let duration = duration.map_or("<none>".to_owned(), time::human_duration);
    let has = |type_| condition(object, type_).is_some();
    let mut status = if has("Denied") {
        "Denied".to_owned()
    } else if has("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !text(object, "/status/certificate").is_empty() {
        status.push_str(",Issued");
    }
    vec![
        name(object),
        now.age(object),
        json!(text_or(object, "/spec/signerName", "<none>")),
        json!(text(object, "/spec/username")),
        json!(duration),
        json!(status),
    ]
}

fn webhooks(object: &Value, now: Now) -> Vec<Value> {
    vec![name(object), json!(count(object, "/webhooks")), now.age(object)]
}

fn flow_schema(object: &Value, now: Now) -> Vec<Value> {
    vec![
        name(object),
        json!(text(object, "/spec/priorityLevelConfiguration/name")),
        json!(number(object, "/spec/matchingPrecedence")),
        json!(text_or(object, "/spec/distinguisherMethod/type", "<none>")),
        now.age(object),
        json!(condition(object, "Dangling").unwrap_or("?")),
    ]
}

fn priority_level(object: &Value, now: Now) -> Vec<Value> {
    let queuing = "/spec/limited/limitResponse/queuing";
    let value = |pointer: &str| object.pointer(pointer).cloned().unwrap_or(json!("<none>"));
    vec![
        name(object),
        json!(text(object, "/spec/type")),
        value("/spec/limited/nominalConcurrencyShares"),
        value(&format!("{queuing}/queues")),
        value(&format!("{queuing}/handSize")),
        value(&format!("{queuing}/queueLengthLimit")),
        now.age(object),
    ]
}

fn api_service(object: &Value, now: Now) -> Vec<Value> {
    let service = match object.pointer("/spec/service").filter(|service| !service.is_null()) {
        Some(service) => format!("{}/{}", text(service, "/namespace"), text(service, "/name")),
        None => "Local".to_owned(),
    };
    let conditions = list(object, "/status/conditions");
    let available = conditions.iter().find(|condition| text(condition, "/type") == "Available");
    let available = match available.map(|condition| (text(condition, "/status"), text(condition, "/reason")))
    {
        Some(("True", _)) => "True".to_owned(),
        Some((status, reason)) => format!("{status} ({reason})"),
        None => "Unknown".to_owned(),
    };
    vec![name(object), json!(service), json!(available), now.age(object)]
}

fn resource_claim(object: &Value) -> String {
    let deleted = meta::of(object).deletion_timestamp().is_some();
    let allocated = object.pointer("/status/allocation").is_some_and(|allocation| !allocation.is_null());
    let reserved = allocated && !list(object, "/status/reservedFor").is_empty();
    let states = [
        (deleted, "deleted"),
        (!allocated && !deleted, "pending"),
        (allocated, "allocated"),
        (reserved, "reserved"),
    ];
    states.into_iter().filter(|(holds, _)| *holds).map(|(_, state)| state).collect::<Vec<_>>().join(",")
}

fn decision(object: &Value, now: Now) -> Vec<Value> {
    let nodes =
        format!("{}/{}", number(object, "/status/feasibleNodes"), number(object, "/status/evaluatedNodes"));
    vec![
        name(object),
        json!(text(object, "/status/result")),
        json!(text_or(object, "/status/node", "<none>")),
        json!(nodes),
        now.age(object),
        json!(text(object, "/status/message")),
    ]
}
