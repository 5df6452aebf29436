//! The client command line of the store: the commands, flags, texts and exit codes of etcdctl.
//!
//! Every answer goes through one of the formats in `json`, `fields` and `table` or the plain lines of the command
//! itself; only `output` touches the standard streams. Not here: the wire (crate `wire`), any server code.

mod catalog;
mod command;
mod completion;
mod failure;
mod fields;
mod flags;
mod held;
mod help;
mod json;
mod login;
mod offline;
mod output;
mod progress;
mod prompt;
mod session;
mod signals;
mod suggest;
mod table;
mod text;
mod watching;

pub use catalog::Program;
pub use command::main;
pub use offline::{Offline, Progress, SnapshotRestore};
