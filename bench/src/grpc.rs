//! Unary gRPC calls on raw HTTP/2, as cheap as they get: the load generator takes CPU from what it measures.
//!
//! Invariants: an answer is a success only with `grpc-status: 0` and a whole message; loopback and clear text only.
//! Not here: messages (crate `wire`), retries (a failed call is a result to count).

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request, header};
use prost::Message;
use tokio::net::TcpStream;

/// Compression flag and length, before every message.
const PREFIX_SIZE_BYTES: usize = 5;

#[derive(Clone)]
pub(crate) struct Connection {
    send: SendRequest<Bytes>,
    authority: String,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Connection> {
        ensure!(address.ip().is_loopback(), "{address} is not on the loopback interface");
        let socket = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        socket.set_nodelay(true)?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .handshake(socket)
            .await
            .with_context(|| format!("HTTP/2 with {address}"))?;
        tokio::spawn(connection); // ends when the last sender is dropped or the peer closes
        Ok(Connection { send, authority: address.to_string() })
    }

    /// One call; returns the encoded answer.
    pub(crate) async fn unary(&self, path: &str, message: &impl Message) -> anyhow::Result<Bytes> {
        let request = Request::post(format!("http://{}{path}", self.authority))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(())?;
        let mut send = self.send.clone().ready().await?;
        let (response, mut body) = send.send_request(request, false)?;
        body.send_data(frame(message)?, true)?;
        let (head, mut answer) = response.await?.into_parts();
        ensure!(head.status == http::StatusCode::OK, "HTTP status {}", head.status);
        let mut received = BytesMut::new();
        while let Some(chunk) = answer.data().await {
            let chunk = chunk?;
            answer.flow_control().release_capacity(chunk.len())?;
            received.extend_from_slice(&chunk);
        }
        match answer.trailers().await? {
            Some(trailers) => succeeded(&trailers)?,
            None => succeeded(&head.headers)?,
        }
        unframe(received.freeze())
    }
}

fn frame(message: &impl Message) -> anyhow::Result<Bytes> {
    let size_bytes = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_SIZE_BYTES + size_bytes);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(size_bytes)?);
    message.encode(&mut framed)?;
    Ok(framed.freeze())
}

fn unframe(mut received: Bytes) -> anyhow::Result<Bytes> {
    let Some((&[0, a, b, c, d], message)) = received.split_first_chunk::<PREFIX_SIZE_BYTES>() else {
        bail!("the answer is not one uncompressed message");
    };
    let announced = u32::from_be_bytes([a, b, c, d]) as usize;
    ensure!(announced == message.len(), "the answer announces {announced} bytes and has {}", message.len());
    Ok(received.split_off(PREFIX_SIZE_BYTES))
}

fn succeeded(trailers: &HeaderMap) -> anyhow::Result<()> {
    let text = |name| trailers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        Some("0") => Ok(()),
        Some(code) => bail!("gRPC status {code}: {}", text("grpc-message").unwrap_or("no message")),
        None => bail!("no gRPC status"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::mvccpb::KeyValue;

    #[test]
    fn a_framed_message_comes_back() {
        let message = KeyValue { key: Bytes::from_static(b"k"), version: 300, ..KeyValue::default() };
        let back = KeyValue::decode(unframe(frame(&message).unwrap()).unwrap()).unwrap();
        assert_eq!(back, message);
    }

    #[test]
    fn a_cut_or_compressed_answer_is_an_error() {
        for bytes in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02x", b"\x01\0\0\0\0", b"\0\0\0\0\0x"] {
            assert!(unframe(Bytes::from_static(bytes)).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn only_status_zero_is_success() {
        let mut trailers = HeaderMap::new();
        assert!(succeeded(&trailers).is_err());
        trailers.insert("grpc-status", "14".parse().unwrap());
        trailers.insert("grpc-message", "no leader".parse().unwrap());
        assert_eq!(succeeded(&trailers).unwrap_err().to_string(), "gRPC status 14: no leader");
        trailers.insert("grpc-status", "0".parse().unwrap());
        assert!(succeeded(&trailers).is_ok());
    }
}
