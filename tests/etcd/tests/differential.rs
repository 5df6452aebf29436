//! Ours answers a random sequence of calls as a real etcd does.
//!
//! Needs `ETCD_BIN=/path/to/etcd`. `DIFFERENTIAL_SEEDS=1-100` runs these seeds instead of the few of every run,
//! `DIFFERENTIAL_LINES` says how many lines each, `DIFFERENTIAL_KEEP_GOING` does not stop at the first difference.

#![expect(clippy::unwrap_used, reason = "a cluster that does not start has failed the test")]

use etcd_contract::{differential::Pair, target};

const LINES: usize = 120;

fn seeds() -> Vec<u64> {
    let Ok(seeds) = std::env::var("DIFFERENTIAL_SEEDS") else { return (1..=16).collect() };
    let mut all = Vec::new();
    for part in seeds.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.parse::<u64>().unwrap()..=last.parse().unwrap());
    }
    all
}

#[tokio::test]
async fn a_random_sequence_of_calls_is_answered_as_etcd_does() {
    let Some(program) = target::foreign_program() else {
        eprintln!("SKIPPED: no etcd to compare with, ETCD_BIN is not set");
        return;
    };
    let lines = std::env::var("DIFFERENTIAL_LINES").map_or(LINES, |lines| lines.parse().unwrap());
    let keeps_going = std::env::var_os("DIFFERENTIAL_KEEP_GOING").is_some();
    let mut pair = Pair::start(&program).await.unwrap();
    let (mut ran, mut differences) = (0, Vec::new());
    for seed in seeds() {
        let report = pair.run_seed(seed, lines).await.unwrap();
        ran += report.lines;
        if let Some(difference) = report.difference {
            eprintln!("{difference}");
            differences.push(difference);
            if !keeps_going {
                break;
            }
        }
    }
    eprintln!("{ran} calls, {} differences", differences.len());
    assert!(differences.is_empty(), "not answered as etcd does:\n{}", differences.join("\n"));
}
