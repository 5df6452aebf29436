//! Who the servers are, how they are verified, and how we identify ourselves.
//!
//! Secrets never appear in `Debug` or errors.

use std::fmt;
use std::sync::Arc;

use http::Uri;
use http::header::{HeaderValue, InvalidHeaderValue};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// One cluster as a client sees it: any of the servers, verified by one CA, with one identity.
#[derive(Clone, Default)]
pub struct Endpoint {
    /// `https://host:port`; tried in order, the last that worked stays preferred.
    pub servers: Vec<String>,
    pub ca_pem: Option<Vec<u8>>,
    /// Certificate chain and key.
    pub client_identity_pem: Option<(Vec<u8>, Vec<u8>)>,
    pub bearer_token: Option<String>,
    /// User and password.
    pub basic: Option<(String, String)>,
    /// Name to verify instead of the host in the URL.
    pub tls_server_name: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("no server is given")]
    NoServer,
    #[error("server {url:?} is not an http or https URL")]
    Url { url: String },
    #[error("a CA certificate is needed to verify {url}")]
    NoCa { url: String },
    #[error("cannot read the {what}: {detail}")]
    Pem { what: &'static str, detail: String },
    #[error("the {what} has characters that cannot be sent")]
    Header { what: &'static str, source: InvalidHeaderValue },
    #[error("TLS server name {name:?} is not a DNS name or an address")]
    ServerName { name: String },
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Endpoint {
    /// Base URLs with scheme and authority; at least one.
    pub(super) fn parse_servers(&self) -> Result<Vec<Uri>, EndpointError> {
        let servers: Vec<Uri> = self.servers.iter().map(|url| parse_server(url)).collect::<Result<_, _>>()?;
        if servers.is_empty() { Err(EndpointError::NoServer) } else { Ok(servers) }
    }

    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, EndpointError> {
        use base64::Engine;
        let (what, text) = if let Some(token) = &self.bearer_token {
            ("bearer token", format!("Bearer {}", token.trim()))
        } else if let Some((user, password)) = &self.basic {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            ("password", format!("Basic {pair}"))
        } else {
            return Ok(None);
        };
        let mut value =
            HeaderValue::from_str(&text).map_err(|source| EndpointError::Header { what, source })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    pub(super) fn server_name(&self) -> Result<Option<ServerName<'static>>, EndpointError> {
        let Some(name) = &self.tls_server_name else { return Ok(None) };
        let parsed = ServerName::try_from(name.clone());
        parsed.map(Some).map_err(|_| EndpointError::ServerName { name: name.clone() })
    }

    /// `None` when every server is plain http.
    pub(super) fn tls(&self, servers: &[Uri]) -> Result<Option<Arc<ClientConfig>>, EndpointError> {
        let Some(secure) = servers.iter().find(|server| server.scheme_str() == Some("https")) else {
            return Ok(None);
        };
        let ca = self.ca_pem.as_deref().ok_or_else(|| EndpointError::NoCa { url: secure.to_string() })?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca, "CA certificate")? {
            roots.add(certificate)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match &self.client_identity_pem {
            Some((chain, key)) => {
                let chain = certificates(chain, "client certificate")?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| EndpointError::Pem { what: "client key", detail: error.to_string() })?;
                builder.with_client_auth_cert(chain, key)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(Arc::new(config)))
    }
}

fn parse_server(url: &str) -> Result<Uri, EndpointError> {
    let bad = || EndpointError::Url { url: url.to_owned() };
    let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| bad())?;
    let known =
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty());
    if known { Ok(uri) } else { Err(bad()) }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, EndpointError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| EndpointError::Pem { what, detail: error.to_string() })?;
    if found.is_empty() {
        return Err(EndpointError::Pem { what, detail: "no certificate in the PEM text".to_owned() });
    }
    Ok(found)
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("servers", &self.servers).finish_non_exhaustive()
    }
}
