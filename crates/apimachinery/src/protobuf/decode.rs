//! Bytes to trees.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::wire::{Raw, Reader};
use super::{Envelope, MAGIC, with_type};
use crate::json::DEPTH_MAX;
use crate::schema::{Field, Kind, Message, Part, Schema, Type};
use crate::{Object, Value, json, quantity, time};

/// Most values in one decoded tree: two bytes on the wire can stand for a struct of a hundred in memory.
const VALUES_MAX: usize = 500_000;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NotAnEnvelope,
    #[error("proto: {0}")]
    Malformed(&'static str),
    #[error("proto: wrong wireType for field {field}")]
    WrongWireType { field: &'static str },
    #[error("string field {field} contains invalid UTF-8")]
    NotUtf8 { field: &'static str },
    #[error("{0}")]
    BadValue(String),
    #[error("exceeded max depth of {DEPTH_MAX}")]
    TooDeep,
    #[error("more than {VALUES_MAX} values in one object")]
    TooManyValues,
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    NoSuchKind { api_version: String, kind: String },
    #[error("no type {0} in the schema")]
    NoSuchType(String),
    #[error("unsupported content type {0:?} in a protobuf envelope")]
    UnsupportedContent(String),
}

/// Decodes an object's bytes, without envelope. `apiVersion` and `kind` are not in them.
pub fn decode(type_name: &str, raw: &[u8]) -> Result<Value, DecodeError> {
    members(type_name, raw, 0).map(Value::Object)
}

pub(super) fn envelope(bytes: &[u8]) -> Result<Envelope, DecodeError> {
    let body = bytes.strip_prefix(MAGIC).ok_or(DecodeError::NotAnEnvelope)?;
    let mut envelope = Envelope {
        api_version: String::new(),
        kind: String::new(),
        raw: Bytes::new(),
        content_type: String::new(),
    };
    let mut reader = Reader(body);
    while let Some((number, content)) = reader.field()? {
        match number {
            1 => {
                let mut type_meta = Reader(bytes_of(content, "typeMeta")?);
                while let Some((number, content)) = type_meta.field()? {
                    match number {
                        1 => envelope.api_version = text_of(content, "apiVersion")?,
                        2 => envelope.kind = text_of(content, "kind")?,
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = Bytes::copy_from_slice(bytes_of(content, "raw")?),
            4 => envelope.content_type = text_of(content, "contentType")?,
            _ => {}
        }
    }
    Ok(envelope)
}

pub(super) fn object(
    bytes: &[u8],
    api_version: &str,
    kind: &str,
    depth: usize,
) -> Result<Value, DecodeError> {
    let envelope = envelope(bytes)?;
    match envelope.content_type.as_str() {
        "" | "application/vnd.kubernetes.protobuf" => {}
        other => return Err(DecodeError::UnsupportedContent(other.to_owned())),
    }
    let or = |sent: String, default: &str| if sent.is_empty() { default.to_owned() } else { sent };
    let (api_version, kind) = (or(envelope.api_version, api_version), or(envelope.kind, kind));
    let Some(type_name) = super::type_name(&api_version, &kind) else {
        return Err(DecodeError::NoSuchKind { api_version, kind });
    };
    Ok(with_type(&api_version, &kind, members(type_name, &envelope.raw, depth)?))
}

fn members(type_name: &str, raw: &[u8], depth: usize) -> Result<Object, DecodeError> {
    let schema = Schema::builtin();
    let type_ = schema.type_(type_name).ok_or_else(|| DecodeError::NoSuchType(type_name.to_owned()))?;
    Decoder { schema, values: 0 }.object(type_, raw, depth)
}

struct Decoder {
    schema: &'static Schema,
    values: usize,
}

impl Decoder {
    fn object(&mut self, type_: &Type, raw: &[u8], depth: usize) -> Result<Object, DecodeError> {
        let mut object = Object::new();
        self.message(type_, type_.message(), raw, &mut object, depth)?;
        for field in type_.always() {
            if !object.contains_key(field.name)
                && let Some(zero) = json::zero(self.schema, &field.kind)
            {
                object.insert(field.name.to_owned(), zero);
            }
        }
        object.retain(|name, value| {
            type_.field(name).is_none_or(|field| field.pointer || !json::is_omitted(field, value))
        });
        Ok(object)
    }

    fn message(
        &mut self,
        type_: &Type,
        message: &Message,
        raw: &[u8],
        object: &mut Object,
        depth: usize,
    ) -> Result<(), DecodeError> {
        if depth >= DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        let mut reader = Reader(raw);
        while let Some((number, content)) = reader.field()? {
            match message.part(number) {
                None => {}
                Some(Part::Embedded(inner)) => {
                    self.message(type_, inner, bytes_of(content, type_.name)?, object, depth + 1)?;
                }
                Some(Part::Field(index)) => {
                    if let Some(field) = type_.fields.get(*index) {
                        self.field(field, content, object, depth)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        content: Raw<'_>,
        object: &mut Object,
        depth: usize,
    ) -> Result<(), DecodeError> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(DecodeError::TooManyValues);
        }
        match &field.kind {
            Kind::Array(item) => {
                let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else { return Ok(()) };
                self.items(field.name, item, content, list, depth)
            }
            Kind::Map(item) => {
                let (key, value) = self.entry(field.name, item, content, depth)?;
                let map = object.entry(field.name).or_insert_with(|| Value::Object(Object::new()));
                if let Value::Object(map) = map {
                    map.insert(key, value);
                }
                Ok(())
            }
            kind => {
                match self.value(field.name, kind, content, depth)? {
                    Value::Null => {}
                    value => {
                        object.insert(field.name.to_owned(), value);
                    }
                }
                Ok(())
            }
        }
    }

    fn items(
        &mut self,
        name: &'static str,
        kind: &Kind,
        content: Raw<'_>,
        list: &mut Vec<Value>,
        depth: usize,
    ) -> Result<(), DecodeError> {
        let packed = match (kind, content) {
            (Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Double, Raw::Bytes(packed)) => packed,
            _ => {
                let value = self.value(name, kind, content, depth)?;
                list.push(value);
                return Ok(());
            }
        };
        let mut reader = Reader(packed);
        while !reader.0.is_empty() {
            self.values += 1;
            if self.values > VALUES_MAX {
                return Err(DecodeError::TooManyValues);
            }
            let content = if *kind == Kind::Double {
                Raw::Fixed64(reader.fixed64()?)
            } else {
                Raw::Varint(reader.varint()?)
            };
            list.push(self.value(name, kind, content, depth)?);
        }
        Ok(())
    }

    /// A map's entry is a message of key and value.
    fn entry(
        &mut self,
        name: &'static str,
        kind: &Kind,
        content: Raw<'_>,
        depth: usize,
    ) -> Result<(String, Value), DecodeError> {
        let (mut key, mut value) = (String::new(), Value::Null);
        let mut reader = Reader(bytes_of(content, name)?);
        while let Some((number, content)) = reader.field()? {
            match number {
                1 => key = text_of(content, name)?,
                2 => value = self.map_value(name, kind, content, depth)?,
                _ => {}
            }
        }
        if value.is_null() {
            value = json::zero(self.schema, kind).unwrap_or(Value::Null);
        }
        Ok((key, value))
    }

    fn map_value(
        &mut self,
        name: &'static str,
        kind: &Kind,
        content: Raw<'_>,
        depth: usize,
    ) -> Result<Value, DecodeError> {
        let Kind::Array(item) = kind else { return self.value(name, kind, content, depth + 1) };
        // Protobuf maps cannot hold lists, so the list sits in a message of its own.
        let mut list = Vec::new();
        let mut reader = Reader(bytes_of(content, name)?);
        while let Some((number, content)) = reader.field()? {
            if number == 1 {
                self.items(name, item, content, &mut list, depth + 1)?;
            }
        }
        Ok(Value::Array(list))
    }

    /// Null stands for a value that Go would treat as unset.
    fn value(
        &mut self,
        name: &'static str,
        kind: &Kind,
        content: Raw<'_>,
        depth: usize,
    ) -> Result<Value, DecodeError> {
        Ok(match kind {
            Kind::String => Value::String(text_of(content, name)?),
            Kind::Bool => Value::Bool(varint_of(content, name)? != 0),
            // Truncation is what every protobuf reader does to a varint that is too wide.
            Kind::Int32 => Value::from(varint_of(content, name)? as i32),
            Kind::Int64 => Value::from(varint_of(content, name)? as i64),
            Kind::Double => match content {
                Raw::Fixed64(bits) => Value::from(f64::from_bits(bits)),
                _ => return Err(DecodeError::WrongWireType { field: name }),
            },
            Kind::Bytes => Value::String(STANDARD.encode(bytes_of(content, name)?)),
            Kind::Quantity => quantity_of(bytes_of(content, name)?, name)?,
            Kind::Time | Kind::MicroTime => time_of(kind, bytes_of(content, name)?, name)?,
            Kind::IntOrString => int_or_string(bytes_of(content, name)?, name)?,
            Kind::Raw | Kind::Json | Kind::FieldsV1 => embedded(bytes_of(content, name)?, name, depth)?,
            Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings => {
                self.schema_or(kind, bytes_of(content, name)?, name, depth)?
            }
            Kind::Ref(type_name) => {
                let schema = self.schema;
                let type_ = schema
                    .type_(type_name)
                    .ok_or_else(|| DecodeError::NoSuchType((*type_name).to_owned()))?;
                Value::Object(self.object(type_, bytes_of(content, name)?, depth + 1)?)
            }
            // No type has a list of lists or a map of maps.
            Kind::Array(_) | Kind::Map(_) => return Err(DecodeError::WrongWireType { field: name }),
        })
    }

    /// `JSONSchemaPropsOr...`: field 1 or 2 decides.
    fn schema_or(
        &mut self,
        kind: &Kind,
        raw: &[u8],
        name: &'static str,
        depth: usize,
    ) -> Result<Value, DecodeError> {
        let props = Kind::Ref("apiextensions.v1.JSONSchemaProps");
        let (mut schema, mut list, mut allows) = (None, Vec::new(), false);
        let mut reader = Reader(raw);
        while let Some((number, content)) = reader.field()? {
            match (kind, number) {
                (Kind::SchemaOrBool, 1) => allows = varint_of(content, name)? != 0,
                (Kind::SchemaOrBool, 2) | (_, 1) => {
                    schema = Some(self.value(name, &props, content, depth + 1)?)
                }
                (Kind::SchemaOrArray, 2) => list.push(self.value(name, &props, content, depth + 1)?),
                (Kind::SchemaOrStrings, 2) => list.push(Value::String(text_of(content, name)?)),
                _ => {}
            }
        }
        Ok(match (schema, kind) {
            _ if !list.is_empty() => Value::Array(list),
            (Some(schema), _) => schema,
            (None, Kind::SchemaOrBool) => Value::Bool(allows),
            (None, _) => Value::Null,
        })
    }
}

fn bytes_of<'a>(content: Raw<'a>, field: &'static str) -> Result<&'a [u8], DecodeError> {
    match content {
        Raw::Bytes(bytes) => Ok(bytes),
        _ => Err(DecodeError::WrongWireType { field }),
    }
}

fn varint_of(content: Raw<'_>, field: &'static str) -> Result<u64, DecodeError> {
    match content {
        Raw::Varint(value) => Ok(value),
        _ => Err(DecodeError::WrongWireType { field }),
    }
}

fn text_of(content: Raw<'_>, field: &'static str) -> Result<String, DecodeError> {
    let bytes = bytes_of(content, field)?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError::NotUtf8 { field })
}

fn quantity_of(raw: &[u8], name: &'static str) -> Result<Value, DecodeError> {
    let mut text = String::new();
    let mut reader = Reader(raw);
    while let Some((number, content)) = reader.field()? {
        if number == 1 {
            text = text_of(content, name)?;
        }
    }
    // Go takes a quantity that nobody set as zero.
    if text.is_empty() {
        return Ok(Value::from("0"));
    }
    quantity::canonical(&text).map(Value::String).map_err(|error| DecodeError::BadValue(error.to_string()))
}

fn time_of(kind: &Kind, raw: &[u8], name: &'static str) -> Result<Value, DecodeError> {
    if raw.is_empty() {
        return Ok(Value::Null); // Go's zero time
    }
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut reader = Reader(raw);
    while let Some((number, content)) = reader.field()? {
        match number {
            1 => seconds = varint_of(content, name)? as i64,
            2 => nanos = i64::from(varint_of(content, name)? as i32),
            _ => {}
        }
    }
    let us = seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000);
    Ok(Value::String(if *kind == Kind::MicroTime { time::format_us(us) } else { time::format_s(seconds) }))
}

fn int_or_string(raw: &[u8], name: &'static str) -> Result<Value, DecodeError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    let mut reader = Reader(raw);
    while let Some((tag, content)) = reader.field()? {
        match tag {
            1 => is_text = varint_of(content, name)? == 1,
            2 => number = varint_of(content, name)? as i32,
            3 => text = text_of(content, name)?,
            _ => {}
        }
    }
    Ok(if is_text { Value::String(text) } else { Value::from(number) })
}

/// A message whose only field holds JSON text or an object in its envelope.
fn embedded(raw: &[u8], name: &'static str, depth: usize) -> Result<Value, DecodeError> {
    let mut content = &[][..];
    let mut reader = Reader(raw);
    while let Some((number, field)) = reader.field()? {
        if number == 1 {
            content = bytes_of(field, name)?;
        }
    }
    if content.is_empty() {
        return Ok(Value::Null);
    }
    if content.starts_with(MAGIC) {
        if depth >= DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        return object(content, "", "", depth + 1);
    }
    json::decode(content).map(|(value, _)| value).map_err(|error| DecodeError::BadValue(error.to_string()))
}
