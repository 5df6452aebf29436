//! Long runs of the simulation, and the bugs that were made for it to find.
//!
//! Both are tests of the crate `simulation` with other bounds; its README says what they do. Not here: real processes
//! (soak.rs).

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Seeds between two looks at the clock.
const SEEDS_AT_ONCE: u64 = 40;

/// Ends with an error at the first violation, which was told with the command that repeats it.
pub(crate) fn soak(hours: f64, first_seed: u64) -> Result<()> {
    let ends = Instant::now() + Duration::from_secs_f64(hours * 3_600.0);
    let mut seed = first_seed;
    while Instant::now() < ends {
        let mut test = cargo(&["--test", "swarm", "seeds_of", "--", "--nocapture"]);
        test.env("SEED", seed.to_string()).env("SEEDS", SEEDS_AT_ONCE.to_string());
        ensure!(test.status().context("cargo test")?.success(), "violated; the command above repeats it");
        seed += SEEDS_AT_ONCE;
    }
    eprintln!("seeds {first_seed} to {} violate nothing", seed - 1);
    Ok(())
}

/// Ends with an error if a planted bug is missed.
pub(crate) fn zoo() -> Result<()> {
    let mut test = cargo(&["--features", "planted", "--test", "zoo", "--", "--nocapture"]);
    ensure!(test.status().context("cargo test")?.success(), "a planted bug was not found");
    Ok(())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--package", "simulation"]).args(arguments);
    cargo
}
