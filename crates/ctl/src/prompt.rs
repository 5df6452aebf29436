//! What a person is asked for on a terminal, or a script answers on standard input.
//!
//! A secret is not shown while it is typed, and the terminal is left as it was, on an interrupt too. Not here: lines of `watch -i`, which come beside other things (watch.rs).

use std::{
    fs::File,
    io::{IsTerminal, Read, Write},
};

use rustix::{
    process::{Signal, getpid, kill_process},
    termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr},
};

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
    let failed = |error: std::io::Error| Failure::arguments(format!("failed to ask password: {error}"));
    match on_terminal(question).map_err(failed)? {
        Typed::Text(text) => Ok(text),
        Typed::Nothing => Err(Failure::arguments("failed to ask password: EOF")),
        Typed::Interrupt => {
            // Ends as everything does that is interrupted, so that a shell sees it.
            let _ = kill_process(getpid(), Signal::INT);
            Err(Failure::silent(INTERRUPTED))
        }
    }
}

/// What a shell says of a program that SIGINT ended.
const INTERRUPTED: u8 = 130;
const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const CTRL_H: u8 = 0x08;
const CTRL_U: u8 = 0x15;
const DELETE: u8 = 0x7f;

#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Text(String),
    /// The end of the input.
    Nothing,
    Interrupt,
}

fn on_terminal(question: &str) -> std::io::Result<Typed> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    // First: nothing that is typed as soon as the question is there may be shown.
    let silent = Silent::new(&terminal)?;
    (&terminal).write_all(question.as_bytes())?;
    #[expect(clippy::unbuffered_bytes, reason = "what is typed behind the line is for the next who asks")]
    let typed = typed((&terminal).bytes());
    drop(silent);
    terminal.write_all(b"\n")?;
    typed
}

/// A terminal that shows nothing and gives each key at once, Ctrl-C as well: nothing ends the program before it is again
/// as it was.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Silent<'_> {
    fn new(terminal: &File) -> std::io::Result<Silent<'_>> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes &=
            !(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Now, &silent)?;
        Ok(Silent { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before); // it may be gone
    }
}

/// One line, with the keys that correct it.
fn typed(keys: impl Iterator<Item = std::io::Result<u8>>) -> std::io::Result<Typed> {
    let mut text = Vec::new();
    for key in keys {
        match key? {
            b'\n' | b'\r' => return Ok(Typed::Text(String::from_utf8_lossy(&text).into_owned())),
            CTRL_C => return Ok(Typed::Interrupt),
            CTRL_D if text.is_empty() => return Ok(Typed::Nothing),
            CTRL_D => {}
            CTRL_U => text.clear(),
            // A whole character, which may be several bytes.
            CTRL_H | DELETE => while text.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            other => text.push(other),
        }
    }
    Ok(Typed::Nothing)
}

#[cfg(test)]
mod tests {
    use super::{Typed, typed};

    #[test]
    fn a_secret_is_typed_and_corrected() {
        let text = |text: &str| Typed::Text(text.to_owned());
        for (keys, wanted) in [
            ("secret\nmore", text("secret")),
            ("\r", text("")),
            ("s\u{e4}\u{7f}ecrex\u{8}t\n", text("secret")),
            ("\u{7f}\u{7f}a\n", text("a")),
            ("wrong\u{15}right\n", text("right")),
            ("half\u{4} and half\n", text("half and half")),
            ("half\u{3}", Typed::Interrupt),
            ("\u{4}", Typed::Nothing),
            ("cut off", Typed::Nothing),
        ] {
            assert_eq!(typed(keys.bytes().map(Ok)).unwrap(), wanted, "{keys:?}");
        }
    }
}
