//! Starts the built binary as real processes for the suites in `tests/`.
//!
//! Invariants: nothing here links the product; a suite sees what a user sees. Every process started here is stopped when
//! its handle is dropped, and every port is one that the system just gave. Not here: what is checked (the suites).

pub mod certificates;
pub mod cluster;
pub mod etcd;

use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The binary under test: `BINNACLE_BIN`, or the one that cargo built beside the running test.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BINNACLE_BIN") {
        return Ok(path.into());
    }
    // A test lies in `target/PROFILE/deps`, a program in `target/PROFILE`.
    let running = std::env::current_exe().context("cannot find the running test")?;
    let candidates: Vec<PathBuf> =
        running.ancestors().skip(1).take(2).map(|dir| dir.join("binnacle")).collect();
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => {
            bail!("no {candidates:?}: run `cargo build -p binnacle`, or name the program in BINNACLE_BIN")
        }
    }
}

/// `count` different ports of the loopback interface that were free a moment ago.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect::<Result<_, std::io::Error>>()?)
}
