//! Requests of the JSON gateway and of probes, over TLS or not.
//!
//! Not here: what must come back (scripts/).

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wire::ClientTls;

/// `line` is METHOD PATH BODY. `first_line`: of a body that does not end, only so much. The answer has the status and
/// the body, as JSON if it is some.
pub async fn ask(
    url: &str,
    tls: Option<&ClientTls>,
    line: &str,
    metadata: &[(&'static str, String)],
    first_line: bool,
) -> Result<Value> {
    let (method, rest) = line.split_once(' ').context("http METHOD PATH BODY")?;
    let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
    let (_, authority) = url.split_once("://").context("a URL has a scheme")?;
    let target = if tls.is_some() { format!("{url}{path}") } else { path.to_owned() };
    let mut request = http::Request::builder().method(method).uri(target);
    if tls.is_none() {
        request = request.header(http::header::HOST, authority);
    }
    if let Some((_, token)) = metadata.iter().find(|(name, _)| *name == "token") {
        request = request.header(http::header::AUTHORIZATION, token);
    }
    let request = request.body(Full::new(bytes::Bytes::from(body.to_owned())))?;
    let stream = TcpStream::connect(authority).await?;
    let response = match tls {
        None => {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        }
        Some(tls) => {
            let name = tls.name_for(authority.split(':').next().unwrap_or_default())?;
            let stream = TlsConnector::from(tls.settings()?).connect(name, stream).await?;
            let executor = TokioExecutor::new();
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        }
    };
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if first_line && bytes.contains(&b'\n') {
            break;
        }
    }
    // Go's protobuf writes "proto:" with a space or with a no-break space after it: which of them differs from build to
    // build of one etcd, on purpose (internal/errors/errors.go), so it is none of the contract.
    let text = String::from_utf8_lossy(&bytes).replace("proto:\u{a0}", "proto: ");
    let text = if first_line { text.lines().next().unwrap_or_default().to_owned() } else { text };
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(json!({ "status": status, "body": body }))
}
