//! Other members: addresses, connections, identity checks.
//!
//! Two connections per peer: `data` carries the replication stream, forwarded proposals and snapshots, `control`
//! carries votes, heartbeats and questions, so that these never queue behind bulk. Both connect on first use and again
//! after each failure. Invariant: every call names the cluster, the sender and the member that it means; a member
//! answers no other. Not here: what the messages say (codec.rs).

mod connect;
pub(crate) mod meter;
pub(crate) mod network;
pub(crate) mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;
use wire::peerpb::peer_client::PeerClient;

use self::meter::{Meter, Meters};
use crate::codec::{self, Answer, Description, FRAME_SIZE_BYTES_MAX, Question, Standing};
use crate::config::{Member, PeerTls};
use crate::data_dir::Identity;
use crate::fatal::{Fatal, FatalReason};
use crate::raft_types::Node;
use crate::surroundings::Network;

pub(crate) const CLUSTER_KEY: &str = "binnacle-cluster";
pub(crate) const FROM_KEY: &str = "binnacle-from";
pub(crate) const TO_KEY: &str = "binnacle-to";

/// Told to a member that was removed; it ends when it hears this.
pub(crate) const REMOVED_TEXT: &str = "the member has been permanently removed from the cluster";

type Client = PeerClient<Channel>;

pub(crate) struct Peers {
    identity: Identity,
    network: Arc<dyn Network>,
    tls: Option<PeerTls>,
    election_timeout: Duration,
    links: Mutex<HashMap<u64, Arc<Link>>>,
    pub meters: Meters,
    fatal: Fatal,
}

/// The way to one member.
pub(crate) struct Link {
    urls: Vec<String>,
    data: Client,
    control: Client,
    metadata: MetadataMap,
}

impl Peers {
    pub(crate) fn new(
        identity: Identity,
        network: Arc<dyn Network>,
        tls: Option<PeerTls>,
        election_timeout: Duration,
        fatal: Fatal,
    ) -> Arc<Peers> {
        let (links, meters) = (Mutex::default(), Meters::default());
        Arc::new(Peers { identity, network, tls, election_timeout, links, meters, fatal })
    }

    /// Reuses the connections to a member until its URLs change.
    pub(crate) fn link(&self, id: u64, node: &Node) -> Result<Arc<Link>, LinkError> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(&id)
            && link.urls == node.peer_urls
        {
            return Ok(link.clone());
        }
        let link = Arc::new(Link {
            urls: node.peer_urls.clone(),
            data: self.client(id, &node.peer_urls)?,
            control: self.client(id, &node.peer_urls)?,
            metadata: self.metadata(id),
        });
        links.insert(id, link.clone());
        Ok(link)
    }

    pub(crate) fn forget(&self, id: u64) {
        self.links.lock().remove(&id);
        self.meters.forget(id);
    }

    fn client(&self, id: u64, urls: &[String]) -> Result<Client, LinkError> {
        let meter = Arc::new(Meter::default());
        meter.belongs_to(self.meters.of(id));
        let channel = connect::channel(&self.network, urls, self.tls.as_ref(), self.election_timeout, meter)?;
        Ok(sized(PeerClient::new(channel)))
    }

    fn metadata(&self, to: u64) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert(CLUSTER_KEY, hexadecimal(self.identity.cluster_id));
        metadata.insert(FROM_KEY, hexadecimal(self.identity.member_id));
        metadata.insert(TO_KEY, hexadecimal(to));
        metadata
    }

    /// Counts a message that did not arrive, and looks at what the peer answered for news about ourselves.
    fn note(&self, id: u64, status: &tonic::Status) {
        self.meters.of(id).sent_failures.fetch_add(1, Ordering::Relaxed);
        if status.code() == tonic::Code::PermissionDenied && status.message() == REMOVED_TEXT {
            self.fatal.set(FatalReason::Removed);
        }
    }

    /// One question over the control connection.
    pub(crate) async fn ask(
        &self,
        id: u64,
        node: &Node,
        question: &Question,
        timeout: Duration,
    ) -> Result<Answer, AskError> {
        let link = self.link(id, node)?;
        let request = link.request(frame(codec::to_bytes(question)));
        let mut client = link.control.clone();
        let answered = tokio::time::timeout(timeout, client.ask(request)).await.map_err(|_| {
            self.meters.of(id).sent_failures.fetch_add(1, Ordering::Relaxed);
            AskError::TimedOut
        })?;
        let response = answered.map_err(|status| {
            self.note(id, &status);
            AskError::Refused(status.message().to_owned())
        })?;
        Ok(codec::from_bytes(&response.into_inner().payload, "answer")?)
    }
}

impl Link {
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        request
    }
}

fn sized(client: Client) -> Client {
    client.max_decoding_message_size(FRAME_SIZE_BYTES_MAX).max_encoding_message_size(FRAME_SIZE_BYTES_MAX)
}

fn hexadecimal(id: u64) -> AsciiMetadataValue {
    AsciiMetadataValue::try_from(format!("{id:x}")).expect("hexadecimal digits are ASCII")
}

pub(crate) fn frame(payload: bytes::Bytes) -> wire::peerpb::Frame {
    wire::peerpb::Frame { payload }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    #[error("peer URL {url:?}: {reason}")]
    Url { url: String, reason: &'static str },
    #[error("no peer URLs")]
    None,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("peer did not answer in time")]
    TimedOut,
    #[error("peer refused: {0}")]
    Refused(String),
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
}

/// What a running member says about itself and its cluster.
#[derive(Clone, Debug)]
pub struct Discovered {
    pub cluster_id: u64,
    pub members: Vec<Member>,
    pub leader: Option<u64>,
    pub(crate) member_id: u64,
    /// See `codec::Description`.
    pub(crate) term: Option<u64>,
    pub(crate) last_index: u64,
    pub(crate) standing: Standing,
}

#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// `silent`: at least one neither answered nor refused the connection, so it may well live.
    #[error("no peer answered: {last}")]
    NoAnswer { last: String, silent: bool },
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Whoever is behind some peer URLs, whatever its id. It answers only who it is.
pub(crate) struct Stranger {
    client: Client,
}

struct NoAnswer {
    text: String,
    silent: bool,
}

impl Stranger {
    pub(crate) fn new(
        network: &Arc<dyn Network>,
        peer_urls: &[String],
        tls: Option<&PeerTls>,
    ) -> Result<Stranger, LinkError> {
        let channel = connect::channel(network, peer_urls, tls, Duration::from_secs(1), Arc::default())?;
        Ok(Stranger { client: sized(PeerClient::new(channel)) })
    }

    /// `None` for anything but a description.
    pub(crate) async fn ask(&self, timeout: Duration) -> Option<Discovered> {
        self.describe(timeout).await.ok()
    }

    async fn describe(&self, timeout: Duration) -> Result<Discovered, NoAnswer> {
        let mut client = self.client.clone();
        let request = frame(codec::to_bytes(&Question::WhoAreYou));
        let silent = |text: String| NoAnswer { text, silent: true };
        let response = match tokio::time::timeout(timeout, client.ask(request)).await {
            Err(_) => return Err(silent(format!("no answer within {timeout:?}"))),
            // A process that is frozen or on its way up breaks connections, too: only a closed port says that none is there.
            Ok(Err(status)) => {
                return Err(NoAnswer { text: status.message().to_owned(), silent: !is_refused(&status) });
            }
            Ok(Ok(response)) => response,
        };
        match codec::from_bytes(&response.into_inner().payload, "answer") {
            Ok(Answer::Description(said)) => {
                let Description { cluster_id, member_id, leader, members, term, last_index, standing } = said;
                let members = members.into_iter().map(Member::from).collect();
                // No term is that high; as a floor it would let nobody lead any more.
                let term = term.filter(|term| *term < u64::MAX);
                Ok(Discovered { cluster_id, members, leader, member_id, term, last_index, standing })
            }
            Ok(other) => Err(silent(format!("unexpected answer {other:?}"))),
            Err(error) => Err(silent(error.to_string())),
        }
    }
}

/// Whether nobody listens there.
fn is_refused(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        source = error.source();
    }
    false
}

/// Asks the given peer URLs, each for itself, until one of them describes its cluster with its members. One that knows
/// no members is an answer only if there is no better one: a member with an empty directory waits like this.
pub async fn discover(
    network: &Arc<dyn Network>,
    peer_urls: &[String],
    tls: Option<&PeerTls>,
    timeout: Duration,
) -> Result<Discovered, DiscoverError> {
    let (mut last, mut silent) = ("no peer URLs given".to_owned(), false);
    let mut without_members = None;
    let share = timeout / u32::try_from(peer_urls.len().max(1)).unwrap_or(1);
    for url in peer_urls {
        match Stranger::new(network, std::slice::from_ref(url), tls)?.describe(share).await {
            Ok(found) if !found.members.is_empty() => return Ok(found),
            Ok(found) => without_members = Some(found),
            Err(error) => {
                last = format!("{url}: {}", error.text);
                silent |= error.silent;
            }
        }
    }
    without_members.ok_or(DiscoverError::NoAnswer { last, silent })
}

impl From<codec::MemberRecord> for Member {
    fn from(record: codec::MemberRecord) -> Member {
        let codec::MemberRecord { id, name, peer_urls, client_urls, is_learner } = record;
        Member { id, name, peer_urls, client_urls, is_learner }
    }
}

impl From<Member> for codec::MemberRecord {
    fn from(member: Member) -> codec::MemberRecord {
        let Member { id, name, peer_urls, client_urls, is_learner } = member;
        codec::MemberRecord { id, name, peer_urls, client_urls, is_learner }
    }
}

impl Peers {
    /// Asks the leader for an index to which this member must have applied before it may read.
    pub(crate) async fn read_index(
        &self,
        leader: u64,
        node: &Node,
        timeout: Duration,
    ) -> Result<u64, AskError> {
        let link = self.link(leader, node)?;
        let mut client = link.control.clone();
        let request = link.request(frame(bytes::Bytes::new()));
        let answered = tokio::time::timeout(timeout, client.read_index(request))
            .await
            .map_err(|_| AskError::TimedOut)?;
        let response = answered.map_err(|status| AskError::Refused(status.message().to_owned()))?;
        Ok(codec::read_index(response.into_inner().payload)?)
    }

    /// Opens a stream of proposals to the leader.
    pub(crate) async fn forward(
        &self,
        leader: u64,
        node: &Node,
        frames: tokio::sync::mpsc::Receiver<wire::peerpb::Frame>,
        timeout: Duration,
    ) -> Result<tonic::Streaming<wire::peerpb::Frame>, AskError> {
        let link = self.link(leader, node)?;
        let mut client = link.data.clone();
        let request = link.request(tokio_stream::wrappers::ReceiverStream::new(frames));
        let answered =
            tokio::time::timeout(timeout, client.forward(request)).await.map_err(|_| AskError::TimedOut)?;
        answered
            .map(tonic::Response::into_inner)
            .map_err(|status| AskError::Refused(status.message().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surroundings::Surroundings;

    /// Who neither answers nor refuses may live: frozen, on its way up, or speaking something else.
    #[tokio::test]
    async fn only_a_closed_port_says_that_nobody_is_there() {
        let network = Surroundings::system().network;
        let ask = async |port: u16| {
            let urls = [format!("http://127.0.0.1:{port}")];
            match discover(&network, &urls, None, Duration::from_secs(2)).await {
                Err(DiscoverError::NoAnswer { silent, .. }) => silent,
                other => panic!("{other:?}"),
            }
        };
        let frozen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(ask(frozen.local_addr().unwrap().port()).await, "the kernel accepts, nobody answers");
        let breaking = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = breaking.local_addr().unwrap().port();
        let serving = tokio::spawn(async move { while breaking.accept().await.is_ok() {} });
        assert!(ask(port).await, "each connection breaks");
        serving.abort();
        let _ended = serving.await;
        drop(frozen);
        assert!(!ask(port).await, "nobody listens");
    }
}
