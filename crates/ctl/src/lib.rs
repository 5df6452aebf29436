//! The client command line of the store: the commands, flags, texts and exit codes of etcdctl.
//!
//! Every answer goes through one of the formats in `json`, `fields` and `table` or the plain lines of the command
//! itself; only `output` touches the standard streams. Not here: the wire (crate `wire`), any server code.

pub mod command;

mod failure;
mod fields;
mod flags;
mod json;
mod output;
mod session;
mod table;
mod text;
