//! Which HTTP requests are answered at all: by the name under which the member is called, and by the page that asks.
//!
//! A page in a browser can be made to call any address under its own name ("DNS rebinding"), so without TLS that name
//! can be restricted (`--host-whitelist`). What pages of other origins may read, `--cors` says; that binds browsers
//! alone. Source: etcd server/embed/serve.go `accessController`. Not here: users and their rights.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use tonic::body::Body;

use super::answer;
use crate::{config::Config, serve::Secured};

const PLAIN: &str = "text/plain; charset=utf-8";

/// The refusal, if there must be one.
pub(super) fn refuse<B>(
    config: &Config,
    request: &Request<B>,
    secured: &Secured,
    auth_enabled: bool,
) -> Option<Response<Body>> {
    match secured {
        Secured::No => {
            let host = host(request);
            let is_allowed = |allowed: &String| allowed == "*" || *allowed == host;
            if config.allowed_hosts.is_empty() || config.allowed_hosts.iter().any(is_allowed) {
                return None;
            }
            tracing::warn!(%host, "rejecting HTTP request to prevent DNS rebinding attacks");
            Some(answer(StatusCode::MISDIRECTED_REQUEST, PLAIN, rebinding_text(&host)))
        }
        // Over the gateway a certificate names no user: the connection could be a proxy's.
        Secured::Tls(Some(_)) if auth_enabled && request.uri().path().starts_with("/v3") => Some(answer(
            StatusCode::BAD_REQUEST,
            PLAIN,
            "CommonName of client sending a request against gateway will be ignored and not used as expected\n",
        )),
        Secured::Tls(_) => None,
    }
}

/// The name under which the client calls this member, without the port.
fn host<B>(request: &Request<B>) -> String {
    let given = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has it in the address.
    let given = given.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    let given = given.unwrap_or_default();
    let name = match given.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => given,
    };
    name.trim_start_matches('[').trim_end_matches(']').to_owned()
}

fn rebinding_text(host: &str) -> String {
    format!(
        "
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist {host:?}

This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).

"
    )
}

/// The origin that the answer names, if the page may read it.
pub(super) fn allowed_origin(config: &Config, headers: &HeaderMap) -> Option<HeaderValue> {
    let origins = &config.cors_origins;
    if origins.is_empty() || origins.iter().any(|origin| origin == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    let origin = headers.get(header::ORIGIN)?;
    origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}

pub(super) fn allow(origin: HeaderValue, headers: &mut HeaderMap) {
    let text = HeaderValue::from_static;
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, text("POST, GET, OPTIONS, PUT, DELETE"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, text("accept, content-type, authorization"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: &str) -> Request<()> {
        Request::builder().uri("/health").header(header::HOST, host).body(()).unwrap()
    }

    #[test]
    fn only_listed_names_are_answered_without_tls() {
        let mut config = Config::new("a", "a");
        let refused = |config: &Config, host: &str, secured: &Secured| {
            refuse(config, &request(host), secured, true).map(|response| response.status().as_u16())
        };
        assert_eq!(refused(&config, "evil.example", &Secured::No), None);
        config.allowed_hosts = vec!["good.example".to_owned(), "::1".to_owned()];
        for (host, status) in [
            ("good.example", None),
            ("good.example:2379", None),
            ("[::1]:2379", None),
            ("evil.example:2379", Some(421)),
            ("", Some(421)),
        ] {
            assert_eq!(refused(&config, host, &Secured::No), status, "{host}");
        }
        assert_eq!(refused(&config, "evil.example", &Secured::Tls(None)), None);
    }

    #[test]
    fn only_pages_of_listed_origins_may_read() {
        let mut config = Config::new("a", "a");
        let allowed = |config: &Config, origin: &'static str| {
            let headers = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static(origin))]);
            allowed_origin(config, &headers)
        };
        assert_eq!(allowed(&config, "http://a.example").unwrap(), "*");
        config.cors_origins = vec!["http://a.example".to_owned()];
        assert_eq!(allowed(&config, "http://a.example").unwrap(), "http://a.example");
        assert_eq!(allowed(&config, "http://b.example"), None);
    }
}
