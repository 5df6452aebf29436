//! The way of a request, from the socket to the endpoint, asked as clients ask: who may do what, in which order a
//! request is judged, what is recorded, and what TLS lets in.
//!
//! Nothing here names an internal API. Not here: what endpoints do with objects (`tests/contract`).

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod certificates;
#[path = "../contract/fake_etcd.rs"]
#[allow(dead_code, unreachable_pub, reason = "the contract suite uses the rest")]
mod fake_etcd;
mod fixture;

mod access;
mod order;
mod sockets;
