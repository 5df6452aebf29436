//! Label and field selectors: parsing, matching, printing.
//!
//! Texts of errors are upstream's. A parsed selector is sorted by key, so that equal selectors print equally.
//! Source: apimachinery `pkg/labels/selector.go`, `pkg/fields/selector.go`. Not here: which fields a kind can be
//! selected by (kinds.rs).

mod field;
mod parser;

use std::fmt;

pub use field::{FieldRequirement, FieldSelector, FieldSelectorError};

use crate::status::{FieldError, Path};
use crate::{Value, meta, names};

/// A conjunction of requirements on labels, or the selector that matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Exists,
    DoesNotExist,
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    GreaterThan,
    LessThan,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("found '{found}', expected: {expected}")]
    Unexpected { found: String, expected: &'static str },
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    /// In a `matchExpressions` of an object.
    #[error("{0}")]
    Object(String),
}

impl LabelSelector {
    pub fn everything() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: false }
    }

    pub fn nothing() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    /// The query parameter `labelSelector`, as in `app=web,tier in (a,b),!old`.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        parser::parse(text).map(LabelSelector::from_requirements)
    }

    fn from_requirements(mut requirements: Vec<Requirement>) -> LabelSelector {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector { requirements, nothing: false }
    }

    /// Exactly these labels, unchecked: the selector of a ReplicationController or a Service.
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> LabelSelector {
        let requirements = labels.into_iter().map(|(key, value)| Requirement {
            key: key.to_owned(),
            operator: Operator::Equals,
            values: vec![value.to_owned()],
        });
        LabelSelector::from_requirements(requirements.collect())
    }

    /// A `metav1.LabelSelector` object (`matchLabels`, `matchExpressions`). Absent or null selects nothing, an empty
    /// one everything, as upstream's `LabelSelectorAsSelector`.
    pub fn from_value(selector: Option<&Value>) -> Result<LabelSelector, SelectorError> {
        let Some(selector) = selector.filter(|selector| !selector.is_null()) else {
            return Ok(LabelSelector::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(
                Requirement::checked(key.clone(), Operator::Equals, vec![value])
                    .map_err(SelectorError::Object)?,
            );
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = expression.get("key").and_then(Value::as_str).unwrap_or_default().to_owned();
            let operator = match expression.get("operator").and_then(Value::as_str).unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError::Object(format!(
                        "{} is not a valid label selector operator",
                        crate::status::quote(other)
                    )));
                }
            };
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(Requirement::checked(key, operator, values).map_err(SelectorError::Object)?);
        }
        Ok(LabelSelector::from_requirements(requirements))
    }

    /// `lookup` answers the value of a label.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(&lookup))
    }

    /// Matches `metadata.labels` of an object.
    pub fn matches_object(&self, object: &Value) -> bool {
        let meta = meta::of(object);
        self.matches(|key| meta.label(key))
    }

    /// Selects everything.
    pub fn is_empty(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    pub fn push(&mut self, requirement: Requirement) {
        self.requirements.push(requirement);
        self.requirements.sort_by(|a, b| a.key.cmp(&b.key));
    }
}

impl Requirement {
    /// Checks key, operator and values with upstream's texts.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Requirement, SelectorError> {
        Requirement::checked(key.to_owned(), operator, values).map_err(SelectorError::Object)
    }

    fn checked(key: String, operator: Operator, values: Vec<String>) -> Result<Requirement, String> {
        let mut errors = Vec::new();
        let complaints = names::qualified_name(&key);
        if !complaints.is_empty() {
            errors.push(FieldError::invalid(&Path::new("key"), key.as_str(), complaints.join("; ")));
        }
        let path = Path::new("values");
        let complaint = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(complaint) = complaint {
            errors.push(FieldError::invalid(&path, values.clone(), complaint));
        }
        for (index, value) in values.iter().enumerate() {
            let at = path.index(index);
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err()
            {
                let complaint = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(&at, value.as_str(), complaint));
            }
            let complaints = names::label_value(value);
            if !complaints.is_empty() {
                errors.push(FieldError::invalid(&at.key(&key), value.as_str(), complaints.join("; ")));
            }
        }
        if errors.is_empty() {
            Ok(Requirement { key, operator, values })
        } else {
            Err(crate::status::aggregate(&errors))
        }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn operator(&self) -> Operator {
        self.operator
    }

    pub fn values(&self) -> &[String] {
        &self.values
    }

    pub fn matches<'a>(&self, lookup: &impl Fn(&str) -> Option<&'a str>) -> bool {
        let found = lookup(&self.key);
        let contains = |value: &str| self.values.iter().any(|known| known == value);
        match self.operator {
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::In | Operator::Equals | Operator::DoubleEquals => found.is_some_and(contains),
            Operator::NotIn | Operator::NotEquals => !found.is_some_and(contains),
            Operator::GreaterThan => self.compare(found, |label, bound| label > bound),
            Operator::LessThan => self.compare(found, |label, bound| label < bound),
        }
    }

    fn compare(&self, found: Option<&str>, holds: fn(i64, i64) -> bool) -> bool {
        let label = found.and_then(|label| label.parse().ok());
        let bound = self.values.first().and_then(|bound| bound.parse().ok());
        matches!((label, bound), (Some(label), Some(bound)) if holds(label, bound))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        values.sort_unstable();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// A selector object as tables print it: `app=web,tier in (a,b)`, `<none>` when empty or absent.
/// Source: `metav1.FormatLabelSelector`.
pub fn format(selector: Option<&Value>) -> String {
    match LabelSelector::from_value(selector) {
        Ok(parsed) if parsed.nothing || parsed.is_empty() => "<none>".to_owned(),
        Ok(parsed) => parsed.to_string(),
        Err(_) => "<error>".to_owned(),
    }
}

#[cfg(test)]
mod tests;
