//! What crosses the wire: etcd's v3 messages and services, the peer protocol, and a thin client.
//!
//! Every `bytes` field is a `bytes::Bytes`, so a value is shared from the socket to the store and back.
//! A [`Client`] does not know whether its [`Transport`] is a socket or the services of this process.
//! Not here: any meaning of the messages (crate `store`) or of the peer streams (crate `replica`).

mod alerts;
mod anchors;
mod client;
mod endpoint;
mod fetch;
mod socket_file;
mod tls;
mod transport;

pub use alerts::{is_tls_alert, tls_failure};
pub use anchors::{Anchors, Purpose, ServerVerifier};
pub use client::{Client, MESSAGE_SIZE_BYTES_MAX};
pub use endpoint::{Endpoint, EndpointError};
pub use fetch::{FetchError, fetch};
pub use socket_file::SocketFile;
pub use tls::{AcceptAny, ClientTls, TlsError};
pub use transport::{ConnectError, Transport};

use bytes::Bytes;

/// The descriptors of all messages and services, as an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! generated {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)] // generated code
        pub mod $name {
            tonic::include_proto!($package);
        }
    };
}

generated!(/// Keys, values and events.
    mvccpb, "mvccpb");
generated!(/// Users, roles and permissions.
    authpb, "authpb");
generated!(/// The client services: KV, Watch, Lease, Cluster, Maintenance, Auth.
    etcdserverpb, "etcdserverpb");
generated!(/// The lock service.
    v3lockpb, "v3lockpb");
generated!(/// The election service.
    v3electionpb, "v3electionpb");
generated!(/// The standard gRPC health service.
    healthpb, "grpc.health.v1");
generated!(/// What members say to each other.
    peerpb, "binnacle.peer.v1");

/// The smallest key that is greater than every key with this prefix, as `range_end` wants it; a prefix without
/// a successor (empty, or all bytes 0xff) gives the single zero byte that stands for "to the last key".
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bytes::from(end);
        }
    }
    Bytes::from_static(&[0])
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn prefix_end_is_the_next_key_after_all_with_the_prefix() {
        let cases: [(&[u8], &[u8]); 6] = [
            (b"a", b"b"),
            (b"/registry/", b"/registry0"),
            (b"a\xff", b"b"),
            (b"a\xff\xff", b"b"),
            (b"\xff\xff", b"\0"),
            (b"", b"\0"),
        ];
        for (prefix, end) in cases {
            assert_eq!(&prefix_end(prefix)[..], end, "prefix {prefix:?}");
        }
    }
}
