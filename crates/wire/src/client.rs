//! The generated clients of one endpoint list, with message limits that fit big ranges.

use crate::{
    Transport,
    etcdserverpb::{
        auth_client::AuthClient, cluster_client::ClusterClient, kv_client::KvClient,
        lease_client::LeaseClient, maintenance_client::MaintenanceClient, watch_client::WatchClient,
    },
    healthpb::health_client::HealthClient,
    v3electionpb::election_client::ElectionClient,
    v3lockpb::lock_client::LockClient,
};

/// Largest message that a client takes or sends: the server decides, so this only has to be bigger (2 GiB - 1).
pub const MESSAGE_SIZE_BYTES_MAX: usize = i32::MAX as usize;

/// Every service of one cluster.
#[derive(Clone)]
pub struct Client {
    pub kv: KvClient<Transport>,
    pub watch: WatchClient<Transport>,
    pub lease: LeaseClient<Transport>,
    pub cluster: ClusterClient<Transport>,
    pub maintenance: MaintenanceClient<Transport>,
    pub auth: AuthClient<Transport>,
    pub lock: LockClient<Transport>,
    pub election: ElectionClient<Transport>,
    pub health: HealthClient<Transport>,
}

macro_rules! sized {
    ($client:ident, $transport:expr, $request:expr, $answer:expr) => {
        $client::new($transport.clone())
            .max_encoding_message_size($request)
            .max_decoding_message_size($answer)
    };
}

impl Client {
    pub fn new(transport: Transport) -> Client {
        Client::with_limits(transport, MESSAGE_SIZE_BYTES_MAX, MESSAGE_SIZE_BYTES_MAX)
    }

    /// With other limits for one request and for one answer, in bytes.
    pub fn with_limits(transport: Transport, request_bytes: usize, answer_bytes: usize) -> Client {
        Client {
            kv: sized!(KvClient, transport, request_bytes, answer_bytes),
            watch: sized!(WatchClient, transport, request_bytes, answer_bytes),
            lease: sized!(LeaseClient, transport, request_bytes, answer_bytes),
            cluster: sized!(ClusterClient, transport, request_bytes, answer_bytes),
            maintenance: sized!(MaintenanceClient, transport, request_bytes, answer_bytes),
            auth: sized!(AuthClient, transport, request_bytes, answer_bytes),
            lock: sized!(LockClient, transport, request_bytes, answer_bytes),
            election: sized!(ElectionClient, transport, request_bytes, answer_bytes),
            health: sized!(HealthClient, transport, request_bytes, answer_bytes),
        }
    }
}
