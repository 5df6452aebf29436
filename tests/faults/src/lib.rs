//! Faults on real processes, and proof from the clients' side that nothing was lost, invented or seen out of order.
//!
//! A run starts members, lets clients write and read while members are killed and paused, and records every operation
//! with its times (`history`). Afterwards three checks that share no code decide: the log as the members' watches told
//! it (`log`), every answer against the state at its revision and against real time (`linear`), and a search for an
//! order of each key's operations that ignores revisions altogether (`search`).
//! Invariants: an outcome that the client does not know stays unknown until the log decides it; a run that injected
//! nothing or did too little is an error, not a success; the same seed gives the same schedule of faults.
//! Not here: faults of network and disk below processes, and simulation.

pub mod cluster;
pub mod history;
pub mod linear;
pub mod log;
pub mod run;
pub mod schedule;
pub mod search;
pub mod workload;
