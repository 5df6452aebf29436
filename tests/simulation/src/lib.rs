//! Whole clusters of the store in one thread, under virtual time, on simulated disks and networks, from a seed.
//!
//! The members are the product: `store` with its services, `replica` with openraft, `mvcc`, `wal`, the state file. Only
//! what is below them is simulated (`replica::Surroundings`), and clients speak gRPC to them over simulated sockets.
//! Always holds: the same seed gives the same run, byte for byte. Not here: real processes (`faults`), single layers
//! (`crash`, the suites of `wal`).

mod caretaker;
mod chance;
mod checks;
mod clocks;
mod links;
mod member;
mod network;
mod observers;
mod operator;
mod permissions;
mod plan;
mod raft_checks;
mod roster;
mod run;
mod scenarios;
mod shrink;
mod trace;
mod users;
mod workload;

pub use clocks::Clocks;
pub use member::Settings;
pub use operator::Changes;
pub use plan::{Area, Fault, Kind, Plan, Target, alike};
pub use run::{Failure, Keep, Report, run, run_after};
pub use shrink::{Shrunk, shrink};
pub use workload::Load;
