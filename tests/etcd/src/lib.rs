//! What etcd promises its clients, as scripts that run against ours and against a real etcd alike.
//!
//! A script (`scripts/*.script`) holds cases; a case calls RPCs in protobuf's JSON form and says what must come back.
//! `ETCD_BIN` names a real etcd to run them against instead of ours. Not here: faults, foreign clients.

pub mod call;
pub mod differential;
pub mod http;
pub mod json;
pub mod matrix;
pub mod script;
pub mod target;
