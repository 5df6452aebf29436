//! Reading JSON as the API server must: bounded depth, repeated members noticed, and then as Go's typed decoder would.
//!
//! `decode` turns bytes into a tree. `prune` makes the tree what a Go server would hold after reading it into the typed
//! struct and writing it again: unknown members and nulls are gone, empty values are gone where Go omits them and there
//! where Go always writes them, quantities and times are canonical. Texts of errors are upstream's.
//! Not here: defaults, validation.

mod typed;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

pub use typed::{TypeError, prune};
pub(crate) use typed::{is_omitted, is_zero, zero};

use crate::{Object, Value};

/// Deepest nesting of objects and lists that is read.
pub const DEPTH_MAX: usize = 100;

/// Most strict-decoding complaints that are kept for one document.
pub const COMPLAINTS_MAX: usize = 100;

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("couldn't get version/kind; json parse error: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("exceeded max depth of {DEPTH_MAX}")]
    TooDeep,
}

/// Reads one JSON document. Of a repeated member the last value counts, as in Go; each repetition gives one complaint
/// such as `duplicate field "spec.nodeName"`.
pub fn decode(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let mut reading = Reading::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Tree { reading: &mut reading, depth: 0 }.deserialize(&mut deserializer);
    if reading.too_deep {
        return Err(DecodeError::TooDeep);
    }
    let value = value?;
    deserializer.end()?;
    Ok((value, reading.complaints()))
}

/// Builds a tree from any serde format, keeping the rules of `decode`.
pub(crate) fn tree<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<(Value, Vec<String>), TreeError<D::Error>> {
    let mut reading = Reading::default();
    let value = Tree { reading: &mut reading, depth: 0 }.deserialize(deserializer);
    if reading.too_deep {
        return Err(TreeError::TooDeep);
    }
    value.map(|value| (value, reading.complaints())).map_err(TreeError::Syntax)
}

pub(crate) enum TreeError<E> {
    Syntax(E),
    TooDeep,
}

/// The error text of a request body whose objects do not fit the kind, for a 400.
/// `reason` is a [`TypeError`] or strict-decoding complaints joined by [`strict`].
pub fn cannot_be_handled(kind: &str, version: &str, reason: impl fmt::Display) -> String {
    format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {reason}")
}

/// `strict decoding error: unknown field "spec.foo", duplicate field "spec.bar"`
pub fn strict(complaints: &[String]) -> String {
    format!("strict decoding error: {}", complaints.join(", "))
}

#[derive(Default)]
struct Reading {
    /// Paths of repeated members, completed from the inside out as parents end
    repeated: Vec<String>,
    too_deep: bool,
}

impl Reading {
    fn complaints(self) -> Vec<String> {
        self.repeated.into_iter().map(|path| format!("duplicate field \"{path}\"")).collect()
    }
}

/// Puts `name` in front of the paths that were recorded since there were `from` of them.
pub(crate) fn prefix(paths: &mut [String], from: usize, name: impl Fn(&str) -> String) {
    for path in paths.iter_mut().skip(from) {
        *path = name(path);
    }
}

pub(crate) fn member(name: &str, inner: &str) -> String {
    if inner.starts_with('[') { format!("{name}{inner}") } else { format!("{name}.{inner}") }
}

pub(crate) fn item(index: usize, inner: &str) -> String {
    if inner.starts_with('[') { format!("[{index}]{inner}") } else { format!("[{index}].{inner}") }
}

struct Tree<'a> {
    reading: &'a mut Reading,
    depth: usize,
}

impl Tree<'_> {
    fn deeper<E: serde::de::Error>(&mut self) -> Result<usize, E> {
        if self.depth >= DEPTH_MAX {
            self.reading.too_deep = true;
            return Err(E::custom("exceeded max depth"));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut list = Vec::new();
        loop {
            let from = self.reading.repeated.len();
            let Some(value) = items.next_element_seed(Tree { reading: self.reading, depth })? else { break };
            prefix(&mut self.reading.repeated, from, |inner| item(list.len(), inner));
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut object = Object::new();
        while let Some(name) = members.next_key::<String>()? {
            let from = self.reading.repeated.len();
            let value = members.next_value_seed(Tree { reading: self.reading, depth })?;
            prefix(&mut self.reading.repeated, from, |inner| member(&name, inner));
            if object.contains_key(&name) && self.reading.repeated.len() < COMPLAINTS_MAX {
                self.reading.repeated.push(name.clone());
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
