//! Long runs of the simulation, and the bugs that were made for it and for the crash suite to find.
//!
//! All are tests of the crates `simulation` and `crash` with other bounds; their READMEs say what they do.
//! They are built with the features of the whole workspace, like `cargo test --workspace`, so that what that built is
//! used again. Not here: real processes (soak.rs).

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Seeds between two looks at the clock.
const SEEDS_AT_ONCE: u64 = 40;

/// Ends with an error at the first violation, which was told with the command that repeats it.
pub(crate) fn soak(hours: f64, first_seed: u64) -> Result<()> {
    let ends = Instant::now() + Duration::from_secs_f64(hours * 3_600.0);
    let mut seed = first_seed;
    while Instant::now() < ends {
        let mut test = cargo(&["--workspace", "--test", "swarm", "seeds_of", "--", "--nocapture"]);
        test.env("SEED", seed.to_string()).env("SEEDS", SEEDS_AT_ONCE.to_string());
        ensure!(test.status().context("cargo test")?.success(), "violated; the command above repeats it");
        seed += SEEDS_AT_ONCE;
    }
    eprintln!("seeds {first_seed} to {} violate nothing", seed - 1);
    Ok(())
}

/// Ends with an error if a planted bug is missed. The last line says how many there are.
#[expect(clippy::print_stdout, reason = "the table is the output")]
pub(crate) fn zoo() -> Result<()> {
    // Both suites have a test target of this name.
    let features = "simulation/planted,crash/planted";
    let mut test = cargo(&["--workspace", "--no-fail-fast", "--features", features, "--test", "zoo"]);
    let mut child = test.args(["--", "--nocapture"]).stdout(Stdio::piped()).spawn().context("cargo test")?;
    let output = child.stdout.take().context("the output of cargo test")?;
    let (mut found, mut planted, mut suites) = (0, 0, 0);
    for line in BufReader::new(output).lines() {
        let line = line.context("the output of cargo test")?;
        println!("{line}");
        if let Some((of_these, of)) = counted(&line) {
            found += of_these;
            planted += of;
            suites += 1;
        }
    }
    let ended = child.wait().context("cargo test")?;
    let figures = serde_json::json!({
        "level": "zoo", "planted": planted, "found": found, "violations": 0,
    });
    println!("{figures}");
    println!("found {found} of {planted}");
    ensure!(ended.success() && suites == 2 && found == planted, "a planted bug was not found");
    Ok(())
}

/// The numbers of a line like `found 3 of 4`.
fn counted(line: &str) -> Option<(u32, u32)> {
    let (found, of) = line.strip_prefix("found ")?.split_once(" of ")?;
    Some((found.parse().ok()?, of.parse().ok()?))
}

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--locked"]).args(arguments);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_of_a_suite_is_counted_and_nothing_else() {
        assert_eq!(counted("found 3 of 4"), Some((3, 4)));
        assert_eq!(counted("found nothing of it"), None);
    }
}
