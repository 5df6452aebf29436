//! The JSON gateway: `POST /v3/kv/put` with protobuf's JSON form is the gRPC call `KV.Put`.
//!
//! No message has code of its own here: descriptors translate, and the call goes through the same services as any
//! other, so checks and errors are the same. Streams answer one JSON object per line.
//! To the store the gateway is one client: all its calls share the streams that `--max-concurrent-streams` gives to a
//! connection, and wait for one.
//! Not here: how a websocket begins and ends (websocket.rs).

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, LengthLimitError, Limited, StreamBody};
use hyper::body::Incoming;
use prost::Message as _;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
};
use replica::Surroundings;
use serde_json::{Deserializer, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status, body::Body};

use super::answer;
use crate::{metrics::POOL, services::Services, turns::Connection};

/// Paths below `/v3/`, with the gRPC method behind each.
const ROUTES: &[(&str, &str)] = &[
    ("kv/range", "etcdserverpb.KV/Range"),
    ("kv/put", "etcdserverpb.KV/Put"),
    ("kv/deleterange", "etcdserverpb.KV/DeleteRange"),
    ("kv/txn", "etcdserverpb.KV/Txn"),
    ("kv/compaction", "etcdserverpb.KV/Compact"),
    ("watch", "etcdserverpb.Watch/Watch"),
    ("lease/grant", "etcdserverpb.Lease/LeaseGrant"),
    ("lease/revoke", "etcdserverpb.Lease/LeaseRevoke"),
    ("kv/lease/revoke", "etcdserverpb.Lease/LeaseRevoke"),
    ("lease/keepalive", "etcdserverpb.Lease/LeaseKeepAlive"),
    ("lease/timetolive", "etcdserverpb.Lease/LeaseTimeToLive"),
    ("kv/lease/timetolive", "etcdserverpb.Lease/LeaseTimeToLive"),
    ("lease/leases", "etcdserverpb.Lease/LeaseLeases"),
    ("kv/lease/leases", "etcdserverpb.Lease/LeaseLeases"),
    ("cluster/member/add", "etcdserverpb.Cluster/MemberAdd"),
    ("cluster/member/remove", "etcdserverpb.Cluster/MemberRemove"),
    ("cluster/member/update", "etcdserverpb.Cluster/MemberUpdate"),
    ("cluster/member/list", "etcdserverpb.Cluster/MemberList"),
    ("cluster/member/promote", "etcdserverpb.Cluster/MemberPromote"),
    ("maintenance/alarm", "etcdserverpb.Maintenance/Alarm"),
    ("maintenance/status", "etcdserverpb.Maintenance/Status"),
    ("maintenance/defragment", "etcdserverpb.Maintenance/Defragment"),
    ("maintenance/hash", "etcdserverpb.Maintenance/Hash"),
    ("maintenance/hashkv", "etcdserverpb.Maintenance/HashKV"),
    ("maintenance/snapshot", "etcdserverpb.Maintenance/Snapshot"),
    ("maintenance/transfer-leadership", "etcdserverpb.Maintenance/MoveLeader"),
    ("maintenance/downgrade", "etcdserverpb.Maintenance/Downgrade"),
    ("auth/enable", "etcdserverpb.Auth/AuthEnable"),
    ("auth/disable", "etcdserverpb.Auth/AuthDisable"),
    ("auth/status", "etcdserverpb.Auth/AuthStatus"),
    ("auth/authenticate", "etcdserverpb.Auth/Authenticate"),
    ("auth/user/add", "etcdserverpb.Auth/UserAdd"),
    ("auth/user/get", "etcdserverpb.Auth/UserGet"),
    ("auth/user/list", "etcdserverpb.Auth/UserList"),
    ("auth/user/delete", "etcdserverpb.Auth/UserDelete"),
    ("auth/user/changepw", "etcdserverpb.Auth/UserChangePassword"),
    ("auth/user/grant", "etcdserverpb.Auth/UserGrantRole"),
    ("auth/user/revoke", "etcdserverpb.Auth/UserRevokeRole"),
    ("auth/role/add", "etcdserverpb.Auth/RoleAdd"),
    ("auth/role/get", "etcdserverpb.Auth/RoleGet"),
    ("auth/role/list", "etcdserverpb.Auth/RoleList"),
    ("auth/role/delete", "etcdserverpb.Auth/RoleDelete"),
    ("auth/role/grant", "etcdserverpb.Auth/RoleGrantPermission"),
    ("auth/role/revoke", "etcdserverpb.Auth/RoleRevokePermission"),
    ("lock/lock", "v3lockpb.Lock/Lock"),
    ("lock/unlock", "v3lockpb.Lock/Unlock"),
    ("election/campaign", "v3electionpb.Election/Campaign"),
    ("election/proclaim", "v3electionpb.Election/Proclaim"),
    ("election/leader", "v3electionpb.Election/Leader"),
    ("election/observe", "v3electionpb.Election/Observe"),
    ("election/resign", "v3electionpb.Election/Resign"),
];

/// Bytes before each message of a gRPC stream: a compression flag and the length.
const PREFIX_BYTES: usize = 5;
/// Translating more than this takes about a millisecond.
const TRANSLATED_HERE_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone)]
pub(crate) struct Gateway {
    services: Services,
    routes: Arc<HashMap<&'static str, MethodDescriptor>>,
    body_size_bytes_max: usize,
    streams: Arc<Semaphore>,
}

impl Gateway {
    pub(crate) fn new(
        services: Services,
        body_size_bytes_max: usize,
        concurrent_streams_max: u32,
    ) -> Gateway {
        let method = |path: &'static str| {
            let (service, name) = path.split_once('/')?;
            POOL.as_ref()?.get_service_by_name(service)?.methods().find(|method| method.name() == name)
        };
        let routes = ROUTES.iter().filter_map(|(path, target)| Some((*path, method(target)?))).collect();
        let streams = usize::try_from(concurrent_streams_max).unwrap_or(usize::MAX);
        Gateway {
            services,
            routes: Arc::new(routes),
            body_size_bytes_max,
            streams: Arc::new(Semaphore::new(streams.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// The gRPC method behind a path.
    pub(super) fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let below = path.strip_prefix("/v3/").or_else(|| path.strip_prefix("/v3beta/"))?;
        self.routes.get(below).cloned()
    }

    pub(super) fn body_size_bytes_max(&self) -> usize {
        self.body_size_bytes_max
    }

    pub(crate) async fn answer(&self, path: &str, request: Request<Incoming>) -> Response<Body> {
        let Some(method) = self.method(path) else {
            return refusal(&Status::not_found("Not Found"));
        };
        if *request.method() != Method::POST {
            return refusal(&Status::unimplemented("Method Not Allowed"));
        }
        let token = token(request.headers());
        let told_bytes = request.body().size_hint().exact();
        let body = match Limited::new(request.into_body(), self.body_size_bytes_max).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return refusal(&self.too_long(told_bytes)),
            Err(error) => return refusal(&Status::invalid_argument(error.to_string())),
        };
        let frames = match messages(&method, &body) {
            Ok(frames) => frames,
            Err(status) => return refusal(&status),
        };
        // A watch lives on after its last request; other calls end with it.
        let lasting = method.is_client_streaming() && method.name() == "Watch";
        let first = stream::iter([Ok::<_, Infallible>(Frame::data(frames))]);
        let body = match lasting {
            true => StreamBody::new(first.chain(stream::pending()).boxed()),
            false => StreamBody::new(first.boxed()),
        };
        match self.call(&method, body, token).await {
            Ok(call) if method.is_server_streaming() => lines(call),
            Ok(mut call) => match call.only().await {
                Ok(text) => succeeded(answer(StatusCode::OK, "application/json", text)),
                Err(status) => refusal(&status),
            },
            Err(status) if method.is_server_streaming() => {
                let text = format!("{}\n", stream_error_body(&status));
                answer(http_status(status.code()), "application/json", text)
            }
            Err(status) => refusal(&status),
        }
    }

    /// The refusal of gRPC; the body is told where the message was not read.
    fn too_long(&self, told_bytes: Option<u64>) -> Status {
        let limit_bytes = self.body_size_bytes_max;
        let found_bytes = told_bytes.unwrap_or(limit_bytes as u64 + 1);
        Status::resource_exhausted(format!(
            "grpc: received message larger than max ({found_bytes} vs. {limit_bytes})"
        ))
    }

    /// Makes a call whose requests may come one by one; every answer, and a failure, is one JSON text.
    pub(super) async fn start<B>(
        &self,
        method: &MethodDescriptor,
        body: B,
        token: Option<HeaderValue>,
    ) -> BoxStream<'static, Bytes>
    where
        B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        match self.call(method, body, token).await {
            Ok(call) if method.is_server_streaming() => call.into_lines().boxed(),
            Ok(mut call) => {
                let text = call.only().await.unwrap_or_else(|status| error_body(&status).to_string());
                stream::iter([text.into()]).boxed()
            }
            Err(status) if method.is_server_streaming() => {
                stream::iter([stream_error_body(&status).to_string().into()]).boxed()
            }
            Err(status) => stream::iter([error_body(&status).to_string().into()]).boxed(),
        }
    }

    async fn call<B>(
        &self,
        method: &MethodDescriptor,
        body: B,
        token: Option<HeaderValue>,
    ) -> Result<Call, Status>
    where
        B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let mut request = Request::new(body);
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        *request.uri_mut() = path.parse().map_err(|_| Status::internal("method has no path"))?;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        if let Some(token) = token {
            request.headers_mut().insert("token", token);
        }
        request.extensions_mut().insert(Connection::GATEWAY);
        // Waits as long as the client does, as a stream over the limit of a connection would.
        let stream = self.streams.clone().acquire_owned().await;
        let stream = stream.map_err(|_| Status::unavailable("the gateway is closed"))?;
        let response = self.services.call(request).await;
        match Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok) {
            Some(status) => Err(status),
            None => Ok(Call {
                descriptor: method.output(),
                surroundings: self.services.surroundings().clone(),
                body: response.into_body(),
                buffer: BytesMut::new(),
                done: false,
                _stream: stream,
            }),
        }
    }
}

/// The caller's token; browsers send it as `Authorization`.
fn token(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(header::AUTHORIZATION).or_else(|| headers.get("grpc-metadata-token"))?;
    let text = value.to_str().ok()?;
    HeaderValue::from_str(text.strip_prefix("Bearer ").unwrap_or(text)).ok()
}

/// The body's JSON values as gRPC frames: one for a plain call, any number for a stream.
pub(crate) fn messages(method: &MethodDescriptor, body: &[u8]) -> Result<Bytes, Status> {
    let wrong = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
    let mut frames = BytesMut::new();
    for value in Deserializer::from_slice(body).into_iter::<Value>() {
        let value = value.map_err(|error| match (error.is_eof(), first_character(body)) {
            (true, _) => wrong(&"unexpected EOF"),
            (false, Some(first)) if error.is_syntax() && error.line() == 1 && error.column() <= 1 => {
                wrong(&format!("invalid character '{first}' looking for beginning of value"))
            }
            (false, _) => wrong(&error),
        })?;
        if !value.is_object() {
            let text = value.to_string();
            let token = if value.is_array() { "[" } else { &text };
            return Err(wrong(&format!("proto: syntax error (line 1:1): unexpected token {token}")));
        }
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let message = DynamicMessage::deserialize_with_options(method.input(), value, &options)
            .map_err(|error| wrong(&error))?;
        frame(&message.encode_to_vec(), &mut frames)?;
        // What follows the message of a plain call is not looked at.
        if !method.is_client_streaming() {
            break;
        }
    }
    if frames.is_empty() && !method.is_client_streaming() {
        frame(&[], &mut frames)?;
    }
    Ok(frames.freeze())
}

fn first_character(body: &[u8]) -> Option<char> {
    body.utf8_chunks().next()?.valid().chars().next()
}

fn frame(message: &[u8], frames: &mut BytesMut) -> Result<(), Status> {
    let length =
        u32::try_from(message.len()).map_err(|_| Status::invalid_argument("message is too large"))?;
    frames.put_u8(0);
    frames.put_u32(length);
    frames.put_slice(message);
    Ok(())
}

/// Takes one whole message off the front.
pub(crate) fn unframe(buffer: &mut BytesMut) -> Option<Bytes> {
    let mut prefix = buffer.get(1..PREFIX_BYTES)?;
    let length = prefix.get_u32() as usize;
    if buffer.len() < PREFIX_BYTES + length {
        return None;
    }
    buffer.advance(PREFIX_BYTES);
    Some(buffer.split_to(length).freeze())
}

/// An answer as JSON text.
pub(crate) fn to_json(descriptor: MessageDescriptor, message: Bytes) -> Result<String, Status> {
    let internal =
        |error: &dyn std::fmt::Display| Status::internal(format!("answer cannot be translated: {error}"));
    let message = DynamicMessage::decode(descriptor, message).map_err(|error| internal(&error))?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(true)
        .skip_default_fields(true);
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut text);
    message.serialize_with_options(&mut serializer, &options).map_err(|error| internal(&error))?;
    String::from_utf8(text).map_err(|error| internal(&error))
}

/// A call that was taken, and where the translation of its answers stands.
struct Call {
    descriptor: MessageDescriptor,
    surroundings: Surroundings,
    body: Body,
    buffer: BytesMut,
    done: bool,
    _stream: OwnedSemaphorePermit,
}

/// The messages of a stream, each as a line `{"result":...}`, a failure as `{"error":...}`.
fn lines(call: Call) -> Response<Body> {
    let lines = call.into_lines().map(|line| Ok::<_, Infallible>(Frame::data(line)));
    let mut response = Response::new(Body::new(StreamBody::new(lines)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    succeeded(response)
}

/// grpc-gateway passes on what the gRPC answer had as metadata.
fn succeeded(mut response: Response<Body>) -> Response<Body> {
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("grpc-metadata-content-type", kind);
    response
}

impl Call {
    /// The one message of a plain call.
    async fn only(&mut self) -> Result<String, Status> {
        let collected = std::mem::replace(&mut self.body, Body::empty()).collect().await?;
        if let Some(status) = collected.trailers().and_then(Status::from_header_map)
            && status.code() != Code::Ok
        {
            return Err(status);
        }
        let frame = collected.to_bytes();
        if frame.len() < PREFIX_BYTES {
            return Err(Status::internal("answer is incomplete"));
        }
        self.translate(frame.slice(PREFIX_BYTES..)).await
    }

    /// A message as JSON; a long one on another thread, because heartbeats run on this one.
    async fn translate(&mut self, message: Bytes) -> Result<String, Status> {
        let descriptor = self.descriptor.clone();
        if message.len() <= TRANSLATED_HERE_BYTES_MAX {
            return to_json(descriptor, message);
        }
        let translating = self.surroundings.blocking(move || to_json(descriptor, message));
        translating.await.map_err(|error| Status::internal(error.to_string()))?
    }

    fn into_lines(self) -> impl Stream<Item = Bytes> + Send + 'static {
        stream::unfold(self, |mut call| async move {
            let line = call.next().await?;
            Some((line, call))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.done {
                return None;
            }
            if let Some(message) = unframe(&mut self.buffer) {
                return Some(match self.translate(message).await {
                    Ok(value) => Bytes::from(format!("{{\"result\":{value}}}\n")),
                    Err(status) => self.fail(&status),
                });
            }
            match self.body.frame().await {
                None => self.done = true,
                Some(Err(status)) => return Some(self.fail(&status)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        let status = frame.trailers_ref().and_then(Status::from_header_map);
                        if let Some(status) = status.filter(|status| status.code() != Code::Ok) {
                            return Some(self.fail(&status));
                        }
                    }
                },
            }
        }
    }

    fn fail(&mut self, status: &Status) -> Bytes {
        self.done = true;
        Bytes::from(format!("{}\n", stream_error_body(status)))
    }
}

/// A failed call. Clients of etcd before 3.6 look for the message under `error`, those of 3.6 do not mind. In the order of
/// the former, whose own tests compare the text.
pub(super) fn error_body(status: &Status) -> Value {
    let message = status.message();
    serde_json::json!({ "error": message, "message": message, "code": i32::from(status.code()) })
}

/// How a stream fails, before or after its first answer.
fn stream_error_body(status: &Status) -> Value {
    serde_json::json!({ "error": { "code": i32::from(status.code()), "message": status.message() } })
}

pub(super) fn refusal(status: &Status) -> Response<Body> {
    let mut response = answer(http_status(status.code()), "application/json", error_body(status).to_string());
    if status.code() == Code::Unauthenticated
        && let Ok(reason) = HeaderValue::from_str(status.message())
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, reason);
    }
    response
}

/// What grpc-gateway makes of a code.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_leads_to_a_method() {
        for (path, target) in ROUTES {
            let (service, name) = target.split_once('/').unwrap();
            let service = POOL.as_ref().unwrap().get_service_by_name(service).unwrap();
            assert!(service.methods().any(|method| method.name() == name), "{path} -> {target}");
        }
    }

    #[test]
    fn a_stream_fails_as_grpc_gateway_has_it() {
        let status = Status::invalid_argument("etcdserver: user name is empty");
        assert_eq!(
            stream_error_body(&status).to_string(),
            r#"{"error":{"code":3,"message":"etcdserver: user name is empty"}}"#
        );
    }

    #[test]
    fn messages_have_protobufs_json_form() {
        let pool = POOL.as_ref().unwrap();
        let put = pool
            .get_service_by_name("etcdserverpb.KV")
            .unwrap()
            .methods()
            .find(|m| m.name() == "Put")
            .unwrap();
        let body = br#"{"key":"Zm9v","value":"YmFy","lease":"7","prev_kv":true,"unknown":1}"#;
        let mut frames = BytesMut::from(&messages(&put, body).unwrap()[..]);
        let message = unframe(&mut frames).unwrap();
        let request = wire::etcdserverpb::PutRequest::decode(message.clone()).unwrap();
        assert_eq!(
            (&request.key[..], &request.value[..], request.lease, request.prev_kv),
            (&b"foo"[..], &b"bar"[..], 7, true)
        );
        let json = to_json(put.input(), message).unwrap();
        assert_eq!(json, r#"{"key":"Zm9v","value":"YmFy","lease":"7","prev_kv":true}"#);
        assert!(messages(&put, b"{\"key\":1}").is_err());
        assert_eq!(messages(&put, b"{} {}").unwrap(), messages(&put, b"{}").unwrap());
        assert!(messages(&put, b"{").is_err());
    }
}
