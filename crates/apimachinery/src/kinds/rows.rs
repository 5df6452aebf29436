//! The rows. A row starts from what most kinds do (namespaced, all verbs, PUT without resourceVersion allowed) and says
//! how its kind differs; the file is long because every served kind is in it. Facts: upstream's `pkg/registry/*/strategy.go` and `storage.go`.

use super::{Group, Resource, Strategy, Subresources, Verbs};

const ALL_VERBS: Verbs = Verbs {
    create: true,
    get: true,
    list: true,
    watch: true,
    update: true,
    patch: true,
    delete: true,
    delete_collection: true,
};

const NO_VERBS: Verbs = Verbs {
    create: false,
    get: false,
    list: false,
    watch: false,
    update: false,
    patch: false,
    delete: false,
    delete_collection: false,
};

/// A row from the package of its type, kind, plural and singular: names that must be joined at compile time.
macro_rules! row {
    ($package:literal $kind:literal, $plural:literal, $singular:literal) => {
        Resource::new(concat!($package, ".", $kind), $kind, concat!($kind, "List"), $plural, $singular)
    };
}

impl Resource {
    const fn new(
        type_name: &'static str,
        kind: &'static str,
        list_kind: &'static str,
        plural: &'static str,
        singular: &'static str,
    ) -> Resource {
        Resource {
            group: "",
            version: "v1",
            kind,
            list_kind,
            plural,
            singular,
            short_names: &[],
            categories: &[],
            namespaced: true,
            type_name,
            storage_prefix: plural,
            verbs: ALL_VERBS,
            subresources: NO_SUBRESOURCES,
            strategy: Strategy {
                generation: false,
                unconditional_update: true,
                create_on_update: false,
                graceful_delete: false,
                status_reset: false,
                review: false,
            },
            selectable_fields: &[],
        }
    }

    const fn of(mut self, group: &'static str) -> Resource {
        self.group = group;
        self
    }

    const fn version(mut self, version: &'static str) -> Resource {
        self.version = version;
        self
    }

    const fn short(mut self, short_names: &'static [&'static str]) -> Resource {
        self.short_names = short_names;
        self
    }

    /// Member of `kubectl get all`
    const fn in_all(mut self) -> Resource {
        self.categories = &["all"];
        self
    }

    const fn api_extension(mut self) -> Resource {
        self.categories = &["api-extensions"];
        self
    }

    const fn cluster(mut self) -> Resource {
        self.namespaced = false;
        self
    }

    const fn stored_as(mut self, storage_prefix: &'static str) -> Resource {
        self.storage_prefix = storage_prefix;
        self
    }

    const fn generation(mut self) -> Resource {
        self.strategy.generation = true;
        self
    }

    /// PUT must carry `resourceVersion`
    const fn conditional(mut self) -> Resource {
        self.strategy.unconditional_update = false;
        self
    }

    const fn create_on_update(mut self) -> Resource {
        self.strategy.create_on_update = true;
        self
    }

    const fn status(mut self) -> Resource {
        self.subresources.status = true;
        self.strategy.status_reset = true;
        self
    }

    const fn scale(mut self) -> Resource {
        self.subresources.scale = true;
        self
    }

    const fn select(mut self, selectable_fields: &'static [&'static str]) -> Resource {
        self.selectable_fields = selectable_fields;
        self
    }

    /// Answers a POST and stores nothing
    const fn review(mut self) -> Resource {
        self.strategy.review = true;
        self.strategy.unconditional_update = false;
        self.verbs = NO_VERBS;
        self.verbs.create = true;
        self
    }
}

const NO_SUBRESOURCES: Subresources = Subresources {
    status: false,
    scale: false,
    binding: false,
    eviction: false,
    token: false,
    finalize: false,
    approval: false,
    ephemeral_containers: false,
    resize: false,
    log: false,
    exec: false,
    attach: false,
    portforward: false,
    proxy: false,
};

const fn namespace_row() -> Resource {
    let mut row = row!("core.v1" "Namespace", "namespaces", "namespace").short(&["ns"]).cluster().status();
    row.subresources.finalize = true;
    row.verbs.delete_collection = false;
    row.select(&["status.phase"])
}

const fn node_row() -> Resource {
    let mut row =
        row!("core.v1" "Node", "nodes", "node").short(&["no"]).cluster().stored_as("minions").status();
    row.subresources.proxy = true;
    row.strategy.status_reset = false; // a node registers itself with its status
    row.select(&["spec.unschedulable"])
}

const fn pod_row() -> Resource {
    let mut row = row!("core.v1" "Pod", "pods", "pod").short(&["po"]).in_all().generation().status();
    row.subresources = Subresources {
        status: true,
        scale: false,
        binding: true,
        eviction: true,
        token: false,
        finalize: false,
        approval: false,
        ephemeral_containers: true,
        resize: true,
        log: true,
        exec: true,
        attach: true,
        portforward: true,
        proxy: true,
    };
    row.strategy.graceful_delete = true;
    row.select(&[
        "spec.hostNetwork",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.nominatedNodeName",
        "status.phase",
        "status.podIP",
    ])
}

const fn service_row() -> Resource {
    let mut row = row!("core.v1" "Service", "services", "service").short(&["svc"]).in_all();
    row.subresources.proxy = true;
    row.stored_as("services/specs").create_on_update().status().select(&["spec.clusterIP", "spec.type"])
}

const fn service_account_row() -> Resource {
    let mut row = row!("core.v1" "ServiceAccount", "serviceaccounts", "serviceaccount").short(&["sa"]);
    row.subresources.token = true;
    row
}

const fn signing_request_row() -> Resource {
    let mut row = row!("certificates.v1" "CertificateSigningRequest", "certificatesigningrequests", "certificatesigningrequest");
    row.subresources.approval = true;
    row.of("certificates.k8s.io").short(&["csr"]).cluster().status().select(&["spec.signerName"])
}

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.apiVersion",
    "involvedObject.fieldPath",
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.resourceVersion",
    "involvedObject.uid",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

/// The same fields of the other form of an event.
const REGARDING_FIELDS: &[&str] = &[
    "reason",
    "regarding.apiVersion",
    "regarding.fieldPath",
    "regarding.kind",
    "regarding.name",
    "regarding.namespace",
    "regarding.resourceVersion",
    "regarding.uid",
    "reportingController",
    "type",
];

const APIREGISTRATION: &str = "apiregistration.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOWCONTROL: &str = "flowcontrol.apiserver.k8s.io";
const RESOURCE: &str = "resource.k8s.io";

pub(super) const GROUPS: &[Group] = &[
    Group { name: "", versions: &["v1"] },
    Group { name: APIREGISTRATION, versions: &["v1"] },
    Group { name: "apps", versions: &["v1"] },
    Group { name: "events.k8s.io", versions: &["v1"] },
    Group { name: AUTHENTICATION, versions: &["v1"] },
    Group { name: AUTHORIZATION, versions: &["v1"] },
    Group { name: "autoscaling", versions: &["v2", "v1"] },
    Group { name: "batch", versions: &["v1"] },
    Group { name: "certificates.k8s.io", versions: &["v1"] },
    Group { name: NETWORKING, versions: &["v1"] },
    Group { name: "policy", versions: &["v1"] },
    Group { name: RBAC, versions: &["v1"] },
    Group { name: STORAGE, versions: &["v1"] },
    Group { name: ADMISSION, versions: &["v1"] },
    Group { name: "apiextensions.k8s.io", versions: &["v1"] },
    Group { name: "scheduling.k8s.io", versions: &["v1"] },
    Group { name: "coordination.k8s.io", versions: &["v1"] },
    Group { name: "node.k8s.io", versions: &["v1"] },
    Group { name: "discovery.k8s.io", versions: &["v1"] },
    Group { name: FLOWCONTROL, versions: &["v1"] },
    Group { name: RESOURCE, versions: &["v1"] },
    Group { name: "scheduling.binnacle.dev", versions: &["v1alpha1"] },
];

pub(super) const RESOURCES: &[Resource] = &[
    // core
    row!("core.v1" "Binding", "bindings", "binding").review(),
    row!("core.v1" "ConfigMap", "configmaps", "configmap").short(&["cm"]),
    row!("core.v1" "Endpoints", "endpoints", "endpoints").short(&["ep"]).stored_as("services/endpoints").create_on_update(),
    row!("core.v1" "Event", "events", "event").short(&["ev"]).create_on_update().select(EVENT_FIELDS),
    row!("core.v1" "LimitRange", "limitranges", "limitrange").short(&["limits"]).create_on_update(),
    namespace_row(),
    node_row(),
    row!("core.v1" "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim").short(&["pvc"]).status(),
    row!("core.v1" "PersistentVolume", "persistentvolumes", "persistentvolume").short(&["pv"]).cluster().status(),
    pod_row(),
    row!("core.v1" "PodTemplate", "podtemplates", "podtemplate").generation(),
    row!("core.v1" "ReplicationController", "replicationcontrollers", "replicationcontroller")
        .short(&["rc"])
        .in_all()
        .stored_as("controllers")
        .generation()
        .status()
        .scale()
        .select(&["status.replicas"]),
    row!("core.v1" "ResourceQuota", "resourcequotas", "resourcequota").short(&["quota"]).status(),
    row!("core.v1" "Secret", "secrets", "secret").select(&["type"]),
    service_account_row(),
    service_row(),
    // apiregistration.k8s.io
    row!("apiregistration.v1" "APIService", "apiservices", "apiservice")
        .of(APIREGISTRATION)
        .api_extension()
        .cluster()
        .stored_as("apiregistration.k8s.io/apiservices")
        .conditional()
        .status(),
    // apps
    row!("apps.v1" "ControllerRevision", "controllerrevisions", "controllerrevision").of("apps"),
    row!("apps.v1" "DaemonSet", "daemonsets", "daemonset").of("apps").short(&["ds"]).in_all().generation().status(),
    row!("apps.v1" "Deployment", "deployments", "deployment")
        .of("apps")
        .short(&["deploy"])
        .in_all()
        .generation()
        .status()
        .scale(),
    row!("apps.v1" "ReplicaSet", "replicasets", "replicaset")
        .of("apps")
        .short(&["rs"])
        .in_all()
        .generation()
        .status()
        .scale()
        .select(&["status.replicas"]),
    row!("apps.v1" "StatefulSet", "statefulsets", "statefulset")
        .of("apps")
        .short(&["sts"])
        .in_all()
        .generation()
        .status()
        .scale(),
    // events.k8s.io
    row!("events.v1" "Event", "events", "event")
        .of("events.k8s.io")
        .short(&["ev"])
        .create_on_update()
        .select(REGARDING_FIELDS),
    // authentication.k8s.io
    row!("authentication.v1" "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview")
        .of(AUTHENTICATION)
        .cluster()
        .review(),
    row!("authentication.v1" "TokenReview", "tokenreviews", "tokenreview").of(AUTHENTICATION).cluster().review(),
    // authorization.k8s.io
    row!("authorization.v1" "LocalSubjectAccessReview", "localsubjectaccessreviews", "localsubjectaccessreview")
        .of(AUTHORIZATION)
        .review(),
    row!("authorization.v1" "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview")
        .of(AUTHORIZATION)
        .cluster()
        .review(),
    row!("authorization.v1" "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview")
        .of(AUTHORIZATION)
        .cluster()
        .review(),
    row!("authorization.v1" "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview")
        .of(AUTHORIZATION)
        .cluster()
        .review(),
    // autoscaling
    row!("autoscaling.v2" "HorizontalPodAutoscaler", "horizontalpodautoscalers", "horizontalpodautoscaler")
        .of("autoscaling")
        .version("v2")
        .short(&["hpa"])
        .in_all()
        .status(),
    row!("autoscaling.v1" "HorizontalPodAutoscaler", "horizontalpodautoscalers", "horizontalpodautoscaler")
        .of("autoscaling")
        .short(&["hpa"])
        .in_all()
        .status(),
    // batch
    row!("batch.v1" "CronJob", "cronjobs", "cronjob").of("batch").short(&["cj"]).in_all().generation().status(),
    row!("batch.v1" "Job", "jobs", "job").of("batch").in_all().generation().status().select(&["status.successful"]),
    // certificates.k8s.io
    signing_request_row(),
    // networking.k8s.io
    row!("networking.v1" "Ingress", "ingresses", "ingress")
        .of(NETWORKING)
        .short(&["ing"])
        .stored_as("ingress")
        .generation()
        .status(),
    row!("networking.v1" "IngressClass", "ingressclasses", "ingressclass").of(NETWORKING).cluster().generation(),
    row!("networking.v1" "IPAddress", "ipaddresses", "ipaddress").of(NETWORKING).short(&["ip"]).cluster(),
    row!("networking.v1" "NetworkPolicy", "networkpolicies", "networkpolicy")
        .of(NETWORKING)
        .short(&["netpol"])
        .generation(),
    row!("networking.v1" "ServiceCIDR", "servicecidrs", "servicecidr").of(NETWORKING).cluster().status(),
    // policy
    row!("policy.v1" "PodDisruptionBudget", "poddisruptionbudgets", "poddisruptionbudget")
        .of("policy")
        .short(&["pdb"])
        .generation()
        .conditional()
        .status(),
    // rbac.authorization.k8s.io
    row!("rbac.v1" "ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding")
        .of(RBAC)
        .cluster()
        .create_on_update(),
    row!("rbac.v1" "ClusterRole", "clusterroles", "clusterrole").of(RBAC).cluster().create_on_update(),
    row!("rbac.v1" "RoleBinding", "rolebindings", "rolebinding").of(RBAC).create_on_update(),
    row!("rbac.v1" "Role", "roles", "role").of(RBAC).create_on_update(),
    // storage.k8s.io
    row!("storage.v1" "CSIDriver", "csidrivers", "csidriver").of(STORAGE).cluster().generation().conditional(),
    row!("storage.v1" "CSINode", "csinodes", "csinode").of(STORAGE).cluster().conditional(),
    row!("storage.v1" "CSIStorageCapacity", "csistoragecapacities", "csistoragecapacity").of(STORAGE).conditional(),
    row!("storage.v1" "StorageClass", "storageclasses", "storageclass").of(STORAGE).short(&["sc"]).cluster(),
    row!("storage.v1" "VolumeAttachment", "volumeattachments", "volumeattachment")
        .of(STORAGE)
        .cluster()
        .conditional()
        .status(),
    row!("storage.v1" "VolumeAttributesClass", "volumeattributesclasses", "volumeattributesclass")
        .of(STORAGE)
        .short(&["vac"])
        .cluster(),
    // admissionregistration.k8s.io
    row!("admissionregistration.v1" "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "mutatingwebhookconfiguration")
        .of(ADMISSION)
        .api_extension()
        .cluster()
        .generation()
        .conditional(),
    row!("admissionregistration.v1" "ValidatingAdmissionPolicy", "validatingadmissionpolicies", "validatingadmissionpolicy")
        .of(ADMISSION)
        .api_extension()
        .cluster()
        .generation()
        .conditional()
        .status(),
    row!("admissionregistration.v1" "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "validatingadmissionpolicybinding")
        .of(ADMISSION)
        .api_extension()
        .cluster()
        .generation()
        .conditional(),
    row!("admissionregistration.v1" "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "validatingwebhookconfiguration")
        .of(ADMISSION)
        .api_extension()
        .cluster()
        .generation()
        .conditional(),
    // apiextensions.k8s.io
    row!("apiextensions.v1" "CustomResourceDefinition", "customresourcedefinitions", "customresourcedefinition")
        .of("apiextensions.k8s.io")
        .short(&["crd", "crds"])
        .api_extension()
        .cluster()
        .stored_as("apiextensions.k8s.io/customresourcedefinitions")
        .generation()
        .conditional()
        .status(),
    // scheduling.k8s.io
    row!("scheduling.v1" "PriorityClass", "priorityclasses", "priorityclass")
        .of("scheduling.k8s.io")
        .short(&["pc"])
        .cluster()
        .generation(),
    // coordination.k8s.io
    row!("coordination.v1" "Lease", "leases", "lease").of("coordination.k8s.io").conditional().create_on_update(),
    // node.k8s.io
    row!("node.v1" "RuntimeClass", "runtimeclasses", "runtimeclass")
        .of("node.k8s.io")
        .cluster()
        .conditional()
        .create_on_update(),
    // discovery.k8s.io
    row!("discovery.v1" "EndpointSlice", "endpointslices", "endpointslice").of("discovery.k8s.io").generation(),
    // flowcontrol.apiserver.k8s.io
    row!("flowcontrol.v1" "FlowSchema", "flowschemas", "flowschema").of(FLOWCONTROL).cluster().generation().status(),
    row!("flowcontrol.v1" "PriorityLevelConfiguration", "prioritylevelconfigurations", "prioritylevelconfiguration")
        .of(FLOWCONTROL)
        .cluster()
        .generation()
        .status(),
    // resource.k8s.io
    row!("resource.v1" "DeviceClass", "deviceclasses", "deviceclass").of(RESOURCE).cluster().generation(),
    row!("resource.v1" "ResourceClaim", "resourceclaims", "resourceclaim").of(RESOURCE).status(),
    row!("resource.v1" "ResourceClaimTemplate", "resourceclaimtemplates", "resourceclaimtemplate").of(RESOURCE),
    row!("resource.v1" "ResourceSlice", "resourceslices", "resourceslice")
        .of(RESOURCE)
        .cluster()
        .generation()
        .select(&["spec.driver", "spec.nodeName"]),
    // our own: why a pod was placed where it is
    row!("binnacle.v1alpha1" "Decision", "decisions", "decision")
        .of("scheduling.binnacle.dev")
        .version("v1alpha1")
        .stored_as("scheduling.binnacle.dev/decisions")
        .create_on_update(),
];
