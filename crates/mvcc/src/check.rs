//! Checks of requests that need no state. The edge runs them before it proposes.

use crate::command::{DeleteRange, LeaseGrant, Put, RangeQuery, Txn};

/// Deepest nesting of transactions, in the log and from clients.
pub const TXN_DEPTH_MAX: usize = 64;

/// Why a request is not worth proposing. Texts are etcd's, without the `etcdserver: ` prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    #[error("key is not provided")]
    EmptyKey,
    #[error("value is provided")]
    ValueProvided,
    #[error("lease is provided")]
    LeaseProvided,
    #[error("too many operations in txn request")]
    TooManyOps,
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
}

pub fn check_put(_put: &Put) -> Result<(), CheckError> {
    unimplemented!()
}
pub fn check_range(_query: &RangeQuery) -> Result<(), CheckError> {
    unimplemented!()
}
pub fn check_delete_range(_delete: &DeleteRange) -> Result<(), CheckError> {
    unimplemented!()
}
pub fn check_lease_grant(_grant: &LeaseGrant) -> Result<(), CheckError> {
    unimplemented!()
}
/// `ops_max`: etcd's `--max-txn-ops`, 128 by default.
pub fn check_txn(_txn: &Txn, _ops_max: usize) -> Result<(), CheckError> {
    unimplemented!()
}
