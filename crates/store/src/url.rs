//! The addresses in etcd's URL flags: `http://host:port`, `https://host:port`, nothing behind the port, and
//! `unix://path`, `unixs://path` for a socket file.

use std::{fmt, net::SocketAddr, path::Path, str::FromStr};

/// One listen or advertise address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    pub tls: bool,
    pub place: Place,
}

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Tcp {
        /// A name or an address; IPv6 without brackets.
        host: String,
        port: u16,
    },
    /// The path of a socket file.
    Socket(String),
}

/// Why a text is not such an address. The first three texts are etcd's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UrlError {
    #[error("URL scheme must be http, https, unix, or unixs: {0}")]
    Scheme(String),
    #[error("URL address does not have the form \"host:port\": {0}")]
    Address(String),
    #[error("URL must not contain a path: {0}")]
    Path(String),
    #[error("URL names no socket file: {0}")]
    NoSocket(String),
}

impl Url {
    pub fn http(address: SocketAddr) -> Url {
        Url { tls: false, place: Place::Tcp { host: address.ip().to_string(), port: address.port() } }
    }

    /// Parses a comma-separated list; blanks around the parts are ignored.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, UrlError> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
    }

    /// `None` for a socket file.
    pub fn host(&self) -> Option<&str> {
        match &self.place {
            Place::Tcp { host, .. } => Some(host),
            Place::Socket(_) => None,
        }
    }

    /// `None` for a socket file.
    pub fn port(&self) -> Option<u16> {
        match &self.place {
            Place::Tcp { port, .. } => Some(*port),
            Place::Socket(_) => None,
        }
    }

    /// The path of the socket file, if it is one.
    pub fn socket(&self) -> Option<&Path> {
        match &self.place {
            Place::Tcp { .. } => None,
            Place::Socket(path) => Some(Path::new(path)),
        }
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Url, UrlError> {
        let (tls, rest) = match text.trim().split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme @ ("unix" | "unixs"), path)) => {
                let usable = |character: char| !character.is_control() && !",?#".contains(character);
                if path.is_empty() || !path.chars().all(usable) {
                    return Err(UrlError::NoSocket(text.to_owned()));
                }
                return Ok(Url { tls: scheme == "unixs", place: Place::Socket(path.to_owned()) });
            }
            Some(_) | None => return Err(UrlError::Scheme(text.to_owned())),
        };
        let address = || UrlError::Address(text.to_owned());
        let rest = match rest.split_once('/') {
            None => rest,
            Some((before, "")) => before,
            Some(_) => return Err(UrlError::Path(text.to_owned())),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(address)?;
        let port = port.parse().map_err(|_| address())?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(address)?,
            None if host.contains(':') => return Err(address()),
            None => host,
        };
        let allowed = |character: char| character.is_ascii_alphanumeric() || "-._:%".contains(character);
        if !host.chars().all(allowed) {
            return Err(address());
        }
        Ok(Url { tls, place: Place::Tcp { host: host.to_owned(), port } })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.tls { "s" } else { "" };
        match &self.place {
            Place::Tcp { host, port } if host.contains(':') => {
                write!(formatter, "http{end}://[{host}]:{port}")
            }
            Place::Tcp { host, port } => write!(formatter, "http{end}://{host}:{port}"),
            Place::Socket(path) => write!(formatter, "unix{end}://{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Url;

    #[test]
    fn urls_are_host_and_port_with_a_scheme() {
        for (text, answer) in [
            ("http://127.0.0.1:2379", Ok("http://127.0.0.1:2379")),
            ("https://a.example:1/", Ok("https://a.example:1")),
            ("http://[::1]:2380", Ok("http://[::1]:2380")),
            ("127.0.0.1:2379", Err("URL scheme must be http, https, unix, or unixs: 127.0.0.1:2379")),
            ("http://a", Err("URL address does not have the form \"host:port\": http://a")),
            ("http://a:99999", Err("URL address does not have the form \"host:port\": http://a:99999")),
            ("http://a:1/b", Err("URL must not contain a path: http://a:1/b")),
            ("unix://etcd.sock:1", Ok("unix://etcd.sock:1")),
            ("unixs:///run/etcd.sock", Ok("unixs:///run/etcd.sock")),
            ("unix://", Err("URL names no socket file: unix://")),
        ] {
            let parsed = text.parse::<Url>().map(|url| url.to_string()).map_err(|error| error.to_string());
            assert_eq!(parsed.as_deref().map_err(String::as_str), answer);
        }
    }
}
