//! Nobody grants what he does not have: the check on writes of roles and bindings.
//!
//! Invariants: without the verb `escalate` (roles) or `bind` (bindings) a writer must hold every permission that the
//! object grants, in its namespace; a role with an aggregation rule counts as everything, because it may come to grant
//! anything. Source: pkg/registry/rbac/*/policybased/storage.go. Not here: reading or deleting RBAC objects.

use apimachinery::Value;
use apimachinery::kinds::Resource;
use apimachinery::status::{GroupResource, Status, quote};

use super::rules::{Rule, uncovered};
use super::{Attributes, Decision};
use crate::user::GROUP_MASTERS;
use crate::{ApiServer, User};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Judges a create (`old` absent) or an update of an RBAC object; other kinds pass.
pub(crate) async fn check(
    server: &ApiServer,
    caller: &User,
    resource: &Resource,
    namespace: &str,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if resource.group != GROUP || caller.is_in(GROUP_MASTERS) {
        return Ok(());
    }
    let grant = match resource.plural {
        "roles" | "clusterroles" => Grant::Role { object },
        "rolebindings" | "clusterrolebindings" => Grant::Binding { role: RoleReference::read(object) },
        _ => return Ok(()),
    };
    if old.is_some_and(|old| grants_the_same(resource, object, old)) {
        return Ok(());
    }
    let own_name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let judge = Judge { server, caller, resource, namespace, name: own_name, creates: old.is_none() };
    if judge.may_bypass(&grant).await {
        return Ok(());
    }
    match judge.missing(&grant) {
        Ok(()) => Ok(()),
        // The writer's own rights may be newer than what the index has seen.
        Err(refusal) if !server.authorizer().settle(server).await => Err(refusal),
        Err(_) => judge.missing(&grant),
    }
}

/// What the object hands out.
enum Grant<'a> {
    Role { object: &'a Value },
    Binding { role: RoleReference<'a> },
}

struct RoleReference<'a> {
    kind: &'a str,
    name: &'a str,
}

impl<'a> RoleReference<'a> {
    fn read(object: &'a Value) -> RoleReference<'a> {
        let text = |name| object.pointer(name).and_then(Value::as_str).unwrap_or_default();
        RoleReference { kind: text("/roleRef/kind"), name: text("/roleRef/name") }
    }

    fn plural(&self) -> &'static str {
        if self.kind == "ClusterRole" { "clusterroles" } else { "roles" }
    }
}

fn grants_the_same(resource: &Resource, object: &Value, old: &Value) -> bool {
    let fields: &[&str] = match resource.plural {
        "roles" | "clusterroles" => &["rules", "aggregationRule"],
        _ => &["roleRef", "subjects"],
    };
    fields.iter().all(|field| object.get(field) == old.get(field))
}

struct Judge<'a> {
    server: &'a ApiServer,
    caller: &'a User,
    resource: &'a Resource,
    namespace: &'a str,
    name: &'a str,
    creates: bool,
}

impl Judge<'_> {
    async fn may_bypass(&self, grant: &Grant<'_>) -> bool {
        let (verb, plural, name) = match grant {
            // As upstream: a create is authorized without a name, so a rule for one name does not cover it.
            Grant::Role { .. } => {
                ("escalate", self.resource.plural, if self.creates { "" } else { self.name })
            }
            Grant::Binding { role } => ("bind", role.plural(), role.name),
        };
        let attributes = Attributes {
            verb,
            is_resource: true,
            api_group: GROUP,
            resource: plural,
            namespace: self.namespace,
            name,
            ..Attributes::of_user(self.caller)
        };
        matches!(self.server.authorizer().decide(&attributes), Decision::Allow(_))
    }

    /// Refuses when the caller lacks something that the object grants.
    fn missing(&self, grant: &Grant<'_>) -> Result<(), Status> {
        let authorizer = self.server.authorizer();
        let wanted: Vec<Rule> = match grant {
            Grant::Role { object } if object.get("aggregationRule").is_some_and(|rule| !rule.is_null()) => {
                Rule::everything().into_iter().chain(Rule::read_all(object)).collect()
            }
            Grant::Role { object } => Rule::read_all(object),
            Grant::Binding { role } => {
                match authorizer.index.role_rules(role.kind, role.name, self.namespace) {
                    Some(rules) => rules.to_vec(),
                    None => {
                        return Err(Status::not_found(GroupResource::new(GROUP, role.plural()), role.name));
                    }
                }
            }
        };
        let (owned, errors) = authorizer.rules_for(self.caller, self.namespace);
        let missing = uncovered(&owned, &wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let why = explain(self.caller, &missing, &errors);
        Err(Status::forbidden(GroupResource::new(GROUP, self.resource.plural), self.name, why))
    }
}

/// Upstream's text: one line per missing rule, sorted.
fn explain(caller: &User, missing: &[Rule], errors: &[String]) -> String {
    let mut lines: Vec<String> = compact(missing).iter().map(describe).collect();
    lines.sort();
    lines.dedup();
    let mut text = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        quote(&caller.name),
        quote_all(&caller.groups),
        lines.join("\n")
    );
    if !errors.is_empty() {
        text.push_str(&format!("; resolution errors: [{}]", errors.join(", ")));
    }
    text
}

/// Joins rules that differ in nothing but the verb.
fn compact(rules: &[Rule]) -> Vec<Rule> {
    let mut joined: Vec<Rule> = Vec::new();
    for rule in rules {
        let same = joined.iter_mut().find(|other| {
            other.api_groups == rule.api_groups
                && other.resources == rule.resources
                && other.resource_names == rule.resource_names
                && other.non_resource_urls == rule.non_resource_urls
        });
        match same {
            Some(other) => other.verbs.extend(rule.verbs.iter().cloned()),
            None => joined.push(rule.clone()),
        }
    }
    joined
}

fn describe(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(_, texts)| !texts.is_empty())
        .map(|(name, texts)| format!("{name}:{}", quote_all(texts)))
        .collect();
    format!("{{{}}}", parts.join(", "))
}

/// Go's `%q` of a list of strings.
fn quote_all(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quote(text)).collect();
    format!("[{}]", texts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_lists_what_is_missing_as_upstream_does() {
        let rule = |verb: &str, resource: &str| Rule {
            verbs: vec![verb.to_string()],
            api_groups: vec![String::new()],
            resources: vec![resource.to_string()],
            ..Rule::default()
        };
        let missing = [rule("get", "secrets"), rule("get", "pods"), rule("list", "secrets")];
        let text = explain(&User::new("jiang", &["dev", "system:authenticated"]), &missing, &[]);
        assert_eq!(
            text,
            "user \"jiang\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not \
             currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\"]}\n{APIGroups:[\"\"], \
             Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}"
        );
    }
}
