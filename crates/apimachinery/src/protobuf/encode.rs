//! Trees to bytes, fields in the order of their numbers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::wire::Writer;
use crate::schema::{Kind, Message, Part, Schema, Type};
use crate::{Object, Value, time};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    NoSuchKind { api_version: String, kind: String },
    #[error("no type {0} in the schema")]
    NoSuchType(String),
    #[error("field {field} holds what its type cannot: {value}")]
    Mismatch { field: String, value: String },
}

/// Encodes an object without envelope. Members that the type does not have are left out.
pub fn encode(type_name: &str, value: &Value) -> Result<Vec<u8>, EncodeError> {
    let schema = Schema::builtin();
    let type_ = schema.type_(type_name).ok_or_else(|| EncodeError::NoSuchType(type_name.to_owned()))?;
    let mut out = Writer::with_capacity(1024);
    match value {
        Value::Object(members) => Encoder { schema }.object(type_, members, &mut out)?,
        Value::Null => {}
        other => return Err(mismatch(type_name, other)),
    }
    Ok(out.into_bytes())
}

struct Encoder {
    schema: &'static Schema,
}

impl Encoder {
    fn object(&self, type_: &Type, members: &Object, out: &mut Writer) -> Result<(), EncodeError> {
        self.message(type_, type_.message(), members, out)
    }

    fn message(
        &self,
        type_: &Type,
        message: &Message,
        members: &Object,
        out: &mut Writer,
    ) -> Result<(), EncodeError> {
        for (number, part) in &message.parts {
            match part {
                Part::Embedded(inner) => {
                    out.message(*number, |out| self.message(type_, inner, members, out))?
                }
                Part::Field(index) => {
                    let Some(field) = type_.fields.get(*index) else { continue };
                    if let Some(value) = members.get(field.name).filter(|value| !value.is_null()) {
                        self.value(*number, &field.kind, value, out)
                            .map_err(|error| error.inside(field.name))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn value(&self, number: u32, kind: &Kind, value: &Value, out: &mut Writer) -> Result<(), EncodeError> {
        match (kind, value) {
            (Kind::String, Value::String(text)) => out.bytes(number, text.as_bytes()),
            (Kind::Bool, Value::Bool(flag)) => out.varint(number, u64::from(*flag)),
            (Kind::Int32 | Kind::Int64, Value::Number(_)) => {
                let integer = value.as_i64().ok_or_else(|| mismatch("", value))?;
                // A negative number is sign-extended to 64 bits, whatever its type.
                out.varint(number, integer as u64);
            }
            (Kind::Double, Value::Number(double)) => {
                out.fixed64(number, double.as_f64().unwrap_or_default().to_bits())
            }
            (Kind::Bytes, Value::String(text)) => {
                let bytes = STANDARD.decode(text).map_err(|_| mismatch("", value))?;
                out.bytes(number, &bytes);
            }
            (Kind::Quantity, Value::String(text)) => out.message(number, |out| out.bytes(1, text.as_bytes())),
            (Kind::Quantity, Value::Number(plain)) => {
                out.message(number, |out| out.bytes(1, plain.to_string().as_bytes()));
            }
            (Kind::Time | Kind::MicroTime, Value::String(text)) => {
                let us = time::parse_us(text).ok_or_else(|| mismatch("", value))?;
                let nanos = if *kind == Kind::MicroTime { us.rem_euclid(1_000_000) * 1000 } else { 0 };
                out.message(number, |out| {
                    out.varint(1, us.div_euclid(1_000_000) as u64);
                    out.varint(2, nanos as u64);
                });
            }
            (Kind::IntOrString, Value::String(text)) => int_or_string(number, 1, 0, text, out),
            (Kind::IntOrString, Value::Number(_)) => {
                let integer = value.as_i64().ok_or_else(|| mismatch("", value))?;
                int_or_string(number, 0, integer, "", out);
            }
            (Kind::Raw | Kind::Json | Kind::FieldsV1, _) => {
                out.message(number, |out| out.bytes(1, value.to_string().as_bytes()));
            }
            (Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings, _) => {
                out.message(number, |out| self.schema_or(kind, value, out))?;
            }
            (Kind::Ref(name), Value::Object(members)) => {
                let type_ =
                    self.schema.type_(name).ok_or_else(|| EncodeError::NoSuchType((*name).to_owned()))?;
                out.message(number, |out| self.object(type_, members, out))?;
            }
            (Kind::Array(item), Value::Array(items)) => {
                for (index, value) in items.iter().enumerate() {
                    self.value(number, item, value, out)
                        .map_err(|error| error.inside(&format!("[{index}]")))?;
                }
            }
            (Kind::Map(item), Value::Object(members)) => {
                for (name, value) in members {
                    out.message(number, |out| self.entry(name, item, value, out))
                        .map_err(|error| error.inside(name))?;
                }
            }
            _ => return Err(mismatch("", value)),
        }
        Ok(())
    }

    fn entry(&self, name: &str, kind: &Kind, value: &Value, out: &mut Writer) -> Result<(), EncodeError> {
        out.bytes(1, name.as_bytes());
        match (kind, value) {
            (_, Value::Null) => Ok(()),
            // A list in a map sits in a message of its own.
            (Kind::Array(_), _) => out.message(2, |out| self.value(1, kind, value, out)),
            _ => self.value(2, kind, value, out),
        }
    }

    fn schema_or(&self, kind: &Kind, value: &Value, out: &mut Writer) -> Result<(), EncodeError> {
        let props = Kind::Ref("apiextensions.v1.JSONSchemaProps");
        match (kind, value) {
            (Kind::SchemaOrBool, Value::Bool(allows)) => {
                out.varint(1, u64::from(*allows));
                Ok(())
            }
            (Kind::SchemaOrBool, _) => {
                out.varint(1, 1);
                self.value(2, &props, value, out)
            }
            (Kind::SchemaOrArray, Value::Array(_)) => {
                self.value(2, &Kind::Array(Box::new(props)), value, out)
            }
            (Kind::SchemaOrStrings, Value::Array(_)) => {
                self.value(2, &Kind::Array(Box::new(Kind::String)), value, out)
            }
            _ => self.value(1, &props, value, out),
        }
    }
}

fn int_or_string(number: u32, which: u64, integer: i64, text: &str, out: &mut Writer) {
    out.message(number, |out| {
        out.varint(1, which);
        out.varint(2, integer as u64);
        out.bytes(3, text.as_bytes());
    });
}

impl EncodeError {
    fn inside(self, name: &str) -> EncodeError {
        match self {
            EncodeError::Mismatch { field, value } if field.is_empty() || field.starts_with('[') => {
                EncodeError::Mismatch { field: format!("{name}{field}"), value }
            }
            EncodeError::Mismatch { field, value } => {
                EncodeError::Mismatch { field: format!("{name}.{field}"), value }
            }
            other => other,
        }
    }
}

fn mismatch(field: &str, value: &Value) -> EncodeError {
    let what = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    EncodeError::Mismatch { field: field.to_owned(), value: what.to_owned() }
}
