//! Faults on real processes, and proof from the clients' side that nothing was lost, invented or seen out of order.
//!
//! A run starts members, lets clients write and read while processes, network, disks and clocks are disturbed
//! (`schedule`, `inject`), and records what everybody was told, with times (`record`). Afterwards checkers that share no
//! code decide (`judge`): the log as the members' watches told it (`log`, `watch`), every answer against the state at its
//! revision and against real time (`linear`), a search for an order of each key's operations that ignores revisions
//! altogether (`search`), and what was promised of old reads, leases and locks (`stale`, `leases`, `locks`).
//! Invariants: an outcome that the client does not know stays unknown until the log decides it; a run that injected
//! nothing or did too little is invalid, not a success; the same seed gives the same schedule of faults. The checkers
//! know nothing of processes, so that a simulation can use them. Not here: simulation.

pub mod api;
pub mod background;
pub mod cluster;
pub mod collect;
pub mod delay;
pub mod disk;
pub mod groups;
pub mod history;
pub mod holders;
pub mod images;
pub mod inject;
pub mod isolation;
pub mod journal;
pub mod judge;
pub mod leases;
pub mod linear;
pub mod lines;
pub mod locks;
pub mod log;
pub mod membership;
pub mod network;
pub mod observe;
pub mod page;
pub mod record;
pub mod run;
pub mod schedule;
pub mod search;
pub mod stale;
pub mod watch;
pub mod workload;
