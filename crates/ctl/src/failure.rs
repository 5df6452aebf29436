//! How a command fails: the text after `Error: ` and the exit code, as etcdctl has them.
//!
//! Not here: printing it (command.rs).

use tonic::{Code, Status};

/// Exit codes of etcdctl, pkg/cobrautl/error.go.
const ERROR: u8 = 1;
const BAD_CONNECTION: u8 = 2;
const INVALID_INPUT: u8 = 3;
const BAD_FEATURE: u8 = 4;
const INTERRUPTED: u8 = 5;
const FILE: u8 = 6;
const BAD_ARGUMENTS: u8 = 128;

/// What ends the program; an empty text prints nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn error(text: impl Into<String>) -> Failure {
        Failure { code: ERROR, text: text.into() }
    }

    pub(crate) fn connection(text: impl Into<String>) -> Failure {
        Failure { code: BAD_CONNECTION, text: text.into() }
    }

    pub(crate) fn input(text: impl Into<String>) -> Failure {
        Failure { code: INVALID_INPUT, text: text.into() }
    }

    pub(crate) fn feature(text: impl Into<String>) -> Failure {
        Failure { code: BAD_FEATURE, text: text.into() }
    }

    pub(crate) fn interrupted(text: impl Into<String>) -> Failure {
        Failure { code: INTERRUPTED, text: text.into() }
    }

    pub(crate) fn arguments(text: impl Into<String>) -> Failure {
        Failure { code: BAD_ARGUMENTS, text: text.into() }
    }

    pub(crate) fn file(text: impl Into<String>) -> Failure {
        Failure { code: FILE, text: text.into() }
    }

    /// Ends with this code and says nothing: the command has spoken.
    pub(crate) fn silent(code: u8) -> Failure {
        Failure { code, text: String::new() }
    }
}

/// What a server or the transport said, as etcd's Go client words it.
impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::error(status_text(&status))
    }
}

pub(crate) fn status_text(status: &Status) -> String {
    let message = status.message();
    if message.starts_with("etcdserver:") || message.starts_with("auth:") {
        return message.to_owned();
    }
    match status.code() {
        Code::DeadlineExceeded => "context deadline exceeded".to_owned(),
        code => format!("rpc error: code = {code:?} desc = {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::status_text;
    use tonic::Status;

    #[test]
    fn a_status_reads_as_in_etcds_go_client() {
        for (status, text) in [
            (
                Status::out_of_range("etcdserver: mvcc: required revision has been compacted"),
                "etcdserver: mvcc: required revision has been compacted",
            ),
            (Status::unimplemented("no"), "rpc error: code = Unimplemented desc = no"),
            (Status::deadline_exceeded("x"), "context deadline exceeded"),
        ] {
            assert_eq!(status_text(&status), text);
        }
    }
}
