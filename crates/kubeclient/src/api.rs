//! One resource of the API: get, list, create, update, patch, delete, watch, and its subresources.
//!
//! Items of a list get the `apiVersion` and `kind` that the server leaves out, so that an object looks the same
//! however it was read. Not here: keeping a copy up to date (informer.rs).

use apimachinery::meta;
use bytes::Bytes;
use http::Method;
use serde_json::{Map, json};

use crate::client::{Call, Client, SharedText};
use crate::watch::WatchStream;
use crate::{Error, Value};

/// Cheap to clone. Without a namespace it means all namespaces, or a cluster-scoped resource.
#[derive(Clone, Debug)]
pub struct Api {
    client: Client,
    group: SharedText,
    version: SharedText,
    plural: SharedText,
    namespace: Option<SharedText>,
}

#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    /// 0 = no limit.
    pub limit: u32,
    pub continue_token: String,
    pub resource_version: String,
    /// `Exact` or `NotOlderThan`; empty = unset.
    pub resource_version_match: String,
}

#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub resource_version: String,
    pub bookmarks: bool,
    /// WatchList: begin with the current state, closed by a bookmark.
    pub send_initial_events: bool,
    /// 0 = the server decides.
    pub timeout_s: u32,
}

/// A complete list, or one page of it.
#[derive(Clone, Debug)]
pub struct List {
    pub items: Vec<Value>,
    pub resource_version: String,
    pub continue_token: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    Strategic(Value),
    /// Server-side apply.
    Apply {
        object: Value,
        field_manager: String,
        force: bool,
    },
}

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_s: Option<i64>,
    /// `Background`, `Foreground` or `Orphan`; empty = the resource's default.
    pub propagation_policy: String,
    /// Only if the object has this uid.
    pub uid: String,
    /// Only if the object has this resource version.
    pub resource_version: String,
}

impl Api {
    pub(crate) fn new(client: Client, group: &str, version: &str, plural: &str) -> Api {
        Api { client, group: group.into(), version: version.into(), plural: plural.into(), namespace: None }
    }

    /// The same resource in one namespace.
    pub fn namespace(&self, namespace: &str) -> Api {
        Api { namespace: Some(namespace.into()), ..self.clone() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn group(&self) -> &str {
        &self.group
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn plural(&self) -> &str {
        &self.plural
    }

    pub async fn get(&self, name: &str) -> Result<Value, Error> {
        self.client.json(self.call(Method::GET, Some(name), "", &[], None)?).await
    }

    /// `None` when the object does not exist.
    pub async fn get_opt(&self, name: &str) -> Result<Option<Value>, Error> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One page if `limit` is set, else everything.
    pub async fn list(&self, options: &ListOptions) -> Result<List, Error> {
        let limit = if options.limit == 0 { String::new() } else { options.limit.to_string() };
        let query = [
            ("labelSelector", options.label_selector.as_str()),
            ("fieldSelector", &options.field_selector),
            ("limit", &limit),
            ("continue", &options.continue_token),
            ("resourceVersion", &options.resource_version),
            ("resourceVersionMatch", &options.resource_version_match),
        ];
        let call = self.call(Method::GET, None, "", &query, None)?;
        let path = call.path.clone();
        let answer = self.client.json(call).await?;
        parse_list(answer).map_err(|detail| Error::Answer { method: "GET".to_owned(), path, detail })
    }

    /// Creates in the handle's namespace, or else in that of the object.
    pub async fn create(&self, object: &Value) -> Result<Value, Error> {
        self.client.json(self.of(object).call(Method::POST, None, "", &[], json_body(object))?).await
    }

    /// Replaces the object that has the given object's name.
    pub async fn update(&self, object: &Value) -> Result<Value, Error> {
        self.update_subresource("", object).await
    }

    pub async fn update_status(&self, object: &Value) -> Result<Value, Error> {
        self.update_subresource("status", object).await
    }

    pub async fn update_subresource(&self, subresource: &str, object: &Value) -> Result<Value, Error> {
        let api = self.of(object);
        let call =
            api.call(Method::PUT, Some(meta::of(object).name()), subresource, &[], json_body(object))?;
        self.client.json(call).await
    }

    /// POST to a subresource: `binding`, `eviction`, `token`. The answer may be a Status.
    pub async fn create_subresource(
        &self,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value, Error> {
        let api = self.of(object);
        self.client.json(api.call(Method::POST, Some(name), subresource, &[], json_body(object))?).await
    }

    pub async fn get_subresource(&self, name: &str, subresource: &str) -> Result<Value, Error> {
        self.client.json(self.call(Method::GET, Some(name), subresource, &[], None)?).await
    }

    pub async fn patch(&self, name: &str, patch: &Patch) -> Result<Value, Error> {
        self.patch_subresource(name, "", patch).await
    }

    pub async fn patch_status(&self, name: &str, patch: &Patch) -> Result<Value, Error> {
        self.patch_subresource(name, "status", patch).await
    }

    pub async fn patch_subresource(
        &self,
        name: &str,
        subresource: &str,
        patch: &Patch,
    ) -> Result<Value, Error> {
        let (media_type, body) = match patch {
            Patch::Json(body) => ("application/json-patch+json", body),
            Patch::Merge(body) => ("application/merge-patch+json", body),
            Patch::Strategic(body) => ("application/strategic-merge-patch+json", body),
            Patch::Apply { object, .. } => ("application/apply-patch+yaml", object),
        };
        let query = match patch {
            Patch::Apply { field_manager, force, .. } => {
                vec![
                    ("fieldManager", field_manager.as_str()),
                    ("force", if *force { "true" } else { "false" }),
                ]
            }
            _ => Vec::new(),
        };
        let body = Some((media_type, Bytes::from(body.to_string())));
        self.client.json(self.call(Method::PATCH, Some(name), subresource, &query, body)?).await
    }

    /// The answer is a Status, or the object if it is still there (finalizers, a grace period).
    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<Value, Error> {
        let body = options.to_value();
        self.client.json(self.call(Method::DELETE, Some(name), "", &[], json_body(&body))?).await
    }

    pub async fn delete_collection(
        &self,
        options: &DeleteOptions,
        list: &ListOptions,
    ) -> Result<Value, Error> {
        let query = [
            ("labelSelector", list.label_selector.as_str()),
            ("fieldSelector", list.field_selector.as_str()),
        ];
        let body = options.to_value();
        self.client.json(self.call(Method::DELETE, None, "", &query, json_body(&body))?).await
    }

    /// Opens a watch; returns once the server has accepted it.
    pub async fn watch(&self, options: &WatchOptions) -> Result<WatchStream, Error> {
        let timeout = if options.timeout_s == 0 { String::new() } else { options.timeout_s.to_string() };
        let query = [
            ("watch", "true"),
            ("labelSelector", options.label_selector.as_str()),
            ("fieldSelector", &options.field_selector),
            ("resourceVersion", &options.resource_version),
            ("allowWatchBookmarks", if options.bookmarks { "true" } else { "" }),
            ("sendInitialEvents", if options.send_initial_events { "true" } else { "" }),
            ("resourceVersionMatch", if options.send_initial_events { "NotOlderThan" } else { "" }),
            ("timeoutSeconds", &timeout),
        ];
        let call = self.call(Method::GET, None, "", &query, None)?;
        let body = self.client.stream(&call).await?;
        Ok(WatchStream::new(body, call.path))
    }

    /// The handle for the object's own namespace, unless this one has a namespace.
    fn of(&self, object: &Value) -> Api {
        match (&self.namespace, meta::of(object).namespace()) {
            (None, namespace) if !namespace.is_empty() => self.namespace(namespace),
            _ => self.clone(),
        }
    }

    /// `name: Some("")` is refused: it would address the collection.
    fn call(
        &self,
        method: Method,
        name: Option<&str>,
        subresource: &str,
        query: &[(&str, &str)],
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Call, Error> {
        let mut path =
            if self.group.is_empty() { "/api/".to_owned() } else { format!("/apis/{}/", self.group) };
        path.push_str(&self.version);
        if let Some(namespace) = &self.namespace {
            path.push_str("/namespaces/");
            push_segment(&mut path, namespace, "namespace")?;
        }
        path.push('/');
        path.push_str(&self.plural);
        if let Some(name) = name {
            path.push('/');
            push_segment(&mut path, name, "name")?;
        }
        if !subresource.is_empty() {
            path.push('/');
            path.push_str(subresource);
        }
        let mut separator = '?';
        for (key, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
            path.push(separator);
            path.push_str(key);
            path.push('=');
            push_encoded(&mut path, value, b"-._~");
            separator = '&';
        }
        Ok(Call { method, path, body })
    }
}

impl DeleteOptions {
    pub fn background() -> DeleteOptions {
        DeleteOptions { propagation_policy: "Background".to_owned(), ..DeleteOptions::default() }
    }

    fn to_value(&self) -> Value {
        let mut object = Map::new();
        object.insert("kind".to_owned(), json!("DeleteOptions"));
        object.insert("apiVersion".to_owned(), json!("v1"));
        if let Some(seconds) = self.grace_period_s {
            object.insert("gracePeriodSeconds".to_owned(), json!(seconds));
        }
        if !self.propagation_policy.is_empty() {
            object.insert("propagationPolicy".to_owned(), json!(self.propagation_policy));
        }
        let mut preconditions = Map::new();
        if !self.uid.is_empty() {
            preconditions.insert("uid".to_owned(), json!(self.uid));
        }
        if !self.resource_version.is_empty() {
            preconditions.insert("resourceVersion".to_owned(), json!(self.resource_version));
        }
        if !preconditions.is_empty() {
            object.insert("preconditions".to_owned(), Value::Object(preconditions));
        }
        Value::Object(object)
    }
}

fn json_body(object: &Value) -> Option<(&'static str, Bytes)> {
    Some(("application/json", Bytes::from(object.to_string())))
}

fn push_segment(path: &mut String, segment: &str, what: &str) -> Result<(), Error> {
    if segment.is_empty() || segment == "." || segment == ".." || segment.contains('/') {
        return Err(Error::Request(format!("{segment:?} cannot be a {what}")));
    }
    push_encoded(path, segment, b"-._~!$&'()*+,;=:@");
    Ok(())
}

/// Percent-encodes all but letters, digits and `safe`.
fn push_encoded(out: &mut String, text: &str, safe: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || safe.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

fn parse_list(mut answer: Value) -> Result<List, String> {
    let list_meta = meta::of(&answer);
    let kind = list_meta.kind().strip_suffix("List").ok_or("it is not a list")?.to_owned();
    let api_version = list_meta.api_version().to_owned();
    let resource_version = list_meta.resource_version().to_owned();
    let token = list_meta.field("continue").and_then(Value::as_str).unwrap_or_default();
    let continue_token = (!token.is_empty()).then(|| token.to_owned());
    let mut items = match answer.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        Some(Value::Null) | None => Vec::new(),
        Some(_) => return Err("items is not a list".to_owned()),
    };
    for item in &mut items {
        if let Value::Object(object) = item
            && !object.contains_key("kind")
        {
            object.insert("apiVersion".to_owned(), json!(api_version));
            object.insert("kind".to_owned(), json!(kind));
        }
    }
    Ok(List { items, resource_version, continue_token })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Transport, empty_body};

    fn api(group: &str, version: &str, plural: &str) -> Api {
        let service = tower::service_fn(|_| async { Ok(http::Response::new(empty_body())) });
        let transport = Transport::local(tower::util::BoxCloneSyncService::new(service));
        Client::new(transport, "test").api(group, version, plural)
    }

    #[test]
    fn paths_follow_the_apis_layout() {
        let pods = api("", "v1", "pods");
        let roles = api("rbac.authorization.k8s.io", "v1", "clusterroles");
        let call = |api: &Api, name: Option<&str>, subresource: &str, query: &[(&str, &str)]| {
            api.call(Method::GET, name, subresource, query, None)
                .map(|call| call.path)
                .map_err(|error| error.to_string())
        };
        assert_eq!(call(&pods, None, "", &[]).unwrap(), "/api/v1/pods");
        assert_eq!(
            call(&pods.namespace("d"), Some("a"), "status", &[]).unwrap(),
            "/api/v1/namespaces/d/pods/a/status"
        );
        assert_eq!(
            call(&roles, Some("system:node"), "", &[]).unwrap(),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node"
        );
        assert_eq!(
            call(&pods, None, "", &[("labelSelector", "a in (b,c)"), ("limit", ""), ("watch", "true")])
                .unwrap(),
            "/api/v1/pods?labelSelector=a%20in%20%28b%2Cc%29&watch=true"
        );
        assert_eq!(
            call(&roles, Some("a%b?"), "", &[]).unwrap(),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/a%25b%3F"
        );
        for name in ["", "..", "a/b"] {
            assert!(call(&pods, Some(name), "", &[]).is_err(), "{name}");
        }
    }

    #[test]
    fn list_items_get_the_kind_that_the_server_leaves_out() {
        let list = parse_list(json!({
            "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7", "continue": "t"},
            "items": [{"metadata": {"name": "a"}}],
        }))
        .unwrap();
        assert_eq!(meta::of(&list.items[0]).kind(), "Pod");
        assert_eq!((list.resource_version.as_str(), list.continue_token.as_deref()), ("7", Some("t")));
        assert!(parse_list(json!({"kind": "Pod"})).is_err());
    }
}
