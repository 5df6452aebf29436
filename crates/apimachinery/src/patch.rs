//! Changes to an object: JSON Patch, merge patch, strategic merge patch, server-side apply.
//!
//! Every function either changes the object as its format says or leaves it alone and answers an error that maps to
//! one Status. Work is bounded: operations, copied bytes. Not here: parsing of bodies (json.rs, yaml.rs), defaults,
//! what a caller may change, retries after a conflict (the registry).

pub mod apply;
mod json;
mod strategic;

pub use json::json_patch;
pub use strategic::strategic;

use crate::Value;
use crate::status::{Reason, Status};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed.
    #[error("{0}")]
    BadRequest(String),
    /// The patch does not fit the object.
    #[error("{0}")]
    Unprocessable(String),
    #[error("{0}")]
    TooLarge(String),
}

impl PatchError {
    pub fn to_status(&self) -> Status {
        match self {
            PatchError::BadRequest(message) => Status::bad_request(message.clone()),
            PatchError::Unprocessable(message) => {
                let status = Status::from_http(422, "PATCH", "");
                Status {
                    message: format!("{}: {message}", status.message),
                    reason: Reason::Invalid,
                    ..status
                }
            }
            PatchError::TooLarge(message) => Status::request_entity_too_large(message),
        }
    }
}

/// RFC 7386. A patch that is no object is refused: it would replace the whole object.
pub fn merge_patch(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(PatchError::BadRequest("a merge patch must be a JSON object".to_owned()));
    }
    json_patch::merge(object, patch);
    Ok(())
}

#[cfg(test)]
mod tests;
