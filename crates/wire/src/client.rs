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
    ($client:ident, $transport:expr) => {
        $client::new($transport.clone())
            .max_decoding_message_size(MESSAGE_SIZE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_SIZE_BYTES_MAX)
    };
}

impl Client {
    pub fn new(transport: Transport) -> Client {
        Client {
            kv: sized!(KvClient, transport),
            watch: sized!(WatchClient, transport),
            lease: sized!(LeaseClient, transport),
            cluster: sized!(ClusterClient, transport),
            maintenance: sized!(MaintenanceClient, transport),
            auth: sized!(AuthClient, transport),
            lock: sized!(LockClient, transport),
            election: sized!(ElectionClient, transport),
            health: sized!(HealthClient, transport),
        }
    }
}
