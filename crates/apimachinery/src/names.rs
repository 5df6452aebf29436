//! Names, label keys and values, and the other short identifiers of the API.
//!
//! Each check answers the list of upstream's complaints, empty when the text is fine. The patterns are matched by
//! hand; the regular expressions in the texts are part of the texts. Source: apimachinery `pkg/util/validation`.
//! Not here: which rule a kind uses (validate.rs); randomness (callers pass it).

const LABEL_1123: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_1123: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_1123_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_1123_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL_1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const QUALIFIED_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const CONFIG_KEY_TEXT: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
const ENV_NAME_TEXT: &str =
    "environment variable name must consist only of printable ASCII characters other than '='";

/// Longest DNS label, in bytes.
pub const LABEL_LENGTH_MAX: usize = 63;
/// Longest DNS subdomain, in bytes.
pub const SUBDOMAIN_LENGTH_MAX: usize = 253;

const GENERATED_SUFFIX_LENGTH: usize = 5;
/// Letters and digits that cannot spell a word or be mistaken for each other.
const GENERATED_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name from `generateName`: the base, cut to 58 bytes, and five characters.
/// `random` answers a number below its argument.
pub fn generate_name(base: &str, mut random: impl FnMut(usize) -> usize) -> String {
    let mut length = base.len().min(LABEL_LENGTH_MAX - GENERATED_SUFFIX_LENGTH);
    while !base.is_char_boundary(length) {
        length -= 1;
    }
    let mut name = base[..length].to_owned();
    for _ in 0..GENERATED_SUFFIX_LENGTH {
        let index = random(GENERATED_ALPHABET.len()) % GENERATED_ALPHABET.len();
        name.push(char::from(GENERATED_ALPHABET[index]));
    }
    name
}

/// Names of most objects.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut errors = too_long(text, SUBDOMAIN_LENGTH_MAX, "characters");
    if !is_dns1123_subdomain(text) {
        errors.push(pattern(SUBDOMAIN_1123_TEXT, SUBDOMAIN_1123, &["example.com"]));
    }
    errors
}

/// Names of namespaces, containers, volumes.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut errors = too_long(text, LABEL_LENGTH_MAX, "characters");
    if !is_dns1123_label(text) {
        errors.push(if is_dns1123_subdomain(text) {
            "must not contain dots".to_owned()
        } else {
            pattern(LABEL_1123_TEXT, LABEL_1123, &["my-name", "123-abc"])
        });
    }
    errors
}

/// Names of services.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut errors = too_long(text, LABEL_LENGTH_MAX, "characters");
    if !(is_dns1123_label(text) && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase)) {
        errors.push(pattern(LABEL_1035_TEXT, LABEL_1035, &["my-name", "abc-123"]));
    }
    errors
}

/// Names of roles and bindings: anything that fits into one path segment.
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    let found = ['/', '%'].into_iter().filter(|c| text.contains(*c));
    found.map(|c| format!("may not contain '{c}'")).collect()
}

/// Label keys, annotation keys (lower-cased by the caller), resource names, finalizers.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                let mut found = too_long(prefix, SUBDOMAIN_LENGTH_MAX, "bytes");
                if !is_dns1123_subdomain(prefix) {
                    found.push(pattern(SUBDOMAIN_1123_TEXT, SUBDOMAIN_1123, &["example.com"]));
                }
                errors.extend(found.into_iter().map(|error| format!("prefix part {error}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                pattern(QUALIFIED_TEXT, QUALIFIED, &["MyName", "my.name", "123-abc"])
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_LENGTH_MAX {
        errors.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_qualified_part(name) {
        errors.push(format!(
            "name part {}",
            pattern(QUALIFIED_TEXT, QUALIFIED, &["MyName", "my.name", "123-abc"])
        ));
    }
    errors
}

pub fn label_value(text: &str) -> Vec<String> {
    let mut errors = too_long(text, LABEL_LENGTH_MAX, "bytes");
    if !text.is_empty() && !is_qualified_part(text) {
        errors.push(pattern(LABEL_VALUE_TEXT, &format!("({QUALIFIED})?"), &["MyValue", "my_value", "12345"]));
    }
    errors
}

/// Keys of `ConfigMap.data` and `Secret.data`.
pub fn config_key(text: &str) -> Vec<String> {
    let mut errors = too_long(text, SUBDOMAIN_LENGTH_MAX, "characters");
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
    {
        errors.push(pattern(CONFIG_KEY_TEXT, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match text {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        text if text.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// Names of environment variables (the relaxed rule, default since 1.34).
pub fn environment_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.is_empty() {
        errors.push("environment variable name must be non-empty".to_owned());
    }
    if !text.bytes().all(|c| (0x20..0x7f).contains(&c) && c != b'=') {
        errors.push(format!("a valid {ENV_NAME_TEXT}"));
    }
    errors
}

/// Names of container and service ports.
pub fn port_name(text: &str) -> Vec<String> {
    let mut errors = too_long(text, 15, "characters");
    if text.is_empty() || !text.bytes().all(is_lower_or_dash) {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|c| c.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// Numbers of ports: 1 to 65535.
pub fn port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65_535)
}

pub fn in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) {
        Vec::new()
    } else {
        vec![format!("must be between {low} and {high}, inclusive")]
    }
}

fn is_lower_or_dash(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-'
}

fn is_dns1123_label(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.bytes().all(is_lower_or_dash)
}

fn is_dns1123_subdomain(text: &str) -> bool {
    text.split('.').all(is_dns1123_label)
}

fn is_qualified_part(text: &str) -> bool {
    let ends = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

fn too_long(text: &str, length_max: usize, unit: &str) -> Vec<String> {
    if text.len() > length_max {
        vec![format!("must be no more than {length_max} {unit}")]
    } else {
        Vec::new()
    }
}

fn pattern(text: &str, expression: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{text} (e.g. {}regex used for validation is '{expression}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_upstream_judges_them() {
        type Check = fn(&str) -> Vec<String>;
        let long = "a".repeat(64);
        let table: Vec<(Check, &str, bool)> = vec![
            (dns1123_subdomain, "a", true),
            (dns1123_subdomain, "a.b-c.0", true),
            (dns1123_subdomain, "", false),
            (dns1123_subdomain, "A", false),
            (dns1123_subdomain, "a..b", false),
            (dns1123_subdomain, "-a", false),
            (dns1123_subdomain, "a_b", false),
            (dns1123_subdomain, &long, true),
            (dns1123_label, "a-b", true),
            (dns1123_label, "a.b", false),
            (dns1123_label, &long, false),
            (dns1035_label, "a1", true),
            (dns1035_label, "1a", false),
            (path_segment, "system:node", true),
            (path_segment, "a/b", false),
            (path_segment, "..", false),
            (qualified_name, "a", true),
            (qualified_name, "example.com/My_name.x", true),
            (qualified_name, "/a", false),
            (qualified_name, "a/", false),
            (qualified_name, "a/b/c", false),
            (qualified_name, "-a", false),
            (qualified_name, "Example.com/a", false),
            (label_value, "", true),
            (label_value, "a.b_c-d", true),
            (label_value, "a-", false),
            (label_value, "a b", false),
            (config_key, ".bashrc", true),
            (config_key, "..", false),
            (config_key, "", false),
            (config_key, "a/b", false),
            (port_name, "http-8", true),
            (port_name, "80", false),
            (port_name, "a--b", false),
            (port_name, "averyverylongname", false),
            (environment_name, "a b.c", true),
            (environment_name, "a=b", false),
        ];
        for (check, text, fine) in table {
            assert_eq!(check(text).is_empty(), fine, "{text}: {:?}", check(text));
        }
    }

    #[test]
    fn complaints_carry_upstreams_texts() {
        assert_eq!(
            dns1123_subdomain("A"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            dns1123_label("_"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
    }

    #[test]
    fn generated_names_fit_into_a_label() {
        assert_eq!(generate_name("web-", |_| 0), "web-bbbbb");
        assert_eq!(generate_name(&"x".repeat(80), |_| 26).len(), 63);
        assert_eq!(generate_name(&"é".repeat(40), |_| 1).chars().count(), 29 + 5);
    }
}
