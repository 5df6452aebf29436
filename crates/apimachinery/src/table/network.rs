//! Services, endpoints, ingresses, network policies.

use std::collections::BTreeSet;

use serde_json::json;

use super::field::{labels, list, name, number, scalar, text, text_or, texts};
use super::{AGE, NAME, Now, Printer, text as column, wide};
use crate::Value;
use crate::selector;

/// Hosts, ports and addresses shown before "+ n more...".
const SHOWN: usize = 3;

pub(super) const PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        plural: "services",
        columns: &[
            NAME,
            column("Type", "How the service is exposed: ExternalName, ClusterIP, NodePort, or LoadBalancer."),
            column("Cluster-IP", "The IP address of the service, usually assigned randomly."),
            column("External-IP", "Addresses outside the cluster that reach the service."),
            column("Port(s)", "The ports that are exposed by this service."),
            AGE,
            wide("Selector", "Labels of the pods that traffic is routed to."),
        ],
        cells: service,
    },
    Printer {
        group: "",
        plural: "endpoints",
        columns: &[NAME, column("Endpoints", "Addresses and ports of the endpoints."), AGE],
        cells: |object, now| vec![name(object), json!(endpoints(object)), now.age(object)],
    },
    Printer {
        group: "discovery.k8s.io",
        plural: "endpointslices",
        columns: &[
            NAME,
            column("AddressType", "The type of address carried by this EndpointSlice."),
            column("Ports", "The network ports exposed by each endpoint in this slice."),
            column("Endpoints", "A list of unique endpoints in this slice."),
            AGE,
        ],
        cells: endpoint_slice,
    },
    Printer {
        group: "networking.k8s.io",
        plural: "ingresses",
        columns: &[
            NAME,
            column(
                "Class",
                "The name of the IngressClass resource that should be used for additional configuration",
            ),
            column("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
            column("Address", "Address is a list containing ingress points for the load-balancer"),
            column("Ports", "Ports of TLS configurations that open"),
            AGE,
        ],
        cells: ingress,
    },
    Printer {
        group: "networking.k8s.io",
        plural: "ingressclasses",
        columns: &[
            NAME,
            column("Controller", "Controller that is responsible for handling this class"),
            column("Parameters", "A reference to a resource with additional parameters"),
            AGE,
        ],
        cells: ingress_class,
    },
    Printer {
        group: "networking.k8s.io",
        plural: "networkpolicies",
        columns: &[NAME, column("Pod-Selector", "The pods that this policy applies to."), AGE],
        cells: |object, now| {
            let pods = object.pointer("/spec/podSelector");
            vec![name(object), json!(selector::format(pods)), now.age(object)]
        },
    },
];

fn service(object: &Value, now: Now) -> Vec<Value> {
    let cluster_ip = match text(object, "/spec/clusterIPs/0") {
        "" => text_or(object, "/spec/clusterIP", "<none>"),
        ip => ip,
    };
    vec![
        name(object),
        json!(text(object, "/spec/type")),
        json!(cluster_ip),
        json!(external_ip(object)),
        json!(service_ports(object)),
        now.age(object),
        json!(labels(object, "/spec/selector")),
    ]
}

fn external_ip(service: &Value) -> String {
    let external = texts(service, "/spec/externalIPs");
    match text(service, "/spec/type") {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let mut addresses: Vec<String> = ingress_points(service);
            addresses.extend(external.into_iter().map(str::to_owned));
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// Addresses or host names of the load balancer, sorted, each once.
fn ingress_points(object: &Value) -> Vec<String> {
    let points = list(object, "/status/loadBalancer/ingress").iter();
    let points: BTreeSet<&str> =
        points.map(|point| text_or(point, "/ip", text(point, "/hostname"))).collect();
    points.into_iter().filter(|point| !point.is_empty()).map(str::to_owned).collect()
}

fn service_ports(service: &Value) -> String {
    let ports = list(service, "/spec/ports").iter().map(|port| {
        let (number, node_port, protocol) =
            (number(port, "/port"), number(port, "/nodePort"), text(port, "/protocol"));
        if node_port > 0 {
            format!("{number}:{node_port}/{protocol}")
        } else {
            format!("{number}/{protocol}")
        }
    });
    let ports: Vec<String> = ports.collect();
    if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") }
}

fn endpoints(object: &Value) -> String {
    let subsets = list(object, "/subsets");
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = list(subset, "/addresses").iter().map(|address| text(address, "/ip"));
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            all.extend(addresses.clone().map(str::to_owned));
        }
        for port in ports {
            all.extend(addresses.clone().map(|ip| host_port(ip, number(port, "/port"))));
        }
    }
    first_of(&all, "")
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn first_of(all: &[String], when_empty: &str) -> String {
    let shown = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    if all.len() > SHOWN {
        return format!("{shown} + {} more...", all.len() - SHOWN);
    }
    if shown.is_empty() { when_empty.to_owned() } else { shown }
}

fn endpoint_slice(object: &Value, now: Now) -> Vec<Value> {
    let ports = list(object, "/ports").iter();
    let ports: Vec<String> = ports
        .map(|port| match (port.get("port").filter(|port| !port.is_null()), text(port, "/name")) {
            (Some(number), _) => scalar(number),
            (None, "") => "*".to_owned(),
            (None, name) => name.to_owned(),
        })
        .collect();
    let addresses: Vec<String> = list(object, "/endpoints")
        .iter()
        .flat_map(|endpoint| texts(endpoint, "/addresses"))
        .map(str::to_owned)
        .collect();
    vec![
        name(object),
        json!(text(object, "/addressType")),
        json!(first_of(&ports, "<unset>")),
        json!(first_of(&addresses, "<unset>")),
        now.age(object),
    ]
}

fn ingress(object: &Value, now: Now) -> Vec<Value> {
    let rules = list(object, "/spec/rules");
    let hosts = rules.iter().take(SHOWN).map(|rule| text(rule, "/host")).filter(|host| !host.is_empty());
    let hosts = match hosts.collect::<Vec<_>>().join(",") {
        hosts if hosts.is_empty() => "*".to_owned(),
        hosts if rules.len() > SHOWN => format!("{hosts} + {} more...", rules.len() - SHOWN),
        hosts => hosts,
    };
    let ports = if list(object, "/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![
        name(object),
        json!(text_or(object, "/spec/ingressClassName", "<none>")),
        json!(hosts),
        json!(ingress_points(object).join(",")),
        json!(ports),
        now.age(object),
    ]
}

fn ingress_class(object: &Value, now: Now) -> Vec<Value> {
    let parameters = match object.pointer("/spec/parameters").filter(|parameters| !parameters.is_null()) {
        Some(parameters) => {
            let group = match text(parameters, "/apiGroup") {
                "" => String::new(),
                group => format!(".{group}"),
            };
            format!("{}{group}/{}", text(parameters, "/kind"), text(parameters, "/name"))
        }
        None => "<none>".to_owned(),
    };
    vec![name(object), json!(text(object, "/spec/controller")), json!(parameters), now.age(object)]
}
