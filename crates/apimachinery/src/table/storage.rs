//! Volumes, claims, storage classes, CSI.

use serde_json::json;

use super::field::{count, flag, list, name, number, scalar, text, text_or, texts};
use super::{AGE, NAME, Now, Printer, boolean, integer, text as column, wide};
use crate::quantity;
use crate::{Value, meta};

pub(super) const PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        plural: "persistentvolumes",
        columns: &[
            NAME,
            column("Capacity", "The persistent volume's resources and capacity."),
            column("Access Modes", "All ways in which the volume can be mounted."),
            column("Reclaim Policy", "What happens to a persistent volume when released from its claim."),
            column("Status", "Whether the volume is available, bound to a claim, or released by a claim."),
            column("Claim", "The claim that the volume is bound to."),
            column("StorageClass", "StorageClass of the pv"),
            column("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
            column("Reason", "Why the volume is in this state."),
            AGE,
            wide("VolumeMode", "Whether the volume is used with a file system or as a raw block device."),
        ],
        cells: volume,
    },
    Printer {
        group: "",
        plural: "persistentvolumeclaims",
        columns: &[
            NAME,
            column("Status", "The current phase of the claim."),
            column("Volume", "The volume that backs the claim."),
            column("Capacity", "The actual resources of the volume."),
            column("Access Modes", "The actual access modes of the volume."),
            column("StorageClass", "StorageClass of the pvc"),
            column("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
            AGE,
            wide("VolumeMode", "What kind of volume the claim needs."),
        ],
        cells: claim,
    },
    Printer {
        group: "storage.k8s.io",
        plural: "storageclasses",
        columns: &[
            NAME,
            column("Provisioner", "The type of the provisioner."),
            column("ReclaimPolicy", "The reclaim policy of volumes of this class."),
            column("VolumeBindingMode", "When volumes of this class are provisioned and bound."),
            column("AllowVolumeExpansion", "Whether volumes can be expanded."),
            AGE,
        ],
        cells: storage_class,
    },
    Printer {
        group: "storage.k8s.io",
        plural: "volumeattachments",
        columns: &[
            NAME,
            column("Attacher", "The volume driver that handles this request."),
            column("PV", "The persistent volume to attach."),
            column("Node", "The node that the volume is attached to."),
            boolean("Attached", "Whether the volume is attached."),
            AGE,
        ],
        cells: |object, now| {
            vec![
                name(object),
                json!(text(object, "/spec/attacher")),
                json!(text(object, "/spec/source/persistentVolumeName")),
                json!(text(object, "/spec/nodeName")),
                json!(flag(object, "/status/attached")),
                now.age(object),
            ]
        },
    },
    Printer {
        group: "storage.k8s.io",
        plural: "csinodes",
        columns: &[
            NAME,
            integer("Drivers", "Drivers indicates the number of CSI drivers registered on the node"),
            AGE,
        ],
        cells: |object, now| vec![name(object), json!(count(object, "/spec/drivers")), now.age(object)],
    },
    Printer {
        group: "storage.k8s.io",
        plural: "csidrivers",
        columns: &[
            NAME,
            boolean("AttachRequired", "Whether the driver needs an attach operation."),
            boolean("PodInfoOnMount", "Whether the driver needs information about the pod."),
            boolean("StorageCapacity", "Whether the driver publishes storage capacity."),
            column("TokenRequests", "Audiences of the tokens that the driver needs."),
            boolean("RequiresRepublish", "Whether the driver wants to be called again and again."),
            column("Modes", "Kinds of volumes that the driver supports."),
            AGE,
        ],
        cells: csi_driver,
    },
    Printer {
        group: "storage.k8s.io",
        plural: "csistoragecapacities",
        columns: &[
            NAME,
            column("StorageClassName", "The storage class that the reported capacity applies to."),
            column("Capacity", "The capacity as reported by the driver."),
        ],
        cells: |object, _| {
            let capacity = object.get("capacity").map_or("<unset>".to_owned(), amount);
            vec![name(object), json!(text(object, "/storageClassName")), json!(capacity)]
        },
    },
    Printer {
        group: "",
        plural: "resourcequotas",
        columns: &[
            NAME,
            column(
                "Request",
                "Request represents a minimum amount of cpu/memory that a container may consume.",
            ),
            column(
                "Limit",
                "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
            ),
            AGE,
        ],
        cells: quota,
    },
    Printer {
        group: "scheduling.k8s.io",
        plural: "priorityclasses",
        columns: &[
            NAME,
            integer("Value", "The priority that pods of this class get."),
            boolean("Global-Default", "Whether pods without a class get this one."),
            AGE,
            column("PreemptionPolicy", "Whether pods of this class may preempt others."),
        ],
        cells: |object, now| {
            vec![
                name(object),
                json!(number(object, "/value")),
                json!(flag(object, "/globalDefault")),
                now.age(object),
                json!(text(object, "/preemptionPolicy")),
            ]
        },
    },
];

fn amount(value: &Value) -> String {
    quantity::canonical(&scalar(value)).unwrap_or_else(|_| scalar(value))
}

/// A quantity of an object; `0` when absent, as Go prints an empty quantity.
fn capacity(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).map_or("0".to_owned(), amount)
}

/// `RWO,ROX,RWX,RWOP` in upstream's fixed order.
fn access_modes(object: &Value, pointer: &str) -> String {
    let modes = texts(object, pointer);
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let short = known.into_iter().filter(|(mode, _)| modes.contains(mode)).map(|(_, short)| short);
    short.collect::<Vec<_>>().join(",")
}

/// The class, which an old annotation may still name.
fn class<'a>(object: &'a Value, pointer: &str) -> &'a str {
    let annotation = meta::of(object).annotation("volume.beta.kubernetes.io/storage-class");
    annotation.unwrap_or_else(|| text(object, pointer))
}

fn phase(object: &Value) -> &str {
    if meta::of(object).deletion_timestamp().is_some() {
        "Terminating"
    } else {
        text(object, "/status/phase")
    }
}

fn volume(object: &Value, now: Now) -> Vec<Value> {
    let claim = match object.pointer("/spec/claimRef").filter(|claim| !claim.is_null()) {
        Some(claim) => format!("{}/{}", text(claim, "/namespace"), text(claim, "/name")),
        None => String::new(),
    };
    vec![
        name(object),
        json!(capacity(object, "/spec/capacity/storage")),
        json!(access_modes(object, "/spec/accessModes")),
        json!(text(object, "/spec/persistentVolumeReclaimPolicy")),
        json!(phase(object)),
        json!(claim),
        json!(class(object, "/spec/storageClassName")),
        json!(text_or(object, "/spec/volumeAttributesClassName", "<unset>")),
        json!(text(object, "/status/reason")),
        now.age(object),
        json!(text_or(object, "/spec/volumeMode", "<unset>")),
    ]
}

fn claim(object: &Value, now: Now) -> Vec<Value> {
    let bound = !text(object, "/spec/volumeName").is_empty();
    let (size, modes) = if bound {
        (capacity(object, "/status/capacity/storage"), access_modes(object, "/status/accessModes"))
    } else {
        (String::new(), String::new())
    };
    vec![
        name(object),
        json!(phase(object)),
        json!(text(object, "/spec/volumeName")),
        json!(size),
        json!(modes),
        json!(class(object, "/spec/storageClassName")),
        json!(text_or(object, "/spec/volumeAttributesClassName", "<unset>")),
        now.age(object),
        json!(text_or(object, "/spec/volumeMode", "<unset>")),
    ]
}

fn storage_class(object: &Value, now: Now) -> Vec<Value> {
    let meta = meta::of(object);
    let is_default =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
            .into_iter()
            .any(|key| meta.annotation(key) == Some("true"));
    let shown = if is_default { format!("{} (default)", meta.name()) } else { meta.name().to_owned() };
    vec![
        json!(shown),
        json!(text(object, "/provisioner")),
        json!(text_or(object, "/reclaimPolicy", "Delete")),
        json!(text_or(object, "/volumeBindingMode", "Immediate")),
        json!(flag(object, "/allowVolumeExpansion")),
        now.age(object),
    ]
}

fn csi_driver(object: &Value, now: Now) -> Vec<Value> {
    let attach = object.pointer("/spec/attachRequired").and_then(Value::as_bool).unwrap_or(true);
    let tokens = match object.pointer("/spec/tokenRequests") {
        Some(Value::Array(_)) => {
            let audiences = list(object, "/spec/tokenRequests").iter().map(|token| text(token, "/audience"));
            audiences.collect::<Vec<_>>().join(",")
        }
        _ => "<unset>".to_owned(),
    };
    let modes = match texts(object, "/spec/volumeLifecycleModes").join(",") {
        modes if modes.is_empty() => "<none>".to_owned(),
        modes => modes,
    };
    vec![
        name(object),
        json!(attach),
        json!(flag(object, "/spec/podInfoOnMount")),
        json!(flag(object, "/spec/storageCapacity")),
        json!(tokens),
        json!(flag(object, "/spec/requiresRepublish")),
        json!(modes),
        now.age(object),
    ]
}

fn quota(object: &Value, now: Now) -> Vec<Value> {
    let hard = object.pointer("/status/hard").and_then(Value::as_object);
    let mut resources: Vec<(&String, &Value)> = hard.into_iter().flatten().collect();
    resources.sort_by_key(|(resource, _)| *resource);
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in resources {
        let used = object.pointer("/status/used").and_then(|used| used.get(resource));
        let used = used.map_or("0".to_owned(), amount);
        let list = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        list.push(format!("{resource}: {used}/{}", amount(hard)));
    }
    vec![name(object), json!(requests.join(", ")), json!(limits.join(", ")), now.age(object)]
}
