//! One RBAC rule: what it matches, and whether a set of rules covers another rule.
//!
//! Source: plugin/pkg/auth/authorizer/rbac/rbac.go `RuleAllows`, component-helpers/auth/rbac/validation `Covers`.
//! Not here: which rules apply to whom (`index.rs`).

use apimachinery::Value;
use serde_json::json;

use super::Attributes;

const ALL: &str = "*";

/// A `PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) api_groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) resource_names: Vec<String>,
    pub(crate) non_resource_urls: Vec<String>,
}

impl Rule {
    /// Everything of every group, and every path.
    pub(crate) fn everything() -> [Rule; 2] {
        let all = || vec![ALL.to_string()];
        [
            Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
            Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
        ]
    }

    /// Reads a rule; what is missing or of the wrong type matches nothing.
    pub(crate) fn read(value: &Value) -> Rule {
        let texts = |name: &str| -> Vec<String> {
            let items = value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            items.iter().filter_map(Value::as_str).map(str::to_string).collect()
        };
        Rule {
            verbs: texts("verbs"),
            api_groups: texts("apiGroups"),
            resources: texts("resources"),
            resource_names: texts("resourceNames"),
            non_resource_urls: texts("nonResourceURLs"),
        }
    }

    pub(crate) fn read_all(object: &Value) -> Vec<Rule> {
        let rules = object.get("rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        rules.iter().map(Rule::read).collect()
    }

    pub(crate) fn to_value(&self) -> Value {
        let mut value = json!({});
        let fields = [
            ("verbs", &self.verbs),
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ];
        for (name, texts) in fields {
            if !texts.is_empty() || name == "verbs" {
                value[name] = json!(texts);
            }
        }
        value
    }

    pub(crate) fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !has(&self.verbs, attributes.verb) {
            return false;
        }
        if !attributes.is_resource {
            return self.non_resource_urls.iter().any(|pattern| path_matches(pattern, attributes.path));
        }
        has(&self.api_groups, attributes.api_group)
            && self
                .resources
                .iter()
                .any(|own| resource_matches(own, attributes.resource, attributes.subresource))
            && (self.resource_names.is_empty()
                || self.resource_names.iter().any(|own| own == attributes.name))
    }

    /// The rule as a set of the smallest rules that together mean the same.
    fn atoms(&self) -> Vec<Atom<'_>> {
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for path in &self.non_resource_urls {
                atoms.push(Atom::Path { verb, path });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    let resource = AtomResource { verb, group, resource };
                    if self.resource_names.is_empty() {
                        atoms.push(Atom::Resource { what: resource, name: None });
                    }
                    atoms.extend(
                        self.resource_names
                            .iter()
                            .map(|name| Atom::Resource { what: resource, name: Some(name) }),
                    );
                }
            }
        }
        atoms
    }
}

/// One verb on one thing.
#[derive(Debug, Clone, Copy)]
enum Atom<'a> {
    Path { verb: &'a str, path: &'a str },
    Resource { what: AtomResource<'a>, name: Option<&'a str> },
}

#[derive(Debug, Clone, Copy)]
struct AtomResource<'a> {
    verb: &'a str,
    group: &'a str,
    resource: &'a str,
}

impl Atom<'_> {
    fn is_in(self, rule: &Rule) -> bool {
        match self {
            Atom::Path { verb, path } => {
                has(&rule.verbs, verb) && rule.non_resource_urls.iter().any(|own| path_covers(own, path))
            }
            Atom::Resource { what, name } => {
                has(&rule.verbs, what.verb)
                    && has(&rule.api_groups, what.group)
                    && rule.resources.iter().any(|own| resource_covers(own, what.resource))
                    && (rule.resource_names.is_empty()
                        || name.is_some_and(|name| rule.resource_names.iter().any(|own| own == name)))
            }
        }
    }

    fn to_rule(self) -> Rule {
        let one = |text: &str| vec![text.to_string()];
        match self {
            Atom::Path { verb, path } => {
                Rule { verbs: one(verb), non_resource_urls: one(path), ..Rule::default() }
            }
            Atom::Resource { what, name } => Rule {
                verbs: one(what.verb),
                api_groups: one(what.group),
                resources: one(what.resource),
                resource_names: name.map(one).unwrap_or_default(),
                ..Rule::default()
            },
        }
    }
}

/// The smallest rules of `wanted` that `owned` does not grant.
pub(crate) fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let atoms = wanted.iter().flat_map(Rule::atoms);
    atoms.filter(|atom| !owned.iter().any(|rule| atom.is_in(rule))).map(Atom::to_rule).collect()
}

fn has(own: &[String], wanted: &str) -> bool {
    own.iter().any(|text| text == ALL || text == wanted)
}

fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == ALL
        || pattern == path
        || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix.trim_end_matches('*')))
}

fn path_covers(own: &str, wanted: &str) -> bool {
    own == wanted || own.strip_suffix('*').is_some_and(|prefix| wanted.starts_with(prefix))
}

/// `*`, `pods`, `pods/log` or `*/scale` against a resource and its subresource.
fn resource_matches(own: &str, resource: &str, subresource: &str) -> bool {
    if own == ALL {
        return true;
    }
    if subresource.is_empty() {
        return own == resource;
    }
    match own.split_once('/') {
        Some((own_resource, own_subresource)) => {
            own_subresource == subresource && (own_resource == ALL || own_resource == resource)
        }
        None => false,
    }
}

fn resource_covers(own: &str, wanted: &str) -> bool {
    let by_subresource = || {
        let (own_resource, own_subresource) = own.split_once('/')?;
        let (_, subresource) = wanted.split_once('/')?;
        Some(own_resource == ALL && own_subresource == subresource)
    };
    own == ALL || own == wanted || by_subresource().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::User;

    /// `verbs groups resources names urls`, comma lists, `-` for none and `""` for the core group.
    fn rule(text: &str) -> Rule {
        let columns: Vec<Vec<String>> = text
            .split_whitespace()
            .map(|column| match column {
                "-" => Vec::new(),
                _ => column.split(',').map(|part| part.replace("\"\"", "")).collect(),
            })
            .collect();
        let [verbs, api_groups, resources, resource_names, non_resource_urls] = columns.try_into().unwrap();
        Rule { verbs, api_groups, resources, resource_names, non_resource_urls }
    }

    #[test]
    fn a_rule_allows_exactly_what_it_names() {
        let user = User::new("u", &[]);
        let table = [
            ("get \"\" pods - -", "get . pods . .", true),
            ("get \"\" pods - -", "list . pods . .", false),
            ("get \"\" pods - -", "get apps pods . .", false),
            ("get \"\" pods - -", "get . pods log .", false),
            ("get \"\" pods/log - -", "get . pods log .", true),
            ("get \"\" pods/log - -", "get . pods . .", false),
            ("get \"\" */log - -", "get . pods log .", true),
            ("get \"\" */log - -", "get . pods exec .", false),
            ("get \"\" * - -", "get . pods exec .", true),
            ("* * * - -", "escalate rbac.authorization.k8s.io roles . x", true),
            ("get \"\" pods a,b -", "get . pods . a", true),
            ("get \"\" pods a,b -", "get . pods . c", false),
            ("get \"\" pods a,b -", "list . pods . .", false),
            ("get \"\" - - -", "get . pods . .", false),
        ];
        for (text, asked, expected) in table {
            let columns: Vec<&str> =
                asked.split(' ').map(|column| if column == "." { "" } else { column }).collect();
            let attributes = Attributes {
                verb: columns[0],
                api_group: columns[1],
                resource: columns[2],
                subresource: columns[3],
                name: columns[4],
                is_resource: true,
                ..Attributes::of_user(&user)
            };
            assert_eq!(rule(text).allows(&attributes), expected, "{text} against {asked}");
        }
    }

    #[test]
    fn paths_match_whole_or_by_prefix() {
        let user = User::new("u", &[]);
        let table = [
            ("get - - - /healthz", "/healthz", true),
            ("get - - - /healthz", "/healthz/ping", false),
            ("get - - - /healthz/*", "/healthz/ping", true),
            ("get - - - /healthz/*", "/healthz", false),
            ("get - - - *", "/anything", true),
            ("post - - - *", "/anything", false),
            ("get * * - -", "/anything", false),
        ];
        for (text, path, expected) in table {
            let attributes = Attributes { verb: "get", path, ..Attributes::of_user(&user) };
            assert_eq!(rule(text).allows(&attributes), expected, "{text} against {path}");
        }
    }

    #[test]
    fn rules_cover_what_they_imply_and_nothing_more() {
        let table = [
            ("* * * - -", "get,list \"\" pods,pods/log a -", true),
            ("get \"\" pods - -", "get \"\" pods a -", true),
            ("get \"\" pods a -", "get \"\" pods - -", false),
            ("get \"\" pods - -", "* \"\" pods - -", false),
            ("get \"\" pods - -", "get * pods - -", false),
            ("get \"\" */log - -", "get \"\" pods/log - -", true),
            ("get \"\" pods - -", "get \"\" pods/log - -", false),
            ("get - - - /a/*", "get - - - /a/b", true),
            ("get - - - /a/*", "get - - - /a/*", true),
            ("get - - - /a", "get - - - /a/*", false),
            ("get - - - *", "get - - - /a/*", true),
        ];
        for (owned, wanted, expected) in table {
            let missing = uncovered(&[rule(owned)], &[rule(wanted)]);
            assert_eq!(missing.is_empty(), expected, "{owned} over {wanted}: {missing:?}");
        }
        let parts = [rule("get \"\" pods - -"), rule("list \"\" pods - -")];
        assert!(uncovered(&parts, &[rule("get,list \"\" pods - -")]).is_empty(), "together they cover");
    }
}
