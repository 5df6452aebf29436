//! The API server alone, for trying this crate without the binary that composes everything.
//!
//! `cargo run -p apiserver --example kube_apiserver -- --etcd-servers=http://127.0.0.1:2379 ...`
//! Logs go to standard error, filtered by `RUST_LOG`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    apiserver::command::main(std::env::args_os().skip(1))
}
