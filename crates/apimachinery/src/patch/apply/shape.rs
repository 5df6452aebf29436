//! What the schema says about a value, as far as ownership of its parts goes.
//!
//! A leaf is owned as one piece: scalars, atomic lists and maps, anything whose inside the schema does not know.

use super::path::{Scalar, Step};
use super::set::FieldSet;
use crate::Value;
use crate::schema::{Field, Kind, ListType, Schema, Type};

#[derive(Clone, Copy)]
pub(super) enum Shape<'s> {
    Leaf,
    Struct(&'s Type),
    Map(&'s Kind),
    /// Items are scalars, each there once.
    Set,
    /// Items are told apart by these members.
    Keyed(&'s Kind, &'s [&'static str]),
}

#[derive(Clone, Copy)]
pub(super) struct View<'s> {
    pub(super) schema: &'s Schema,
}

impl<'s> View<'s> {
    pub(super) fn root(self, type_name: &str) -> Shape<'s> {
        self.schema.type_(type_name).map_or(Shape::Leaf, Shape::Struct)
    }

    /// `None` for a member that the schema does not declare.
    pub(super) fn member(self, shape: Shape<'s>, name: &str) -> Option<Shape<'s>> {
        match shape {
            Shape::Struct(parent) => parent.field(name).map(|field| self.field(field)),
            Shape::Map(values) => Some(self.kind(values)),
            Shape::Leaf | Shape::Set | Shape::Keyed(..) => Some(Shape::Leaf),
        }
    }

    pub(super) fn item(self, shape: Shape<'s>) -> Shape<'s> {
        match shape {
            Shape::Keyed(items, _) => self.kind(items),
            _ => Shape::Leaf,
        }
    }

    fn field(self, field: &'s Field) -> Shape<'s> {
        match (&field.kind, field.list_type) {
            _ if field.atomic => Shape::Leaf,
            (Kind::Array(_), Some(ListType::Set)) => Shape::Set,
            (Kind::Array(items), Some(ListType::Map)) => Shape::Keyed(items, &field.list_map_keys),
            (kind, _) => self.kind(kind),
        }
    }

    fn kind(self, kind: &'s Kind) -> Shape<'s> {
        match kind {
            Kind::Ref(name) => match self.schema.type_(name) {
                Some(type_) if !type_.atomic => Shape::Struct(type_),
                _ => Shape::Leaf,
            },
            Kind::Map(values) => Shape::Map(values),
            _ => Shape::Leaf,
        }
    }

    /// How an item of a list is addressed. The error is upstream's text.
    pub(super) fn step(self, shape: Shape<'s>, item: &Value) -> Result<Step, String> {
        let Shape::Keyed(_, keys) = shape else {
            return match item {
                Value::Array(_) | Value::Object(_) => {
                    Err("invalid indexing of set: item is not a scalar".to_owned())
                }
                scalar => Ok(Step::Item(Scalar(scalar.clone()))),
            };
        };
        let Value::Object(fields) = item else {
            return Err("associative list with keys may not have non-map elements".to_owned());
        };
        let value =
            |key: &str| fields.get(key).filter(|value| !value.is_null()).cloned().or_else(|| default(key));
        let mut found: Vec<(String, Scalar)> =
            keys.iter().filter_map(|key| Some(((*key).to_owned(), Scalar(value(key)?)))).collect();
        found.sort();
        if found.is_empty() {
            let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                keys.join(" ")
            ));
        }
        Ok(Step::Key(found))
    }

    /// Adds every declared field on the way to a member as a member itself.
    pub(super) fn with_named_fields(self, set: &FieldSet, shape: Shape<'s>) -> FieldSet {
        let mut result = FieldSet { members: set.members.clone(), ..FieldSet::default() };
        for (step, child) in &set.children {
            let below = match step {
                Step::Field(name) => {
                    if let Shape::Struct(parent) = shape
                        && parent.field(name).is_some()
                    {
                        result.members.insert(step.clone());
                    }
                    self.member(shape, name).unwrap_or(Shape::Leaf)
                }
                _ => self.item(shape),
            };
            result.children.insert(step.clone(), self.with_named_fields(child, below));
        }
        result
    }
}

/// The only key of a list that has a default: ports are TCP.
fn default(key: &str) -> Option<Value> {
    (key == "protocol").then(|| Value::from("TCP"))
}
