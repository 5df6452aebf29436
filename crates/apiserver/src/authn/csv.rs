//! The little of RFC 4180 that a token file needs: commas, quotes, doubled quotes.
//!
//! Not here: what the fields mean (`token_file.rs`). One line is one record; quoted line breaks are refused.

/// The fields of one line.
pub(super) fn fields(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, tail) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => match rest.split_once(',') {
                Some((field, tail)) => (field.to_string(), Some(tail)),
                None => (rest.to_string(), None),
            },
        };
        fields.push(field);
        match tail {
            Some(tail) => rest = tail,
            None => return Ok(fields),
        }
    }
}

/// Reads up to the closing quote; gives what follows the next comma.
fn quoted_field(text: &str) -> Result<(String, Option<&str>), &'static str> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, tail) = rest.split_once('"').ok_or("a quoted field is not closed")?;
        field.push_str(part);
        if let Some(tail) = tail.strip_prefix('"') {
            field.push('"');
            rest = tail;
            continue;
        }
        return match tail.strip_prefix(',') {
            Some(tail) => Ok((field, Some(tail))),
            None if tail.trim().is_empty() => Ok((field, None)),
            None => Err("text after a closing quote"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn commas_split_and_quotes_keep_together() {
        for (line, expected) in [
            ("a,b,c", vec!["a", "b", "c"]),
            ("a,b,c,\"x,y\"", vec!["a", "b", "c", "x,y"]),
            ("\"a\"\"b\",", vec!["a\"b", ""]),
            ("", vec![""]),
        ] {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn broken_quotes_are_refused() {
        for line in ["\"a", "\"a\"b,c"] {
            assert!(fields(line).is_err(), "{line}");
        }
    }
}
