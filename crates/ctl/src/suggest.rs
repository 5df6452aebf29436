//! Names that a mistyped one may have meant, by cobra's rule: at most two edits away, or begun with it.

/// In the order of the candidates.
pub(crate) fn nearest<'a>(typed: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let typed = typed.to_lowercase();
    candidates
        .filter(|candidate| {
            let begun = !typed.is_empty() && candidate.starts_with(&typed);
            begun || strsim::levenshtein(&typed, candidate) <= 2
        })
        .collect()
}

/// What follows the complaint; nothing without suggestions.
pub(crate) fn hint(names: &[impl AsRef<str>]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let lines: String = names.iter().map(|name| format!("\t{}\n", name.as_ref())).collect();
    format!("\n\nDid you mean this?\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::{hint, nearest};

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        let names = ["get", "put", "compaction", "completion"];
        assert_eq!(nearest("gett", names.into_iter()), ["get"]);
        assert_eq!(nearest("COMP", names.into_iter()), ["compaction", "completion"]);
        assert_eq!(nearest("something", names.into_iter()), [""; 0]);
        assert_eq!(
            (hint(&["get"]), hint(&[""; 0])),
            ("\n\nDid you mean this?\n\tget\n".to_owned(), String::new())
        );
    }
}
