//! `faults`: a longer run of faults on real processes, from a seed; prints one JSON object per run.
//!
//! Ends with status 1 at the first violation, keeps the members' data and logs then, and says where they are.

#![expect(clippy::print_stdout, reason = "the report is this program's output")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use faults::run::{Settings, run};

/// Kills and pauses members of a real cluster under load, and checks what clients and watchers were told.
#[derive(Parser)]
struct Arguments {
    /// Draws the faults and the clients' requests; the next run of the same call uses the next seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of faults per run.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Runs, one after another.
    #[arg(long, default_value_t = 1)]
    runs: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.runs) {
        let settings = Settings { seed, length: Duration::from_secs(arguments.seconds) };
        match run(&settings).await {
            Ok(report) => println!("{report}"),
            Err(error) => {
                println!("{error:#}\nrepeat: --seed {seed} --seconds {}", arguments.seconds);
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
