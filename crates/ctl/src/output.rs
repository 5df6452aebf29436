//! The only place that touches the standard streams.
//!
//! A closed pipe on the other side is no error: the rest of the output is dropped, as with every filter.

use std::io::Write;

/// Writes bytes as they are to standard output.
pub(crate) fn raw(bytes: &[u8]) {
    let mut stream = std::io::stdout().lock();
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
}

/// Writes one line to standard output.
pub(crate) fn line(text: impl AsRef<[u8]>) {
    let mut bytes = text.as_ref().to_vec();
    bytes.push(b'\n');
    raw(&bytes);
}

/// Writes one line to standard error.
pub(crate) fn error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
