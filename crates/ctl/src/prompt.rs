//! What a person is asked for on a terminal, or a script answers on standard input.
//!
//! A secret is not shown while it is typed. Not here: lines of `txn` and `watch -i`, which are input, not answers.

use std::io::IsTerminal;

use crate::{failure::Failure, output};

/// One line of standard input without its end.
pub(crate) fn line() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().read_line(&mut text).map_err(|error| Failure::arguments(error.to_string()))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Asks for a password.
pub(crate) fn secret(question: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        output::raw(question.as_bytes());
        return line();
    }
    rpassword::prompt_password(question)
        .map_err(|error| Failure::arguments(format!("failed to ask password: {error}")))
}
