//! What the store must do, told as scripts and as properties; no internal API is named here.
//!
//! Every script runs on several schedules of flushes, compaction steps and restarts, and must tell the same on each.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod script;

mod alarms;
mod auth;
mod compaction;
mod history;
mod keys;
mod leases;
mod ranges;
mod transactions;

mod checks;

mod damage;

mod model;
mod oracle;
mod properties;
