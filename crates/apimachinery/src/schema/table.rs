//! Reads the text of the table: types at the start of a line, their fields indented by one space.
//!
//! `None` means that the text is wrong, which only a broken build can cause.

use super::{Field, Kind, ListType, Message, Part, Type};

/// Finds the types of a table: name, and all lines of the type.
pub(super) fn split(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
        }
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.find('\n').map_or(rest.len(), |end| end + 1);
        while rest.get(end..).is_some_and(|after| after.starts_with(' ')) {
            end += rest.get(end..)?.find('\n').map_or(rest.len() - end, |line_end| line_end + 1);
        }
        let (lines, after) = rest.split_at(end);
        rest = after;
        let name = lines.split([' ', '\n']).next()?;
        Some((name, lines))
    })
}

/// Parses one type; `resolve` gives the table's own copy of a type's name.
pub(super) fn parse(lines: &'static str, resolve: impl Fn(&str) -> Option<&'static str>) -> Option<Type> {
    let mut rows = lines.lines();
    let mut head = rows.next()?.split(' ');
    let name = head.next()?;
    let atomic = head.next() == Some("atomic");
    let mut fields = rows.map(|row| field(row, name, &resolve)).collect::<Option<Vec<Field>>>()?;
    fields.sort_by(|a, b| a.name.cmp(b.name));
    let mut message = Message::default();
    for (index, field) in fields.iter().enumerate().filter(|(_, field)| field.tag != 0) {
        place(&mut message, &field.inside, field.tag, index)?;
    }
    let always =
        fields.iter().enumerate().filter(|(_, field)| is_always_written(field)).map(|(index, _)| index);
    let always = always.collect();
    Some(Type { name, fields, atomic, message, always })
}

/// Go has no absent struct, and writes a scalar's zero unless told to omit it. Lists and times would be `null`.
fn is_always_written(field: &Field) -> bool {
    // apiVersion and kind of an object are the caller's business.
    if field.pointer || field.omit_zero || field.tag == 0 {
        return false;
    }
    match field.kind {
        Kind::Ref(_) | Kind::Quantity | Kind::IntOrString => true,
        Kind::String | Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Double => field.keep_empty,
        _ => false,
    }
}

fn place(message: &mut Message, inside: &[u32], tag: u32, index: usize) -> Option<()> {
    let number = inside.first().copied().unwrap_or(tag);
    let position = match message.parts.binary_search_by_key(&number, |(number, _)| *number) {
        Ok(position) => position,
        Err(position) => {
            let part =
                if inside.is_empty() { Part::Field(index) } else { Part::Embedded(Message::default()) };
            message.parts.insert(position, (number, part));
            position
        }
    };
    match (&mut message.parts.get_mut(position)?.1, inside) {
        (Part::Field(_), []) => Some(()),
        (Part::Embedded(inner), [_, deeper @ ..]) => place(inner, deeper, tag, index),
        // One number cannot be both.
        _ => None,
    }
}

fn field(row: &'static str, owner: &str, resolve: &impl Fn(&str) -> Option<&'static str>) -> Option<Field> {
    let mut words = row.strip_prefix(' ')?.split(' ');
    let mut field = Field {
        name: words.next()?,
        kind: kind(words.next()?, owner, resolve)?,
        tag: words.next()?.parse().ok()?,
        required: false,
        pointer: false,
        keep_empty: false,
        omit_zero: false,
        list_type: None,
        list_map_keys: Vec::new(),
        merge_key: None,
        patch_merge: false,
        patch_retain_keys: false,
        atomic: false,
        inside: Vec::new(),
    };
    for word in words {
        match word.split_once('=') {
            None => match word {
                "!" => field.required = true,
                "*" => field.pointer = true,
                "+" => field.keep_empty = true,
                "0" => field.omit_zero = true,
                "patch" => field.patch_merge = true,
                "retain" => field.patch_retain_keys = true,
                "atomic" => field.atomic = true,
                _ => return None,
            },
            Some(("list", "atomic")) => field.list_type = Some(ListType::Atomic),
            Some(("list", "set")) => field.list_type = Some(ListType::Set),
            Some(("list", "map")) => field.list_type = Some(ListType::Map),
            Some(("keys", keys)) => field.list_map_keys = keys.split(',').collect(),
            Some(("merge", key)) => field.merge_key = Some(key),
            Some(("in", path)) => {
                field.inside = path.split('.').map(|tag| tag.parse().ok()).collect::<Option<_>>()?
            }
            Some(_) => return None,
        }
    }
    Some(field)
}

fn kind(word: &str, owner: &str, resolve: &impl Fn(&str) -> Option<&'static str>) -> Option<Kind> {
    Some(match word {
        "s" => Kind::String,
        "b" => Kind::Bool,
        "i" => Kind::Int32,
        "l" => Kind::Int64,
        "d" => Kind::Double,
        "B" => Kind::Bytes,
        "q" => Kind::Quantity,
        "I" => Kind::IntOrString,
        "t" => Kind::Time,
        "u" => Kind::MicroTime,
        "R" => Kind::Raw,
        "J" => Kind::Json,
        "F" => Kind::FieldsV1,
        "Ja" => Kind::SchemaOrArray,
        "Jb" => Kind::SchemaOrBool,
        "Js" => Kind::SchemaOrStrings,
        _ => {
            if let Some(item) = word.strip_prefix('[') {
                Kind::Array(Box::new(kind(item, owner, resolve)?))
            } else if let Some(value) = word.strip_prefix('{') {
                Kind::Map(Box::new(kind(value, owner, resolve)?))
            } else if word.starts_with('.') {
                let (package, _) = owner.rsplit_once('.')?;
                Kind::Ref(resolve(&format!("{package}{word}"))?)
            } else {
                Kind::Ref(resolve(word)?)
            }
        }
    })
}
