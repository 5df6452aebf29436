//! The RBAC objects as an index: subject → bindings → rules, fed by the watch on the store.
//!
//! Invariants: a decision reads one consistent state; it costs as much as the caller has bindings, not as there are
//! bindings. A role with an aggregation rule grants what its selectors select now, whatever stands in its own rules.
//! Not here: waiting for the feed (`settle.rs`), matching of one rule (`rules.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use apimachinery::Value;
use apimachinery::selector::LabelSelector;
use apimachinery::status::quote;
use parking_lot::RwLock;

use super::rules::Rule;
use super::{Attributes, Decision};
use crate::User;
use crate::feed::{Change, Reader};
use crate::user::split_service_account;

const GROUP: &str = "rbac.authorization.k8s.io";

#[derive(Default)]
pub(crate) struct Index {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    cluster_roles: BTreeMap<String, ClusterRole>,
    /// Namespace, name.
    roles: BTreeMap<(String, String), Arc<[Rule]>>,
    bindings: BTreeMap<BindingKey, Binding>,
    by_subject: HashMap<Subject, BTreeSet<BindingKey>>,
}

struct ClusterRole {
    labels: Value,
    own: Arc<[Rule]>,
    /// Selectors of the roles whose rules this one grants instead of its own.
    aggregated: Option<Vec<LabelSelector>>,
    effective: Arc<[Rule]>,
}

/// Namespace ("" = ClusterRoleBinding) and name; cluster bindings come first.
type BindingKey = (String, String);

#[derive(Clone, PartialEq, Eq)]
struct Binding {
    role_kind: String,
    role_name: String,
    subjects: Vec<Subject>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

impl Subject {
    /// As upstream describes it in a reason.
    fn describe(&self) -> String {
        match self {
            Subject::User(name) => format!("User {}", quote(name)),
            Subject::Group(name) => format!("Group {}", quote(name)),
            Subject::ServiceAccount { namespace, name } => {
                format!("ServiceAccount {}", quote(&format!("{name}/{namespace}")))
            }
        }
    }
}

impl Reader for Index {
    fn observe(&self, change: &Change) {
        let Some(resource) = change.resource.filter(|resource| resource.group == GROUP) else { return };
        let object = change.new.as_ref().map(|object| object.value().as_ref());
        self.set(resource.plural, &change.namespace, &change.name, object);
    }
}

impl Index {
    /// Stores one object, or forgets it.
    pub(super) fn set(&self, plural: &str, namespace: &str, name: &str, object: Option<&Value>) {
        let mut state = self.state.write();
        let key = (namespace.to_string(), name.to_string());
        match plural {
            "roles" => match object {
                Some(object) => drop(state.roles.insert(key, Rule::read_all(object).into())),
                None => drop(state.roles.remove(&key)),
            },
            "clusterroles" => state.set_cluster_role(name, object),
            "rolebindings" | "clusterrolebindings" => {
                state.set_binding(key, object.and_then(|object| read_binding(object, namespace)));
            }
            _ => {}
        }
    }

    pub(super) fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let state = self.state.read();
        let mut errors = Vec::new();
        let mut allowed = None;
        state.visit(attributes.user, attributes.namespace, |key, binding, subject, rules| {
            let Some(rules) = rules else {
                errors.push(role_not_found(binding));
                return true;
            };
            if rules.iter().any(|rule| rule.allows(attributes)) {
                allowed = Some(reason(key, binding, subject));
            }
            allowed.is_none()
        });
        match allowed {
            Some(reason) => Decision::Allow(reason),
            None => Decision::NoOpinion(aggregate(&errors)),
        }
    }

    /// All rules of `user` in `namespace` ("" = cluster-wide only), and what went wrong on the way.
    pub(crate) fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let mut all = Vec::new();
        let mut errors = Vec::new();
        self.state.read().visit(user, namespace, |_, binding, _, rules| {
            match rules {
                Some(rules) => all.extend(rules.iter().cloned()),
                None => errors.push(role_not_found(binding)),
            }
            true
        });
        (all, errors)
    }

    /// The rules that a role reference grants; `None` when the role does not exist.
    pub(super) fn role_rules(&self, kind: &str, name: &str, namespace: &str) -> Option<Arc<[Rule]>> {
        self.state.read().role_rules(kind, name, namespace)
    }
}

impl State {
    /// Calls `f` for each binding that applies, cluster-wide ones first, until it returns false.
    fn visit(
        &self,
        user: &User,
        namespace: &str,
        mut f: impl FnMut(&BindingKey, &Binding, &Subject, Option<&[Rule]>) -> bool,
    ) {
        let mut found: BTreeMap<&BindingKey, Subject> = BTreeMap::new();
        for subject in subjects_of(user) {
            let Some(keys) = self.by_subject.get(&subject) else { continue };
            for key in keys {
                let applies = key.0.is_empty() || (!namespace.is_empty() && key.0 == namespace);
                if applies {
                    found.entry(key).or_insert_with(|| subject.clone());
                }
            }
        }
        for (key, subject) in found {
            let Some(binding) = self.bindings.get(key) else { continue };
            let rules = self.role_rules(&binding.role_kind, &binding.role_name, &key.0);
            if !f(key, binding, &subject, rules.as_deref()) {
                return;
            }
        }
    }

    fn role_rules(&self, kind: &str, name: &str, namespace: &str) -> Option<Arc<[Rule]>> {
        match kind {
            "ClusterRole" => self.cluster_roles.get(name).map(|role| role.effective.clone()),
            "Role" if !namespace.is_empty() => {
                self.roles.get(&(namespace.to_string(), name.to_string())).cloned()
            }
            _ => None,
        }
    }

    fn set_cluster_role(&mut self, name: &str, object: Option<&Value>) {
        match object {
            Some(object) => {
                let own: Arc<[Rule]> = Rule::read_all(object).into();
                let labels = object.pointer("/metadata/labels").cloned().unwrap_or(Value::Null);
                let aggregated = read_aggregation(object);
                let role = ClusterRole { labels, effective: own.clone(), own, aggregated };
                self.cluster_roles.insert(name.to_string(), role);
            }
            None => drop(self.cluster_roles.remove(name)),
        }
        self.aggregate_roles();
    }

    /// Works out what every aggregating role grants now; such roles are few.
    fn aggregate_roles(&mut self) {
        let names: Vec<String> = self
            .cluster_roles
            .iter()
            .filter(|(_, role)| role.aggregated.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            let mut rules = Vec::new();
            self.collect(&name, &mut BTreeSet::new(), &mut rules);
            if let Some(role) = self.cluster_roles.get_mut(&name) {
                role.effective = rules.into();
            }
        }
    }

    /// Adds the rules of a role and of all that it selects, each role once.
    fn collect(&self, name: &str, seen: &mut BTreeSet<String>, rules: &mut Vec<Rule>) {
        let Some(role) = self.cluster_roles.get(name) else { return };
        if !seen.insert(name.to_string()) {
            return;
        }
        let Some(selectors) = &role.aggregated else {
            for rule in role.own.iter() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
            return;
        };
        for (other, candidate) in &self.cluster_roles {
            if selectors.iter().any(|selector| selector.matches(|key| candidate.labels.get(key)?.as_str())) {
                self.collect(other, seen, rules);
            }
        }
    }

    fn set_binding(&mut self, key: BindingKey, binding: Option<Binding>) {
        if let Some(old) = self.bindings.remove(&key) {
            for subject in old.subjects {
                if let Some(keys) = self.by_subject.get_mut(&subject) {
                    keys.remove(&key);
                    if keys.is_empty() {
                        self.by_subject.remove(&subject);
                    }
                }
            }
        }
        if let Some(binding) = binding {
            for subject in &binding.subjects {
                self.by_subject.entry(subject.clone()).or_default().insert(key.clone());
            }
            self.bindings.insert(key, binding);
        }
    }
}

/// Every way in which a binding can name the user.
fn subjects_of(user: &User) -> Vec<Subject> {
    let mut subjects = vec![Subject::User(user.name.clone())];
    subjects.extend(user.groups.iter().cloned().map(Subject::Group));
    if let Some((namespace, name)) = split_service_account(&user.name) {
        subjects.push(Subject::ServiceAccount { namespace: namespace.to_string(), name: name.to_string() });
    }
    subjects
}

fn read_binding(object: &Value, namespace: &str) -> Option<Binding> {
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
    let role = object.get("roleRef")?;
    let subjects = object.get("subjects").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let read = |subject: &Value| {
        let name = text(subject, "name");
        match text(subject, "kind").as_str() {
            "User" => Some(Subject::User(name)),
            "Group" => Some(Subject::Group(name)),
            "ServiceAccount" => {
                let own = text(subject, "namespace");
                let namespace = if own.is_empty() { namespace.to_string() } else { own };
                // Without a namespace it names nobody.
                (!namespace.is_empty()).then_some(Subject::ServiceAccount { namespace, name })
            }
            _ => None,
        }
    };
    Some(Binding {
        role_kind: text(role, "kind"),
        role_name: text(role, "name"),
        subjects: subjects.iter().filter_map(read).collect(),
    })
}

/// `None` without an aggregation rule. A selector that cannot be read selects nothing.
fn read_aggregation(object: &Value) -> Option<Vec<LabelSelector>> {
    let selectors = object.pointer("/aggregationRule/clusterRoleSelectors")?.as_array()?;
    Some(selectors.iter().filter_map(|selector| LabelSelector::from_value(Some(selector)).ok()).collect())
}

fn reason((namespace, name): &BindingKey, binding: &Binding, subject: &Subject) -> String {
    let (kind, name) = match namespace.as_str() {
        "" => ("ClusterRoleBinding", name.clone()),
        namespace => ("RoleBinding", format!("{name}/{namespace}")),
    };
    format!(
        "RBAC: allowed by {kind} {} of {} {} to {}",
        quote(&name),
        binding.role_kind,
        quote(&binding.role_name),
        subject.describe()
    )
}

fn role_not_found(binding: &Binding) -> String {
    let plural = if binding.role_kind == "ClusterRole" { "clusterrole" } else { "role" };
    format!("{plural}.{GROUP} {} not found", quote(&binding.role_name))
}

/// As Go prints an aggregate of errors: repeated ones once, several in brackets.
fn aggregate(errors: &[String]) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for error in errors {
        if !seen.contains(&error.as_str()) {
            seen.push(error);
        }
    }
    match seen.as_slice() {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    }
}
