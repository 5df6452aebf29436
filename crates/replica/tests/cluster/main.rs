//! Clusters of members in one process, over real sockets and directories.
//!
//! Every member runs on a runtime and thread of its own, as it does in production; killing one drops its runtime.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod corruption;
mod force;
mod leases;
mod load;
mod lose;
mod members;
mod restart;
mod writes;

mod rig;
