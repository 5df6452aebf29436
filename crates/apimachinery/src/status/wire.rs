//! A `Status` as JSON, in upstream's field order, and back.
//!
//! Decoding never fails on a Status: what is missing or of another type is empty, as in Go's decoder for absent fields.

use serde_json::{Map, json};

use super::{Cause, Details, Outcome, Reason, Status};
use crate::Value;

const REASONS: [(Reason, &str); 20] = [
    (Reason::Unknown, ""),
    (Reason::Unauthorized, "Unauthorized"),
    (Reason::Forbidden, "Forbidden"),
    (Reason::NotFound, "NotFound"),
    (Reason::AlreadyExists, "AlreadyExists"),
    (Reason::Conflict, "Conflict"),
    (Reason::Gone, "Gone"),
    (Reason::Invalid, "Invalid"),
    (Reason::ServerTimeout, "ServerTimeout"),
    (Reason::StoreReadError, "StorageReadError"),
    (Reason::Timeout, "Timeout"),
    (Reason::TooManyRequests, "TooManyRequests"),
    (Reason::BadRequest, "BadRequest"),
    (Reason::MethodNotAllowed, "MethodNotAllowed"),
    (Reason::NotAcceptable, "NotAcceptable"),
    (Reason::RequestEntityTooLarge, "RequestEntityTooLarge"),
    (Reason::UnsupportedMediaType, "UnsupportedMediaType"),
    (Reason::InternalError, "InternalError"),
    (Reason::Expired, "Expired"),
    (Reason::ServiceUnavailable, "ServiceUnavailable"),
];

impl Reason {
    /// As on the wire; `Unknown` is the empty string.
    pub fn as_str(&self) -> &str {
        if let Reason::Other(text) = self {
            return text;
        }
        REASONS.iter().find(|(reason, _)| reason == self).map_or("", |(_, text)| text)
    }

    pub fn parse(text: &str) -> Reason {
        match REASONS.iter().find(|(_, known)| *known == text) {
            Some((reason, _)) => reason.clone(),
            None => Reason::Other(text.into()),
        }
    }
}

pub(super) fn encode(status: &Status) -> Value {
    let mut metadata = Map::new();
    if let Some(token) = &status.continue_token {
        metadata.insert("continue".to_owned(), json!(token));
    }
    let outcome = match status.outcome {
        Outcome::Success => "Success",
        Outcome::Failure => "Failure",
    };
    let mut object = Map::new();
    object.insert("kind".to_owned(), json!("Status"));
    object.insert("apiVersion".to_owned(), json!("v1"));
    object.insert("metadata".to_owned(), Value::Object(metadata));
    object.insert("status".to_owned(), json!(outcome));
    put(&mut object, "message", &status.message);
    put(&mut object, "reason", status.reason.as_str());
    if let Some(details) = &status.details {
        object.insert("details".to_owned(), encode_details(details));
    }
    // A success carries no code, as upstream's answer to DELETE.
    if status.outcome == Outcome::Failure {
        object.insert("code".to_owned(), json!(status.code));
    }
    Value::Object(object)
}

fn encode_details(details: &Details) -> Value {
    let mut object = Map::new();
    put(&mut object, "name", &details.name);
    put(&mut object, "group", &details.group);
    put(&mut object, "kind", &details.kind);
    put(&mut object, "uid", &details.uid);
    if !details.causes.is_empty() {
        let causes = details.causes.iter().map(|cause| {
            let mut object = Map::new();
            put(&mut object, "reason", &cause.reason);
            put(&mut object, "message", &cause.message);
            put(&mut object, "field", &cause.field);
            Value::Object(object)
        });
        object.insert("causes".to_owned(), causes.collect());
    }
    if details.retry_after_s > 0 {
        object.insert("retryAfterSeconds".to_owned(), json!(details.retry_after_s));
    }
    Value::Object(object)
}

fn put(object: &mut Map<String, Value>, field: &str, text: &str) {
    if !text.is_empty() {
        object.insert(field.to_owned(), json!(text));
    }
}

pub(super) fn decode(value: &Value) -> Option<Status> {
    let is_status = value.get("kind").and_then(Value::as_str) == Some("Status")
        && matches!(value.get("apiVersion").and_then(Value::as_str), Some("v1" | "meta.k8s.io/v1"));
    if !is_status {
        return None;
    }
    let outcome = if value.get("status").and_then(Value::as_str) == Some("Success") {
        Outcome::Success
    } else {
        Outcome::Failure
    };
    let default_code = if outcome == Outcome::Success { 200 } else { 500 };
    Some(Status {
        outcome,
        message: text(value, "message"),
        reason: Reason::parse(&text(value, "reason")),
        details: value
            .get("details")
            .filter(|details| details.is_object())
            .map(|details| Box::new(decode_details(details))),
        continue_token: value.pointer("/metadata/continue").and_then(Value::as_str).map(Into::into),
        code: value
            .get("code")
            .and_then(Value::as_u64)
            .and_then(|code| u16::try_from(code).ok())
            .unwrap_or(default_code),
    })
}

fn decode_details(details: &Value) -> Details {
    let causes = details.get("causes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Details {
        name: text(details, "name"),
        group: text(details, "group"),
        kind: text(details, "kind"),
        uid: text(details, "uid"),
        causes: causes
            .iter()
            .map(|cause| Cause {
                reason: text(cause, "reason"),
                message: text(cause, "message"),
                field: text(cause, "field"),
            })
            .collect(),
        retry_after_s: details
            .get("retryAfterSeconds")
            .and_then(Value::as_u64)
            .and_then(|seconds| u32::try_from(seconds).ok())
            .unwrap_or(0),
    }
}

fn text(object: &Value, field: &str) -> String {
    object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}
