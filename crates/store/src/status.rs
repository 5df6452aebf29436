//! The only place that knows gRPC codes and etcd's error texts: every refusal leaves through here.
//!
//! Invariants: each match is exhaustive, so a new refusal does not compile until it has a code. Clients compare the
//! texts byte by byte. Where a lower enum's `Display` already is etcd's text without the prefix, it is used.

use mvcc::{ApplyError, AuthError, CheckError, EventsError, RangeError, RecordsError};
use replica::{FlushError, LeaseError, MembershipError, ProposeError, ReadError};
use tonic::{Code, Status};

/// Refusals that arise at the edge itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// An operation of a transaction that says nothing; etcd calls it that.
    #[error("key not found")]
    EmptyOperation,
    #[error("invalid sort option")]
    InvalidSort,
    #[error("no leader")]
    NoLeader,
    #[error("rpc not supported for learner")]
    Learner,
    #[error("invalid auth token")]
    InvalidToken,
    #[error("authentication failed, invalid user ID or password")]
    AuthFailed,
    #[error("authentication is not enabled")]
    AuthNotEnabled,
    #[error("permission not given")]
    PermissionNotGiven,
    #[error("user name is empty")]
    UserEmpty,
    #[error("role name is empty")]
    RoleEmpty,
    #[error("given member URLs are invalid")]
    MemberUrls,
    #[error("wrong downgrade target version format")]
    DowngradeFormat,
    #[error("invalid downgrade target version")]
    DowngradeTarget,
    #[error("mvcc: database space exceeded")]
    NoSpace,
    #[error("request is too large")]
    TooLarge,
    #[error("too many requests")]
    TooManyRequests,
    #[error("server stopped")]
    Stopped,
    /// It was tried as often as is reasonable.
    #[error("request timed out")]
    TimedOut,
}

/// A status in etcd's form.
fn etcd(code: Code, text: impl std::fmt::Display) -> Status {
    Status::new(code, format!("etcdserver: {text}"))
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let code = match refusal {
            Refusal::EmptyOperation
            | Refusal::TooLarge
            | Refusal::InvalidSort
            | Refusal::AuthFailed
            | Refusal::PermissionNotGiven
            | Refusal::UserEmpty
            | Refusal::RoleEmpty
            | Refusal::DowngradeFormat
            | Refusal::DowngradeTarget
            | Refusal::MemberUrls => Code::InvalidArgument,
            Refusal::NoLeader | Refusal::Stopped | Refusal::TimedOut => Code::Unavailable,
            Refusal::InvalidToken => Code::Unauthenticated,
            Refusal::AuthNotEnabled | Refusal::Learner => Code::FailedPrecondition,
            Refusal::NoSpace => Code::ResourceExhausted,
            // etcd maps it to an error that has no code.
            Refusal::TooManyRequests => Code::Unknown,
        };
        etcd(code, refusal)
    }
}

pub(crate) fn check(error: CheckError) -> Status {
    let code = match error {
        CheckError::EmptyKey
        | CheckError::ValueProvided
        | CheckError::LeaseProvided
        | CheckError::TooManyOps
        | CheckError::DuplicateKey => Code::InvalidArgument,
    };
    etcd(code, error)
}

pub(crate) fn apply(error: ApplyError) -> Status {
    let code = match &error {
        ApplyError::KeyNotFound => Code::InvalidArgument,
        ApplyError::Compacted | ApplyError::FutureRevision | ApplyError::LeaseTtlTooLarge => Code::OutOfRange,
        ApplyError::NoSpace | ApplyError::AnswerTooLong => Code::ResourceExhausted,
        ApplyError::TooMuchWork => Code::InvalidArgument,
        ApplyError::Corrupt => Code::DataLoss,
        ApplyError::LeaseNotFound => Code::NotFound,
        ApplyError::LeaseExists => Code::FailedPrecondition,
        ApplyError::Auth(error) => return auth(*error),
        ApplyError::Records(error) => return records(error),
    };
    etcd(code, error)
}

pub(crate) fn auth(error: AuthError) -> Status {
    let code = match error {
        AuthError::PermissionDenied => Code::PermissionDenied,
        AuthError::OldRevision
        | AuthError::UserEmpty
        | AuthError::RoleEmpty
        | AuthError::InvalidManagement => Code::InvalidArgument,
        AuthError::RootUserNotExist
        | AuthError::RootRoleNotExist
        | AuthError::UserAlreadyExist
        | AuthError::UserNotFound
        | AuthError::RoleAlreadyExist
        | AuthError::RoleNotFound
        | AuthError::RoleNotGranted
        | AuthError::NotEnabled
        | AuthError::PermissionNotGranted => Code::FailedPrecondition,
    };
    etcd(code, error)
}

pub(crate) fn range(error: RangeError) -> Status {
    match &error {
        RangeError::Compacted | RangeError::FutureRevision => etcd(Code::OutOfRange, error),
        RangeError::TooMuchWork => etcd(Code::InvalidArgument, error),
        RangeError::Records(error) => records(error),
    }
}

/// For a history that was asked for outside of a watch; a watch answers with its compact revision instead.
pub(crate) fn events(error: EventsError) -> Status {
    match &error {
        EventsError::Compacted { .. } => etcd(Code::OutOfRange, error),
        EventsError::Records(error) => records(error),
    }
}

/// The member cannot read its own state: the replica stops it; the client must not take this for an answer.
pub(crate) fn records(error: &RecordsError) -> Status {
    tracing::error!(%error, "state cannot be read");
    Status::new(Code::DataLoss, format!("state of this member cannot be read: {error}"))
}

pub(crate) fn propose(error: ProposeError) -> Status {
    match &error {
        ProposeError::NoLeader => Refusal::NoLeader.into(),
        ProposeError::TooManyRequests => Refusal::TooManyRequests.into(),
        ProposeError::TooLarge { .. } => Refusal::TooLarge.into(),
        ProposeError::OutcomeUnknown { .. } => etcd(Code::Unavailable, "request timed out"),
        ProposeError::Stopped => Refusal::Stopped.into(),
    }
}

pub(crate) fn read(error: ReadError) -> Status {
    match &error {
        ReadError::NoLeader => Refusal::NoLeader.into(),
        ReadError::TooManyRequests => Refusal::TooManyRequests.into(),
        ReadError::LeaderChanged => etcd(Code::Unavailable, "leader changed"),
        ReadError::Timeout { .. } => etcd(Code::Unavailable, "request timed out"),
        ReadError::Stopped => Refusal::Stopped.into(),
    }
}

pub(crate) fn flush(error: FlushError) -> Status {
    match error {
        FlushError::TooManyRequests => Refusal::TooManyRequests.into(),
        FlushError::Stopped => Refusal::Stopped.into(),
    }
}

pub(crate) fn lease(error: LeaseError) -> Status {
    match &error {
        LeaseError::NoLeader => Refusal::NoLeader.into(),
        LeaseError::Timeout { .. } => etcd(Code::Unavailable, "request timed out"),
        LeaseError::Stopped => Refusal::Stopped.into(),
    }
}

pub(crate) fn membership(error: MembershipError) -> Status {
    let code = match &error {
        MembershipError::MemberNotFound => Code::NotFound,
        MembershipError::MemberIdExists
        | MembershipError::PeerUrlExists
        | MembershipError::LearnerNotReady
        | MembershipError::MemberNotLearner
        | MembershipError::TooManyLearners
        | MembershipError::NotLeader
        | MembershipError::BadTransferee => Code::FailedPrecondition,
        MembershipError::InvalidUrls => Code::InvalidArgument,
        MembershipError::NotEnoughStartedMembers
        | MembershipError::LeaderTransferTimeout
        | MembershipError::InProgress => Code::Unknown,
        MembershipError::Unhealthy | MembershipError::NoLeader => Code::Unavailable,
        MembershipError::Timeout { .. } => return etcd(Code::Unavailable, "request timed out"),
        MembershipError::Stopped => return Refusal::Stopped.into(),
    };
    etcd(code, error)
}

/// A refusal of a lock or an election. etcd runs these as a client of itself, which knows errors by their text and has
/// no codes to pass on. Source: etcd client/v3 `ContextError`, server/etcdserver/api/v3lock.
pub(crate) fn recipe(status: Status) -> Status {
    if status.message().starts_with("etcdserver: ") { Status::unknown(status.message()) } else { status }
}

/// What a watch says when it may not be opened: the whole gRPC error as text.
pub(crate) fn cancel_reason(status: &Status) -> String {
    format!("rpc error: code = {} desc = {}", code_name(status.code()), status.message())
}

/// A request that the log answered with another kind of reply: a bug, but no reason to panic.
pub(crate) fn mismatched_reply() -> Status {
    Status::internal("the log answered with a reply of another kind")
}

/// Go's name of a code, as in its error texts and in the label `grpc_code`.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_keeps_the_text_of_a_refusal_and_loses_its_code() {
        let lost = recipe(Refusal::NoSpace.into());
        assert_eq!(
            (lost.code(), lost.message()),
            (Code::Unknown, "etcdserver: mvcc: database space exceeded")
        );
        assert_eq!(recipe(mismatched_reply()).code(), Code::Internal);
    }

    /// The rows of etcd's table that this file makes up itself; the others are the lower enums' own texts.
    #[test]
    fn texts_and_codes_are_those_of_etcd() {
        let rows: [(Status, Code, &str); 15] = [
            (check(CheckError::EmptyKey), Code::InvalidArgument, "etcdserver: key is not provided"),
            (
                check(CheckError::TooManyOps),
                Code::InvalidArgument,
                "etcdserver: too many operations in txn request",
            ),
            (
                check(CheckError::DuplicateKey),
                Code::InvalidArgument,
                "etcdserver: duplicate key given in txn request",
            ),
            (apply(ApplyError::LeaseTtlTooLarge), Code::OutOfRange, "etcdserver: too large lease TTL"),
            (
                apply(ApplyError::Compacted),
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
            ),
            (apply(ApplyError::LeaseNotFound), Code::NotFound, "etcdserver: requested lease not found"),
            (apply(ApplyError::LeaseExists), Code::FailedPrecondition, "etcdserver: lease already exists"),
            (
                apply(ApplyError::NoSpace),
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
            ),
            (apply(ApplyError::Corrupt), Code::DataLoss, "etcdserver: corrupt cluster"),
            (
                range(RangeError::FutureRevision),
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            (auth(AuthError::PermissionDenied), Code::PermissionDenied, "etcdserver: permission denied"),
            (propose(ProposeError::TooManyRequests), Code::Unknown, "etcdserver: too many requests"),
            (membership(MembershipError::MemberNotFound), Code::NotFound, "etcdserver: member not found"),
            (Refusal::NoLeader.into(), Code::Unavailable, "etcdserver: no leader"),
            (Refusal::Learner.into(), Code::FailedPrecondition, "etcdserver: rpc not supported for learner"),
        ];
        for (status, code, text) in rows {
            assert_eq!((status.code(), status.message()), (code, text));
        }
        assert_eq!(
            cancel_reason(&auth(AuthError::PermissionDenied)),
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        );
    }
}
