//! bbolt database files, as far as a backup needs them: written once from beginning to end, and read.
//!
//! Always holds: memory is bounded by the longest value and the depth of the tree, never by the file; what is read is
//! not trusted, so damaged or hostile bytes end in an error. Drawn in docs/formats.md (`## Backup file`).
//! Not here: changing a file in place, what keys and values mean.

mod layout;
mod reader;
mod writer;

pub use layout::{KEY_SIZE_BYTES_MAX, VALUE_SIZE_BYTES_MAX};
pub use reader::{Bucket, Entries, Entry, ReadAt, ReadError, Reader};
pub use writer::{WriteError, Writer};
