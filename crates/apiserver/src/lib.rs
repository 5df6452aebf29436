//! The Kubernetes API server: HTTPS in front, the etcd v3 protocol behind.
//!
//! A request runs through one straight-line function (`chain.rs`). Invariants: no endpoint runs without an
//! `Authorized`, which only `authz.rs` can make; the body is unread until then; everything a request consults
//! (caches, RBAC) is fed by one watch on the store and can say which revision it has seen.
//! Not here: the store, the types of the kinds (`apimachinery`), scheduling, controllers.

// The way of a request; chain.rs has its order.
mod audit;
mod authn;
mod authz;
mod chain;
pub mod command;
mod compression;
mod config;
mod cors;
mod fairness;
mod flags;
mod impersonation;
mod request_info;
mod response;
mod server;
mod tls;
mod user;

// What is answered without the registry.
mod discovery;
mod health;
mod metrics;
mod nonresource;
mod openapi;
mod reviews;
mod version;

// Objects: codecs, admission, registry, storage, feed.
mod admission;
mod bootstrap;
mod compaction;
mod endpoints;
mod feed;
mod negotiate;
mod object;
mod options;
mod registry;
mod render;
mod selection;
mod storage;
mod store_revision;
mod strategy;
mod watch_cache;

// What must exist before the first request.
mod default_objects;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use tokio_util::sync::CancellationToken;

pub use config::{AuthorizationMode, Config, ConfigError};
pub use flags::Flags;
pub use server::ServeError;
pub use tls::{TlsError, server_config};
pub use user::User;

pub(crate) use authz::Authorized;
pub(crate) use request_info::RequestInfo;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A running API server; clones share everything.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

struct Inner {
    config: Config,
    authenticator: authn::Authenticator,
    authorizer: authz::Authorizer,
    audit: audit::Audit,
    fairness: fairness::Fairness,
    cors: cors::Cors,
    metrics: metrics::Metrics,
    health: health::Health,
    discovery: discovery::Documents,
    openapi: openapi::Documents,
    registry: registry::Registry,
    /// A child of the token given to `start`, cancelled earlier when a listener drains.
    draining: CancellationToken,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Credentials(#[from] authn::CredentialsError),
    #[error("cannot open the audit log {path}: {source}")]
    AuditLog {
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// The store did not answer, or what it holds under the prefix cannot be read.
    #[error("the store cannot be read: {0}")]
    Store(String),
    #[error("cannot create the bootstrap objects: {0}")]
    Bootstrap(String),
    #[error("stopped while starting")]
    Stopped,
}

/// Starts serving from `store`: returns once the feed has caught up and the bootstrap objects exist.
pub async fn start(
    config: Config,
    store: wire::Client,
    shutdown: CancellationToken,
) -> Result<ApiServer, StartError> {
    let metrics = metrics::Metrics::new();
    let authenticator = authn::Authenticator::new(&config)?;
    let audit = audit::Audit::open(&config, metrics.clone())?;
    let authorizer = authz::Authorizer::new(&config);
    let readers: Vec<Arc<dyn feed::Reader>> = vec![authorizer.index()];
    let registry = registry::Registry::start(store, &config, readers, shutdown.clone()).await?;
    let server = ApiServer(Arc::new(Inner {
        fairness: fairness::Fairness::new(&config),
        cors: cors::Cors::new(&config)?,
        health: health::Health::default(),
        discovery: discovery::Documents::default(),
        openapi: openapi::Documents::default(),
        authenticator,
        authorizer,
        audit,
        metrics,
        registry,
        draining: shutdown.child_token(),
        config,
    }));
    default_objects::ensure(&server).await?;
    server.0.health.set_started();
    Ok(server)
}

impl ApiServer {
    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn registry(&self) -> &registry::Registry {
        &self.0.registry
    }

    pub(crate) fn authenticator(&self) -> &authn::Authenticator {
        &self.0.authenticator
    }

    pub(crate) fn authorizer(&self) -> &authz::Authorizer {
        &self.0.authorizer
    }

    pub(crate) fn audit(&self) -> &audit::Audit {
        &self.0.audit
    }

    pub(crate) fn fairness(&self) -> &fairness::Fairness {
        &self.0.fairness
    }

    pub(crate) fn cors(&self) -> &cors::Cors {
        &self.0.cors
    }

    pub(crate) fn metrics(&self) -> &metrics::Metrics {
        &self.0.metrics
    }

    pub(crate) fn health(&self) -> &health::Health {
        &self.0.health
    }

    pub(crate) fn discovery(&self) -> &discovery::Documents {
        &self.0.discovery
    }

    pub(crate) fn openapi(&self) -> &openapi::Documents {
        &self.0.openapi
    }

    /// Cancelled when the server stops: long-running answers end their streams.
    pub(crate) fn shutdown(&self) -> &CancellationToken {
        &self.0.draining
    }
}
