//! What a person is asked for on a terminal, or a script answers on standard input.
//!
//! A secret is not shown while it is typed. Not here: lines of `watch -i`, which come beside other things (watch.rs).

use std::io::IsTerminal;

use crate::{failure::Failure, output};

/// One line of standard input without its end; what is left at the end of the input, perhaps nothing, is one, too.
pub(crate) fn line() -> Result<String, Failure> {
    Ok(read()?.trim_end_matches(['\n', '\r']).to_owned())
}

/// One whole line of standard input. The end of the input in its place, or in the middle of it, is a failure.
pub(crate) fn whole_line() -> Result<String, Failure> {
    let text = read()?;
    text.strip_suffix('\n').map(str::to_owned).ok_or_else(|| Failure::input("EOF"))
}

fn read() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().read_line(&mut text).map_err(|error| Failure::arguments(error.to_string()))?;
    Ok(text)
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
