//! A member of the store as etcd's clients know it: services, HTTP, flags, bootstrap.
//!
//! Everything of a member runs on the caller's tokio runtime, best a current-thread one. Requests are parsed once
//! (convert.rs), errors leave in one place (status.rs), writes go through the replica's log.
//! Not here: the log and Raft (`replica`), what a command does (`mvcc`).

mod auth;
pub mod backup;
mod bootstrap;
mod cluster;
pub mod command;
mod compaction;
mod config;
mod context;
mod convert;
mod election;
mod flags;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod health;
mod http;
mod kv;
mod lease;
mod lock;
mod long;
mod maintenance;
mod member;
mod metrics;
mod notify;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
pub mod proxy;
mod queue;
mod serve;
mod services;
mod status;
mod tls;
mod turns;
mod url;
mod watch;

pub use auth::jwt::{Jwt, JwtError};
pub use bootstrap::BootstrapError;
pub use config::{
    AutoCompaction, ClusterState, Config, ConfigError, Operations, SocketOptions, TlsFiles, TlsRules,
    TlsVersions,
};
pub use flags::{FlagError, Flags};
pub use member::{RunError, StartError, Store, start};
pub use metrics::read_descriptors;
pub use serve::ListenError;
pub use tls::TlsError;
pub use url::{Place, Url, UrlError};

/// The etcd version whose behaviour this is. Kubernetes and etcd's own tools decide by it what they may use.
pub const VERSION: &str = "3.6.6";
/// What all members of a cluster of this version can do, and the format that etcd would say it stores.
pub const CLUSTER_VERSION: &str = "3.6.0";
pub const STORAGE_VERSION: &str = "3.6.0";
