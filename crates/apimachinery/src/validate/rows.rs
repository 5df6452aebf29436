//! Rules as rows: what a single field of a struct type must satisfy. Facts: upstream's `pkg/apis/*/validation`.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::names;

/// One rule about one field. A field that is empty is judged by `Required` only.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// Field, and what the error says besides "Required value"
    Required(&'static str, &'static str),
    OneOf(&'static str, &'static [&'static str]),
    Name(&'static str, fn(&str) -> Vec<String>),
    Between(&'static str, i64, i64),
    /// A port that may be left out
    Port(&'static str),
    /// A port's number or name
    PortOrName(&'static str),
    NotNegative(&'static str),
    /// Field, and the error's text
    Positive(&'static str, &'static str),
    /// List, and the key that no two items may share
    Unique(&'static str, &'static str),
}

use Rule::{Between, Name, NotNegative, OneOf, Port, PortOrName, Positive, Required, Unique};

pub(super) fn of(type_name: &str) -> &'static [Rule] {
    static INDEX: OnceLock<HashMap<&'static str, &'static [Rule]>> = OnceLock::new();
    INDEX.get_or_init(|| ROWS.iter().copied().collect()).get(type_name).copied().unwrap_or_default()
}

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) const ROWS: &[(&str, &[Rule])] = &[
    (
        "admissionregistration.v1.MutatingWebhook",
        &[
            Required("name", ""),
            OneOf("failurePolicy", &["Fail", "Ignore"]),
            OneOf("matchPolicy", &["Equivalent", "Exact"]),
            OneOf("reinvocationPolicy", &["IfNeeded", "Never"]),
            OneOf("sideEffects", &["None", "NoneOnDryRun"]),
            Between("timeoutSeconds", 1, 30),
        ],
    ),
    (
        "admissionregistration.v1.ValidatingWebhook",
        &[
            Required("name", ""),
            OneOf("failurePolicy", &["Fail", "Ignore"]),
            OneOf("matchPolicy", &["Equivalent", "Exact"]),
            OneOf("sideEffects", &["None", "NoneOnDryRun"]),
            Between("timeoutSeconds", 1, 30),
        ],
    ),
    (
        "apiextensions.v1.CustomResourceDefinitionNames",
        &[
            Required("plural", ""),
            Name("plural", names::dns1035_label),
            Required("kind", ""),
            Name("singular", names::dns1035_label),
        ],
    ),
    (
        "apiextensions.v1.CustomResourceDefinitionSpec",
        &[
            Required("group", ""),
            Name("group", names::dns1123_subdomain),
            Required("scope", ""),
            OneOf("scope", &["Cluster", "Namespaced"]),
            Required("versions", ""),
        ],
    ),
    (
        "apiextensions.v1.CustomResourceDefinitionVersion",
        &[Required("name", ""), Name("name", names::dns1035_label)],
    ),
    ("apps.v1.DaemonSetSpec", &[NotNegative("minReadySeconds"), NotNegative("revisionHistoryLimit")]),
    ("apps.v1.DaemonSetUpdateStrategy", &[OneOf("type", &["OnDelete", "RollingUpdate"])]),
    (
        "apps.v1.DeploymentSpec",
        &[
            NotNegative("replicas"),
            NotNegative("minReadySeconds"),
            NotNegative("revisionHistoryLimit"),
            NotNegative("progressDeadlineSeconds"),
        ],
    ),
    ("apps.v1.DeploymentStrategy", &[OneOf("type", &["Recreate", "RollingUpdate"])]),
    ("apps.v1.ReplicaSetSpec", &[NotNegative("replicas"), NotNegative("minReadySeconds")]),
    (
        "apps.v1.StatefulSetSpec",
        &[
            OneOf("podManagementPolicy", &["OrderedReady", "Parallel"]),
            NotNegative("replicas"),
            NotNegative("minReadySeconds"),
            NotNegative("revisionHistoryLimit"),
        ],
    ),
    ("apps.v1.StatefulSetUpdateStrategy", &[OneOf("type", &["OnDelete", "RollingUpdate"])]),
    ("authentication.v1.TokenRequestSpec", &[Between("expirationSeconds", 600, 1 << 32)]),
    ("autoscaling.v1.ScaleSpec", &[NotNegative("replicas")]),
    ("autoscaling.v2.CrossVersionObjectReference", &[Required("kind", ""), Required("name", "")]),
    (
        "autoscaling.v2.HorizontalPodAutoscalerSpec",
        &[
            Positive("maxReplicas", "must be greater than 0"),
            Positive("minReplicas", "must be greater than or equal to 1"),
        ],
    ),
    (
        "batch.v1.CronJobSpec",
        &[
            Required("schedule", ""),
            OneOf("concurrencyPolicy", &["Allow", "Forbid", "Replace"]),
            NotNegative("startingDeadlineSeconds"),
            NotNegative("successfulJobsHistoryLimit"),
            NotNegative("failedJobsHistoryLimit"),
        ],
    ),
    (
        "batch.v1.JobSpec",
        &[
            NotNegative("parallelism"),
            NotNegative("completions"),
            NotNegative("activeDeadlineSeconds"),
            NotNegative("backoffLimit"),
            NotNegative("ttlSecondsAfterFinished"),
            OneOf("completionMode", &["NonIndexed", "Indexed"]),
            OneOf("podReplacementPolicy", &["Failed", "TerminatingOrFailed"]),
        ],
    ),
    (
        "certificates.v1.CertificateSigningRequestSpec",
        &[Required("request", ""), Required("signerName", ""), Required("usages", "usages is required")],
    ),
    (
        "coordination.v1.LeaseSpec",
        &[Positive("leaseDurationSeconds", "must be greater than 0"), NotNegative("leaseTransitions")],
    ),
    ("core.v1.Binding", &[Required("target", "")]),
    ("core.v1.ConfigMapKeySelector", &[Required("name", ""), Required("key", "")]),
    ("core.v1.ConfigMapVolumeSource", &[Required("name", "")]),
    (
        "core.v1.Container",
        &[
            Required("name", ""),
            Name("name", names::dns1123_label),
            Required("image", ""),
            OneOf("imagePullPolicy", PULL_POLICIES),
            OneOf("terminationMessagePolicy", &["FallbackToLogsOnError", "File"]),
            OneOf("restartPolicy", &["Always", "Never", "OnFailure"]),
            Unique("ports", "name"),
        ],
    ),
    (
        "core.v1.ContainerPort",
        &[
            Required("containerPort", ""),
            Port("containerPort"),
            Port("hostPort"),
            Name("name", names::port_name),
            Required("protocol", ""),
            OneOf("protocol", PROTOCOLS),
        ],
    ),
    ("core.v1.EnvVar", &[Required("name", ""), Name("name", names::environment_name)]),
    (
        "core.v1.EphemeralContainer",
        &[
            Required("name", ""),
            Name("name", names::dns1123_label),
            Required("image", ""),
            OneOf("imagePullPolicy", PULL_POLICIES),
        ],
    ),
    ("core.v1.ExecAction", &[Required("command", "")]),
    (
        "core.v1.HTTPGetAction",
        &[Required("path", ""), PortOrName("port"), OneOf("scheme", &["HTTP", "HTTPS"])],
    ),
    ("core.v1.HostPathVolumeSource", &[Required("path", "")]),
    ("core.v1.KeyToPath", &[Required("key", ""), Required("path", "")]),
    ("core.v1.NFSVolumeSource", &[Required("server", ""), Required("path", "")]),
    ("core.v1.NodeSelector", &[Required("nodeSelectorTerms", "must have at least one node selector term")]),
    ("core.v1.PersistentVolumeClaimVolumeSource", &[Required("claimName", "")]),
    (
        "core.v1.PodAffinityTerm",
        &[Required("topologyKey", "can not be empty"), Name("topologyKey", names::qualified_name)],
    ),
    (
        "core.v1.PodSpec",
        &[
            Required("containers", ""),
            Required("restartPolicy", ""),
            OneOf("restartPolicy", &["Always", "OnFailure", "Never"]),
            Required("dnsPolicy", ""),
            OneOf("dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]),
            OneOf("preemptionPolicy", &["PreemptLowerPriority", "Never"]),
            Name("nodeName", names::dns1123_subdomain),
            Name("hostname", names::dns1123_label),
            Name("subdomain", names::dns1123_label),
            Name("serviceAccountName", names::dns1123_subdomain),
            Name("schedulerName", names::qualified_name),
            Name("priorityClassName", names::dns1123_subdomain),
            Between("activeDeadlineSeconds", 1, i32::MAX as i64),
            NotNegative("terminationGracePeriodSeconds"),
            Unique("volumes", "name"),
            Unique("schedulingGates", "name"),
        ],
    ),
    (
        "core.v1.PersistentVolumeSpec",
        &[
            OneOf("persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]),
            OneOf("volumeMode", &["Block", "Filesystem"]),
        ],
    ),
    ("core.v1.PersistentVolumeClaimSpec", &[OneOf("volumeMode", &["Block", "Filesystem"])]),
    (
        "core.v1.Probe",
        &[
            NotNegative("initialDelaySeconds"),
            NotNegative("timeoutSeconds"),
            NotNegative("periodSeconds"),
            NotNegative("successThreshold"),
            NotNegative("failureThreshold"),
        ],
    ),
    ("core.v1.SecretKeySelector", &[Required("name", ""), Required("key", "")]),
    ("core.v1.SecretVolumeSource", &[Required("secretName", "")]),
    (
        "core.v1.ServicePort",
        &[
            Between("port", 1, 65535),
            PortOrName("targetPort"),
            Port("nodePort"),
            Required("protocol", ""),
            OneOf("protocol", PROTOCOLS),
            Name("name", names::dns1123_label),
            Name("appProtocol", names::qualified_name),
        ],
    ),
    (
        "core.v1.ServiceSpec",
        &[
            Required("type", ""),
            OneOf("type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]),
            OneOf("sessionAffinity", &["ClientIP", "None"]),
            OneOf("externalTrafficPolicy", &["Cluster", "Local"]),
            OneOf("internalTrafficPolicy", &["Cluster", "Local"]),
            Unique("ports", "name"),
        ],
    ),
    ("core.v1.TCPSocketAction", &[PortOrName("port")]),
    (
        "core.v1.Taint",
        &[
            Required("key", ""),
            Name("key", names::qualified_name),
            Name("value", names::label_value),
            Required("effect", ""),
            OneOf("effect", EFFECTS),
        ],
    ),
    (
        "core.v1.Toleration",
        &[
            Name("key", names::qualified_name),
            OneOf("operator", &["Equal", "Exists"]),
            OneOf("effect", EFFECTS),
        ],
    ),
    (
        "core.v1.TopologySpreadConstraint",
        &[
            Positive("maxSkew", "must be greater than zero"),
            Required("topologyKey", "can not be empty"),
            OneOf("whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"]),
        ],
    ),
    ("core.v1.Volume", &[Required("name", ""), Name("name", names::dns1123_label)]),
    ("core.v1.VolumeMount", &[Required("name", ""), Required("mountPath", "")]),
    (
        "discovery.v1.EndpointSlice",
        &[Required("addressType", ""), OneOf("addressType", &["FQDN", "IPv4", "IPv6"])],
    ),
    (
        "networking.v1.HTTPIngressPath",
        &[
            Required("pathType", "pathType must be specified"),
            OneOf("pathType", &["Exact", "ImplementationSpecific", "Prefix"]),
        ],
    ),
    ("networking.v1.IngressServiceBackend", &[Required("name", ""), Name("name", names::dns1035_label)]),
    ("networking.v1.NetworkPolicyPort", &[OneOf("protocol", PROTOCOLS)]),
    ("node.v1.RuntimeClass", &[Required("handler", ""), Name("handler", names::dns1123_label)]),
    (
        "rbac.v1.RoleRef",
        &[
            Required("name", ""),
            Name("name", names::path_segment),
            OneOf("apiGroup", &["rbac.authorization.k8s.io"]),
        ],
    ),
    ("rbac.v1.Subject", &[Required("name", ""), OneOf("kind", &["ServiceAccount", "User", "Group"])]),
    ("scheduling.v1.PriorityClass", &[OneOf("preemptionPolicy", &["Never", "PreemptLowerPriority"])]),
    ("storage.v1.CSIDriverSpec", &[OneOf("fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"])]),
    (
        "storage.v1.StorageClass",
        &[
            Required("provisioner", ""),
            OneOf("reclaimPolicy", &["Delete", "Retain"]),
            Required("volumeBindingMode", ""),
            OneOf("volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]),
        ],
    ),
    ("storage.v1.VolumeAttachmentSpec", &[Required("attacher", ""), Required("nodeName", "")]),
];
