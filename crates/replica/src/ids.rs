//! Member and cluster ids, computed as etcd computes them, so that flags that describe a cluster give the same ids here.
//!
//! Not here: who remembers the ids of a data directory (data_dir.rs).

use sha1::{Digest, Sha1};

/// First eight bytes of SHA-1 over the sorted peer URLs, the cluster token and, for a member added to a running
/// cluster, the decimal Unix time in seconds. Source: etcd server/etcdserver/api/membership/member.go `computeMemberID`.
pub fn member_id(peer_urls: &[String], cluster_token: &str, added_unix_s: Option<i64>) -> u64 {
    let mut sorted: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for url in sorted {
        hash.update(url.as_bytes());
    }
    hash.update(cluster_token.as_bytes());
    if let Some(seconds) = added_unix_s {
        hash.update(seconds.to_string().as_bytes());
    }
    first_eight_bytes(hash)
}

/// First eight bytes of SHA-1 over the big-endian member ids in ascending order.
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut sorted = member_ids.to_vec();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for id in sorted {
        hash.update(id.to_be_bytes());
    }
    first_eight_bytes(hash)
}

fn first_eight_bytes(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |id, byte| (id << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids of `etcd --name default` with default flags, known from every etcd tutorial's output.
    #[test]
    fn the_default_single_member_has_the_ids_that_etcd_prints() {
        let id = member_id(&["http://localhost:2380".into()], "etcd-cluster", None);
        assert_eq!(format!("{id:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id(&[id])), "cdf818194e3a8c32");
    }

    #[test]
    fn order_of_urls_and_members_does_not_matter() {
        let urls = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        assert_eq!(member_id(&urls("a", "b"), "t", None), member_id(&urls("b", "a"), "t", None));
        assert_ne!(member_id(&urls("a", "b"), "t", None), member_id(&urls("a", "b"), "t", Some(1)));
        assert_eq!(cluster_id(&[1, 2, 3]), cluster_id(&[3, 1, 2]));
    }
}
