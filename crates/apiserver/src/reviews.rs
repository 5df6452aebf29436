//! Questions to authentication and authorization, asked as objects that are never stored.
//!
//! Invariant: a `Self...` review speaks about the caller only, whatever its body says. An answer of "no" has waited
//! for the index like a denial has. Not here: who may ask (the chain has authorized the review itself).

use apimachinery::Value;
use apimachinery::kinds::Resource;
use apimachinery::status::{FieldError, GroupKind, Path, Status};
use http::{Method, Response, StatusCode};
use serde_json::json;

use crate::authz::rules::Rule;
use crate::authz::{Attributes, Decision};
use crate::{ApiServer, Authorized, Body, User, negotiate};

pub(crate) async fn dispatch(
    server: &ApiServer,
    resource: &Resource,
    mut request: Authorized,
) -> Result<Response<Body>, Status> {
    let named = !request.info().name.is_empty() || !request.info().subresource.is_empty();
    if named || request.info().namespace.is_empty() == resource.namespaced {
        return Err(Status::no_such_resource());
    }
    if request.parts().method != Method::POST {
        return Err(Status::http_method_not_allowed());
    }
    let body = request.read_body().await?;
    let mut review = negotiate::decode_object(resource.type_name, &request.parts().headers, body)?;
    if !review.is_object() {
        return Err(Status::bad_request("the body must be an object"));
    }
    let status = match resource.kind {
        "SelfSubjectAccessReview" => access(server, request.caller(), &review, resource).await?,
        "SubjectAccessReview" => access(server, &subject(&review, resource)?, &review, resource).await?,
        "LocalSubjectAccessReview" => {
            check_namespace(&review, resource, &request.info().namespace)?;
            access(server, &subject(&review, resource)?, &review, resource).await?
        }
        "SelfSubjectRulesReview" => rules(server, request.caller(), &review)?,
        "SelfSubjectReview" => json!({ "userInfo": user_info(request.caller()) }),
        "TokenReview" => token(server, &mut review)?,
        kind => return Err(Status::not_implemented(format!("the review {kind}"))),
    };
    review["apiVersion"] = json!(resource.api_version());
    review["kind"] = json!(resource.kind);
    if review.get("metadata").is_none() {
        review["metadata"] = json!({});
    }
    review["status"] = status;
    negotiate::encode_object(resource.type_name, &request.parts().headers, StatusCode::CREATED, &review)
}

/// May `user` do what `spec` describes?
async fn access(
    server: &ApiServer,
    user: &User,
    review: &Value,
    resource: &Resource,
) -> Result<Value, Status> {
    let spec = &review["spec"];
    let (about, is_resource) =
        match (present(&spec["resourceAttributes"]), present(&spec["nonResourceAttributes"])) {
            (Some(about), None) => (about, true),
            (None, Some(about)) => (about, false),
            (both, _) => {
                let spec = Path::new("spec");
                let field = if both.is_some() { "nonResourceAttributes" } else { "resourceAttributes" };
                let why = if both.is_some() {
                    "cannot be specified in combination with resourceAttributes"
                } else {
                    "exactly one of nonResourceAttributes or resourceAttributes must be specified"
                };
                return Err(invalid(resource, FieldError::invalid(&spec.child(field), "", why)));
            }
        };
    let text = |name: &str| about.get(name).and_then(Value::as_str).unwrap_or_default();
    let attributes = Attributes {
        verb: text("verb"),
        is_resource,
        namespace: text("namespace"),
        api_group: text("group"),
        resource: text("resource"),
        subresource: text("subresource"),
        name: text("name"),
        path: text("path"),
        ..Attributes::of_user(user)
    };
    let (allowed, reason) = match server.authorizer().decide_settled(server, &attributes).await {
        Decision::Allow(reason) => (true, reason),
        Decision::NoOpinion(reason) => (false, reason),
    };
    let mut status = json!({ "allowed": allowed });
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    Ok(status)
}

fn present(value: &Value) -> Option<&Value> {
    value.is_object().then_some(value)
}

/// The subject that a SubjectAccessReview names.
fn subject(review: &Value, resource: &Resource) -> Result<User, Status> {
    let spec = &review["spec"];
    let user = read_user(spec, "user");
    if user.name.is_empty() && user.groups.is_empty() {
        let spec = Path::new("spec");
        let why = "at least one of user or group must be specified";
        return Err(invalid(resource, FieldError::invalid(&spec.child("user"), "", why)));
    }
    Ok(user)
}

fn read_user(spec: &Value, name_field: &str) -> User {
    let text = |name: &str| spec[name].as_str().unwrap_or_default().to_string();
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
    };
    User {
        name: text(name_field),
        uid: text("uid"),
        groups: texts(&spec["groups"]),
        extra: spec["extra"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), texts(value)))
            .collect(),
    }
}

fn check_namespace(review: &Value, resource: &Resource, namespace: &str) -> Result<(), Status> {
    if review["spec"]["resourceAttributes"]["namespace"] == namespace {
        return Ok(());
    }
    let spec = Path::new("spec");
    let attributes = spec.child("resourceAttributes");
    let found = review["spec"]["resourceAttributes"]["namespace"].as_str().unwrap_or_default();
    let why = "must match metadata.namespace";
    Err(invalid(resource, FieldError::invalid(&attributes.child("namespace"), found, why)))
}

fn invalid(resource: &Resource, error: FieldError) -> Status {
    Status::invalid(GroupKind::new(resource.group, resource.kind), "", &[error])
}

/// Everything that the caller may do in a namespace.
fn rules(server: &ApiServer, caller: &User, review: &Value) -> Result<Value, Status> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (rules, errors) = server.authorizer().rules_for(caller, namespace);
    let list = |about_paths: bool| -> Vec<Value> {
        rules
            .iter()
            .filter(|rule| rule.non_resource_urls.is_empty() != about_paths)
            .map(Rule::to_value)
            .collect()
    };
    let mut status = json!({
        "resourceRules": list(false),
        "nonResourceRules": list(true),
        "incomplete": !errors.is_empty(),
    });
    if !errors.is_empty() {
        status["evaluationError"] = json!(errors.join(", "));
    }
    Ok(status)
}

/// Whose token is it? The token itself does not go back out.
fn token(server: &ApiServer, review: &mut Value) -> Result<Value, Status> {
    let token = review["spec"]["token"].as_str().unwrap_or_default().to_string();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    review["spec"]["token"] = json!("");
    Ok(match server.authenticator().review_token(&token) {
        Some(user) => json!({"authenticated": true, "user": user_info(&user)}),
        None => json!({"user": {}, "error": "invalid bearer token"}),
    })
}

fn user_info(user: &User) -> Value {
    let mut value = json!({ "username": user.name });
    if !user.uid.is_empty() {
        value["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        value["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review_resource(kind: &str) -> &'static Resource {
        let group = if kind == "TokenReview" { "authentication.k8s.io" } else { "authorization.k8s.io" };
        apimachinery::kinds::find_kind(group, "v1", kind).unwrap()
    }

    #[test]
    fn a_subject_needs_a_user_or_a_group() {
        let resource = review_resource("SubjectAccessReview");
        let status = subject(&json!({"spec": {}}), resource).unwrap_err();
        assert_eq!(status.code, 422);
        let user = subject(&json!({"spec": {"user": "a", "groups": ["b"], "extra": {"k": ["v"]}}}), resource)
            .unwrap();
        assert_eq!((user.name.as_str(), user.groups.len(), user.extra["k"].len()), ("a", 1, 1));
    }

    #[test]
    fn a_local_review_speaks_about_its_own_namespace() {
        let resource = review_resource("LocalSubjectAccessReview");
        let review = json!({"spec": {"resourceAttributes": {"namespace": "a"}}});
        assert!(check_namespace(&review, resource, "a").is_ok());
        assert_eq!(check_namespace(&review, resource, "b").unwrap_err().code, 422);
    }
}
