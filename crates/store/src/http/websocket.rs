//! The gateway over a websocket: each message from the client is a request, each answer is a message.
//!
//! For browsers and others that cannot stream requests over plain HTTP. A call that takes one request takes the first
//! message. The token comes as the subprotocol `Bearer, TOKEN` or in the cookie `token`, because browsers cannot set
//! headers here. When either side is done, so is the connection. Pages that `--cors` does not list are refused.
//! A client that answers no ping for two intervals, or takes not one byte for one, is gone: nothing is kept for it.
//! Source: github.com/tmc/grpc-websocket-proxy, which etcd wraps around its gateway. Not here: what JSON means.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use prost_reflect::MethodDescriptor;
use sha1::{Digest as _, Sha1};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{Role, WebSocketConfig},
    },
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use super::{
    answer,
    gateway::{self, Gateway},
};
use crate::serve::metered::Metered;

/// Requests that were read and not yet taken.
const REQUESTS_AHEAD: usize = 16;
/// What the key of a handshake is joined with. Source: RFC 6455, section 1.3.
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How often the client is asked whether it is there, and how long it may take nothing of a message.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Whether the client asks for a websocket.
pub(super) fn is_asked_for<B>(request: &Request<B>) -> bool {
    let has = |name, wanted: &str| {
        let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|text| text.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    *request.method() == Method::GET
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
}

/// Agrees to the websocket; what is said there goes on in a task of its own until `stop`.
pub(super) fn open(
    gateway: &Gateway,
    path: &str,
    mut request: Request<Incoming>,
    stop: CancellationToken,
) -> Response<Body> {
    let headers = request.headers();
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    let (Some(key), true) =
        (headers.get(header::SEC_WEBSOCKET_KEY), version.is_some_and(|version| version == "13"))
    else {
        return answer(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", "Bad Request\n");
    };
    let Some(method) = gateway.method(path) else {
        return gateway::refusal(&Status::not_found("Not Found"));
    };
    let accept = HeaderValue::from_str(&accept(key.as_bytes()));
    let Ok(accept) = accept else { return gateway::refusal(&Status::internal("no header value")) };
    let protocol = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    let is_bearer = protocol.is_some_and(|protocol| protocol.starts_with("Bearer"));
    let token = token(protocol, headers);
    let upgraded = hyper::upgrade::on(&mut request);
    let gateway = gateway.clone();
    tokio::spawn(async move {
        match upgraded.await {
            Ok(upgraded) => {
                tokio::select! {
                    () = converse(&gateway, method, token, upgraded) => {}
                    () = stop.cancelled() => {}
                }
            }
            Err(error) => tracing::debug!(%error, "websocket not opened"),
        }
    });
    let mut response = answer(StatusCode::SWITCHING_PROTOCOLS, "text/plain", "");
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if is_bearer {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("Bearer"));
    }
    response
}

fn accept(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize())
}

/// From the cookie if there is one, else from the subprotocol.
fn token(protocol: Option<&str>, headers: &HeaderMap) -> Option<HeaderValue> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let cookie = cookies
        .flat_map(|text| text.split(';'))
        .find_map(|cookie| cookie.trim().strip_prefix("token=").map(str::to_owned));
    let given =
        cookie.or_else(|| protocol?.split_once("Bearer,").map(|(_, token)| token.trim().to_owned()))?;
    HeaderValue::from_str(&given).ok().filter(|token| !token.is_empty())
}

async fn converse(
    gateway: &Gateway,
    method: MethodDescriptor,
    token: Option<HeaderValue>,
    upgraded: Upgraded,
) {
    let limit = Some(gateway.body_size_bytes_max());
    let config = WebSocketConfig::default().max_message_size(limit).max_frame_size(limit);
    let taken_bytes = Arc::<AtomicU64>::default();
    let upgraded = Metered::new(TokioIo::new(upgraded), Arc::default(), taken_bytes.clone());
    let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
    let (requests, taken) = mpsc::channel(REQUESTS_AHEAD);
    let frames =
        ReceiverStream::new(taken).map(|frames| Ok::<_, std::convert::Infallible>(Frame::data(frames)));
    let answers = stream::once(gateway.start(&method, StreamBody::new(frames), token)).flatten();
    exchange(&method, socket, &taken_bytes, requests, answers).await;
}

/// Passes messages both ways until either side is done or the client is gone.
async fn exchange<S>(
    method: &MethodDescriptor,
    socket: WebSocketStream<S>,
    taken_bytes: &AtomicU64,
    requests: mpsc::Sender<Bytes>,
    answers: impl Stream<Item = Bytes>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    let heard = AtomicBool::new(true);
    let end = tokio::select! {
        end = read(method, &mut source, requests, &heard) => end,
        end = tell(answers, &mut sink, taken_bytes, &heard) => end,
    };
    match end {
        End::Done => {}
        End::Failed(status) => {
            let text = gateway::error_body(&status).to_string();
            if send(&mut sink, taken_bytes, Message::text(text)).await.is_err() {
                return;
            }
        }
        End::Gone => return,
    }
    // The client may be gone by now; the socket is closed anyway.
    drop(time::timeout(PING_INTERVAL, sink.close()).await);
}

/// How a conversation ended.
enum End {
    Done,
    /// What is wrong about a request.
    Failed(Status),
    /// Nobody is there to be told anything.
    Gone,
}

/// Passes the client's requests on, until it ends.
async fn read(
    method: &MethodDescriptor,
    source: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    requests: mpsc::Sender<Bytes>,
    heard: &AtomicBool,
) -> End {
    let mut requests = Some(requests);
    while let Some(Ok(message)) = source.next().await {
        heard.store(true, Relaxed);
        let text = match message {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return End::Done,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        let Some(sender) = &requests else { continue };
        match gateway::messages(method, &text) {
            // Whoever takes them is done, and will say so.
            Ok(frames) => drop(sender.send(frames).await),
            Err(status) => return End::Failed(status),
        }
        if !method.is_client_streaming() {
            requests = None;
        }
    }
    End::Done
}

/// Sends the answers, and asks in between whether the client is there.
async fn tell(
    answers: impl Stream<Item = Bytes>,
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    taken_bytes: &AtomicU64,
    heard: &AtomicBool,
) -> End {
    let mut answers = pin!(answers);
    let mut pings = time::interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            line = answers.next() => match line {
                Some(line) => Message::text(String::from_utf8_lossy(line.trim_ascii_end()).into_owned()),
                None => return End::Done,
            },
            _ = pings.tick() => match heard.swap(false, Relaxed) {
                true => Message::Ping(Bytes::new()),
                false => return End::Gone,
            },
        };
        if send(sink, taken_bytes, message).await.is_err() {
            return End::Gone;
        }
    }
}

/// Nobody takes this message.
struct NotTaken;

/// Sends for as long as the client takes something in each interval.
async fn send(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    taken_bytes: &AtomicU64,
    message: Message,
) -> Result<(), NotTaken> {
    let mut sending = pin!(sink.send(message));
    loop {
        let before = taken_bytes.load(Relaxed);
        match time::timeout(PING_INTERVAL, &mut sending).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) => return Err(NotTaken),
            Err(_) if taken_bytes.load(Relaxed) == before => return Err(NotTaken),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn a_handshake_is_answered_with_the_right_key() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_token_comes_as_subprotocol_or_cookie() {
        let cookie = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static("a=b; token=c.2"))]);
        let none = HeaderMap::new();
        assert_eq!(token(Some("Bearer, t.1"), &none).unwrap(), "t.1");
        assert_eq!(token(Some("Bearer,t.1"), &cookie).unwrap(), "c.2");
        assert_eq!(token(Some("chat"), &none), None);
        assert_eq!(token(None, &none), None);
    }

    fn watch() -> MethodDescriptor {
        let pool = crate::metrics::POOL.as_ref().unwrap();
        let service = pool.get_service_by_name("etcdserverpb.Watch").unwrap();
        service.methods().next().unwrap()
    }

    /// A watch without events over a websocket; ends when the server has dropped the watch.
    async fn idle(server: tokio::io::DuplexStream) {
        let socket = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
        let (requests, mut taken) = mpsc::channel(1);
        exchange(&watch(), socket, &AtomicU64::default(), requests, stream::pending()).await;
        assert!(taken.recv().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_vanished_is_dropped_after_two_unanswered_pings() {
        let (server, _client) = tokio::io::duplex(1 << 16);
        let begin = Instant::now();
        idle(server).await;
        assert_eq!(begin.elapsed(), 2 * PING_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_client_that_answers_pings_stays() {
        let (server, client) = tokio::io::duplex(1 << 16);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        // Reading answers pings.
        let answering = async { while let Some(Ok(_)) = client.next().await {} };
        let day = Duration::from_secs(24 * 3600);
        tokio::select! {
            () = idle(server) => panic!("dropped a client that answers"),
            () = answering => panic!("closed by the server"),
            () = time::sleep(day) => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_dropped() {
        let (server, _client) = tokio::io::duplex(16);
        let socket = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
        let (requests, _taken) = mpsc::channel(1);
        let begin = Instant::now();
        let events = stream::repeat(Bytes::from_static(b"an event"));
        exchange(&watch(), socket, &AtomicU64::default(), requests, events).await;
        assert_eq!(begin.elapsed(), PING_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_long_message_slowly_gets_all_of_it() {
        let (server, mut client) = tokio::io::duplex(16);
        let taken_bytes = Arc::<AtomicU64>::default();
        let server = Metered::new(server, Arc::default(), taken_bytes.clone());
        let socket = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
        let (requests, _taken) = mpsc::channel(1);
        let taking = tokio::spawn(async move {
            let mut taken = Vec::new();
            let mut piece = [0; 10];
            // Longer than any interval, for a text of two hundred bytes.
            while taken.len() < 200 {
                time::sleep(PING_INTERVAL * 2 / 3).await;
                let count = client.read(&mut piece).await.unwrap();
                assert!(count > 0, "dropped after {} bytes", taken.len());
                taken.extend_from_slice(&piece[..count]);
            }
            client
        });
        let (method, events) =
            (watch(), stream::iter([Bytes::from(vec![b'e'; 200])]).chain(stream::pending()));
        tokio::select! {
            () = exchange(&method, socket, &taken_bytes, requests, events) => panic!("dropped"),
            taken = taking => drop(taken.unwrap()),
        }
    }
}
