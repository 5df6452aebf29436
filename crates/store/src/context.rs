//! What every service of a member shares: the gate to the replica, who this member is, and the checks before each request.
//!
//! Not here: what a service does.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};
use mvcc::{Caller, Command, Reply};
use prost::encoding::encoded_len_varint;
use replica::{Handle, Identity, Leadership};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, metadata::MetadataMap};
use wire::etcdserverpb as pb;

use crate::{
    auth::{jwt::Claims, passwords::Passwords, tokens::Tokens},
    backup,
    config::Config,
    convert::Freshness,
    gate::Gate,
    metrics::Metrics,
    planted::{self, Bug},
    status::Refusal,
    turns::{Client, Connection, Turns},
    watch::hub::Hub,
};

/// Who is at the other end of a connection, by its verified certificate; travels in a request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct CertificateUser(pub Arc<str>);

/// What a request brings that says who asks. Who that is, and what he may, changes: a stream keeps this and finds it
/// out again each time (`Context::who`).
#[derive(Clone)]
pub(crate) enum Asker {
    Nothing,
    /// A token that is no text.
    Unreadable,
    Token(Arc<str>),
    Certificate(CertificateUser),
}

impl Asker {
    /// By token first, then by certificate.
    fn of<T>(request: &Request<T>) -> Asker {
        match token(request.metadata().as_ref()) {
            Some(Some(text)) => Asker::Token(text.into()),
            Some(None) => Asker::Unreadable,
            None => match request.extensions().get::<CertificateUser>() {
                Some(user) => Asker::Certificate(user.clone()),
                None => Asker::Nothing,
            },
        }
    }
}

/// How long a serializable read waits for a revision that this member has not applied yet.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// Which requests a learner serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learner {
    Serves,
    Refuses,
}

/// What the member's own tasks work with: they act for no caller and reach the replica itself.
#[derive(Clone)]
pub(crate) struct Own {
    pub context: Arc<Context>,
    pub handle: Handle,
}

/// Shared by all services of this member.
pub(crate) struct Context {
    pub gate: Gate,
    pub identity: Identity,
    pub config: Config,
    pub metrics: Metrics,
    pub hub: Hub,
    pub tokens: Tokens,
    pub passwords: Passwords,
    pub turns: Turns,
    /// Snapshots on their way to clients.
    pub exports: Arc<Semaphore>,
    pub shutdown: CancellationToken,
    leadership: watch::Receiver<Leadership>,
}

impl Context {
    pub(crate) fn new(handle: Handle, config: Config, shutdown: CancellationToken) -> Context {
        let gate = Gate::new(handle);
        Context {
            identity: gate.identity(),
            leadership: gate.leadership(),
            metrics: Metrics::default(),
            hub: Hub::new(gate.revision()),
            tokens: Tokens::new(config.auth_token_ttl, config.jwt.clone()),
            passwords: Passwords::new(config.surroundings.clone()),
            turns: Turns::default(),
            exports: backup::slots(),
            gate,
            config,
            shutdown,
        }
    }

    pub(crate) fn header(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id,
            revision,
            raft_term: self.leadership.borrow().term,
        }
    }

    /// The header of answers that do not touch keys: the store's revision as it is now.
    pub(crate) fn header_now(&self) -> pb::ResponseHeader {
        self.header(self.revision())
    }

    pub(crate) fn revision(&self) -> i64 {
        self.gate.revision()
    }

    pub(crate) fn has_leader(&self) -> bool {
        self.leadership.borrow().leader.is_some()
    }

    /// How long a stream that asked for a leader goes on without one. Source: etcd v3rpc/interceptor.go.
    pub(crate) fn leaderless_patience(&self) -> Duration {
        3 * Duration::from_millis(self.config.election_timeout_ms)
    }

    /// Resolves when there has been no leader for longer than a stream has patience.
    pub(crate) async fn leader_lost(self: Arc<Self>) -> Status {
        let mut leadership = self.leadership.clone();
        let mut deadline = None;
        loop {
            deadline = match leadership.borrow_and_update().leader {
                Some(_) => None,
                None => deadline.or_else(|| Some(Instant::now() + self.leaderless_patience())),
            };
            let expired = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { return Refusal::Stopped.into() },
                () = expired => return Refusal::NoLeader.into(),
            }
        }
    }

    /// The checks before each request; says who asks.
    pub(crate) fn admit<T>(&self, request: &Request<T>, learner: Learner) -> Result<Caller, Status> {
        self.who(&self.receive(request, learner)?)
    }

    /// The same for a request that is checked by itself before anybody looks who asks, as etcd does with keys.
    pub(crate) fn admit_read<T, A>(
        &self,
        request: Request<T>,
        learner: Learner,
        read: impl FnOnce(T) -> Result<A, Status>,
    ) -> Result<(Caller, A), Status> {
        let asker = self.receive(&request, learner)?;
        let asked = read(request.into_inner())?;
        Ok((self.who(&asker)?, asked))
    }

    /// The same for a call that goes on for long: `who` is asked at each thing that it does.
    pub(crate) fn admit_long<T>(&self, request: Request<T>, learner: Learner) -> Result<(Asker, T), Status> {
        Ok((self.receive(&request, learner)?, request.into_inner()))
    }

    /// The checks that do not need to know who asks. A request that waits for the state to be fresh, and one that lasts,
    /// identifies its caller afterwards: what this member knows of users now may be old.
    pub(crate) fn receive<T>(&self, request: &Request<T>, learner: Learner) -> Result<Asker, Status> {
        if learner == Learner::Refuses && self.gate.is_learner() {
            return Err(Refusal::Learner.into());
        }
        if wants_leader(request.metadata()) && !self.has_leader() {
            return Err(Refusal::NoLeader.into());
        }
        Ok(Asker::of(request))
    }

    /// Like `admit`, for a caller that is to be judged by all that was acknowledged before the call.
    pub(crate) async fn admit_fresh(&self, asker: Asker) -> Result<Caller, Status> {
        self.barrier().await?;
        self.who(&asker)
    }

    /// Who it is now. While authentication is off nobody has a name.
    pub(crate) fn who(&self, asker: &Asker) -> Result<Caller, Status> {
        let user =
            |name| self.gate.identify(|users| Caller::User { name, auth_revision: users.auth_revision() });
        match asker {
            Asker::Nothing => Ok(Caller::Anonymous),
            _ if !self.gate.identify(|users| users.auth_enabled()) => Ok(Caller::Anonymous),
            Asker::Unreadable => Err(Refusal::InvalidToken.into()),
            Asker::Certificate(CertificateUser(name)) => Ok(user(name.to_string())),
            Asker::Token(text) => {
                // A signature is verified while nobody waits for the state.
                let proof = self.tokens.examine(text).ok_or(Refusal::InvalidToken)?;
                let claims = self.gate.identify(|users| {
                    self.tokens.claims(proof, users.auth_revision(), |digest| users.token(digest))
                });
                let Claims { name, auth_revision } = claims.ok_or(Refusal::InvalidToken)?;
                Ok(Caller::User { name, auth_revision })
            }
        }
    }

    /// After this, what this member has applied holds everything acknowledged before the call.
    pub(crate) async fn barrier(&self) -> Result<(), Status> {
        if planted::is(Bug::BarrierSkipped) {
            return Ok(());
        }
        self.gate.barrier().await
    }

    /// What a read waits for. A serializable one that names a revision which is not here yet waits too, for a moment:
    /// clients learn revisions from one member and read at them from another (clientv3's software transactions do), and
    /// this member may only be behind. Whether the revision exists, the read finds out itself.
    pub(crate) async fn catch_up(&self, freshness: Freshness) -> Result<(), Status> {
        if !freshness.serializable {
            return self.barrier().await;
        }
        if freshness.revision_max > self.revision() && self.has_leader() {
            let _late_is_no_error = tokio::time::timeout(CATCH_UP_TIMEOUT, self.barrier()).await;
        }
        Ok(())
    }

    /// A token that a login at another member has just given may not be known here yet: waits for it, for a moment.
    /// Nobody is told by this whether it is genuine. While authentication is off nobody looks at it.
    pub(crate) async fn hear_of(&self, headers: &HeaderMap) {
        let Some(Some(text)) = token(headers) else { return };
        if let Some(index) = self.tokens.index(text)
            && self.gate.identify(|users| users.auth_enabled())
        {
            let _late_is_no_error = tokio::time::timeout(CATCH_UP_TIMEOUT, self.gate.applied(index)).await;
        }
    }

    /// Refuses a command whose message is so long that the entry which etcd would log for it is over the limit: there
    /// the message is a field of another one, beside a header with a number and with the user who asks. Source: etcd
    /// v3_server.go `processInternalRaftRequestOnce`, pkg/idutil.
    fn check_size(&self, caller: &Caller, size_bytes: usize) -> Result<(), Status> {
        let entry_size_bytes = entry_size_bytes(self.identity.member_id, caller, size_bytes);
        if entry_size_bytes > self.config.request_size_bytes_max {
            return Err(Refusal::TooLarge.into());
        }
        Ok(())
    }

    /// Like `propose`, for a message of a client that changes keys or leases: in turn with all other clients, and in no
    /// more time.
    pub(crate) async fn write(
        &self,
        (caller, connection): (Caller, Option<Connection>),
        size_bytes: usize,
        command: Command,
    ) -> Result<(i64, Reply), Status> {
        self.check_size(&caller, size_bytes)?;
        let deadline = self.deadline();
        let turn = self.turns.take(Client::of(connection, &caller), size_bytes, deadline).await;
        let _until_answered = turn.map_err(|refusal| match refusal {
            Refusal::TimedOut if !self.has_leader() => Refusal::NoLeader,
            refusal => refusal,
        })?;
        self.gate.authorize(&caller, command)?.propose_by(deadline).await
    }

    /// Writes through the log. Gives the store's revision after it.
    pub(crate) async fn propose(&self, caller: Caller, command: Command) -> Result<(i64, Reply), Status> {
        self.gate.authorize(&caller, command)?.propose_by(self.deadline()).await
    }

    /// Of a request that begins now.
    fn deadline(&self) -> Instant {
        Instant::now() + self.config.request_timeout()
    }
}

/// How long etcd's entry would be for a message of this length; all fields of commands have a tag of one byte.
fn entry_size_bytes(member_id: u64, caller: &Caller, size_bytes: usize) -> usize {
    // Numbers of requests begin with the end of the member's.
    let number = member_id << 48 | 1 << 47;
    let user = match caller {
        Caller::User { name, auth_revision } => {
            1 + encoded_len_varint(name.len() as u64) + name.len() + 1 + encoded_len_varint(*auth_revision)
        }
        Caller::Anonymous | Caller::System => 0,
    };
    let header = 1 + encoded_len_varint(number) + user;
    let field = |tag: usize, length: usize| tag + encoded_len_varint(length as u64) + length;
    field(2, header) + field(1, size_bytes)
}

/// The token in a request, if there is one; `Some(None)` when it is no text.
fn token(headers: &HeaderMap) -> Option<Option<&str>> {
    let value = headers.get("token").or_else(|| headers.get(AUTHORIZATION))?;
    Some(value.to_str().ok().map(|text| text.strip_prefix("Bearer ").unwrap_or(text)))
}

/// Whether the client asked to be refused while there is no leader.
pub(crate) fn wants_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen at a real etcd: with these numbers a put of one byte more was refused.
    #[test]
    fn an_entry_is_as_long_as_etcds() {
        let user = Caller::User { name: "root".to_owned(), auth_revision: 300 };
        for (member_id, caller, overhead_bytes) in [
            (0x8e9e_05c5_2164_694d, Caller::Anonymous, 17),
            (0x8e9e_05c5_2164_e94d, Caller::Anonymous, 18),
            (0x8e9e_05c5_2164_694d, user, 26),
        ] {
            assert_eq!(entry_size_bytes(member_id, &caller, 1_572_000), 1_572_000 + overhead_bytes);
        }
    }
}
