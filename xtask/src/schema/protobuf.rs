//! Reads message fields and tags out of sources that prost-build generated.
//!
//! The sources have one shape (an attribute line, then `pub name: type,`), so a line reader is enough; what it does
//! not understand is an error. Names are folded to lower case without punctuation, because prost respells them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

struct Field {
    tag: u32,
    /// prost's words: `message, optional`, `string, repeated`, `btree_map = "string, message"`
    attribute: String,
    /// Folded name of the message, if it is one
    message: Option<String>,
}

/// Where a JSON field sits in the message.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) tag: u32,
    /// Tags of the embedded messages around it, outermost first
    pub(super) inside: Vec<u32>,
}

pub(super) struct Messages(BTreeMap<String, BTreeMap<String, Field>>);

impl Messages {
    pub(super) fn read(root: &Path) -> Result<Messages> {
        let mut messages = Messages(BTreeMap::new());
        messages.read_folder(root, &mut Vec::new())?;
        Ok(messages)
    }

    fn read_folder(&mut self, folder: &Path, module: &mut Vec<String>) -> Result<()> {
        for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                module.push(name);
                self.read_folder(&path, module)?;
                module.pop();
            } else if name == "mod.rs" {
                let text = std::fs::read_to_string(&path)?;
                self.read_module(&text, module).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }

    fn read_module(&mut self, text: &str, module: &[String]) -> Result<()> {
        let mut current = None;
        let mut attribute: Option<String> = None;
        let mut declaration = String::new();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            if let Some(name) = line.strip_prefix("pub struct ") {
                let key = qualified(module, name.trim_end_matches(" {}").trim_end_matches(" {"));
                self.0.insert(key.clone(), BTreeMap::new());
                current = Some(key);
            } else if let Some(rest) = line.strip_prefix("#[prost(") {
                attribute = Some(rest.trim_end_matches(")]").to_owned());
                declaration.clear();
            } else if let Some(words) = &attribute {
                declaration.push_str(line);
                if line.ends_with(',') {
                    let owner = current.as_ref().context("a field outside of a message")?;
                    let (name, field) = parse_field(words, &declaration, module)?;
                    self.0.entry(owner.clone()).or_default().insert(name, field);
                    attribute = None;
                }
            }
        }
        Ok(())
    }

    /// Places of the fields of a message, those of embedded messages included. `inlined` lists, by folded type name,
    /// the structs that Go inlines in JSON while protobuf nests them.
    pub(super) fn tags(
        &self,
        name: &str,
        inlined: &BTreeMap<String, Vec<String>>,
    ) -> Option<BTreeMap<String, Place>> {
        let fields = self.0.get(&name.to_ascii_lowercase())?;
        let embedded_types = inlined.get(&name.to_ascii_lowercase()).map_or(&[][..], Vec::as_slice);
        let mut places = BTreeMap::new();
        for field in fields.values().filter(|field| field.attribute.starts_with("message, optional")) {
            let Some(embedded) = &field.message else { continue };
            if !embedded_types.contains(embedded) {
                continue;
            }
            for (inner, place) in self.tags(embedded, inlined)? {
                let inside = std::iter::once(field.tag).chain(place.inside).collect();
                places.insert(inner, Place { tag: place.tag, inside });
            }
        }
        for (field_name, field) in fields {
            places.insert(field_name.clone(), Place { tag: field.tag, inside: Vec::new() });
        }
        Some(places)
    }

    /// An OpenAPI-like property for a field of a message that has no definition.
    pub(super) fn property(&self, name: &str, field: &str) -> Result<Value> {
        let field = self
            .0
            .get(&name.to_ascii_lowercase())
            .and_then(|fields| fields.get(field))
            .context("no such field")?;
        let reference =
            || json!({"$ref": format!("/{}", original(field.message.as_deref().unwrap_or_default()))});
        Ok(match field.attribute.as_str() {
            "string, optional" => json!({"type": "string"}),
            "string, repeated" => json!({"type": "array", "items": {"type": "string"}}),
            "bool, optional" => json!({"type": "boolean"}),
            "int64, optional" => json!({"type": "integer", "format": "int64"}),
            "message, optional" => reference(),
            "message, repeated" => json!({"type": "array", "items": reference()}),
            other => bail!("no property for {other}"),
        })
    }
}

/// Spelling of the few messages that types without a definition refer to.
fn original(folded: &str) -> &'static str {
    match folded {
        "meta.v1.objectmeta" => "meta.v1.ObjectMeta",
        "meta.v1.listmeta" => "meta.v1.ListMeta",
        "meta.v1.partialobjectmetadata" => "meta.v1.PartialObjectMetadata",
        _ => "",
    }
}

fn parse_field(attribute: &str, declaration: &str, module: &[String]) -> Result<(String, Field)> {
    let (words, tag) = attribute.rsplit_once(", tag = ").with_context(|| format!("no tag: {attribute}"))?;
    let tag = tag.trim_matches('"').parse()?;
    let declaration =
        declaration.strip_prefix("pub ").with_context(|| format!("not a field: {declaration}"))?;
    let (name, declared) = declaration.split_once(':').with_context(|| format!("no type: {declaration}"))?;
    let message = words.contains("message").then(|| message_name(declared, module));
    Ok((super::fold(name.trim_start_matches("r#")), Field { tag, attribute: words.to_owned(), message }))
}

/// Folded name of the innermost type of a declaration, resolved against the module it stands in.
fn message_name(declared: &str, module: &[String]) -> String {
    let inner = declared.trim().trim_end_matches([',', '>']);
    let inner = inner.rsplit(['<', ',']).next().unwrap_or_default().trim();
    let mut path: Vec<String> = module.to_vec();
    let mut name = inner;
    while let Some(rest) = name.strip_prefix("super::") {
        path.pop();
        name = rest;
    }
    let (modules, last) = name.rsplit_once("::").unwrap_or(("", name));
    path.extend(modules.split("::").filter(|part| !part.is_empty()).map(str::to_owned));
    qualified(&path, last)
}

fn qualified(module: &[String], name: &str) -> String {
    let from = module.len().saturating_sub(2);
    format!("{}.{name}", module[from..].join(".")).to_ascii_lowercase()
}
