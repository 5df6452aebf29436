//! Why a request failed, by what the caller can do about it.

use apimachinery::status::{Reason, Status};

use crate::BoxError;
use crate::transport::TransportError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with an error.
    #[error(transparent)]
    Status(Status),
    /// No server could be reached; nothing was sent.
    #[error("cannot reach {server}: {source}")]
    Unreachable { server: String, source: BoxError },
    /// The connection broke or time ran out after a write was sent: it may or may not have been carried out.
    #[error("no answer to {method} {path}, it may have been carried out: {source}")]
    OutcomeUnknown { method: String, path: String, source: BoxError },
    /// The connection broke, or time ran out, during a read.
    #[error("{method} {path} was interrupted: {source}")]
    Interrupted { method: String, path: String, source: BoxError },
    /// The answer was not what the protocol allows.
    #[error("cannot read the answer to {method} {path}: {detail}")]
    Answer { method: String, path: String, detail: String },
    /// The request cannot be built: an object without a name, a path with forbidden characters.
    #[error("cannot build the request: {0}")]
    Request(String),
}

impl Error {
    pub(crate) fn from_transport(error: TransportError, method: &http::Method, path: &str) -> Error {
        match error {
            TransportError::Unreachable { server, source } => Error::Unreachable { server, source },
            TransportError::Broken(source) => Error::broken(method, path, source),
        }
    }

    pub(crate) fn broken(method: &http::Method, path: &str, source: BoxError) -> Error {
        let (method_name, path) = (method.to_string(), path.to_owned());
        if method.is_safe() {
            Error::Interrupted { method: method_name, path, source }
        } else {
            Error::OutcomeUnknown { method: method_name, path, source }
        }
    }

    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Status(status) => Some(status),
            _ => None,
        }
    }

    fn has(&self, reason: &Reason, code: u16) -> bool {
        self.status().is_some_and(|status| {
            status.reason == *reason || (status.reason == Reason::Unknown && status.code == code)
        })
    }

    pub fn is_not_found(&self) -> bool {
        self.has(&Reason::NotFound, 404)
    }

    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(|status| status.reason == Reason::AlreadyExists)
    }

    pub fn is_conflict(&self) -> bool {
        self.has(&Reason::Conflict, 409)
    }

    /// 410: the resource version is too old, list again.
    pub fn is_expired(&self) -> bool {
        self.status().is_some_and(|status| {
            status.code == 410 || matches!(status.reason, Reason::Expired | Reason::Gone)
        })
    }

    pub fn is_forbidden(&self) -> bool {
        self.has(&Reason::Forbidden, 403)
    }

    /// Trying the same request again later can help, and does no harm if it is idempotent.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Status(status) => status.code == 429 || status.code >= 500,
            Error::Unreachable { .. } | Error::OutcomeUnknown { .. } | Error::Interrupted { .. } => true,
            Error::Answer { .. } | Error::Request(_) => false,
        }
    }
}
