//! Who the requests are from: a token, and a new one when a member no longer takes it.
//!
//! Invariants: one login at a time, however many requests met the same old token; a request is sent again only if it was
//! refused for its token, so nothing is done twice. Not here: where the password comes from (session.rs).

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::sync::Mutex;
use tonic::{
    Code, Status,
    body::Body,
    metadata::{Ascii, MetadataValue},
};
use wire::{Client, Transport, etcdserverpb::AuthenticateRequest};

use crate::failure::Failure;

/// The name of the metadata that carries it.
pub(crate) const TOKEN: &str = "token";
/// How often in a row a request is sent, or a stream opened, with a token that is refused, each time with a newer one:
/// members that are behind may not know it yet.
pub(crate) const ATTEMPTS_MAX: usize = 3;
/// Requests that are streams themselves cannot be sent a second time.
const STREAMED: [&str; 2] = ["/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"];

type Token = MetadataValue<Ascii>;

/// Shared by all connections of a session.
pub(crate) struct Login {
    /// User and password. Never printed.
    password: Option<(String, String)>,
    token: RwLock<Option<Token>>,
    /// Held while logging in.
    turn: Mutex<()>,
}

impl Login {
    pub(crate) fn nobody() -> Login {
        Login { password: None, token: RwLock::default(), turn: Mutex::default() }
    }

    /// A token that somebody else has got: it cannot be replaced.
    pub(crate) fn with_token(token: &str) -> Result<Login, Failure> {
        let token = token.parse().map_err(|_| Failure::connection("the token is malformed"))?;
        Ok(Login { token: RwLock::new(Some(token)), ..Login::nobody() })
    }

    /// The first token comes with the first login.
    pub(crate) fn with_password(name: String, password: String) -> Login {
        Login { password: Some((name, password)), ..Login::nobody() }
    }

    pub(crate) fn token(&self) -> Option<Token> {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs in, unless somebody else has since `stale` was the token. Without a password the answer is false.
    pub(crate) async fn again(&self, client: &Client, stale: Option<Token>) -> Result<bool, Status> {
        let Some((name, password)) = self.password.clone() else { return Ok(false) };
        let _turn = self.turn.lock().await;
        if self.token() != stale {
            return Ok(true);
        }
        let token = match client.auth.clone().authenticate(AuthenticateRequest { name, password }).await {
            Ok(answer) => {
                let token = answer.into_inner().token.parse();
                Some(token.map_err(|_| Status::internal("the token is malformed"))?)
            }
            // etcd's client goes on without a token then.
            Err(status) if status.message() == "etcdserver: authentication is not enabled" => None,
            Err(status) => return Err(status),
        };
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
        Ok(true)
    }

    /// The same way to the members, with a login in between where it is needed.
    pub(crate) fn before(self: Arc<Login>, transport: Transport) -> Transport {
        if self.password.is_none() {
            return transport;
        }
        let logins = Client::new(transport.clone());
        Transport::through(move |request| self.clone().ask(transport.clone(), logins.clone(), request))
    }

    async fn ask(
        self: Arc<Login>,
        transport: Transport,
        logins: Client,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Status> {
        let (mut head, body) = request.into_parts();
        if STREAMED.contains(&head.uri.path()) {
            let stale = carried(&head);
            let answer = transport.ask(http::Request::from_parts(head, body)).await?;
            let refused = Status::from_header_map(answer.headers()).is_some_and(|status| is_stale(&status));
            if refused && self.again(&logins, stale).await? {
                // What broke, its caller makes again.
                return Err(Status::unavailable("the token was no longer good"));
            }
            return Ok(answer);
        }
        let body: Bytes = body.collect().await?.to_bytes();
        for _ in 1..ATTEMPTS_MAX {
            let request = http::Request::from_parts(head.clone(), Body::new(Full::new(body.clone())));
            let answer = transport.ask(request).await?;
            let refused = Status::from_header_map(answer.headers()).is_some_and(|status| is_stale(&status));
            if !refused || !self.again(&logins, carried(&head)).await? {
                return Ok(answer);
            }
            head.headers.remove(TOKEN);
            if let Some(token) = self.token() {
                let token = http::HeaderValue::from_bytes(token.as_encoded_bytes());
                head.headers.insert(TOKEN, token.map_err(|error| Status::internal(error.to_string()))?);
            }
        }
        transport.ask(http::Request::from_parts(head, Body::new(Full::new(body)))).await
    }
}

fn carried(head: &http::request::Parts) -> Option<Token> {
    head.headers.get(TOKEN).and_then(|value| Token::try_from(value.as_bytes()).ok())
}

/// What is said of a token that was good once, or of none where one is needed since.
const STALE: [&str; 3] = [
    "etcdserver: invalid auth token",
    "etcdserver: revision of auth store is old",
    "etcdserver: user name is empty",
];

/// Whether a login helps, as etcd's client sees it.
pub(crate) fn is_stale(status: &Status) -> bool {
    // Locks and elections have no codes.
    matches!(status.code(), Code::Unauthenticated | Code::InvalidArgument | Code::Unknown)
        && STALE.contains(&status.message())
}

/// The same of the reason that a watch is refused with, on a stream that stands.
pub(crate) fn is_stale_reason(reason: &str) -> bool {
    STALE.iter().any(|text| reason.ends_with(text))
}
