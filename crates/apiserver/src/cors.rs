//! Cross-origin requests from browsers, for the origins that `--cors-allowed-origins` matches.
//!
//! Invariant: without that flag no CORS header is ever sent. Not here: who may do what.

use http::header::{HeaderValue, ORIGIN};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use regex::Regex;

use crate::{Body, Config, ConfigError, response};

/// Source: apiserver server/filters/cors.go.
const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE, PATCH");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since",
);

/// The configured origins.
pub(crate) struct Cors {
    patterns: Vec<Regex>,
}

impl Cors {
    pub(crate) fn new(config: &Config) -> Result<Cors, ConfigError> {
        let compile = |pattern: &String| {
            Regex::new(pattern).map_err(|error| ConfigError::Value {
                flag: "cors-allowed-origins",
                value: pattern.clone(),
                why: error.to_string(),
            })
        };
        Ok(Cors { patterns: config.cors_allowed_origins.iter().map(compile).collect::<Result<_, _>>()? })
    }

    /// The request's origin when one of the patterns matches it.
    pub(crate) fn allowed(&self, parts: &Parts) -> Option<HeaderValue> {
        let origin = parts.headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?;
        self.patterns.iter().any(|pattern| pattern.is_match(text)).then(|| origin.clone())
    }
}

/// The answer to an OPTIONS request, before any authentication: browsers send it without credentials.
pub(crate) fn preflight(parts: &Parts) -> Option<Response<Body>> {
    if parts.method != Method::OPTIONS {
        return None;
    }
    let mut answer = Response::new(response::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    Some(answer)
}

/// Adds the headers that let the page read the answer.
pub(crate) fn mark(answer: &mut Response<Body>, origin: &HeaderValue) {
    let headers = answer.headers_mut();
    headers.insert("access-control-allow-origin", origin.clone());
    headers.insert("access-control-allow-methods", METHODS);
    headers.insert("access-control-allow-headers", REQUEST_HEADERS);
    headers.insert("access-control-expose-headers", HeaderValue::from_static("Date"));
    headers.insert("access-control-allow-credentials", HeaderValue::from_static("true"));
    headers.append("vary", HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, origin: &str) -> Parts {
        http::Request::builder().method(method).header(ORIGIN, origin).body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_matching_origins_get_headers_and_preflights() {
        let config =
            Config { cors_allowed_origins: vec!["^https://ui\\.example$".to_string()], ..Config::default() };
        let cors = Cors::new(&config).unwrap();
        let own = request(Method::OPTIONS, "https://ui.example");
        assert_eq!(cors.allowed(&own), Some(HeaderValue::from_static("https://ui.example")));
        assert_eq!(preflight(&own).unwrap().status(), StatusCode::NO_CONTENT);
        assert!(preflight(&request(Method::GET, "https://ui.example")).is_none());
        assert_eq!(cors.allowed(&request(Method::GET, "https://ui.example.evil")), None);
        assert_eq!(Cors::new(&Config::default()).unwrap().allowed(&own), None, "off unless configured");
    }

    #[test]
    fn a_pattern_that_does_not_compile_stops_the_start() {
        let config = Config { cors_allowed_origins: vec!["(".to_string()], ..Config::default() };
        assert!(Cors::new(&config).is_err());
    }
}
