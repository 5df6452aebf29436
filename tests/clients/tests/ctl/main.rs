//! Our own client as a process beside a member that goes away, forgets tokens and comes back.
//!
//! Not here: what it prints of each command (scripts/), and whether etcdctl prints the same (same.sh).

#![expect(clippy::unwrap_used, reason = "a client that does not run has failed the test")]

mod lease;
mod login;
mod rig;
mod terminal;
mod txn;
