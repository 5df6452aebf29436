//! Rows as `kubectl get -o wide` shows them, one table per rule.

use serde_json::json;

use super::*;

const NOW_S: i64 = 1_700_000_000;

fn ago(seconds: i64) -> String {
    time::format_s(NOW_S - seconds)
}

/// The row of an object, cells joined by ` | `.
fn line(group: &str, version: &str, plural: &str, mut object: Value) -> String {
    let resource = kinds::find(group, version, plural).unwrap();
    if meta::of(&object).name().is_empty() {
        meta::of_mut(&mut object).set_name("x");
    }
    meta::of_mut(&mut object).set_creation_timestamp(&ago(300));
    let cells = cells(resource, &object, NOW_S);
    let text = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    cells.iter().map(text).collect::<Vec<_>>().join(" | ")
}

/// Ready, status and restarts of a pod.
fn pod(object: Value) -> String {
    line("", "v1", "pods", object).split(" | ").skip(1).take(3).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_printer_has_one_cell_per_column_for_any_object() {
    for resource in kinds::resources() {
        let names: Vec<&str> = columns(resource).iter().map(|column| column.name).collect();
        for object in [json!({}), json!({"spec": [], "status": "x", "metadata": null}), json!(null)] {
            assert_eq!(cells(resource, &object, 0).len(), names.len(), "{} {names:?}", resource.plural);
        }
        assert!(names.contains(&"Name"), "{}", resource.plural);
    }
}

#[test]
fn every_printer_is_for_a_served_kind() {
    let tables = [pod::PRINTERS, workload::PRINTERS, network::PRINTERS, cluster::PRINTERS, storage::PRINTERS];
    for printer in tables.into_iter().flatten() {
        let served =
            kinds::resources().iter().any(|row| row.group == printer.group && row.plural == printer.plural);
        assert!(served, "{}/{}", printer.group, printer.plural);
    }
}

#[test]
fn pods_show_what_their_containers_do() {
    let running = json!({"state": {"running": {}}, "ready": true});
    let containers = |count: usize| vec![json!({"name": "c"}); count];
    let table = vec![
        (
            "nothing known",
            json!({"spec": {"containers": containers(2)}, "status": {"phase": "Pending"}}),
            "0/2 Pending 0",
        ),
        (
            "running",
            json!({"spec": {"containers": containers(1)}, "status": {"phase": "Running", "containerStatuses": [running]}}),
            "1/1 Running 0",
        ),
        (
            "restarted long ago",
            json!({"spec": {"containers": containers(2)}, "status": {"phase": "Running", "containerStatuses": [
                {"state": {"running": {}}, "ready": true, "restartCount": 2, "lastState": {"terminated": {"finishedAt": ago(10)}}},
                {"state": {"running": {}}, "restartCount": 1, "lastState": {"terminated": {"finishedAt": ago(20)}}},
            ]}}),
            "1/2 Running 3 (10s ago)",
        ),
        (
            "waiting wins",
            json!({"spec": {"containers": containers(2)}, "status": {"phase": "Running", "containerStatuses": [
                {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 7}, running,
            ]}}),
            "1/2 CrashLoopBackOff 7",
        ),
        (
            "exit code without a reason",
            json!({"spec": {"containers": containers(1)}, "status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}}),
            "0/1 ExitCode:3 0",
        ),
        (
            "signal without a reason",
            json!({"spec": {"containers": containers(1)}, "status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}}),
            "0/1 Signal:9 0",
        ),
        (
            "one completed, one running, not ready",
            json!({"spec": {"containers": containers(2)}, "status": {"phase": "Running", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, running]}}),
            "1/2 NotReady 0",
        ),
        (
            "one completed, one running, ready",
            json!({"spec": {"containers": containers(2)}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, running]}}),
            "1/2 Running 0",
        ),
        (
            "reason of the status",
            json!({"spec": {"containers": containers(1)}, "status": {"phase": "Failed", "reason": "Evicted"}}),
            "0/1 Evicted 0",
        ),
        (
            "gated",
            json!({"spec": {"containers": containers(1)}, "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}}),
            "0/1 SchedulingGated 0",
        ),
        (
            "terminating",
            json!({"metadata": {"deletionTimestamp": ago(1)}, "spec": {"containers": containers(1)}, "status": {"phase": "Running", "containerStatuses": [running]}}),
            "1/1 Terminating 0",
        ),
        (
            "deleted but already over",
            json!({"metadata": {"deletionTimestamp": ago(1)}, "spec": {"containers": containers(1)}, "status": {"phase": "Succeeded"}}),
            "0/1 Succeeded 0",
        ),
        (
            "node lost",
            json!({"metadata": {"deletionTimestamp": ago(1)}, "spec": {"containers": containers(1)}, "status": {"phase": "Running", "reason": "NodeLost"}}),
            "0/1 Unknown 0",
        ),
    ];
    for (rule, object, expected) in table {
        assert_eq!(pod(object), expected, "{rule}");
    }
}

#[test]
fn pods_show_how_far_initialization_is() {
    let spec = |inits: Value| json!({"containers": [{"name": "c"}], "initContainers": inits});
    let two = json!([{"name": "i1"}, {"name": "i2"}]);
    let sidecar = json!([{"name": "side", "restartPolicy": "Always"}, {"name": "i2"}]);
    let done = |name: &str| json!({"name": name, "state": {"terminated": {"exitCode": 0}}});
    let table = vec![
        (
            "first waits",
            two.clone(),
            json!([{"name": "i1", "state": {"waiting": {"reason": "PodInitializing"}}}]),
            "0/1 Init:0/2 0",
        ),
        (
            "second runs",
            two.clone(),
            json!([done("i1"), {"name": "i2", "state": {"running": {}}, "restartCount": 3}]),
            "0/1 Init:1/2 3",
        ),
        (
            "fails",
            two.clone(),
            json!([{"name": "i1", "state": {"terminated": {"exitCode": 2}}}]),
            "0/1 Init:ExitCode:2 0",
        ),
        (
            "fails with a reason",
            two.clone(),
            json!([{"name": "i1", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}]),
            "0/1 Init:Error 0",
        ),
        (
            "is killed",
            two.clone(),
            json!([{"name": "i1", "state": {"terminated": {"exitCode": 2, "signal": 9}}}]),
            "0/1 Init:Signal:9 0",
        ),
        (
            "crash loops",
            two.clone(),
            json!([{"name": "i1", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]),
            "0/1 Init:CrashLoopBackOff 0",
        ),
        (
            "all done: their restarts no longer count",
            two,
            json!([done("i1"), {"name": "i2", "state": {"terminated": {"exitCode": 0}}, "restartCount": 5}]),
            "0/1 Pending 0",
        ),
        (
            "a sidecar counts as a container",
            sidecar.clone(),
            json!([{"name": "side", "started": true, "ready": true, "state": {"running": {}}, "restartCount": 2}, done("i2")]),
            "1/2 Pending 2",
        ),
        (
            "after a sidecar",
            sidecar,
            json!([{"name": "side", "started": true, "ready": true, "state": {"running": {}}}, {"name": "i2", "state": {"running": {}}}]),
            "1/2 Init:1/2 0",
        ),
    ];
    for (rule, inits, statuses, expected) in table {
        let object =
            json!({"spec": spec(inits), "status": {"phase": "Pending", "initContainerStatuses": statuses}});
        assert_eq!(pod(object), expected, "{rule}");
    }
}

#[test]
fn wide_pods_show_placement_and_gates() {
    let object = json!({
        "spec": {"nodeName": "n1", "readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "a", "status": "True"}]},
    });
    assert_eq!(line("", "v1", "pods", object), "x | 0/0 | Running | 0 | 5m | 10.0.0.1 | n1 | <none> | 1/2");
}

#[test]
fn nodes_show_readiness_and_roles() {
    let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
    let table = vec![
        (json!({}), "x | Unknown | <none> | 5m |  | <none> | <none> | <unknown> | <unknown> | <unknown>"),
        (
            json!({
                "metadata": {"labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "old"}},
                "spec": {"unschedulable": true},
                "status": {"conditions": ready("True"), "nodeInfo": {"kubeletVersion": "v1.35.0", "osImage": "Linux"},
                           "addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.0.0.1"}]},
            }),
            "x | Ready,SchedulingDisabled | control-plane,old,worker | 5m | v1.35.0 | 10.0.0.1 | <none> | Linux | <unknown> | <unknown>",
        ),
        (
            json!({"status": {"conditions": ready("Unknown")}}),
            "x | NotReady | <none> | 5m |  | <none> | <none> | <unknown> | <unknown> | <unknown>",
        ),
    ];
    for (object, expected) in table {
        assert_eq!(line("", "v1", "nodes", object), expected);
    }
}

#[test]
fn services_show_addresses_and_ports() {
    let service = |spec: Value, status: Value| {
        let row = line("", "v1", "services", json!({"spec": spec, "status": status}));
        row.split(" | ").skip(1).take(4).collect::<Vec<_>>().join(" | ")
    };
    let ports = json!([{"port": 80, "protocol": "TCP"}, {"port": 53, "nodePort": 30053, "protocol": "UDP"}]);
    let table = vec![
        (
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": ports}),
            json!({}),
            "ClusterIP | 10.0.0.1 | <none> | 80/TCP,53:30053/UDP",
        ),
        (
            json!({"type": "ClusterIP", "clusterIPs": ["None"], "externalIPs": ["1.1.1.1", "2.2.2.2"]}),
            json!({}),
            "ClusterIP | None | 1.1.1.1,2.2.2.2 | <none>",
        ),
        (
            json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1"}),
            json!({}),
            "LoadBalancer | 10.0.0.1 | <pending> | <none>",
        ),
        (
            json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1", "externalIPs": ["9.9.9.9"]}),
            json!({"loadBalancer": {"ingress": [{"hostname": "lb.example"}, {"ip": "3.3.3.3"}]}}),
            "LoadBalancer | 10.0.0.1 | 3.3.3.3,lb.example,9.9.9.9 | <none>",
        ),
        (
            json!({"type": "ExternalName", "externalName": "a.example"}),
            json!({}),
            "ExternalName | <none> | a.example | <none>",
        ),
    ];
    for (spec, status, expected) in table {
        assert_eq!(service(spec, status), expected);
    }
}

#[test]
fn endpoints_stop_after_three() {
    let ips = |ips: &[&str]| ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
    let table = vec![
        (json!(null), "<none>"),
        (
            json!([{"addresses": ips(&["1.1.1.1"]), "ports": [{"port": 80}, {"port": 81}]}]),
            "1.1.1.1:80,1.1.1.1:81",
        ),
        (json!([{"addresses": ips(&["fd00::1"]), "ports": [{"port": 80}]}]), "[fd00::1]:80"),
        (
            json!([{"addresses": ips(&["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4", "1.1.1.5"])}]),
            "1.1.1.1,1.1.1.2,1.1.1.3 + 2 more...",
        ),
    ];
    for (subsets, expected) in table {
        assert_eq!(line("", "v1", "endpoints", json!({"subsets": subsets})), format!("x | {expected} | 5m"));
    }
}

#[test]
fn events_read_the_same_in_both_groups() {
    let core = json!({
        "lastTimestamp": ago(60), "firstTimestamp": ago(120), "count": 4, "type": "Warning", "reason": "Failed",
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"}, "source": {"component": "kubelet", "host": "n1"}, "message": " m \n",
    });
    assert_eq!(
        line("", "v1", "events", core),
        "60s | Warning | Failed | pod/p | spec | kubelet, n1 | m | 2m | 4 | x"
    );
    let new = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "eventTime": time::format_us((NOW_S - 30) * 1_000_000), "type": "Normal", "reason": "Scheduled", "note": "m",
        "regarding": {"kind": "Pod", "name": "p"}, "reportingController": "default-scheduler", "reportingInstance": "s-1",
    });
    assert_eq!(
        line("events.k8s.io", "v1", "events", new.clone()),
        "30s | Normal | Scheduled | pod/p |  | default-scheduler, s-1 | m | 30s | 1 | x"
    );
    let mut series = new;
    series["series"] = json!({"count": 7, "lastObservedTime": time::format_us((NOW_S - 5) * 1_000_000)});
    assert_eq!(
        line("events.k8s.io", "v1", "events", series),
        "5s | Normal | Scheduled | pod/p |  | default-scheduler, s-1 | m | 30s | 7 | x"
    );
}

#[test]
fn workloads_show_their_progress() {
    let template =
        json!({"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:2"}]}});
    let selector = json!({"matchLabels": {"app": "x"}});
    let table = vec![
        (
            ("apps", "deployments"),
            json!({"spec": {"replicas": 3, "selector": selector, "template": template}, "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}}),
            "x | 1/3 | 2 | 1 | 5m | a,b | i:1,i:2 | app=x",
        ),
        (
            ("apps", "replicasets"),
            json!({"spec": {"replicas": 3, "selector": selector, "template": template}, "status": {"replicas": 2, "readyReplicas": 1}}),
            "x | 3 | 2 | 1 | 5m | a,b | i:1,i:2 | app=x",
        ),
        (
            ("apps", "statefulsets"),
            json!({"spec": {"replicas": 2, "template": template}}),
            "x | 0/2 | 5m | a,b | i:1,i:2",
        ),
        (
            ("apps", "daemonsets"),
            json!({"spec": {"selector": selector, "template": {"spec": {"nodeSelector": {"b": "2", "a": "1"}}}}, "status": {"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1, "updatedNumberScheduled": 2, "numberAvailable": 1}}),
            "x | 3 | 2 | 1 | 2 | 1 | a=1,b=2 | 5m |  |  | app=x",
        ),
        (
            ("batch", "jobs"),
            json!({"spec": {"completions": 2, "selector": selector, "template": template}, "status": {"succeeded": 2, "startTime": ago(100), "completionTime": ago(40), "conditions": [{"type": "Complete", "status": "True"}]}}),
            "x | Complete | 2/2 | 60s | 5m | a,b | i:1,i:2 | app=x",
        ),
        (
            ("batch", "jobs"),
            json!({"spec": {"parallelism": 3}}),
            "x | Running | 0/1 of 3 |  | 5m |  |  | <none>",
        ),
        (
            ("batch", "cronjobs"),
            json!({"spec": {"schedule": "* * * * *", "suspend": false}, "status": {"active": [{}], "lastScheduleTime": ago(60)}}),
            "x | * * * * * | <none> | False | 1 | 60s | 5m |  |  | <none>",
        ),
        (
            ("policy", "poddisruptionbudgets"),
            json!({"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}}),
            "x | 50% | N/A | 1 | 5m",
        ),
    ];
    for ((group, plural), object, expected) in table {
        assert_eq!(line(group, "v1", plural, object), expected);
    }
}

#[test]
fn autoscalers_show_current_and_wanted_metrics() {
    let object = json!({
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 5, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}},
            {"type": "Pods", "pods": {"target": {"averageValue": "100m"}}},
            {"type": "External", "external": {"target": {"value": "1"}}},
        ]},
        "status": {"currentReplicas": 2, "currentMetrics": [{"resource": {"current": {"averageUtilization": 40}}}]},
    });
    assert_eq!(
        line("autoscaling", "v2", "horizontalpodautoscalers", object),
        "x | Deployment/d | cpu: 40%/80%, <unknown>/100m + 1 more... | <unset> | 5 | 2 | 5m"
    );
}

#[test]
fn small_kinds_show_their_facts() {
    let rbac = "rbac.authorization.k8s.io";
    let table = vec![
        (("", "namespaces"), json!({"status": {"phase": "Active"}}), "x | Active | 5m"),
        (("", "configmaps"), json!({"data": {"a": "1"}, "binaryData": {"b": ""}}), "x | 2 | 5m"),
        (("", "secrets"), json!({"type": "Opaque", "data": {"a": ""}}), "x | Opaque | 1 | 5m"),
        (("", "serviceaccounts"), json!({}), "x | 0 | 5m"),
        (("coordination.k8s.io", "leases"), json!({"spec": {"holderIdentity": "me"}}), "x | me | 5m"),
        (
            (rbac, "rolebindings"),
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "Group", "name": "g"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
            "x | Role/r | 5m | u | g | n/s",
        ),
        ((rbac, "roles"), json!({}), "x | 2023-11-14T22:08:20Z"),
        ((rbac, "clusterroles"), json!({}), "x | 2023-11-14T22:08:20Z"),
        (
            ("storage.k8s.io", "storageclasses"),
            json!({"metadata": {"name": "x", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"}),
            "x (default) | p | Delete | Immediate | false | 5m",
        ),
        (
            ("", "persistentvolumes"),
            json!({"spec": {"capacity": {"storage": "1024Mi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "n", "name": "c"}, "storageClassName": "s"}, "status": {"phase": "Bound"}}),
            "x | 1Gi | RWO,RWX | Retain | Bound | n/c | s | <unset> |  | 5m | <unset>",
        ),
        (
            ("", "persistentvolumeclaims"),
            json!({"spec": {"storageClassName": "s", "volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}),
            "x | Pending |  |  |  | s | <unset> | 5m | Filesystem",
        ),
        (
            ("scheduling.k8s.io", "priorityclasses"),
            json!({"value": 7, "preemptionPolicy": "Never"}),
            "x | 7 | false | 5m | Never",
        ),
        (
            ("networking.k8s.io", "ingresses"),
            json!({"spec": {"rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}], "tls": [{}]}}),
            "x | <none> | a,b,c + 1 more... |  | 80, 443 | 5m",
        ),
        (("networking.k8s.io", "networkpolicies"), json!({"spec": {"podSelector": {}}}), "x | <none> | 5m"),
    ];
    for ((group, plural), object, expected) in table {
        assert_eq!(line(group, "v1", plural, object), expected);
    }
}

#[test]
fn decisions_show_the_outcome() {
    let object = json!({"status": {"result": "Unschedulable", "feasibleNodes": 0, "evaluatedNodes": 3, "message": "0/3 nodes"}});
    assert_eq!(
        line("scheduling.binnacle.dev", "v1alpha1", "decisions", object),
        "x | Unschedulable | <none> | 0/3 | 5m | 0/3 nodes"
    );
}

#[test]
fn a_table_carries_what_was_asked_for() {
    let resource = kinds::find("", "v1", "pods").unwrap();
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"phase": "Succeeded"}});
    let metadata = || Map::from_iter([("resourceVersion".to_owned(), json!("7"))]);
    let made = table(resource, "v1", metadata(), [&object], IncludeObject::Metadata, true, NOW_S);
    assert_eq!(
        (&made["kind"], &made["apiVersion"], &made["metadata"]),
        (&json!("Table"), &json!("meta.k8s.io/v1"), &json!({"resourceVersion": "7"}))
    );
    assert_eq!(made["columnDefinitions"][0]["format"], "name");
    assert_eq!(
        made["columnDefinitions"].as_array().unwrap().len(),
        made["rows"][0]["cells"].as_array().unwrap().len()
    );
    assert_eq!(
        made["rows"][0]["object"],
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "p"}})
    );
    assert_eq!(made["rows"][0]["conditions"][0]["reason"], "Succeeded");
    let made = table(resource, "v1", metadata(), [&object], IncludeObject::None, false, NOW_S);
    assert_eq!((&made["columnDefinitions"], &made["rows"][0]["object"]), (&Value::Null, &Value::Null));
    let made = table(resource, "v1", metadata(), [&object], IncludeObject::Object, true, NOW_S);
    assert_eq!(made["rows"][0]["object"], object);
}
