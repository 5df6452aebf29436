//! One address of a member as clients write it: `http://host:port`, `https://host:port`, `host:port`, or
//! `unix://path` and `unixs://path` for a socket file.

use std::fmt;

use http::uri::{Authority, Scheme};

/// A member's client address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub scheme: Scheme,
    /// What the member is called in requests: `localhost` behind a socket file.
    pub authority: Authority,
    /// The path of a socket file, instead of the host and port in `authority`.
    pub socket: Option<String>,
}

/// Why a text is not an endpoint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "endpoint {text:?} is not host:port, http://host:port, https://host:port, unix://path or unixs://path"
)]
pub struct EndpointError {
    pub text: String,
}

impl Endpoint {
    /// Parses one endpoint; without a scheme it is https exactly when `tls` is set. A port is required.
    pub fn parse(text: &str, tls: bool) -> Result<Endpoint, EndpointError> {
        let wrong = || EndpointError { text: text.to_owned() };
        let trimmed = text.trim().trim_end_matches('/');
        let (scheme, rest) = match trimmed.split_once("://") {
            Some(("http", rest)) => (Scheme::HTTP, rest),
            Some(("https", rest)) => (Scheme::HTTPS, rest),
            Some((scheme @ ("unix" | "unixs"), path)) if !path.is_empty() => {
                let scheme = if scheme == "unix" { Scheme::HTTP } else { Scheme::HTTPS };
                let authority = Authority::from_static("localhost");
                return Ok(Endpoint { scheme, authority, socket: Some(path.to_owned()) });
            }
            Some(_) => return Err(wrong()),
            None if tls => (Scheme::HTTPS, trimmed),
            None => (Scheme::HTTP, trimmed),
        };
        let authority: Authority = rest.parse().map_err(|_| wrong())?;
        if authority.host().is_empty() || authority.port_u16().is_none() || rest.contains('@') {
            return Err(wrong());
        }
        Ok(Endpoint { scheme, authority, socket: None })
    }

    /// The host without brackets, as a resolver or a certificate check wants it.
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port; `parse` made sure that there is one unless there is a socket file.
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or_default()
    }

    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            None => write!(formatter, "{}://{}", self.scheme, self.authority),
            Some(path) if self.is_tls() => write!(formatter, "unixs://{path}"),
            Some(path) => write!(formatter, "unix://{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn endpoints_are_read_as_people_write_them() {
        for (text, tls, shown) in [
            ("127.0.0.1:2379", false, Some("http://127.0.0.1:2379")),
            ("127.0.0.1:2379", true, Some("https://127.0.0.1:2379")),
            ("http://a.example:1/", true, Some("http://a.example:1")),
            ("https://[::1]:2379", false, Some("https://[::1]:2379")),
            ("unix:///run/store.sock", true, Some("unix:///run/store.sock")),
            ("unixs://store.sock:1", false, Some("unixs://store.sock:1")),
            ("unix://", false, None),
            ("localhost", false, None),
            ("ftp://localhost:1", false, None),
            ("http://:1", false, None),
            ("user@host:1", false, None),
            ("", false, None),
        ] {
            let parsed = Endpoint::parse(text, tls).ok().map(|endpoint| endpoint.to_string());
            assert_eq!(parsed.as_deref(), shown, "{text}");
        }
        assert_eq!(Endpoint::parse("https://[::1]:5", false).unwrap().host(), "::1");
    }
}
