//! What clients may rely on, asked over the in-process service of a server on a fake store.
//!
//! Nothing here names an internal API: requests go in, answers come out.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod applies;
mod client;
mod fake_etcd;
mod histories;
mod reads;
mod watches;
mod writes;
