//! One page of a member's HTTP side, such as `/metrics`, over HTTP/1.1 as every tool asks for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::{ClientTls, Endpoint, EndpointError, TlsError};

/// Largest page that is read.
const PAGE_SIZE_BYTES_MAX: usize = 64 << 20;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("endpoint {0} needs TLS, but no TLS options were given")]
    TlsMissing(Endpoint),
    #[error("{endpoint}: {source}")]
    Connect {
        endpoint: Endpoint,
        #[source]
        source: std::io::Error,
    },
    #[error("{endpoint}{path}: {source}")]
    Http {
        endpoint: Endpoint,
        path: String,
        #[source]
        source: hyper::Error,
    },
    #[error("{endpoint}{path}: status {status}")]
    Status { endpoint: Endpoint, path: String, status: http::StatusCode },
    #[error("{endpoint}{path}: the answer is broken off or too large")]
    Body { endpoint: Endpoint, path: String },
    #[error("{endpoint}{path}: no answer within {waited:?}")]
    Late { endpoint: Endpoint, path: String, waited: Duration },
}

/// Gets a page from one endpoint.
pub async fn fetch(
    endpoint: &str,
    tls: Option<&ClientTls>,
    path: &str,
    time_max: Duration,
) -> Result<Bytes, FetchError> {
    let endpoint = Endpoint::parse(endpoint, tls.is_some())?;
    let late = || FetchError::Late { endpoint: endpoint.clone(), path: path.to_owned(), waited: time_max };
    tokio::time::timeout(time_max, get(&endpoint, tls, path)).await.map_err(|_| late())?
}

async fn get(endpoint: &Endpoint, tls: Option<&ClientTls>, path: &str) -> Result<Bytes, FetchError> {
    let connect = |source| FetchError::Connect { endpoint: endpoint.clone(), source };
    match &endpoint.socket {
        Some(socket) => {
            let stream = UnixStream::connect(socket).await.map_err(connect)?;
            secure(stream, endpoint, tls, path).await
        }
        None => {
            let stream = TcpStream::connect((endpoint.host(), endpoint.port())).await.map_err(connect)?;
            secure(stream, endpoint, tls, path).await
        }
    }
}

async fn secure<S>(
    stream: S,
    endpoint: &Endpoint,
    tls: Option<&ClientTls>,
    path: &str,
) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if !endpoint.is_tls() {
        return ask(TokioIo::new(stream), endpoint, path).await;
    }
    let options = tls.ok_or_else(|| FetchError::TlsMissing(endpoint.clone()))?;
    let mut settings = Arc::unwrap_or_clone(options.settings()?);
    settings.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(settings));
    let name = options.name_for(endpoint.host())?;
    let connect = |source| FetchError::Connect { endpoint: endpoint.clone(), source };
    ask(TokioIo::new(connector.connect(name, stream).await.map_err(connect)?), endpoint, path).await
}

async fn ask<I>(io: I, endpoint: &Endpoint, path: &str) -> Result<Bytes, FetchError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let failed = |source| FetchError::Http { endpoint: endpoint.clone(), path: path.to_owned(), source };
    let body = || FetchError::Body { endpoint: endpoint.clone(), path: path.to_owned() };
    let (mut sender, connection) = http1::handshake(io).await.map_err(failed)?;
    // Ends with the exchange.
    tokio::spawn(connection);
    let request = http::Request::get(path)
        .header(http::header::HOST, endpoint.authority.as_str())
        .body(Empty::<Bytes>::new())
        .map_err(|_| body())?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    if !status.is_success() {
        return Err(FetchError::Status { endpoint: endpoint.clone(), path: path.to_owned(), status });
    }
    let page = Limited::new(response.into_body(), PAGE_SIZE_BYTES_MAX).collect().await.map_err(|_| body())?;
    Ok(page.to_bytes())
}
