//! The JSON of scripts: protobuf's form, but bytes are plain text and revisions count from the beginning of the case.
//!
//! `"@3"` in a request is the third revision of the case, `"@0"` the one before it. Answers leave out what differs from
//! run to run: ids of members and cluster, the term, and tokens. Bytes that are no text become `0x...`.

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _, SerializeOptions};
use serde_json::{Map, Value};

/// Fields that hold a revision of the key space.
const REVISIONS: &[&str] = &[
    "revision",
    "mod_revision",
    "create_revision",
    "start_revision",
    "compact_revision",
    "hash_revision",
    "min_mod_revision",
    "max_mod_revision",
    "min_create_revision",
    "max_create_revision",
    "rev",
];
/// Fields whose value is another one in every run.
const RANDOM: &[&str] = &["cluster_id", "member_id", "raft_term", "token"];

/// Makes a request of what a script says.
pub fn request(text: &str, descriptor: MessageDescriptor, base: i64) -> Result<DynamicMessage> {
    let mut value: Value = serde_json::from_str(if text.is_empty() { "{}" } else { text })
        .with_context(|| format!("not JSON: {text}"))?;
    repeat(&mut value)?;
    to_wire(&mut value, &descriptor, base)?;
    DynamicMessage::deserialize(descriptor, value).with_context(|| format!("not such a message: {text}"))
}

/// Makes of an answer what a script can expect.
pub fn answer(message: &DynamicMessage, base: i64) -> Result<Value> {
    let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
    let mut value = message.serialize_with_options(serde_json::value::Serializer, &options)?;
    from_wire(&mut value, &message.descriptor(), base)?;
    Ok(value)
}

/// Writes out `{"*":N,"of":X}`.
fn repeat(value: &mut Value) -> Result<()> {
    let repetition = |value: &Value| {
        let count = value.get("*")?.as_u64()?;
        Some((usize::try_from(count).ok()?, value.get("of")?.clone()))
    };
    if let Some((count, of)) = repetition(value) {
        *value = of.as_str().context("only texts and items of lists are repeated")?.repeat(count).into();
    }
    match value {
        Value::Array(items) => {
            *items = std::mem::take(items)
                .into_iter()
                .flat_map(|item| match repetition(&item) {
                    Some((count, of)) => vec![of; count],
                    None => vec![item],
                })
                .collect();
            items.iter_mut().try_for_each(repeat)
        }
        Value::Object(fields) => fields.values_mut().try_for_each(repeat),
        _ => Ok(()),
    }
}

fn to_wire(value: &mut Value, descriptor: &MessageDescriptor, base: i64) -> Result<()> {
    let Value::Object(fields) = value else { bail!("a message must be an object") };
    for (name, value) in fields {
        let field = descriptor
            .get_field_by_name(name)
            .or_else(|| descriptor.get_field_by_json_name(name))
            .with_context(|| format!("{} has no field {name}", descriptor.name()))?;
        for item in items(value) {
            match field.kind() {
                Kind::Message(inner) => to_wire(item, &inner, base)?,
                Kind::Bytes => {
                    let text = item.as_str().context("bytes are written as text")?;
                    *item = STANDARD.encode(text).into();
                }
                _ => {
                    if let Some(offset) = item.as_str().and_then(|text| text.strip_prefix('@')) {
                        *item = (base + offset.parse::<i64>().context("@ needs a number")?).into();
                    }
                }
            }
        }
    }
    Ok(())
}

fn from_wire(value: &mut Value, descriptor: &MessageDescriptor, base: i64) -> Result<()> {
    let Value::Object(fields) = value else { return Ok(()) };
    fields.retain(|name, _| !RANDOM.contains(&name.as_str()));
    for (name, value) in fields.iter_mut() {
        let field = descriptor.get_field_by_name(name).context("an answer has an unknown field")?;
        for item in items(value) {
            match field.kind() {
                Kind::Message(inner) => from_wire(item, &inner, base)?,
                Kind::Bytes => {
                    let bytes = STANDARD.decode(item.as_str().unwrap_or_default())?;
                    let hex =
                        |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                    *item = String::from_utf8(bytes)
                        .unwrap_or_else(|error| format!("0x{}", hex(error.as_bytes())))
                        .into();
                }
                _ => {
                    if let (true, Some(revision)) = (REVISIONS.contains(&name.as_str()), item.as_i64()) {
                        *item = (revision - base).into();
                    }
                }
            }
        }
    }
    Ok(())
}

fn items(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Array(items) => items.iter_mut().collect(),
        one => vec![one],
    }
}

/// Whether an answer has all that is expected of it; it may have more fields, but not more items in a list.
pub fn contains(answer: &Value, expected: &Value) -> bool {
    match (answer, expected) {
        (Value::Object(answer), Value::Object(expected)) => {
            let empty = Value::Object(Map::new());
            expected.iter().all(|(name, expected)| contains(answer.get(name).unwrap_or(&empty), expected))
        }
        (Value::Array(answer), Value::Array(expected)) => {
            answer.len() == expected.len()
                && answer.iter().zip(expected).all(|(answer, expected)| contains(answer, expected))
        }
        (Value::String(answer), Value::String(expected)) => {
            let part = expected.strip_prefix("...").and_then(|rest| rest.strip_suffix("..."));
            part.map_or(answer == expected, |part| answer.contains(part))
        }
        (answer, expected) => answer == expected,
    }
}
