//! The scheduler: reads pods and nodes through watches, decides, binds, and can say why.
//!
//! Invariants: everything up to the decision is pure (cycle.rs and below: no clock, no network). One pod at a time is
//! decided; a decided pod is assumed on its node before the binding is written. Not here: the API server.

mod affinity;
mod cache;
mod cycle;
mod decision;
mod node;
mod plugins;
mod pod;
mod queue;
mod resources;
