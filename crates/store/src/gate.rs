//! The one way from a service to the replica: say what is asked, be authorized, do exactly that.
//!
//! Invariants: the replica is private to this file and its children, and an `Authorized` is made only by
//! `Gate::authorize`; each kind of request has only the methods that its authorization covers. Which caller may do
//! what is decided by mvcc's `authorize`, an exhaustive match over every operation and command, nested ones included.
//! A command is decided when it takes effect, on every member alike; a read of keys once when it is asked and again
//! under the lock under which it looks, so that a right withdrawn before is never used after.
//! Not here: who a caller is (context.rs), the member's own tasks, which act for nobody.

mod asked;

use mvcc::{Caller, Operation, Records, Store, TokenDigest, TokenView};
use replica::{Handle, Identity, Leadership};
use tokio::sync::watch;
use tonic::Status;

pub(crate) use asked::{
    AlarmList, AuthStatus, LeaseKeepAlive, LeaseLeases, LeaseTimeToLive, Login, Maintenance, MemberChange,
    MemberList, PieceError, ReadTxn, RoleGet, RoleList, StatusOf, UserGet, UserList, WatchRange,
};

use crate::status;

/// Something that a caller can ask for, and what deciding about it needs to know.
pub(crate) trait Ask {
    fn operation(&self) -> Operation<'_>;
}

/// The replica, behind the decision.
#[derive(Clone)]
pub(crate) struct Gate {
    handle: Handle,
}

/// A request that may be carried out. It carries the replica, so whoever has none cannot reach it.
#[derive(Clone)]
pub(crate) struct Authorized<A> {
    handle: Handle,
    caller: Caller,
    asked: A,
}

/// The users, for finding out who is calling.
pub(crate) struct Users<'a>(&'a Store);

impl Users<'_> {
    pub(crate) fn auth_enabled(&self) -> bool {
        self.0.auth_enabled()
    }

    pub(crate) fn auth_revision(&self) -> u64 {
        self.0.auth_revision()
    }

    pub(crate) fn token(&self, digest: &TokenDigest) -> Option<&TokenView> {
        self.0.token(digest)
    }
}

impl Gate {
    pub(crate) fn new(handle: Handle) -> Gate {
        Gate { handle }
    }

    /// The only place where an `Authorized` comes from.
    pub(crate) fn authorize<A: Ask>(&self, caller: &Caller, asked: A) -> Result<Authorized<A>, Status> {
        match asked.operation() {
            // This member may lag behind the change that allowed or forbade it; apply decides.
            Operation::Command(_) => {}
            operation => {
                self.handle.read(|store, _| store.authorize(caller, operation)).map_err(status::auth)?;
            }
        }
        Ok(Authorized { handle: self.handle.clone(), caller: caller.clone(), asked })
    }

    /// Looks at the users, before it is known who asks.
    pub(crate) fn identify<T>(&self, look: impl FnOnce(Users<'_>) -> T) -> T {
        self.handle.read(|store, _| look(Users(store)))
    }

    /// After this, what this member has applied holds everything acknowledged before the call.
    pub(crate) async fn barrier(&self) -> Result<(), Status> {
        self.handle.read_barrier().await.map_err(status::read)
    }

    /// Resolves when this member has applied the log up to `index`.
    pub(crate) async fn applied(&self, index: u64) {
        self.handle.applied(index).await;
    }

    pub(crate) fn identity(&self) -> Identity {
        self.handle.identity()
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.handle.leader_watch()
    }

    pub(crate) fn is_learner(&self) -> bool {
        self.handle.is_learner()
    }

    pub(crate) fn revision(&self) -> i64 {
        self.handle.read(|store, _| store.revision())
    }

    pub(crate) fn compact_revision(&self) -> i64 {
        self.handle.read(|store, _| store.compact_revision())
    }

    pub(crate) fn compaction_pending(&self) -> bool {
        self.handle.read(|store, _| store.compaction_pending())
    }
}

impl<A: Ask> Authorized<A> {
    /// Decides again and looks, both under one lock.
    fn look<T>(&self, look: impl FnOnce(&A, &Store, &dyn Records) -> Result<T, Status>) -> Result<T, Status> {
        self.handle.read(|store, records| {
            store.authorize(&self.caller, self.asked.operation()).map_err(status::auth)?;
            look(&self.asked, store, records)
        })
    }
}
