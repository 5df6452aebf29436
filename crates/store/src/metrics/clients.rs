//! Requests by the version that clients say they have: etcd's own client sends it with each.
//!
//! Invariant: a client may say anything, so the number of versions that are told apart is bounded.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::HeaderMap;
use parking_lot::RwLock;

/// Versions that are told apart, with `other`, as which all more count.
const VERSIONS_MAX: usize = 32;
const VERSION_LENGTH_MAX: usize = 16;
const HEADER: &str = "client-api-version";
const UNKNOWN: &str = "unknown";
const OTHER: &str = "other";

#[derive(Default)]
pub(crate) struct Clients {
    versions: RwLock<Vec<(String, Counts)>>,
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    streams: AtomicU64,
}

impl Counts {
    fn add(&self, is_stream: bool) {
        let counter = if is_stream { &self.streams } else { &self.calls };
        counter.fetch_add(1, Relaxed);
    }
}

/// Requests of one version.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Requests {
    pub version: String,
    pub calls: u64,
    pub streams: u64,
}

impl Clients {
    pub(crate) fn count(&self, headers: &HeaderMap, is_stream: bool) {
        let version = match headers.get(HEADER).map(|value| value.to_str()) {
            None => UNKNOWN,
            Some(Ok(version)) if is_plain(version) => version,
            Some(_) => OTHER,
        };
        let find = |versions: &[(String, Counts)], version: &str| {
            let found = versions.iter().find(|(known, _)| known == version);
            found.map(|(_, counts)| counts.add(is_stream)).is_some()
        };
        if find(&self.versions.read(), version) {
            return;
        }
        let mut versions = self.versions.write();
        let apart = versions.iter().filter(|(known, _)| known != OTHER).count();
        let version = if apart + 1 < VERSIONS_MAX { version } else { OTHER };
        if !find(&versions, version) {
            let counts = Counts::default();
            counts.add(is_stream);
            versions.push((version.to_owned(), counts));
        }
    }

    /// In the order of the versions.
    pub(super) fn requests(&self) -> Vec<Requests> {
        let mut requests: Vec<Requests> = self
            .versions
            .read()
            .iter()
            .map(|(version, counts)| Requests {
                version: version.clone(),
                calls: counts.calls.load(Relaxed),
                streams: counts.streams.load(Relaxed),
            })
            .collect();
        requests.sort_by(|one, other| one.version.cmp(&other.version));
        requests
    }
}

/// Nothing that would have to be escaped in a label.
fn is_plain(version: &str) -> bool {
    (1..=VERSION_LENGTH_MAX).contains(&version.len())
        && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn said(version: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static(HEADER),
            HeaderValue::from_str(version).unwrap(),
        )])
    }

    #[test]
    fn versions_are_told_apart_up_to_a_bound() {
        let clients = Clients::default();
        clients.count(&HeaderMap::new(), false);
        clients.count(&said("3.6"), false);
        clients.count(&said("3.6"), true);
        clients.count(&said("\"} 1"), false);
        let requests =
            |version: &str, calls, streams| Requests { version: version.to_owned(), calls, streams };
        assert_eq!(
            clients.requests(),
            [requests("3.6", 1, 1), requests("other", 1, 0), requests("unknown", 1, 0)]
        );
        for number in 0..1000 {
            clients.count(&said(&format!("9.{number}")), false);
        }
        let told = clients.requests();
        assert_eq!(told.len(), VERSIONS_MAX);
        assert_eq!(told.iter().map(|requests| requests.calls).sum::<u64>(), 1003);
        let clients = Clients::default();
        for number in 0..1000 {
            clients.count(&said(&format!("9.{number}")), false);
        }
        assert_eq!(clients.requests().len(), VERSIONS_MAX, "`other` is one of them");
    }
}
