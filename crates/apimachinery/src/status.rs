//! `Status`: every error that the Kubernetes API can answer, and field errors with their causes.
//!
//! Texts, reasons, codes and the shape of `details` are upstream's, byte for byte: clients compare them.
//! Source: apimachinery `pkg/api/errors/errors.go`, `pkg/util/validation/field/errors.go`.
//! Not here: which error a request deserves; HTTP headers such as `Retry-After` (read `Details::retry_after_s`).

mod field;
mod wire;

use std::fmt;

pub use field::{FieldError, FieldErrorKind, Path, aggregate};

use crate::Value;
use crate::kinds::Resource;

/// A `metav1.Status`. Small on purpose: it is the error half of most results.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    pub outcome: Outcome,
    pub message: String,
    pub reason: Reason,
    pub details: Option<Box<Details>>,
    /// `metadata.continue` of an expired list, so that a client can go on inconsistently.
    pub continue_token: Option<Box<str>>,
    /// HTTP status.
    pub code: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
}

/// `details` of a `Status`; empty strings and lists are left out of the JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    pub name: String,
    pub group: String,
    /// Resource plural, or the Kind for `Invalid`.
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    /// 0 = absent.
    pub retry_after_s: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    /// For example `FieldValueInvalid`, `FieldManagerConflict`, `ResourceVersionTooLarge`, `NamespaceTerminating`.
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// `metav1.StatusReason`. A reason that this version does not know survives in `Other`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
    Other(Box<str>),
}

/// A resource as it appears in messages: `pods`, `deployments.apps`.
#[derive(Clone, Copy, Debug)]
pub struct GroupResource<'a> {
    pub group: &'a str,
    pub resource: &'a str,
}

/// A kind as it appears in messages: `Pod`, `Deployment.apps`.
#[derive(Clone, Copy, Debug)]
pub struct GroupKind<'a> {
    pub group: &'a str,
    pub kind: &'a str,
}

impl Status {
    fn failure(code: u16, reason: Reason, message: String) -> Status {
        Status { outcome: Outcome::Failure, message, reason, details: None, continue_token: None, code }
    }

    fn about(mut self, resource: GroupResource<'_>, name: &str) -> Status {
        let details = self.details.get_or_insert_default();
        details.group = resource.group.to_owned();
        details.kind = resource.resource.to_owned();
        details.name = name.to_owned();
        self
    }

    /// The answer to a DELETE that removed the object at once.
    pub fn success(resource: GroupResource<'_>, name: &str, uid: &str) -> Status {
        let mut status =
            Status { outcome: Outcome::Success, ..Status::failure(200, Reason::Unknown, String::new()) };
        status = status.about(resource, name);
        status.details.get_or_insert_default().uid = uid.to_owned();
        status
    }

    pub fn not_found(resource: GroupResource<'_>, name: &str) -> Status {
        Status::failure(404, Reason::NotFound, format!("{resource} {} not found", quote(name)))
            .about(resource, name)
    }

    /// 404 for a path or resource that does not exist at all.
    pub fn no_such_resource() -> Status {
        let message = "the server could not find the requested resource".to_owned();
        let mut status = Status::failure(404, Reason::NotFound, message);
        status.details = Some(Box::default());
        status
    }

    pub fn already_exists(resource: GroupResource<'_>, name: &str) -> Status {
        Status::failure(409, Reason::AlreadyExists, format!("{resource} {} already exists", quote(name)))
            .about(resource, name)
    }

    /// No free name was found for a `generateName` after the retries.
    pub fn generate_name_conflict(resource: GroupResource<'_>, name: &str, retry_after_s: u32) -> Status {
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for the object",
            quote(name)
        );
        Status::failure(409, Reason::AlreadyExists, message)
            .about(resource, name)
            .retry_after_s(retry_after_s)
    }

    /// 409 with a reason of the caller's, for example `Precondition failed: UID in precondition: a, UID in object meta: b`.
    pub fn conflict(resource: GroupResource<'_>, name: &str, why: impl fmt::Display) -> Status {
        let message = format!("Operation cannot be fulfilled on {resource} {}: {why}", quote(name));
        Status::failure(409, Reason::Conflict, message).about(resource, name)
    }

    /// 409 because the object's `resourceVersion` has moved.
    pub fn modified(resource: GroupResource<'_>, name: &str) -> Status {
        Status::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 of a server-side apply; one `FieldManagerConflict` cause per conflicting field.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Cause>) -> Status {
        let mut status = Status::failure(409, Reason::Conflict, message.into());
        status.details = Some(Box::new(Details { causes, ..Details::default() }));
        status
    }

    pub fn invalid(kind: GroupKind<'_>, name: &str, errors: &[FieldError]) -> Status {
        let what = format!("{kind} {} is invalid", quote(name));
        let message = if errors.is_empty() { what } else { format!("{what}: {}", aggregate(errors)) };
        let mut status = Status::failure(422, Reason::Invalid, message);
        status.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: kind.group.to_owned(),
            kind: kind.kind.to_owned(),
            causes: errors.iter().map(FieldError::cause).collect(),
            ..Details::default()
        }));
        status
    }

    /// 403. `resource.resource` empty means "not about a resource".
    pub fn forbidden(resource: GroupResource<'_>, name: &str, why: impl fmt::Display) -> Status {
        let message = if resource.resource.is_empty() && resource.group.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} {} is forbidden: {why}", quote(name))
        };
        Status::failure(403, Reason::Forbidden, message).about(resource, name)
    }

    /// 401; upstream's handler always answers the one word.
    pub fn unauthorized() -> Status {
        Status::failure(401, Reason::Unauthorized, "Unauthorized".to_owned())
    }

    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::failure(400, Reason::BadRequest, message.into())
    }

    /// 405 for a verb that the resource does not have (`action`: `create`, `patch`, ...).
    pub fn method_not_allowed(resource: GroupResource<'_>, action: &str) -> Status {
        let message =
            format!("{action} is not supported on resources of kind {}", quote(&resource.to_string()));
        Status::failure(405, Reason::MethodNotAllowed, message).about(resource, "")
    }

    /// 405 for an HTTP method that no route of the path has.
    pub fn http_method_not_allowed() -> Status {
        let message = "the server does not allow this method on the requested resource".to_owned();
        let mut status = Status::failure(405, Reason::MethodNotAllowed, message);
        status.details = Some(Box::default());
        status
    }

    /// 410 with reason `Expired`.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::failure(410, Reason::Expired, message.into())
    }

    /// 410 for a watch or list below the oldest revision still known.
    pub fn too_old_resource_version(requested: u64, oldest: u64) -> Status {
        Status::expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// 504; the operation may still complete.
    pub fn timeout(message: impl fmt::Display, retry_after_s: u32) -> Status {
        Status::failure(504, Reason::Timeout, format!("Timeout: {message}")).retry_after_s(retry_after_s)
    }

    /// 504 with the cause that reflectors look for: the server has not seen `requested` yet.
    pub fn too_large_resource_version(requested: u64, current: u64, retry_after_s: u32) -> Status {
        let mut status = Status::timeout(
            format_args!("Too large resource version: {requested}, current: {current}"),
            retry_after_s,
        );
        status.details.get_or_insert_default().causes.push(Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        });
        status
    }

    /// 500 with reason `ServerTimeout`: a transient failure, the client should try again.
    pub fn server_timeout(resource: GroupResource<'_>, operation: &str, retry_after_s: u32) -> Status {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        Status::failure(500, Reason::ServerTimeout, message)
            .about(resource, operation)
            .retry_after_s(retry_after_s)
    }

    /// 415; `accepted` is the list of media types that the endpoint takes.
    pub fn unsupported_media_type(accepted: &[&str]) -> Status {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Status::failure(415, Reason::UnsupportedMediaType, message)
    }

    /// 406; `accepted` is the list of media types that the endpoint can answer in.
    pub fn not_acceptable(accepted: &[&str]) -> Status {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Status::failure(406, Reason::NotAcceptable, message)
    }

    /// 429 with a message of the caller's.
    pub fn too_many_requests(message: impl Into<String>, retry_after_s: u32) -> Status {
        Status::failure(429, Reason::TooManyRequests, message.into()).retry_after_s(retry_after_s)
    }

    pub fn request_entity_too_large(message: impl fmt::Display) -> Status {
        Status::failure(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {message}"))
    }

    pub fn service_unavailable(message: impl Into<String>) -> Status {
        Status::failure(503, Reason::ServiceUnavailable, message.into())
    }

    pub fn internal(why: impl fmt::Display) -> Status {
        let why = why.to_string();
        let mut status =
            Status::failure(500, Reason::InternalError, format!("Internal error occurred: {why}"));
        let causes = vec![Cause { message: why, ..Cause::default() }];
        status.details = Some(Box::new(Details { causes, ..Details::default() }));
        status
    }

    /// 501: our own "not built yet", with a text that says so.
    pub fn not_implemented(what: impl fmt::Display) -> Status {
        let message = format!("{what} is not implemented by this server");
        Status::failure(501, Reason::Other("NotImplemented".into()), message)
    }

    pub fn retry_after_s(mut self, seconds: u32) -> Status {
        self.details.get_or_insert_default().retry_after_s = seconds;
        self
    }

    pub fn with_cause(mut self, cause: Cause) -> Status {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    pub fn has_cause(&self, reason: &str) -> bool {
        self.details.as_ref().is_some_and(|details| details.causes.iter().any(|cause| cause.reason == reason))
    }

    /// The complete object, with `kind`, `apiVersion` and the empty `metadata` that upstream sends.
    pub fn to_value(&self) -> Value {
        wire::encode(self)
    }

    /// Reads a Status object; `None` when `value` is another kind.
    pub fn from_value(value: &Value) -> Option<Status> {
        wire::decode(value)
    }

    /// What a client makes of an HTTP error that carries no Status object.
    /// Source: apimachinery `NewGenericServerResponse`.
    pub fn from_http(code: u16, method: &str, body: &str) -> Status {
        let (reason, message) = match code {
            409 if method.eq_ignore_ascii_case("POST") => {
                (Reason::AlreadyExists, "the server reported a conflict")
            }
            409 => (Reason::Conflict, "the server reported a conflict"),
            404 => (Reason::NotFound, "the server could not find the requested resource"),
            400 => (Reason::BadRequest, "the server rejected our request for an unknown reason"),
            401 => (Reason::Unauthorized, "the server has asked for the client to provide credentials"),
            403 => (Reason::Forbidden, body),
            406 if body.is_empty() => (
                Reason::NotAcceptable,
                "the server was unable to respond with a content type that the client supports",
            ),
            406 => (Reason::NotAcceptable, body),
            415 => (Reason::UnsupportedMediaType, body),
            405 => {
                (Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
            }
            422 => (Reason::Invalid, "the server rejected our request due to an error in our request"),
            503 => (Reason::ServiceUnavailable, "the server is currently unable to handle the request"),
            504 => (
                Reason::Timeout,
                "the server was unable to return a response in the time allotted, but may still be processing the request",
            ),
            429 => (
                Reason::TooManyRequests,
                "the server has received too many requests and has asked us to try again later",
            ),
            500.. => {
                let message = format!(
                    "an error on the server ({}) has prevented the request from succeeding",
                    quote(body)
                );
                return Status::failure(code, Reason::InternalError, message);
            }
            _ => {
                let message = format!(
                    "the server responded with the status code {code} but did not return more information"
                );
                return Status::failure(code, Reason::Unknown, message);
            }
        };
        Status::failure(code, reason, message.to_owned())
    }
}

impl fmt::Display for GroupResource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

impl fmt::Display for GroupKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

impl<'a> GroupResource<'a> {
    pub const fn new(group: &'a str, resource: &'a str) -> GroupResource<'a> {
        GroupResource { group, resource }
    }
}

impl<'a> GroupKind<'a> {
    pub const fn new(group: &'a str, kind: &'a str) -> GroupKind<'a> {
        GroupKind { group, kind }
    }
}

impl From<&Resource> for GroupResource<'static> {
    fn from(resource: &Resource) -> GroupResource<'static> {
        GroupResource::new(resource.group, resource.plural)
    }
}

impl From<&Resource> for GroupKind<'static> {
    fn from(resource: &Resource) -> GroupKind<'static> {
        GroupKind::new(resource.group, resource.kind)
    }
}

/// Go's `%q` for a string: double quotes, `\n`, `\x00`, `\u200b` escapes as `strconv.Quote` writes them.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            // Unassigned, private-use and format characters: close to Go's IsPrint without its tables.
            c if c.is_control()
                || (c.is_whitespace() && c != ' ')
                || matches!(c as u32, 0xad | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0xe000..=0xf8ff | 0xfeff) =>
            {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
