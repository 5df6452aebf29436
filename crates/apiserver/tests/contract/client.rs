//! A server on a fake store, and short ways to ask it.

use std::time::Duration;

use apiserver::{ApiServer, AuthorizationMode, Body, Config, User};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

use crate::fake_etcd::FakeEtcd;

pub(crate) struct Server {
    pub(crate) api: ApiServer,
    pub(crate) etcd: FakeEtcd,
    _stop: DropGuard,
}

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {:?}", self.bytes))
    }

    /// Code and message, for errors.
    pub(crate) fn error(&self) -> (u16, String) {
        (self.code, self.json()["message"].as_str().unwrap_or_default().to_owned())
    }
}

pub(crate) async fn start() -> Server {
    start_on(FakeEtcd::new()).await
}

pub(crate) async fn start_on(etcd: FakeEtcd) -> Server {
    start_with(etcd, Config::default()).await
}

pub(crate) async fn start_with(etcd: FakeEtcd, config: Config) -> Server {
    let stop = CancellationToken::new();
    let config = Config { authorization_modes: vec![AuthorizationMode::AlwaysAllow], ..config };
    let api = apiserver::start(config, etcd.client(), stop.clone()).await.unwrap();
    Server { api, etcd, _stop: stop.drop_guard() }
}

/// Waits at most this long for something that must come.
pub(crate) const SOON: Duration = Duration::from_secs(5);

impl Server {
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let response = self.open(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
        let service = self.api.local(User::new("tester", &["system:masters", "system:authenticated"]));
        service.oneshot(request.body(body).unwrap()).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], "").await
    }

    /// `kind` is `json`, `merge` or `strategic-merge`.
    pub(crate) async fn patch(&self, kind: &str, path: &str, body: &Value) -> Answer {
        let content_type = format!("application/{kind}-patch+json");
        self.send("PATCH", path, &[("content-type", &content_type)], body.to_string()).await
    }

    /// Creates a ConfigMap in `default` and gives it back.
    pub(crate) async fn config_map(&self, name: &str, labels: Value) -> Value {
        let body = json!({"metadata": {"name": name, "labels": labels}, "data": {"k": "v"}});
        let answer = self.post("/api/v1/namespaces/default/configmaps", &body).await;
        assert_eq!(answer.code, 201, "{:?}", answer.bytes);
        answer.json()
    }

    pub(crate) async fn watch(&self, path: &str) -> Events {
        self.watch_as(path, "application/json").await
    }

    pub(crate) async fn watch_as(&self, path: &str, accept: &str) -> Events {
        let response = self.open("GET", path, &[("accept", accept)], "").await;
        let code = response.status().as_u16();
        let headers = response.headers().clone();
        Events { code, headers, body: response.into_body(), read: Vec::new() }
    }
}

pub(crate) struct Events {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    body: Body,
    read: Vec<u8>,
}

impl Events {
    /// The next event as a tree; None at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn more(&mut self) -> bool {
        let frame =
            tokio::time::timeout(SOON, self.body.frame()).await.expect("an event or the end, in time");
        let Some(frame) = frame else { return false };
        self.read.extend_from_slice(&frame.unwrap().into_data().unwrap());
        true
    }

    /// The next length-prefixed frame of a protobuf watch.
    pub(crate) async fn next_frame(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.read.len() >= 4 {
                let length = u32::from_be_bytes(self.read[..4].try_into().unwrap()) as usize;
                if self.read.len() >= 4 + length {
                    return Some(self.read.drain(..4 + length).skip(4).collect());
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// `ADDED name`, `BOOKMARK` or `ERROR 410`.
    pub(crate) async fn brief(&mut self) -> String {
        match self.next().await {
            None => "end".to_owned(),
            Some(event) => brief(&event),
        }
    }

    pub(crate) async fn briefs(&mut self, count: usize) -> Vec<String> {
        let mut briefs = Vec::new();
        for _ in 0..count {
            briefs.push(self.brief().await);
        }
        briefs
    }

    /// Nothing arrives for a short while.
    pub(crate) async fn quiet(&mut self) -> bool {
        self.read.is_empty()
            && tokio::time::timeout(Duration::from_millis(150), self.body.frame()).await.is_err()
    }
}

pub(crate) fn brief(event: &Value) -> String {
    let kind = event["type"].as_str().unwrap();
    match kind {
        "BOOKMARK" => kind.to_owned(),
        "ERROR" => format!("{kind} {}", event["object"]["code"]),
        _ => format!("{kind} {}", event["object"]["metadata"]["name"].as_str().unwrap()),
    }
}

/// The resource version of an object, a list or the object of an event.
pub(crate) fn version(value: &Value) -> i64 {
    let metadata =
        if value["metadata"].is_object() { &value["metadata"] } else { &value["object"]["metadata"] };
    metadata["resourceVersion"].as_str().unwrap().parse().unwrap()
}

pub(crate) fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}
