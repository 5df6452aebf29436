//! A longer run of the targets than the tests take: `cargo run -p fuzz -- --seconds 60 [NAME...]`.
//!
//! Each target gets as many seconds; the seed is printed, and told with a failure. Ends at the first one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use clap::Parser;
use fuzz::targets;

#[derive(Debug, Parser)]
#[command(about = "Throws changed inputs at decoders")]
struct Options {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Repeats a run
    #[arg(long)]
    seed: Option<u64>,
    /// Targets whose name has one of these in it; all if none is given
    names: Vec<String>,
}

#[expect(clippy::print_stdout, reason = "the answer")]
fn main() -> Result<()> {
    let options = Options::parse();
    let now_s = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seed = options.seed.unwrap_or_else(now_s);
    println!("seed {seed}");
    let mut ran = 0;
    for target in targets::all() {
        if options.names.is_empty() || options.names.iter().any(|name| target.name.contains(name.as_str())) {
            let tally = fuzz::run(&target, seed, Duration::from_secs(options.seconds), u64::MAX)?;
            println!("{}: {} inputs, {} taken", target.name, tally.inputs, tally.taken);
            ran += 1;
        }
    }
    ensure!(ran > 0, "no target is called so");
    Ok(())
}
