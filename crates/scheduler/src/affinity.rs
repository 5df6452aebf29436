//! Which nodes a pod accepts or prefers, by labels and by name.
//!
//! Invariants: a term without any requirement matches no node; terms are ORed, the requirements of a term and the plain
//! `nodeSelector` are ANDed. Source: k8s.io/component-helpers nodeaffinity.

use std::collections::BTreeMap;

use apimachinery::Value;

use crate::pod::{items, text};

/// `nodeSelector` and the required terms of the node affinity.
#[derive(Debug, Default)]
pub(crate) struct NodeSelector {
    labels: Vec<(String, String)>,
    /// None: no required affinity, every node will do.
    terms: Option<Vec<Term>>,
}

#[derive(Debug)]
pub(crate) struct PreferredTerm {
    pub(crate) weight: i64,
    term: Term,
}

#[derive(Debug)]
struct Term {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Debug)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Debug)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
    /// Matches nothing: an operator of a later version.
    Unknown,
}

impl NodeSelector {
    pub(crate) fn parse(node_selector: &Value, required: &Value) -> NodeSelector {
        let labels = node_selector.as_object().into_iter().flatten();
        NodeSelector {
            labels: labels.map(|(key, value)| (key.clone(), text(value))).collect(),
            terms: required
                .as_object()
                .map(|_| items(&required["nodeSelectorTerms"]).map(Term::parse).collect()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.terms.is_none()
    }

    pub(crate) fn matches(&self, node_name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self
                .terms
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(node_name, labels)))
    }
}

impl PreferredTerm {
    /// None for a weight of zero or a term without requirements, which prefer nothing.
    pub(crate) fn parse(value: &Value) -> Option<PreferredTerm> {
        let term = Term::parse(&value["preference"]);
        let weight = value["weight"].as_i64().unwrap_or(0);
        (weight != 0 && !term.is_empty()).then_some(PreferredTerm { weight, term })
    }

    pub(crate) fn matches(&self, node_name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.term.matches(node_name, labels)
    }
}

impl Term {
    fn parse(value: &Value) -> Term {
        Term {
            labels: items(&value["matchExpressions"]).map(Requirement::parse).collect(),
            fields: items(&value["matchFields"]).map(Requirement::parse).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    fn matches(&self, node_name: &str, labels: &BTreeMap<String, String>) -> bool {
        let field = |key: &str| (key == "metadata.name").then_some(node_name);
        !self.is_empty()
            && self
                .labels
                .iter()
                .all(|requirement| requirement.matches(labels.get(&requirement.key).map(String::as_str)))
            && self.fields.iter().all(|requirement| requirement.matches(field(&requirement.key)))
    }
}

impl Requirement {
    fn parse(value: &Value) -> Requirement {
        Requirement {
            key: text(&value["key"]),
            operator: match value["operator"].as_str() {
                Some("In") => Operator::In,
                Some("NotIn") => Operator::NotIn,
                Some("Exists") => Operator::Exists,
                Some("DoesNotExist") => Operator::DoesNotExist,
                Some("Gt") => Operator::GreaterThan,
                Some("Lt") => Operator::LessThan,
                _ => Operator::Unknown,
            },
            values: items(&value["values"]).map(text).collect(),
        }
    }

    fn matches(&self, actual: Option<&str>) -> bool {
        let listed = |actual: &str| self.values.iter().any(|value| value == actual);
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = self.values.first().and_then(|value| number(value));
        let compares = |holds: fn(i64, i64) -> bool| match (actual.and_then(number), bound) {
            (Some(actual), Some(bound)) => holds(actual, bound),
            _ => false,
        };
        match self.operator {
            Operator::In => actual.is_some_and(listed),
            Operator::NotIn => !actual.is_some_and(listed),
            Operator::Exists => actual.is_some(),
            Operator::DoesNotExist => actual.is_none(),
            Operator::GreaterThan => compares(|actual, bound| actual > bound),
            Operator::LessThan => compares(|actual, bound| actual < bound),
            Operator::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_operator_matches_as_documented() {
        let labels =
            BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("cpus".to_owned(), "8".to_owned())]);
        for (key, operator, values, expected) in [
            ("zone", "In", json!(["a", "b"]), true),
            ("zone", "In", json!(["b"]), false),
            ("none", "In", json!(["b"]), false),
            ("zone", "NotIn", json!(["a"]), false),
            ("none", "NotIn", json!(["a"]), true),
            ("zone", "Exists", json!([]), true),
            ("zone", "DoesNotExist", json!([]), false),
            ("cpus", "Gt", json!(["4"]), true),
            ("cpus", "Lt", json!(["8"]), false),
            ("zone", "Gt", json!(["4"]), false),
            ("zone", "Near", json!(["a"]), false),
        ] {
            let required = json!({"nodeSelectorTerms": [
                {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]});
            let selector = NodeSelector::parse(&Value::Null, &required);
            assert_eq!(selector.matches("n1", &labels), expected, "{key} {operator} {values}");
        }
    }

    #[test]
    fn terms_are_ored_and_an_empty_term_matches_no_node() {
        let by_name = |name: &str| {
            json!({"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": [name]}]})
        };
        let labels = BTreeMap::new();
        let either =
            NodeSelector::parse(&Value::Null, &json!({"nodeSelectorTerms": [by_name("n1"), by_name("n2")]}));
        assert!(either.matches("n2", &labels) && !either.matches("n3", &labels));
        assert!(
            !NodeSelector::parse(&Value::Null, &json!({"nodeSelectorTerms": [{}]})).matches("n1", &labels)
        );
        assert!(NodeSelector::parse(&Value::Null, &Value::Null).matches("n1", &labels));
    }
}
