//! For tests: a small API server in this process, with resource versions, history, watches and planted faults.
//!
//! It keeps the promises that clients build on (conflicts, 410, order of events) and breaks streams on command.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use apimachinery::meta;
use apimachinery::status::{GroupResource, Status};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use tokio::sync::watch;

use crate::{Body, BoxError, Client, LocalService, Transport, Value, full_body};

/// Group and version, plural, namespace, name.
type Key = (String, String, String, String);

#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    /// Latest revision; moves after history has it.
    revision: watch::Sender<u64>,
    /// Moves when every open stream must break.
    breaks: watch::Sender<u64>,
}

struct State {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    history: Vec<(u64, &'static str, Key, Value)>,
    /// Watches from below it are gone.
    compacted: u64,
    watch_list: bool,
    /// Requests fail as if the connection broke, after they were carried out or before.
    outage: Outage,
    /// Streams break after that many events.
    break_after: Option<usize>,
    /// The next continued list is told that its token has expired.
    expire_continue: bool,
    requests: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Outage {
    None,
    Before,
    After,
}

impl Fake {
    pub(crate) fn new() -> Fake {
        let state = State {
            revision: 1,
            objects: BTreeMap::new(),
            history: Vec::new(),
            compacted: 0,
            watch_list: true,
            outage: Outage::None,
            break_after: None,
            expire_continue: false,
            requests: Vec::new(),
        };
        Fake {
            state: Arc::new(Mutex::new(state)),
            revision: watch::channel(1).0,
            breaks: watch::channel(0).0,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(Transport::local(self.service()), "test/1.0")
    }

    pub(crate) fn service(&self) -> LocalService {
        let fake = self.clone();
        LocalService::new(tower::service_fn(move |request| fake.clone().serve(request)))
    }

    pub(crate) fn without_watch_list(self) -> Fake {
        self.state.lock().unwrap().watch_list = false;
        self
    }

    pub(crate) fn set_outage(&self, outage: Outage) {
        self.state.lock().unwrap().outage = outage;
    }

    pub(crate) fn expire_continue(&self) {
        self.state.lock().unwrap().expire_continue = true;
    }

    pub(crate) fn break_after(&self, events: Option<usize>) {
        self.state.lock().unwrap().break_after = events;
    }

    pub(crate) fn break_streams(&self) {
        self.breaks.send_modify(|epoch| *epoch += 1);
    }

    /// Forgets history up to now.
    pub(crate) fn compact(&self) {
        let mut state = self.state.lock().unwrap();
        state.compacted = state.revision;
    }

    /// `GET /path?query` of every request so far, without the random timeout.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn objects(&self) -> Vec<Value> {
        self.state.lock().unwrap().objects.values().cloned().collect()
    }

    /// Creates, replaces or (with `None`) deletes a pod, as another client would.
    pub(crate) fn put_pod(&self, name: &str, content: Option<Value>) {
        let key = ("v1".to_owned(), "pods".to_owned(), "d".to_owned(), name.to_owned());
        self.put(key, content);
    }

    fn put(&self, key: Key, content: Option<Value>) -> Value {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        let revision = state.revision;
        let old = state.objects.get(&key).cloned();
        let (kind, object) = match content {
            Some(mut object) => {
                let uid = old.as_ref().map_or(format!("u{revision}"), |old| meta::of(old).uid().to_owned());
                meta::of_mut(&mut object)
                    .set_name(&key.3)
                    .set_namespace(&key.2)
                    .set_uid(&uid)
                    .set_resource_version(&revision.to_string());
                state.objects.insert(key.clone(), object.clone());
                (if old.is_some() { "MODIFIED" } else { "ADDED" }, object)
            }
            None => {
                let mut object = old.unwrap_or_default();
                meta::of_mut(&mut object).set_resource_version(&revision.to_string());
                state.objects.remove(&key);
                ("DELETED", object)
            }
        };
        state.history.push((revision, kind, key, object.clone()));
        drop(state);
        self.revision.send_replace(revision);
        object
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let query: BTreeMap<String, String> = parts
            .uri
            .query()
            .into_iter()
            .flat_map(|query| query.split('&'))
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let outage = {
            let mut state = self.state.lock().unwrap();
            let shown: Vec<String> = query
                .iter()
                .filter(|(key, _)| *key != "timeoutSeconds")
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let query = if shown.is_empty() { String::new() } else { format!("?{}", shown.join("&")) };
            state.requests.push(format!("{} {}{query}", parts.method, parts.uri.path()));
            state.outage
        };
        if outage == Outage::Before {
            return Err("planted outage".into());
        }
        let answer = self.answer(&parts.method, parts.uri.path(), &query, body);
        if outage == Outage::After {
            return Err("planted outage".into());
        }
        Ok(answer)
    }

    fn answer(
        &self,
        method: &Method,
        path: &str,
        query: &BTreeMap<String, String>,
        body: Value,
    ) -> Response<Body> {
        let Some((mut key, _subresource)) = parse(path) else { return status(Status::no_such_resource()) };
        let resource = (key.0.clone(), key.1.clone());
        let (group, _) = resource.0.split_once('/').unwrap_or(("", &resource.0));
        let resource = GroupResource::new(group, &resource.1);
        let found = self.state.lock().unwrap().objects.get(&key).cloned();
        if *method == Method::POST {
            key.3 = meta::of(&body).name().to_owned();
            if self.state.lock().unwrap().objects.contains_key(&key) {
                return status(Status::already_exists(resource, &key.3));
            }
            return json_answer(201, &self.put(key, Some(body)));
        }
        if key.3.is_empty() {
            return match query.get("watch").map(String::as_str) {
                Some("true") => self.watch(&key, query),
                _ => self.list(&key, query),
            };
        }
        let Some(found) = found else { return status(Status::not_found(resource, &key.3)) };
        match *method {
            Method::GET => json_answer(200, &found),
            Method::PUT => {
                let wanted = meta::of(&body).resource_version();
                if !wanted.is_empty() && wanted != meta::of(&found).resource_version() {
                    return status(Status::modified(resource, &key.3));
                }
                json_answer(200, &self.put(key, Some(body)))
            }
            Method::PATCH => {
                let mut object = found;
                apimachinery::patch::merge_patch(&mut object, &body).unwrap();
                json_answer(200, &self.put(key, Some(object)))
            }
            Method::DELETE => {
                let name = key.3.clone();
                self.put(key, None);
                json_answer(200, &Status::success(resource, &name, meta::of(&found).uid()).to_value())
            }
            _ => status(Status::http_method_not_allowed()),
        }
    }

    /// Pages are cut by position, which is enough for tests that do not write in between.
    fn list(&self, key: &Key, query: &BTreeMap<String, String>) -> Response<Body> {
        let mut state = self.state.lock().unwrap();
        let limit = query.get("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
        let skip: usize = query.get("continue").map_or(0, |token| token.parse().unwrap());
        if skip > 0 && std::mem::take(&mut state.expire_continue) {
            return status(Status::expired("The provided continue parameter is too old"));
        }
        let all: Vec<&Value> =
            state.objects.iter().filter(|(known, _)| matches(key, known)).map(|(_, o)| o).collect();
        let rest = all.len().saturating_sub(skip);
        let page: Vec<&Value> = all.into_iter().skip(skip).take(limit).collect();
        let token = if rest > limit { (skip + limit).to_string() } else { String::new() };
        let metadata = json!({"resourceVersion": state.revision.to_string(), "continue": token});
        json_answer(
            200,
            &json!({"kind": "PodList", "apiVersion": key.0, "metadata": metadata, "items": page}),
        )
    }

    fn watch(&self, key: &Key, query: &BTreeMap<String, String>) -> Response<Body> {
        let state = self.state.lock().unwrap();
        let mut pending = VecDeque::new();
        let mut after = state.revision;
        if query.contains_key("sendInitialEvents") {
            if !state.watch_list {
                return status(Status { code: 422, ..Status::bad_request("sendInitialEvents is forbidden") });
            }
            for (_, object) in state.objects.iter().filter(|(known, _)| matches(key, known)) {
                pending.push_back(frame("ADDED", object));
            }
            let bookmark = json!({"kind": "Pod", "apiVersion": key.0, "metadata": {
                "resourceVersion": after.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}});
            pending.push_back(frame("BOOKMARK", &bookmark));
        } else {
            after = query.get("resourceVersion").map_or(after, |from| from.parse().unwrap());
            if after < state.compacted {
                let error = Status::too_old_resource_version(after, state.compacted).to_value();
                let stream = futures_util::stream::iter([Ok(Frame::data(frame("ERROR", &error)))]);
                return Response::new(StreamBody::new(stream).boxed_unsync());
            }
        }
        let cursor = Cursor {
            fake: self.clone(),
            key: key.clone(),
            after,
            pending,
            left: state.break_after,
            revision: self.revision.subscribe(),
            breaks: self.breaks.subscribe(),
            broken: false,
        };
        let stream = futures_util::stream::unfold(cursor, |mut cursor| async move {
            let item = cursor.next().await?;
            Some((item, cursor))
        });
        Response::new(StreamBody::new(stream).boxed_unsync())
    }
}

struct Cursor {
    fake: Fake,
    key: Key,
    after: u64,
    pending: VecDeque<Bytes>,
    left: Option<usize>,
    revision: watch::Receiver<u64>,
    breaks: watch::Receiver<u64>,
    broken: bool,
}

impl Cursor {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        loop {
            if self.broken {
                return None;
            }
            if self.left == Some(0) {
                self.broken = true;
                return Some(Err("planted break".into()));
            }
            if let Some(bytes) = self.pending.pop_front() {
                self.left = self.left.map(|left| left - 1);
                return Some(Ok(Frame::data(bytes)));
            }
            self.collect();
            if !self.pending.is_empty() {
                continue;
            }
            tokio::select! {
                _ = self.revision.changed() => {}
                _ = self.breaks.changed() => {
                    self.broken = true;
                    return Some(Err("planted break".into()));
                }
            }
        }
    }

    fn collect(&mut self) {
        let state = self.fake.state.lock().unwrap();
        let after = self.after;
        for (_, kind, key, object) in state.history.iter().filter(|(revision, ..)| *revision > after) {
            if matches(&self.key, key) {
                self.pending.push_back(frame(kind, object));
            }
        }
        self.after = state.revision;
    }
}

fn frame(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
}

fn matches(wanted: &Key, key: &Key) -> bool {
    wanted.0 == key.0 && wanted.1 == key.1 && (wanted.2.is_empty() || wanted.2 == key.2)
}

/// The key (without name for a collection) and the subresource.
fn parse(path: &str) -> Option<(Key, String)> {
    let mut parts = path.trim_start_matches('/').split('/').peekable();
    let version = match parts.next()? {
        "api" => parts.next()?.to_owned(),
        "apis" => format!("{}/{}", parts.next()?, parts.next()?),
        _ => return None,
    };
    let mut namespace = String::new();
    if parts.peek() == Some(&"namespaces") {
        parts.next();
        namespace = parts.next()?.to_owned();
    }
    let plural = parts.next()?.to_owned();
    let name = parts.next().unwrap_or_default().to_owned();
    Some(((version, plural, namespace, name), parts.next().unwrap_or_default().to_owned()))
}

fn json_answer(code: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(full_body(value.to_string()));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response
}

fn status(status: Status) -> Response<Body> {
    json_answer(status.code, &status.to_value())
}
