//! Every kind of request, and what one that is authorized can do to the replica.

use bytes::Bytes;
use mvcc::{
    AlarmAction, AlarmCommand, AlarmKind, AlarmMember, ApplyError, AuthCommand, AuthError, Caller, Command,
    HashKv, KeyRange, KeyValue, Operation, RangeCursor, RangeError, RangeQuery, RangeReply, ReadPlan,
    Records, Reply, RoleView, Store, TokenDigest, Txn, UserView,
};
use replica::{Handle, LeaseRemaining, Member};
use tokio::time::Instant;
use tonic::Status;

use super::{Ask, Authorized};
use crate::status::{self, Refusal};

pub(crate) struct ReadTxn(pub Txn);
/// The keys of one watch.
#[derive(Clone)]
pub(crate) struct WatchRange(pub KeyRange);
pub(crate) struct LeaseKeepAlive {
    pub id: i64,
}
pub(crate) struct LeaseTimeToLive {
    pub id: i64,
    pub keys: bool,
}
pub(crate) struct LeaseLeases;
pub(crate) struct AlarmList;
/// How the member is.
pub(crate) struct StatusOf;
pub(crate) struct MemberList;
/// Add, remove, update, promote.
pub(crate) struct MemberChange;
pub(crate) struct AuthStatus;
/// A name that is to be exchanged for a token.
pub(crate) struct Login {
    pub name: String,
}
pub(crate) struct UserGet {
    pub name: String,
}
pub(crate) struct UserList;
pub(crate) struct RoleGet {
    pub name: String,
}
pub(crate) struct RoleList;
/// Defragment, Hash, HashKV, Snapshot, MoveLeader, Downgrade: for root, who may read and write everything.
pub(crate) struct Maintenance;

macro_rules! asks {
    ($($kind:ty: |$asked:ident| $operation:expr;)*) => {
        $(impl Ask for $kind {
            fn operation(&self) -> Operation<'_> {
                let $asked = self;
                $operation
            }
        })*
    };
}

asks! {
    Command: |asked| Operation::Command(asked);
    RangeQuery: |asked| Operation::Range(asked);
    ReadTxn: |asked| Operation::ReadTxn(&asked.0);
    WatchRange: |asked| Operation::Watch(&asked.0);
    LeaseKeepAlive: |asked| Operation::LeaseKeepAlive { id: asked.id };
    LeaseTimeToLive: |asked| Operation::LeaseTimeToLive { id: asked.id, keys: asked.keys };
    LeaseLeases: |_asked| Operation::LeaseLeases;
    AlarmList: |_asked| Operation::AlarmList;
    StatusOf: |_asked| Operation::Status;
    MemberList: |_asked| Operation::MemberList;
    MemberChange: |_asked| Operation::MemberChange;
    AuthStatus: |_asked| Operation::AuthStatus;
    Login: |_asked| Operation::Login;
    UserGet: |asked| Operation::UserGet { name: &asked.name };
    UserList: |_asked| Operation::UserList;
    RoleGet: |asked| Operation::RoleGet { name: &asked.name };
    RoleList: |_asked| Operation::RoleList;
    Maintenance: |_asked| Operation::Maintenance;
}

impl Authorized<Command> {
    /// Writes through the log. Gives the store's revision after it.
    pub(crate) async fn propose_by(self, deadline: Instant) -> Result<(i64, Reply), Status> {
        self.check_space().await?;
        let proposed = self.handle.propose_by(self.caller, self.asked, deadline).await;
        let applied = proposed.map_err(status::propose)?;
        let reply = applied.result.map_err(status::apply)?;
        Ok((applied.revision, reply))
    }

    /// Refuses growth beyond the quota, and tells the whole cluster that this member is full. What its caller may not do
    /// as far as this member knows is left to apply, which refuses it: nobody fills a store without the right to write.
    async fn check_space(&self) -> Result<(), Status> {
        let may_pass = self.handle.read(|store, _| {
            let operation = Operation::Command(&self.asked);
            store.has_space_for(&self.asked) || store.authorize(&self.caller, operation).is_err()
        });
        if may_pass {
            return Ok(());
        }
        let member = self.handle.identity().member_id;
        tracing::warn!("database space exceeded, raising alarm NOSPACE");
        let alarm = AlarmCommand { action: AlarmAction::Activate, member, kind: Some(AlarmKind::NoSpace) };
        if let Err(error) = self.handle.propose(Caller::System, Command::Alarm(alarm)).await {
            tracing::warn!(%error, "alarm NOSPACE not raised");
        }
        Err(Refusal::NoSpace.into())
    }
}

/// Why a piece of a read was not taken.
pub(crate) enum PieceError {
    Refused(Status),
    Range(RangeError),
}

impl From<Status> for PieceError {
    fn from(status: Status) -> PieceError {
        PieceError::Refused(status)
    }
}

impl From<PieceError> for Status {
    fn from(error: PieceError) -> Status {
        match error {
            PieceError::Refused(status) => status,
            PieceError::Range(error) => status::range(error),
        }
    }
}

impl Authorized<RangeQuery> {
    /// The whole answer at once.
    pub(crate) fn range(&self) -> Result<RangeReply, Status> {
        self.look(|query, store, records| store.range(records, query).map_err(status::range))
    }

    /// The beginning of an answer in pieces.
    pub(crate) fn cursor(&self) -> RangeCursor {
        RangeCursor::new(self.asked.clone())
    }

    pub(crate) fn query(&self) -> &RangeQuery {
        &self.asked
    }

    /// The next piece, and the store's revision now. The cursor must come from `cursor`.
    pub(crate) fn piece(
        &self,
        cursor: &mut RangeCursor,
        rows_max: usize,
        size_bytes_max: usize,
    ) -> Result<(Vec<KeyValue>, i64), PieceError> {
        self.handle.read(|store, records| {
            let decided = store.authorize(&self.caller, self.asked.operation());
            decided.map_err(|error| PieceError::Refused(status::auth(error)))?;
            let kvs = store.range_chunk(records, cursor, rows_max, size_bytes_max);
            Ok((kvs.map_err(PieceError::Range)?, store.revision()))
        })
    }
}

impl Authorized<ReadTxn> {
    /// Its compares, decided at one moment.
    pub(crate) fn plan(&self) -> Result<ReadPlan, PieceError> {
        self.handle.read(|store, records| {
            let decided = store.authorize(&self.caller, self.asked.operation());
            decided.map_err(|error| PieceError::Refused(status::auth(error)))?;
            store.plan_read_txn(records, &self.asked.0).map_err(PieceError::Range)
        })
    }

    /// One of the reads of its plan; each piece asks again whether it is allowed.
    pub(crate) fn part(&self, query: RangeQuery) -> Authorized<RangeQuery> {
        Authorized { handle: self.handle.clone(), caller: self.caller.clone(), asked: query }
    }
}

impl Authorized<WatchRange> {
    pub(crate) fn range(&self) -> &KeyRange {
        &self.asked.0
    }

    /// The store's revision and the one it is compacted to, of one moment.
    pub(crate) fn revisions(&self) -> (i64, i64) {
        self.handle.read(|store, _| (store.revision(), store.compact_revision()))
    }

    /// Looks at events. A watch goes on as it was allowed: rights are not asked for again, as in etcd.
    pub(crate) fn events<T>(&self, look: impl FnOnce(&Store, &dyn Records) -> T) -> T {
        self.handle.read(look)
    }
}

impl Authorized<LeaseKeepAlive> {
    /// The granted time of the lease, which it has again in full. `None`: there is no such lease.
    pub(crate) async fn renew(&self) -> Result<Option<i64>, Status> {
        self.handle.lease_renew(self.asked.id).await.map_err(status::lease)
    }
}

impl Authorized<LeaseTimeToLive> {
    pub(crate) async fn remaining(&self) -> Result<Option<LeaseRemaining>, Status> {
        self.handle.lease_remaining(self.asked.id).await.map_err(status::lease)
    }

    /// The keys on the lease, if they were asked for: it may have got new ones since.
    pub(crate) fn keys(&self) -> Result<Vec<Bytes>, Status> {
        self.look(|asked, store, _| {
            let lease = asked.keys.then(|| store.lease(asked.id)).flatten();
            Ok(lease.map_or_else(Vec::new, |lease| lease.keys))
        })
    }
}

impl Authorized<LeaseLeases> {
    pub(crate) fn ids(&self) -> Result<Vec<i64>, Status> {
        self.look(|_, store, _| Ok(store.leases().map(|lease| lease.id).collect()))
    }
}

impl Authorized<AlarmList> {
    pub(crate) fn alarms(&self) -> Vec<AlarmMember> {
        self.handle.read(|store, _| store.alarms())
    }
}

impl Authorized<StatusOf> {
    pub(crate) fn status(&self) -> (replica::Status, Vec<AlarmMember>) {
        (self.handle.status(), self.handle.read(|store, _| store.alarms()))
    }
}

impl Authorized<MemberList> {
    pub(crate) fn members(&self) -> Vec<Member> {
        self.handle.members()
    }
}

impl Authorized<MemberChange> {
    pub(crate) async fn add(
        &self,
        peer_urls: Vec<String>,
        is_learner: bool,
    ) -> Result<(Member, Vec<Member>), Status> {
        self.handle.add_member(peer_urls, is_learner).await.map_err(status::membership)
    }

    pub(crate) async fn remove(&self, id: u64) -> Result<Vec<Member>, Status> {
        self.handle.remove_member(id).await.map_err(status::membership)
    }

    pub(crate) async fn update(&self, id: u64, peer_urls: Vec<String>) -> Result<Vec<Member>, Status> {
        self.handle.update_member(id, peer_urls).await.map_err(status::membership)
    }

    pub(crate) async fn promote(&self, id: u64) -> Result<Vec<Member>, Status> {
        self.handle.promote_member(id).await.map_err(status::membership)
    }
}

impl Authorized<AuthStatus> {
    /// Whether it is on, and its revision.
    pub(crate) fn status(&self) -> (bool, u64) {
        self.handle.read(|store, _| (store.auth_enabled(), store.auth_revision()))
    }
}

impl Authorized<Login> {
    /// Whether authentication is on, and the user with the hash of the password.
    pub(crate) fn user(&self) -> (bool, Option<UserView>) {
        self.handle.read(|store, _| (store.auth_enabled(), store.user(&self.asked.name)))
    }

    /// Makes a token known to every member, for a password that was right when users and roles were at
    /// `auth_revision`. Gives an index of the log by which it is known.
    pub(crate) async fn remember(
        &self,
        digest: TokenDigest,
        auth_revision: u64,
    ) -> Result<Result<u64, AuthError>, Status> {
        let name = self.asked.name.clone();
        let command = Command::Auth(AuthCommand::Token { name, digest, auth_revision });
        let applied = self.handle.propose(Caller::System, command).await.map_err(status::propose)?;
        match applied.result {
            Ok(_) => Ok(Ok(self.handle.applied_index())),
            Err(ApplyError::Auth(error)) => Ok(Err(error)),
            Err(error) => Err(status::apply(error)),
        }
    }
}

impl Authorized<UserGet> {
    pub(crate) fn user(&self) -> Option<UserView> {
        self.handle.read(|store, _| store.user(&self.asked.name))
    }
}

impl Authorized<UserList> {
    pub(crate) fn users(&self) -> Vec<String> {
        self.handle.read(|store, _| store.users())
    }
}

impl Authorized<RoleGet> {
    pub(crate) fn role(&self) -> Option<RoleView> {
        self.handle.read(|store, _| store.role(&self.asked.name))
    }
}

impl Authorized<RoleList> {
    pub(crate) fn roles(&self) -> Vec<String> {
        self.handle.read(|store, _| store.roles())
    }
}

impl Authorized<Maintenance> {
    /// The checksum of all records up to a revision (0: the current one), taken in steps, so that a big store goes on
    /// meanwhile. A compaction in between makes it begin again.
    pub(crate) async fn hash_kv(&self, revision: i64) -> Result<HashKv, Status> {
        self.handle.hash_kv(revision).await.map_err(status::range)
    }

    pub(crate) fn replica(&self) -> &Handle {
        &self.handle
    }
}
