//! Runs scripts of real foreign clients (etcdctl, kubectl, curl) against a three-member cluster of real processes.
//!
//! Invariants: a script that is named runs; a client that is missing is a failure, never a skip. Each script gets a fresh
//! cluster. Ends with `N passed, N failed` and a non-zero status if any step failed. Format of a script: script.rs.

mod script;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use harness::cluster::LocalCluster;

use crate::script::{Script, Setting};

#[derive(Debug, Parser)]
#[command(about = "Runs scripts of real clients against a local cluster")]
struct Options {
    /// Folder that holds the clients; it comes first in PATH
    #[arg(long)]
    bin_dir: Vec<PathBuf>,
    /// Arguments for `binnacle local-cluster`, e.g. `--nodes=2`
    #[arg(long = "cluster-argument", allow_hyphen_values = true)]
    cluster_arguments: Vec<String>,
    /// The scripts
    #[arg(required = true)]
    scripts: Vec<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "the suite's answer")]
fn main() -> ExitCode {
    let options = Options::parse();
    let (mut passed, mut failed) = (0, 0);
    for path in &options.scripts {
        let started = Instant::now();
        match run(&options, path) {
            Ok(result) => {
                passed += result.passed;
                failed += result.failures.len();
                for failure in &result.failures {
                    println!("FAILED {}:{failure}\n", path.display());
                }
                println!(
                    "{}: {} steps in {:.1} s",
                    path.display(),
                    result.passed,
                    started.elapsed().as_secs_f32()
                );
            }
            Err(error) => {
                failed += 1;
                println!("FAILED {}: {error:#}", path.display());
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(options: &Options, path: &PathBuf) -> Result<script::Outcome> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let script = Script::parse(&text)?;
    let dir = tempfile::tempdir()?;
    let arguments: Vec<&str> = options.cluster_arguments.iter().map(String::as_str).collect();
    let cluster = LocalCluster::start(dir.path(), 2, &arguments)?;
    let files = path.parent().context("a script lies in a folder")?.canonicalize()?;
    let setting = Setting::new(&cluster, &options.bin_dir, &files, dir.path())?;
    Ok(script.run(&setting))
}
