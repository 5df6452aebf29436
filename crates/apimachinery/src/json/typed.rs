//! `prune`: the tree as Go's typed decoder and encoder would leave it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{COMPLAINTS_MAX, item, member, prefix};
use crate::schema::{Field, Kind, Schema, Type};
use crate::{Object, Value, quantity, time};

/// Most values that are added to one document: `{}` in a list can stand for a struct of a hundred times its size.
const ZEROS_MAX: usize = 200_000;

/// The tree does not fit the type. The texts are those of Go's decoder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// `found` and `wanted` are Go's words; `owner` is the innermost struct, `path` runs from the outermost one.
    #[error("json: cannot unmarshal {found} into Go {} of type {wanted}", place(.owner, .path))]
    Mismatch { found: String, owner: &'static str, path: String, wanted: String },
    /// A value of the right JSON type that its own parser refuses: a quantity, a time, base64.
    #[error("{0}")]
    Malformed(String),
    #[error("no type {0} in the schema")]
    NoSuchType(String),
}

fn place(owner: &str, path: &str) -> String {
    if owner.is_empty() { "value".to_owned() } else { format!("struct field {owner}.{path}") }
}

/// Makes `value` what a typed Go server would hold, in place, and reports unknown members such as
/// `unknown field "spec.containers[0].foo"`, at most [`COMPLAINTS_MAX`] of them.
pub fn prune(schema: &Schema, type_name: &str, value: &mut Value) -> Result<Vec<String>, TypeError> {
    let type_ = schema.type_(type_name).ok_or_else(|| TypeError::NoSuchType(type_name.to_owned()))?;
    let mut walk = Walk { schema, unknown: Vec::new(), zeros: 0 };
    walk.object(type_, value)?;
    Ok(walk.unknown.into_iter().map(|path| format!("unknown field \"{path}\"")).collect())
}

struct Walk<'a> {
    schema: &'a Schema,
    /// Paths of unknown members, completed from the inside out as parents end
    unknown: Vec<String>,
    /// Values that nobody sent
    zeros: usize,
}

impl Walk<'_> {
    fn object(&mut self, type_: &Type, value: &mut Value) -> Result<(), TypeError> {
        let Value::Object(members) = value else {
            return Err(mismatch(value, &Kind::Ref(type_.name)));
        };
        let mut error = None;
        members.retain(|name, value| {
            error.is_none() && self.keep(type_, name, value).unwrap_or_else(|e| keep_error(&mut error, e))
        });
        if let Some(error) = error {
            return Err(error);
        }
        for field in type_.always() {
            if !members.contains_key(field.name)
                && let Some(zero) = self.zero(&field.kind)
            {
                members.insert(field.name.to_owned(), zero);
                self.zeros += 1;
            }
        }
        if self.zeros > ZEROS_MAX {
            return Err(TypeError::Malformed(format!("more than {ZEROS_MAX} values are missing")));
        }
        Ok(())
    }

    /// Whether a member stays, after making its value canonical.
    fn keep(&mut self, type_: &Type, name: &str, value: &mut Value) -> Result<bool, TypeError> {
        let Some(field) = type_.field(name) else {
            if self.unknown.len() < COMPLAINTS_MAX {
                self.unknown.push(name.to_owned());
            }
            return Ok(false);
        };
        if value.is_null() {
            return Ok(false);
        }
        let from = self.unknown.len();
        self.value(&field.kind, value).map_err(|error| error.inside(type_, name))?;
        prefix(&mut self.unknown, from, |inner| member(name, inner));
        Ok(field.pointer || field.keep_empty || !is_empty(field, value))
    }

    fn value(&mut self, kind: &Kind, value: &mut Value) -> Result<(), TypeError> {
        match kind {
            Kind::String if value.is_string() => Ok(()),
            Kind::Bool if value.is_boolean() => Ok(()),
            Kind::Int32 if value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) => Ok(()),
            Kind::Int64 if value.is_i64() => Ok(()),
            Kind::Double if value.is_number() => Ok(()),
            Kind::IntOrString if value.is_string() => Ok(()),
            Kind::IntOrString => self.value(&Kind::Int32, value),
            Kind::Bytes if value.is_string() => base64(value),
            Kind::Quantity => canonical_quantity(value),
            Kind::Time | Kind::MicroTime if value.is_string() => canonical_time(kind, value),
            Kind::Raw | Kind::Json | Kind::FieldsV1 => Ok(()),
            Kind::SchemaOrBool if value.is_boolean() => Ok(()),
            Kind::SchemaOrArray if value.is_array() => {
                self.list(&Kind::Ref("apiextensions.v1.JSONSchemaProps"), value)
            }
            Kind::SchemaOrStrings if value.is_array() => self.list(&Kind::String, value),
            Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings => {
                self.value(&Kind::Ref("apiextensions.v1.JSONSchemaProps"), value)
            }
            Kind::Ref(name) => {
                let schema = self.schema;
                let type_ = schema.type_(name).ok_or_else(|| TypeError::NoSuchType((*name).to_owned()))?;
                self.object(type_, value)
            }
            Kind::Array(item) => self.list(item, value),
            Kind::Map(item) => self.map(item, value),
            _ => Err(mismatch(value, kind)),
        }
    }

    fn list(&mut self, kind: &Kind, value: &mut Value) -> Result<(), TypeError> {
        let Value::Array(items) = value else {
            return Err(mismatch(value, &Kind::Array(Box::new(kind.clone()))));
        };
        for (index, value) in items.iter_mut().enumerate() {
            let from = self.unknown.len();
            self.element(kind, value)?;
            prefix(&mut self.unknown, from, |inner| item(index, inner));
        }
        Ok(())
    }

    fn map(&mut self, kind: &Kind, value: &mut Value) -> Result<(), TypeError> {
        let Value::Object(members) = value else {
            return Err(mismatch(value, &Kind::Map(Box::new(kind.clone()))));
        };
        for (name, value) in members.iter_mut() {
            let from = self.unknown.len();
            self.element(kind, value)?;
            prefix(&mut self.unknown, from, |inner| member(name, inner));
        }
        Ok(())
    }

    /// In a list or map a null is the zero value.
    fn element(&mut self, kind: &Kind, value: &mut Value) -> Result<(), TypeError> {
        if value.is_null()
            && let Some(zero) = self.zero(kind)
        {
            *value = zero;
        }
        if value.is_null() { Ok(()) } else { self.value(kind, value) }
    }

    /// What Go writes for a value that nobody set; `None` where that is null.
    fn zero(&mut self, kind: &Kind) -> Option<Value> {
        Some(match kind {
            Kind::String | Kind::Bytes => Value::from(""),
            Kind::Bool => Value::from(false),
            Kind::Int32 | Kind::Int64 | Kind::IntOrString => Value::from(0),
            Kind::Double => Value::from(0.0),
            Kind::Quantity => Value::from("0"),
            Kind::Ref(name) => {
                let mut zero = Value::Object(Object::new());
                let schema = self.schema;
                // An empty object has nothing that could be wrong.
                self.object(schema.type_(name)?, &mut zero).ok()?;
                zero
            }
            _ => return None,
        })
    }
}

/// What Go writes for a value of this kind that nobody set; `None` where that is null.
pub(crate) fn zero(schema: &Schema, kind: &Kind) -> Option<Value> {
    Walk { schema, unknown: Vec::new(), zeros: 0 }.zero(kind)
}

/// Whether Go leaves this value out of the JSON of a field that is no pointer.
pub(crate) fn is_omitted(field: &Field, value: &Value) -> bool {
    !field.keep_empty && is_empty(field, value)
}

fn keep_error(slot: &mut Option<TypeError>, error: TypeError) -> bool {
    *slot = Some(error);
    false
}

/// What Go's `omitempty` leaves out. A struct is never empty to it.
fn is_empty(field: &Field, value: &Value) -> bool {
    match (&field.kind, value) {
        (Kind::Ref(_) | Kind::Quantity | Kind::IntOrString | Kind::Raw | Kind::Json | Kind::FieldsV1, _) => {
            false
        }
        (_, value) => is_zero(value),
    }
}

/// Null, false, zero, and empty text, lists and objects.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

impl TypeError {
    /// Adds a struct field on the way out.
    fn inside(self, type_: &Type, name: &str) -> TypeError {
        match self {
            TypeError::Mismatch { found, owner: "", wanted, .. } => {
                TypeError::Mismatch { found, owner: type_.short_name(), path: name.to_owned(), wanted }
            }
            TypeError::Mismatch { found, owner, path, wanted } => {
                TypeError::Mismatch { found, owner, path: format!("{name}.{path}"), wanted }
            }
            other => other,
        }
    }
}

fn mismatch(value: &Value, wanted: &Kind) -> TypeError {
    let numeric = matches!(wanted, Kind::Int32 | Kind::Int64 | Kind::Double | Kind::IntOrString);
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if numeric => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    };
    TypeError::Mismatch { found, owner: "", path: String::new(), wanted: go_type(wanted) }
}

fn go_type(kind: &Kind) -> String {
    match kind {
        Kind::String | Kind::Quantity | Kind::Time | Kind::MicroTime => "string".to_owned(),
        Kind::Bool => "bool".to_owned(),
        Kind::Int32 | Kind::IntOrString => "int32".to_owned(),
        Kind::Int64 => "int64".to_owned(),
        Kind::Double => "float64".to_owned(),
        Kind::Bytes => "[]uint8".to_owned(),
        Kind::Raw => "runtime.RawExtension".to_owned(),
        Kind::Json => "v1.JSON".to_owned(),
        Kind::FieldsV1 => "v1.FieldsV1".to_owned(),
        Kind::SchemaOrArray => "v1.JSONSchemaPropsOrArray".to_owned(),
        Kind::SchemaOrBool => "v1.JSONSchemaPropsOrBool".to_owned(),
        Kind::SchemaOrStrings => "v1.JSONSchemaPropsOrStringArray".to_owned(),
        // `core.v1.Pod` is v1.Pod in Go
        Kind::Ref(name) => name.split_once('.').map_or(*name, |(_, rest)| rest).to_owned(),
        Kind::Array(item) => format!("[]{}", go_type(item)),
        Kind::Map(item) => format!("map[string]{}", go_type(item)),
    }
}

fn base64(value: &mut Value) -> Result<(), TypeError> {
    let text = value.as_str().unwrap_or_default();
    match STANDARD.decode(text) {
        Ok(_) => Ok(()),
        // Go skips line ends inside base64.
        Err(_) if text.contains(['\n', '\r']) => {
            *value = Value::from(text.replace(['\n', '\r'], ""));
            base64(value)
        }
        Err(error) => {
            let offset = match error {
                base64::DecodeError::InvalidByte(offset, _)
                | base64::DecodeError::InvalidLastSymbol(offset, _) => offset,
                base64::DecodeError::InvalidLength(length) => length,
                base64::DecodeError::InvalidPadding => text.len(),
            };
            Err(TypeError::Malformed(format!("illegal base64 data at input byte {offset}")))
        }
    }
}

fn canonical_quantity(value: &mut Value) -> Result<(), TypeError> {
    let text = match &*value {
        Value::String(text) => quantity::canonical(text),
        Value::Number(number) => quantity::canonical(&number.to_string()),
        // Go gives the literal to the parser, which refuses it.
        other => quantity::canonical(&other.to_string()),
    };
    let text = text.map_err(|error| TypeError::Malformed(error.to_string()))?;
    if value.as_str() != Some(&text) {
        *value = Value::String(text);
    }
    Ok(())
}

fn canonical_time(kind: &Kind, value: &mut Value) -> Result<(), TypeError> {
    let text = value.as_str().unwrap_or_default();
    let canonical = match kind {
        Kind::MicroTime => time::parse_us(text).map(time::format_us),
        _ => time::parse_s(text).map(time::format_s),
    };
    let layout = if matches!(kind, Kind::MicroTime) {
        "2006-01-02T15:04:05.000000Z07:00"
    } else {
        "2006-01-02T15:04:05Z07:00"
    };
    let Some(canonical) = canonical else {
        let why = format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"");
        return Err(TypeError::Malformed(why));
    };
    if text != canonical {
        *value = Value::String(canonical);
    }
    Ok(())
}
