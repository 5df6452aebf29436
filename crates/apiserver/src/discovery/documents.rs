//! The discovery documents as JSON, made from the table of kinds.
//!
//! Shapes: meta/v1 `APIVersions`, `APIGroupList`, `APIGroup`, `APIResourceList`; apidiscovery.k8s.io/v2
//! `APIGroupDiscoveryList`. Not here: which one a client gets (`discovery.rs`).

use apimachinery::kinds::{self, Group, Resource};
use serde_json::{Map, Value, json};

pub(super) fn versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": kinds::groups().iter().filter(|group| group.name.is_empty()).flat_map(|group| group.versions).collect::<Vec<_>>(),
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

pub(super) fn groups() -> Value {
    let named = kinds::groups().iter().filter(|group| !group.name.is_empty());
    let groups: Vec<Value> = named.map(|served| group(served, false)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// One group; `alone` when it is the whole answer.
pub(super) fn group(group: &Group, alone: bool) -> Value {
    let version =
        |version: &str| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let mut value = if alone { json!({"kind": "APIGroup", "apiVersion": "v1"}) } else { json!({}) };
    value["name"] = json!(group.name);
    value["versions"] = group.versions.iter().map(|name| version(name)).collect();
    value["preferredVersion"] = group.versions.first().map_or(Value::Null, |name| version(name));
    value
}

/// The resources of one group and version, each followed by its subresources.
pub(super) fn resources(group: &str, version: &str) -> Value {
    let mut rows = Vec::new();
    for resource in served(group, version) {
        rows.push(legacy_resource(resource));
        for row in resource.subresource_rows() {
            let mut value = json!({
                "name": format!("{}/{}", resource.plural, row.name),
                "singularName": "",
                "namespaced": resource.namespaced,
            });
            if (row.group, row.version) != (group, version) {
                value["group"] = json!(row.group);
                value["version"] = json!(row.version);
            }
            value["kind"] = json!(row.kind);
            value["verbs"] = json!(row.verbs);
            rows.push(value);
        }
    }
    rows.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
    let group_version = if group.is_empty() { version.to_string() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": rows})
}

fn served<'a>(group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Resource> + 'a {
    kinds::resources().iter().filter(move |resource| resource.group == group && resource.version == version)
}

fn legacy_resource(resource: &Resource) -> Value {
    let mut value = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verb_names(),
    });
    put_names(&mut value, resource);
    value
}

fn put_names(value: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
}

/// The core group alone, or all the others.
pub(super) fn aggregated(core: bool) -> Value {
    let groups = kinds::groups().iter().filter(|group| group.name.is_empty() == core);
    let items: Vec<Value> = groups.map(aggregated_group).collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_group(group: &Group) -> Value {
    let mut metadata = Map::new();
    if !group.name.is_empty() {
        metadata.insert("name".to_string(), json!(group.name));
    }
    metadata.insert("creationTimestamp".to_string(), Value::Null);
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = served(group.name, version).map(aggregated_resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut value = json!({
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verb_names(),
    });
    put_names(&mut value, resource);
    let subresources: Vec<Value> = resource
        .subresource_rows()
        .into_iter()
        .map(|row| {
            json!({
                "subresource": row.name,
                "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
                "verbs": row.verbs,
            })
        })
        .collect();
    if !subresources.is_empty() {
        value["subresources"] = json!(subresources);
    }
    value
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn pods_read_as_upstream_describes_them() {
        let list = resources("", "v1");
        assert_eq!(list["groupVersion"], "v1");
        let find = |name: &str| {
            list["resources"].as_array().unwrap().iter().find(|row| row["name"] == name).cloned()
        };
        let pods = find("pods").unwrap();
        assert_eq!(pods["singularName"], "pod");
        assert_eq!(pods["shortNames"], json!(["po"]));
        assert_eq!(pods["categories"], json!(["all"]));
        assert_eq!(
            pods["verbs"],
            json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"])
        );
        assert_eq!(find("pods/binding").unwrap()["verbs"], json!(["create"]));
        assert_eq!(find("pods/eviction").unwrap()["group"], "policy");
        assert_eq!(find("nodes").unwrap()["namespaced"], false);
    }

    #[test]
    fn groups_name_their_preferred_version() {
        let list = groups();
        let apps = list["groups"].as_array().unwrap().iter().find(|group| group["name"] == "apps").unwrap();
        assert_eq!(apps["preferredVersion"], json!({"groupVersion": "apps/v1", "version": "v1"}));
        assert!(list["groups"].as_array().unwrap().iter().all(|group| group["name"] != ""));
        assert_eq!(
            versions("127.0.0.1:6443")["serverAddressByClientCIDRs"][0]["serverAddress"],
            "127.0.0.1:6443"
        );
    }

    #[test]
    fn both_forms_tell_the_same() {
        for core in [true, false] {
            for item in aggregated(core)["items"].as_array().unwrap() {
                let group = item["metadata"]["name"].as_str().unwrap_or("");
                for version in item["versions"].as_array().unwrap() {
                    let legacy = resources(group, version["version"].as_str().unwrap());
                    let legacy: BTreeSet<&str> = legacy["resources"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|row| row["name"].as_str().unwrap())
                        .collect();
                    let mut names = BTreeSet::new();
                    let rows = version["resources"].as_array().unwrap();
                    for row in rows {
                        names.insert(row["resource"].as_str().unwrap().to_string());
                        for sub in row["subresources"].as_array().into_iter().flatten() {
                            names.insert(format!(
                                "{}/{}",
                                row["resource"].as_str().unwrap(),
                                sub["subresource"].as_str().unwrap()
                            ));
                        }
                    }
                    assert_eq!(names.iter().map(String::as_str).collect::<BTreeSet<_>>(), legacy, "{group}");
                }
            }
        }
    }
}
