//! Starts the built binary as real processes for the suites in `tests/`.
//!
//! Invariants: nothing here links the product; a suite sees what a user sees. Every process started here is stopped when
//! its handle is dropped, and every port was free a moment ago. Not here: what is checked (the suites).

pub mod certificates;
pub mod cluster;
pub mod etcd;

use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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

/// Lets this process, and all that it starts, have as many files open as the system allows it; says how many.
pub fn raise_open_files_max() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// `count` different ports of the loopback interface that were free a moment ago. They lie below those that the system
/// gives to outgoing connections, so that none of these takes the port of a member while it is down.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    // Each map's hasher has keys of its own, from the system.
    let start = RandomState::new().hash_one(std::process::id());
    let candidates =
        (0..u64::from(COUNT)).map(|step| FIRST + (start.wrapping_add(step) % u64::from(COUNT)) as u16);
    let mut held = Vec::new();
    for port in candidates {
        if held.len() == count {
            break;
        }
        held.extend(TcpListener::bind(("127.0.0.1", port)).ok().map(|listener| (port, listener)));
    }
    ensure!(held.len() == count, "only {} of {count} ports are free", held.len());
    Ok(held.into_iter().map(|(port, _)| port).collect())
}
