//! The client command line of the store.

pub mod command {
    use std::ffi::OsString;
    use std::process::ExitCode;

    /// Replaced by the crate's author.
    pub fn main(_arguments: Vec<OsString>) -> ExitCode {
        ExitCode::FAILURE
    }
}
