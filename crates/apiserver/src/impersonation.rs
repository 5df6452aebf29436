//! Acting as somebody else: `Impersonate-User`, `-Group`, `-Uid`, `-Extra-*`.
//!
//! Invariants: each name, group, uid and extra value is authorized on its own (verb `impersonate`) before the request
//! goes on; the headers are removed then, so nothing later can read them. Source: apiserver
//! endpoints/filters/impersonation.go. Not here: what the assumed identity may do.

use std::collections::BTreeMap;

use apimachinery::status::Status;
use http::HeaderMap;
use http::request::Parts;

use crate::authz::{Attributes, Decision};
use crate::request_info::percent_decode;
use crate::user::{self, ANONYMOUS, GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED};
use crate::{ApiServer, User, audit};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

/// One thing that the caller must be allowed to assume.
struct Claim {
    group: &'static str,
    resource: &'static str,
    subresource: String,
    namespace: String,
    name: String,
}

/// The identity that the rest of the chain sees: the caller itself when it impersonates nobody.
pub(crate) async fn apply(
    server: &ApiServer,
    caller: User,
    parts: &mut Parts,
    audit: &audit::Context,
) -> Result<User, Status> {
    let Some(wanted) = wanted(&parts.headers)? else { return Ok(caller) };
    for claim in claims(&wanted) {
        let attributes = Attributes {
            verb: "impersonate",
            api_group: claim.group,
            resource: claim.resource,
            subresource: &claim.subresource,
            namespace: &claim.namespace,
            name: &claim.name,
            is_resource: true,
            ..Attributes::of_user(&caller)
        };
        match server.authorizer().decide_settled(server, &attributes).await {
            Decision::Allow(_) => {}
            Decision::NoOpinion(reason) => return Err(attributes.forbidden(&reason)),
        }
    }
    let assumed = complete(wanted);
    remove_headers(&mut parts.headers);
    audit.set_impersonated(&assumed);
    Ok(assumed)
}

/// Reads the headers; `None` without any of them. A value that cannot be read is an error: dropping it would let the
/// request run with the caller's own, larger rights.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let mut wanted = User::default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("impersonate-") {
            continue;
        }
        let value = std::str::from_utf8(value.as_bytes())
            .map_err(|_| Status::bad_request(format!("header {name} is not valid UTF-8")))?
            .to_string();
        match name {
            USER => wanted.name = value,
            UID => wanted.uid = value,
            GROUP => wanted.groups.push(value),
            _ => {
                if let Some(key) = name.strip_prefix(EXTRA_PREFIX) {
                    let key = percent_decode(key).unwrap_or_else(|| key.to_string());
                    extra.entry(key).or_default().push(value);
                }
            }
        }
    }
    wanted.extra = extra;
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == User::default() {
        return Ok(None);
    }
    Err(Status::internal("requested groups, uid or extra without impersonating a user name"))
}

fn claims(wanted: &User) -> Vec<Claim> {
    let claim = |group, resource, subresource: &str, namespace: &str, name: &str| Claim {
        group,
        resource,
        subresource: subresource.to_string(),
        namespace: namespace.to_string(),
        name: name.to_string(),
    };
    let mut claims = vec![match user::split_service_account(&wanted.name) {
        Some((namespace, name)) => claim("", "serviceaccounts", "", namespace, name),
        None => claim("", "users", "", "", &wanted.name),
    }];
    claims.extend(wanted.groups.iter().map(|group| claim("", "groups", "", "", group)));
    if !wanted.uid.is_empty() {
        claims.push(claim(AUTHENTICATION_GROUP, "uids", "", "", &wanted.uid));
    }
    for (key, values) in &wanted.extra {
        claims.extend(values.iter().map(|value| claim(AUTHENTICATION_GROUP, "userextras", key, "", value)));
    }
    claims
}

/// Adds the groups that follow from the name.
fn complete(mut user: User) -> User {
    if let Some((namespace, _)) = user::split_service_account(&user.name)
        && user.groups.is_empty()
    {
        user.groups =
            vec!["system:serviceaccounts".to_string(), format!("system:serviceaccounts:{namespace}")];
    }
    let implied = if user.name == ANONYMOUS { GROUP_UNAUTHENTICATED } else { GROUP_AUTHENTICATED };
    if !user.is_in(GROUP_AUTHENTICATED) && !user.is_in(GROUP_UNAUTHENTICATED) {
        user.groups.push(implied.to_string());
    }
    user
}

fn remove_headers(headers: &mut HeaderMap) {
    let names: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut headers, (name, value): (http::HeaderName, http::HeaderValue)| {
                headers.append(name, value);
                headers
            })
    }

    #[test]
    fn every_part_of_the_assumed_identity_is_a_claim_of_its_own() {
        let headers = headers(&[
            ("impersonate-user", "ann"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "system:masters"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-acme.com%2fproject", "x"),
        ]);
        let wanted = wanted(&headers).unwrap().unwrap();
        let claims: Vec<String> = claims(&wanted)
            .iter()
            .map(|claim| format!("{}/{}/{} {}", claim.group, claim.resource, claim.subresource, claim.name))
            .collect();
        assert_eq!(
            claims,
            [
                "/users/ ann",
                "/groups/ dev",
                "/groups/ system:masters",
                "authentication.k8s.io/uids/ 7",
                "authentication.k8s.io/userextras/acme.com/project x",
            ]
        );
    }

    #[test]
    fn a_service_account_is_claimed_in_its_namespace_and_gets_its_groups() {
        let headers = headers(&[("impersonate-user", "system:serviceaccount:ns:sa")]);
        let wanted = wanted(&headers).unwrap().unwrap();
        let claim = &claims(&wanted)[0];
        assert_eq!(
            (claim.resource, claim.namespace.as_str(), claim.name.as_str()),
            ("serviceaccounts", "ns", "sa")
        );
        let groups = complete(wanted).groups;
        assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:ns", GROUP_AUTHENTICATED]);
    }

    #[test]
    fn nobody_is_impersonated_without_headers_and_groups_alone_are_an_error() {
        assert_eq!(wanted(&HeaderMap::new()).unwrap(), None);
        assert_eq!(wanted(&headers(&[("impersonate-group", "system:masters")])).unwrap_err().code, 500);
        assert_eq!(wanted(&headers(&[("impersonate-extra-a", "b")])).unwrap_err().code, 500);
        let unreadable =
            HeaderMap::from_iter([(USER.parse().unwrap(), http::HeaderValue::from_bytes(b"a\xff").unwrap())]);
        assert_eq!(wanted(&unreadable).unwrap_err().code, 400);
    }

    #[test]
    fn the_headers_are_gone_afterwards() {
        let mut headers =
            headers(&[("impersonate-user", "a"), ("impersonate-extra-x", "y"), ("accept", "*/*")]);
        remove_headers(&mut headers);
        assert_eq!(headers.len(), 1);
    }
}
