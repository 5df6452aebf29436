//! What every service of a member shares: the replica, who this member is, and the checks before each request.
//!
//! Not here: what a service does.

use std::{sync::Arc, time::Duration};

use mvcc::{AlarmAction, AlarmCommand, AlarmKind, Caller, Command, Operation, Reply};
use replica::{Handle, Identity, Leadership};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Request, Status, metadata::MetadataMap};
use wire::etcdserverpb as pb;

use crate::{
    auth::tokens::Tokens,
    config::Config,
    metrics::Metrics,
    status::{self, Refusal},
    watch::hub::Hub,
};

/// Who is at the other end of a connection, by its verified certificate; travels in a request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct CertificateUser(pub Arc<str>);

/// Which requests a learner serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learner {
    Serves,
    Refuses,
}

/// Shared by all services of this member.
pub(crate) struct Context {
    pub handle: Handle,
    pub identity: Identity,
    pub config: Config,
    pub metrics: Metrics,
    pub hub: Hub,
    pub tokens: Tokens,
    pub shutdown: CancellationToken,
    leadership: watch::Receiver<Leadership>,
}

impl Context {
    pub(crate) fn new(handle: Handle, config: Config, shutdown: CancellationToken) -> Context {
        let revision = handle.read(|store, _| store.revision());
        Context {
            identity: handle.identity(),
            leadership: handle.leader_watch(),
            metrics: Metrics::default(),
            hub: Hub::new(revision),
            tokens: Tokens::new(config.auth_token_ttl),
            handle,
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
        self.handle.read(|store, _| store.revision())
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
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
        if learner == Learner::Refuses && self.handle.is_learner() {
            return Err(Refusal::Learner.into());
        }
        if wants_leader(request.metadata()) && !self.has_leader() {
            return Err(Refusal::NoLeader.into());
        }
        self.caller(request.metadata(), request.extensions())
    }

    /// By token first, then by certificate. While authentication is off nobody has a name.
    fn caller(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Caller, Status> {
        let token = metadata.get("token").or_else(|| metadata.get("authorization"));
        let certificate = extensions.get::<CertificateUser>();
        if token.is_none() && certificate.is_none() {
            return Ok(Caller::Anonymous);
        }
        self.handle.read(|store, _| {
            if !store.auth_enabled() {
                return Ok(Caller::Anonymous);
            }
            let name = match (token, certificate) {
                (Some(token), _) => {
                    let text = token.to_str().map_err(|_| Refusal::InvalidToken)?;
                    let text = text.strip_prefix("Bearer ").unwrap_or(text);
                    self.tokens.verify(text, |name| store.user(name)).ok_or(Refusal::InvalidToken)?
                }
                (None, Some(user)) => user.0.to_string(),
                (None, None) => return Ok(Caller::Anonymous),
            };
            Ok(Caller::User { name, auth_revision: store.auth_revision() })
        })
    }

    pub(crate) fn authorize(&self, caller: &Caller, operation: Operation<'_>) -> Result<(), Status> {
        self.handle.read(|store, _| store.authorize(caller, operation)).map_err(status::auth)
    }

    /// After this, what this member has applied holds everything acknowledged before the call.
    pub(crate) async fn barrier(&self) -> Result<(), Status> {
        self.handle.read_barrier().await.map_err(status::read)
    }

    /// Writes through the log. Gives the store's revision after it.
    pub(crate) async fn propose(&self, caller: Caller, command: Command) -> Result<(i64, Reply), Status> {
        self.check_space(&command).await?;
        let applied = self.handle.propose(caller, command).await.map_err(status::propose)?;
        let reply = applied.result.map_err(status::apply)?;
        Ok((applied.revision, reply))
    }

    /// Refuses growth beyond the quota, and tells the whole cluster that this member is full.
    async fn check_space(&self, command: &Command) -> Result<(), Status> {
        match command {
            Command::Put(_) | Command::Txn(_) | Command::LeaseGrant(_) => {}
            Command::Noop
            | Command::DeleteRange(_)
            | Command::Compact(_)
            | Command::LeaseRevoke(_)
            | Command::LeaseExpire(_)
            | Command::LeaseCheckpoint(_)
            | Command::Alarm(_)
            | Command::Auth(_)
            | Command::MemberAttributes(_)
            | Command::ClusterVersion(_) => return Ok(()),
        }
        if self.handle.read(|store, _| store.has_space_for(command)) {
            return Ok(());
        }
        let member = self.identity.member_id;
        tracing::warn!("database space exceeded, raising alarm NOSPACE");
        let alarm = AlarmCommand { action: AlarmAction::Activate, member, kind: Some(AlarmKind::NoSpace) };
        if let Err(error) = self.handle.propose(Caller::System, Command::Alarm(alarm)).await {
            tracing::warn!(%error, "alarm NOSPACE not raised");
        }
        Err(Refusal::NoSpace.into())
    }
}

/// Whether the client asked to be refused while there is no leader.
pub(crate) fn wants_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value == "true")
}
