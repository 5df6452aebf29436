//! Writes the table of built-in Kubernetes types (docs/formats.md, "Table of kinds").
//!
//! Three published sources each know a part: the OpenAPI definitions know names, types, required fields and how lists
//! merge; the protobuf sources know tags; Go's types know which fields are pointers and which are written when empty.
//! The output depends only on the inputs: the same inputs give the same bytes. A field that one source lacks is an
//! error, so that a new Kubernetes version cannot lose fields silently.

mod protobuf;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use protobuf::Messages;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `_definitions.json` of one version, from the Python package kubernetes-validate
    #[arg(long)]
    definitions: PathBuf,
    /// `src` folder of the crate k8s-pb of the same version
    #[arg(long)]
    protobuf: PathBuf,
    /// Output of `go run . presence` in xtask/go
    #[arg(long)]
    presence: PathBuf,
    /// Version that the table describes, such as 1.35
    #[arg(long)]
    version: String,
    /// Where the table goes
    #[arg(long)]
    out: PathBuf,
}

/// Option and metadata types that clients send or ask for and that the OpenAPI definitions leave out.
const WITHOUT_DEFINITION: &[&str] = &[
    "meta.v1.CreateOptions",
    "meta.v1.GetOptions",
    "meta.v1.ListOptions",
    "meta.v1.PartialObjectMetadata",
    "meta.v1.PartialObjectMetadataList",
    "meta.v1.PatchOptions",
    "meta.v1.UpdateOptions",
];

/// What Go's types say about one JSON field.
#[derive(Clone, Copy, Default)]
struct Presence {
    pointer: bool,
    keep_empty: bool,
    omit_zero: bool,
}

/// Both maps are by type name in lower case.
#[derive(Default)]
struct PresenceFacts {
    fields: BTreeMap<String, BTreeMap<String, Presence>>,
    inlined: BTreeMap<String, Vec<String>>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let definitions: Value =
        serde_json::from_slice(&std::fs::read(&arguments.definitions).context("definitions")?)?;
    let definitions = definitions["$defs"].as_object().context("definitions lack $defs")?;
    let messages = Messages::read(&arguments.protobuf)?;
    let presence = read_presence(&std::fs::read_to_string(&arguments.presence).context("presence")?)?;

    let mut types = BTreeMap::new();
    for (full_name, definition) in definitions {
        let name = short_name(full_name);
        // Go knows what the stable objects reach; what they do not reach is not served.
        let reached = definition["properties"].is_null() || presence.knows(&name);
        if is_stable(&name) && scalar(&name).is_none() && reached {
            types.insert(name.clone(), type_lines(&name, definition, &messages, &presence)?);
        }
    }
    for name in WITHOUT_DEFINITION {
        types.insert(
            (*name).to_owned(),
            type_lines(name, &undefined(name, &messages, &presence)?, &messages, &presence)?,
        );
    }
    check_references(&types)?;

    let mut text = format!(
        "# Built-in types of Kubernetes {}. Written by `cargo run -p xtask -- schema`, not by hand.\n# Format: docs/formats.md, \"Table of kinds\".\n",
        arguments.version
    );
    for lines in types.values() {
        text.push_str(lines);
    }
    std::fs::write(&arguments.out, &text).with_context(|| arguments.out.display().to_string())?;
    eprintln!("{} types, {} bytes", types.len(), text.len());
    Ok(())
}

fn read_presence(text: &str) -> Result<PresenceFacts> {
    let mut facts = PresenceFacts::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            [owner, embedded, "inline"] => {
                facts
                    .inlined
                    .entry(owner.to_ascii_lowercase())
                    .or_default()
                    .push(embedded.to_ascii_lowercase());
            }
            [owner, field, pointer, empty] => {
                let presence = Presence {
                    pointer: pointer == "pointer",
                    keep_empty: empty == "keep",
                    omit_zero: empty == "omitzero",
                };
                facts
                    .fields
                    .entry(owner.to_ascii_lowercase())
                    .or_default()
                    .insert(field.to_owned(), presence);
            }
            _ => bail!("presence line not understood: {line}"),
        }
    }
    Ok(facts)
}

impl PresenceFacts {
    fn knows(&self, type_name: &str) -> bool {
        let type_name = type_name.to_ascii_lowercase();
        self.fields.contains_key(&type_name) || self.inlined.contains_key(&type_name)
    }

    /// Looks in the type and in the structs inlined into it.
    fn of(&self, type_name: &str, field: &str) -> Option<Presence> {
        let type_name = type_name.to_ascii_lowercase();
        if let Some(presence) = self.fields.get(&type_name).and_then(|fields| fields.get(field)) {
            return Some(*presence);
        }
        self.inlined.get(&type_name)?.iter().find_map(|embedded| self.of(embedded, field))
    }
}

/// `io.k8s.api.core.v1.Pod` is `core.v1.Pod`: the last three parts.
fn short_name(full_name: &str) -> String {
    let parts: Vec<&str> = full_name.rsplitn(4, '.').collect();
    parts.iter().take(3).rev().copied().collect::<Vec<_>>().join(".")
}

/// Stable versions only: `v1`, `v2`, not `v1beta1`.
fn is_stable(name: &str) -> bool {
    let version = name.split('.').nth(1).unwrap_or_default();
    version.strip_prefix('v').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Types with a JSON form of their own have one letter.
fn scalar(name: &str) -> Option<&'static str> {
    Some(match name {
        "api.resource.Quantity" => "q",
        "util.intstr.IntOrString" => "I",
        "meta.v1.Time" => "t",
        "meta.v1.MicroTime" => "u",
        "pkg.runtime.RawExtension" => "R",
        "meta.v1.FieldsV1" => "F",
        "meta.v1.Patch" => "R",
        "apiextensions.v1.JSON" => "J",
        "apiextensions.v1.JSONSchemaPropsOrArray" => "Ja",
        "apiextensions.v1.JSONSchemaPropsOrBool" => "Jb",
        "apiextensions.v1.JSONSchemaPropsOrStringArray" => "Js",
        _ => return None,
    })
}

fn type_lines(
    name: &str,
    definition: &Value,
    messages: &Messages,
    presence: &PresenceFacts,
) -> Result<String> {
    let mut lines = name.to_owned();
    if definition["x-kubernetes-map-type"] == "atomic" {
        lines.push_str(" atomic");
    }
    lines.push('\n');
    let required: BTreeSet<&str> =
        definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let tags =
        messages.tags(name, &presence.inlined).with_context(|| format!("no protobuf message for {name}"))?;
    let none = serde_json::Map::new();
    for (field, property) in definition["properties"].as_object().unwrap_or(&none) {
        let place = tags.get(&fold(field));
        // Go keeps these two outside of the message; everything else must have a tag.
        let outside = place.is_none() && matches!(field.as_str(), "apiVersion" | "kind");
        if place.is_none() && !outside {
            bail!("{name}.{field} has no protobuf tag");
        }
        let facts = if outside {
            Presence::default()
        } else {
            presence.of(name, field).with_context(|| format!("{name}.{field}: no presence"))?
        };
        let tag = place.map_or(0, |place| place.tag);
        write!(lines, " {field} {} {tag}", kind(property, name)?)?;
        flags(&mut lines, property, required.contains(field.as_str()), facts)?;
        if let Some(place) = place.filter(|place| !place.inside.is_empty()) {
            let path: Vec<String> = place.inside.iter().map(u32::to_string).collect();
            write!(lines, " in={}", path.join("."))?;
        }
        lines.push('\n');
    }
    Ok(lines)
}

fn flags(lines: &mut String, property: &Value, required: bool, presence: Presence) -> Result<()> {
    for (set, word) in
        [(required, " !"), (presence.pointer, " *"), (presence.keep_empty, " +"), (presence.omit_zero, " 0")]
    {
        if set {
            lines.push_str(word);
        }
    }
    if let Some(list_type) = property["x-kubernetes-list-type"].as_str() {
        write!(lines, " list={list_type}")?;
    }
    if let Some(keys) = property["x-kubernetes-list-map-keys"].as_array() {
        let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
        write!(lines, " keys={}", keys.join(","))?;
    }
    if let Some(key) = property["x-kubernetes-patch-merge-key"].as_str() {
        write!(lines, " merge={key}")?;
    }
    for strategy in property["x-kubernetes-patch-strategy"].as_str().unwrap_or_default().split(',') {
        match strategy {
            "" | "replace" => {} // replacing is what happens without a strategy
            "merge" => lines.push_str(" patch"),
            "retainKeys" => lines.push_str(" retain"),
            other => bail!("unknown patch strategy {other}"),
        }
    }
    if property["x-kubernetes-map-type"] == "atomic" {
        lines.push_str(" atomic");
    }
    Ok(())
}

/// The kind of a property: a letter, a type name (`.X` in the same group version), `[` list of, `{` map of.
fn kind(property: &Value, owner: &str) -> Result<String> {
    if let Some(reference) = property["$ref"].as_str() {
        let name = short_name(reference.rsplit('/').next().unwrap_or_default());
        return Ok(scalar(&name).map_or_else(|| relative(&name, owner), str::to_owned));
    }
    // `["string", "null"]` as well as `"string"`
    let declared = property["type"].as_str().or_else(|| property["type"][0].as_str()).unwrap_or_default();
    Ok(match (declared, property["format"].as_str()) {
        ("string", None) => "s".to_owned(),
        ("string", Some("byte")) => "B".to_owned(),
        ("boolean", _) => "b".to_owned(),
        ("integer", Some("int32")) => "i".to_owned(),
        ("integer", Some("int64")) => "l".to_owned(),
        ("number", _) => "d".to_owned(),
        ("array", _) => format!("[{}", kind(&property["items"], owner)?),
        ("object", _) if property["additionalProperties"].is_object() => {
            format!("{{{}", kind(&property["additionalProperties"], owner)?)
        }
        (other, format) => bail!("{owner}: property of type {other:?} {format:?}"),
    })
}

fn relative(name: &str, owner: &str) -> String {
    let place = |name: &str| name.rsplit_once('.').map(|(place, _)| place.to_owned());
    match name.rsplit_once('.') {
        Some((_, last)) if place(name) == place(owner) => format!(".{last}"),
        _ => name.to_owned(),
    }
}

/// A definition made from the protobuf message, with the JSON names that Go's types have.
fn undefined(name: &str, messages: &Messages, presence: &PresenceFacts) -> Result<Value> {
    let names =
        presence.fields.get(&name.to_ascii_lowercase()).with_context(|| format!("no presence for {name}"))?;
    let mut properties = serde_json::Map::new();
    properties.insert("apiVersion".into(), serde_json::json!({"type": "string"}));
    properties.insert("kind".into(), serde_json::json!({"type": "string"}));
    for field in names.keys() {
        let property = messages.property(name, &fold(field)).with_context(|| format!("{name}.{field}"))?;
        properties.insert(field.clone(), property);
    }
    Ok(serde_json::json!({ "properties": properties }))
}

/// Every type that a field names is in the table.
fn check_references(types: &BTreeMap<String, String>) -> Result<()> {
    for (name, lines) in types {
        for line in lines.lines().skip(1) {
            let kind = line.split(' ').nth(2).unwrap_or_default().trim_start_matches(['[', '{']);
            if kind.contains('.') {
                let target = match kind.strip_prefix('.') {
                    Some(last) => format!("{}.{last}", name.rsplit_once('.').map_or("", |(place, _)| place)),
                    None => kind.to_owned(),
                };
                if !types.contains_key(&target) {
                    bail!("{name}: {line}: {target} is not in the table");
                }
            }
        }
    }
    Ok(())
}

/// The same key for a JSON name, a Go name and prost's spelling of it.
fn fold(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}
