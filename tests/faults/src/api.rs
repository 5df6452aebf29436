//! The API server under faults: three members, each a whole control plane on one store; clients of all three API servers
//! update and create objects while members and their network are disturbed.
//!
//! As for the store, a run only records what everybody was told (`history`, `record`), and checkers that know nothing of
//! processes decide afterwards (`judge`): whether all watches of all three servers tell one history (`truth`), whether our
//! informers follow it (`informers`), whether an update was lost (`counters`), where the scheduler put pods (`placement`), and on which state the server decided who
//! may do what (`rights`). Invariant: all versions are the store's revisions, one order for all kinds and members.
//! Not here: how faults are injected, which is the same (inject.rs).

pub mod clients;
pub mod counters;
pub mod history;
pub mod informers;
pub mod judge;
pub mod page;
pub mod placement;
pub mod record;
pub mod rights;
pub mod run;
pub mod store_log;
pub mod truth;
pub mod watchers;
