//! Who this member is: from its data directory, from the list of first members, or by asking the others.
//!
//! Invariants: what a data directory says wins, so a restarted member keeps its ids whatever the flags say; a directory
//! that plainly belongs to another cluster is refused before anything is written.

use std::{collections::BTreeMap, time::Duration};

use replica::{Identity, Member, PeerTls};

use crate::{
    config::{ClusterState, Config},
    url::Url,
};

/// How long the other members are asked for.
const DISCOVER_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a member cannot tell who it is.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error(transparent)]
    DataDir(#[from] replica::StartError),
    #[error(
        "data directory {path} belongs to member {stored_member:x} of cluster {stored_cluster:x}, but the flags describe member {flags_member:x} of cluster {flags_cluster:x}: use another --data-dir, or --initial-cluster-state=existing if the cluster has changed since"
    )]
    OtherCluster {
        path: String,
        stored_member: u64,
        stored_cluster: u64,
        flags_member: u64,
        flags_cluster: u64,
    },
    #[error("--initial-cluster-state=existing: {0}")]
    Discover(#[from] replica::DiscoverError),
    #[error(
        "--initial-cluster-state=existing: no member of cluster {cluster:x} has the peer URLs {urls}: add this member first"
    )]
    NotAMember { cluster: u64, urls: String },
    #[error("--initial-cluster-state=existing needs the other members in --initial-cluster")]
    NobodyToAsk,
}

/// Who this member is and who the members are that it begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bootstrap {
    pub identity: Identity,
    pub members: Vec<Member>,
}

pub(crate) async fn bootstrap(config: &Config, tls: Option<&PeerTls>) -> Result<Bootstrap, BootstrapError> {
    let listed = first_members(config);
    if let Some(identity) = replica::stored_identity(&*config.surroundings.disk, &config.data_dir)? {
        check_cluster(config, identity, listed.identity)?;
        return Ok(Bootstrap { identity, members: listed.members });
    }
    match config.initial_cluster_state {
        ClusterState::New => Ok(listed),
        ClusterState::Existing => discover(config, tls).await,
    }
}

/// The ids that the flags give to the members of a new cluster.
pub(crate) fn first_members(config: &Config) -> Bootstrap {
    let mut urls: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, url) in &config.initial_cluster {
        urls.entry(name).or_default().push(url.to_string());
    }
    if urls.is_empty() {
        urls.insert(&config.name, texts(&config.initial_advertise_peer_urls));
    }
    let mut own = 0;
    let mut members = Vec::new();
    for (name, mut peer_urls) in urls {
        peer_urls.sort();
        let id = replica::member_id(&peer_urls, &config.initial_cluster_token, None);
        if name == config.name {
            own = id;
        }
        members.push(Member {
            id,
            name: name.to_owned(),
            peer_urls,
            client_urls: Vec::new(),
            is_learner: false,
        });
    }
    let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
    Bootstrap { identity: Identity { cluster_id: replica::cluster_id(&ids), member_id: own }, members }
}

/// A directory whose cluster and member both differ from a new cluster's was taken by mistake. One alone may differ:
/// the list of first members is often kept up to date by hand.
fn check_cluster(config: &Config, stored: Identity, flags: Identity) -> Result<(), BootstrapError> {
    let other = stored.cluster_id != flags.cluster_id && stored.member_id != flags.member_id;
    let not_asked =
        config.initial_cluster_state == ClusterState::Existing || config.operations.force_new_cluster;
    if !other || not_asked {
        return Ok(());
    }
    Err(BootstrapError::OtherCluster {
        path: config.data_dir.display().to_string(),
        stored_member: stored.member_id,
        stored_cluster: stored.cluster_id,
        flags_member: flags.member_id,
        flags_cluster: flags.cluster_id,
    })
}

/// Asks the listed members who they are, and finds itself among them by its peer addresses.
async fn discover(config: &Config, tls: Option<&PeerTls>) -> Result<Bootstrap, BootstrapError> {
    let own = texts(&config.initial_advertise_peer_urls);
    let others: Vec<String> = config
        .initial_cluster
        .iter()
        .map(|(_, url)| url.to_string())
        .filter(|url| !own.contains(url))
        .collect();
    if others.is_empty() {
        return Err(BootstrapError::NobodyToAsk);
    }
    let found = replica::discover(&config.surroundings.network, &others, tls, DISCOVER_TIME_MAX).await?;
    let me = found.members.iter().find(|member| member.peer_urls.iter().any(|url| own.contains(url)));
    let Some(me) = me else {
        return Err(BootstrapError::NotAMember { cluster: found.cluster_id, urls: own.join(",") });
    };
    let identity = Identity { cluster_id: found.cluster_id, member_id: me.id };
    Ok(Bootstrap { identity, members: found.members })
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}
