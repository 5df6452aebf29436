//! A thin Kubernetes client: JSON objects over HTTP, informers, leader election, events.
//!
//! The same client runs over a socket (TLS, HTTP/2 or 1.1, several servers) or directly over a service in this
//! process. Objects are `serde_json::Value`; there are no typed structs per kind.
//! Not here: what the objects mean (apimachinery, scheduler, controllers), protobuf.

mod api;
mod body;
mod client;
mod error;
mod event;
#[cfg(test)]
mod fake;
mod framing;
mod informer;
mod kubeconfig;
mod leader;
mod transport;
mod watch;

pub use api::{Api, DeleteOptions, List, ListOptions, Patch, WatchOptions};
pub use body::{Body, BoxError, empty_body, full_body};
pub use client::Client;
pub use error::Error;
pub use event::{EventRecorder, EventType, RecordedEvent};
pub use informer::{Informer, InformerEvent, InformerOptions};
pub use kubeconfig::{Cluster, Context, Credentials, KubeConfig, KubeConfigError};
pub use leader::{Handover, LeaderConfig, LeaderElector, Term};
pub use transport::{Endpoint, EndpointError, LocalService, Transport, TransportError};
pub use watch::{WatchEvent, WatchStream};

pub use apimachinery::Value;
