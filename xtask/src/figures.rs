//! The tables of figures in the READMEs, made from what runs left: `report.json` of runs on real processes, and the lines
//! of JSON that the crash suite, the simulation and the zoo print.
//!
//! Invariants: every number comes from a file of a run; runs that prove nothing are counted as such and add nothing else;
//! a run that is found twice counts once. What is written stands between two markers. Not here: what the figures mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Directories of runs and of what the suites printed (`*.json`, `*.jsonl`, `*.log`).
    #[arg(required_unless_present = "check")]
    dirs: Vec<PathBuf>,
    /// Where the runs were made, in a few words.
    #[arg(long, default_value = "")]
    machine: String,
    /// The commit that was run; by default the one that is checked out.
    #[arg(long)]
    commit: Option<String>,
    /// Only checks that the tables in the READMEs have the form in which they are written.
    #[arg(long)]
    check: bool,
}

const BEGIN: &str = "<!-- figures: cargo xtask figures -->";
const END: &str = "<!-- end of figures -->";
const LONG: &str = "tests/faults/README.md";
const SHORT: &str = "README.md";
const LONG_HEAD: [&str; 6] = ["level", "runs", "checked", "faults", "hours", "violations"];
const SHORT_HEAD: [&str; 4] = ["level", "checked", "faults", "violations"];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.check {
        for (path, head) in [(LONG, &LONG_HEAD[..]), (SHORT, &SHORT_HEAD[..])] {
            check(&fs::read_to_string(path)?, head).with_context(|| path.to_owned())?;
        }
        return Ok(());
    }
    let mut runs = Vec::new();
    for dir in &arguments.dirs {
        collect(dir, &mut runs).with_context(|| format!("cannot read {}", dir.display()))?;
    }
    let rows = rows(&runs);
    ensure!(!rows.is_empty(), "no figures of runs in {:?}", arguments.dirs);
    let commit = match &arguments.commit {
        Some(commit) => commit.clone(),
        None => checked_out()?,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let machine = match arguments.machine.as_str() {
        "" => format!("{cores} cores"),
        machine => machine.to_owned(),
    };
    let told = format!("Commit {commit}, {machine}.");
    let long: Vec<Vec<String>> = rows.iter().map(|row| row.long().to_vec()).collect();
    let short: Vec<Vec<String>> = rows.iter().map(|row| row.short().to_vec()).collect();
    let mut after = vec![kinds(&runs)];
    after.extend(bad_runs(&runs));
    write(LONG, &told, &LONG_HEAD, &long, &after)?;
    write(SHORT, &told, &SHORT_HEAD, &short, &[])
}

fn checked_out() -> Result<String> {
    let told = Command::new("git").args(["rev-parse", "--short=9", "HEAD"]).output().context("git")?;
    ensure!(told.status.success(), "name the commit with --commit");
    Ok(String::from_utf8_lossy(&told.stdout).trim().to_owned())
}

/// Everything that looks like the figures of a run, in `dir` and below.
fn collect(dir: &Path, runs: &mut Vec<Value>) -> Result<()> {
    let mut entries = fs::read_dir(dir)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, runs)?;
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_recording = path.with_file_name("about.json").is_file();
        let found: Vec<Value> = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => serde_json::from_slice(&fs::read(&path)?).into_iter().collect(),
            // What is beside a recording is the recording, and the logs of members.
            Some("jsonl" | "log") if !is_recording => {
                let text = fs::read(&path)?;
                let text = String::from_utf8_lossy(&text).into_owned();
                let lines = text.lines().filter(|line| line.starts_with('{') && line.contains("\"level\""));
                lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
            }
            _ => continue,
        };
        let is_figures = |value: &Value| {
            let level = value["level"].is_string() && value["violations"].is_u64();
            level && (value["seed"].is_u64() || value["planted"].is_u64())
        };
        for figures in found.into_iter().filter(is_figures) {
            if name == "about.json" || runs.contains(&figures) {
                continue;
            }
            runs.push(figures);
        }
    }
    Ok(())
}

/// A line of the tables.
struct Row {
    level: &'static str,
    runs: String,
    checked: String,
    faults: String,
    seconds: f64,
    violations: u64,
    invalid: usize,
}

impl Row {
    fn long(&self) -> [String; 6] {
        let hours = format!("{:.2}", self.seconds / 3_600.0);
        let runs = match self.invalid {
            0 => self.runs.clone(),
            invalid => format!("{}; {invalid} more proved nothing", self.runs),
        };
        [
            self.level.into(),
            runs,
            self.checked.clone(),
            self.faults.clone(),
            hours,
            self.violations.to_string(),
        ]
    }

    fn short(&self) -> [String; 4] {
        [self.level.into(), self.checked.clone(), self.faults.clone(), self.violations.to_string()]
    }
}

/// What a row takes from the figures of its runs: a name in the figures and what it is called.
type Sums = &'static [(&'static str, &'static str)];

struct Kind {
    level: &'static str,
    is_of: fn(&Value) -> bool,
    checked: Sums,
    faults: Sums,
}

const KINDS: [Kind; 6] = [
    Kind {
        level: "P, clients of the store",
        is_of: |run| run["workload"] == "store" && !lies(run),
        checked: &[
            ("operations", "operations"),
            ("changes", "changes"),
            ("watch_events_checked", "events of watches"),
            ("reads_checked", "old reads"),
            ("leases_checked", "leases"),
            ("sections_checked", "locked sections"),
        ],
        faults: &[("faults_with_effect", "with effect"), ("faults", "injected"), ("elections", "elections")],
    },
    Kind {
        level: "P, clients of the API servers",
        is_of: |run| run["workload"] == "api",
        checked: &[
            ("updates", "updates"),
            ("watch_events", "events of watches"),
            ("pods_placed", "placed pods"),
            ("attempts", "uses of a right"),
        ],
        faults: &[("faults_with_effect", "with effect"), ("faults", "injected"), ("elections", "elections")],
    },
    Kind {
        level: "S, simulated clusters",
        is_of: |run| run["level"] == "S",
        checked: &[("seeds", "seeds"), ("operations", "operations"), ("changes", "changes")],
        faults: &[("faults_with_effect", "with effect"), ("faults", "injected")],
    },
    Kind {
        level: "C, write-ahead log",
        is_of: |run| run["level"] == "C" && run["config"] == "wal",
        checked: &[("crash_states_explored", "crash states")],
        faults: &[("crashes_in_recovery", "crashes in recovery"), ("damages", "damages")],
    },
    Kind {
        level: "C, whole member",
        is_of: |run| run["level"] == "C" && run["config"] == "member",
        checked: &[("crash_states_explored", "crash states")],
        faults: &[("crashes_in_recovery", "crashes in recovery"), ("states_with_losses", "lost writes")],
    },
    Kind {
        level: "zoo",
        is_of: |run| run["level"] == "zoo",
        checked: &[("planted", "bugs planted"), ("found", "found")],
        faults: &[],
    },
];

/// The self-check with lying disks is no run of the product.
fn lies(run: &Value) -> bool {
    run["level"].as_str().is_some_and(|level| level.contains("disks that lie"))
}

fn is_valid(run: &Value) -> bool {
    run["valid_test"].as_bool().unwrap_or(true)
}

fn rows(runs: &[Value]) -> Vec<Row> {
    let of = |kind: &Kind| {
        let own: Vec<&Value> = runs.iter().filter(|run| (kind.is_of)(run)).collect();
        let (valid, invalid): (Vec<&Value>, Vec<&Value>) =
            own.into_iter().partition(|run| is_valid(run) || run["violations"] != 0);
        if valid.is_empty() {
            return None;
        }
        let sum = |name: &str| valid.iter().filter_map(|run| run[name].as_u64()).sum::<u64>();
        let told = |sums: Sums| {
            let each = sums.iter().map(|(name, called)| format!("{} {called}", grouped(sum(name))));
            each.collect::<Vec<_>>().join(", ")
        };
        let seconds =
            |run: &&Value| run["seconds"].as_f64().or_else(|| run["wall_s"].as_f64()).unwrap_or(0.0);
        Some(Row {
            level: kind.level,
            runs: match kind.is_of {
                _ if valid.iter().any(|run| run["workload"].is_string()) => seeds(&valid),
                _ => grouped(valid.len() as u64),
            },
            checked: told(kind.checked),
            faults: told(kind.faults),
            seconds: valid.iter().map(seconds).sum(),
            violations: sum("violations"),
            invalid: invalid.len(),
        })
    };
    KINDS.iter().filter_map(of).collect()
}

/// `8: seeds 1-3, 7`
fn seeds(runs: &[&Value]) -> String {
    let seeds: BTreeSet<u64> = runs.iter().filter_map(|run| run["seed"].as_u64()).collect();
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for seed in seeds {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == seed => *last = seed,
            _ => spans.push((seed, seed)),
        }
    }
    let span = |(first, last): &(u64, u64)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    format!("{}: seeds {}", runs.len(), spans.iter().map(span).collect::<Vec<_>>().join(", "))
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(" ")
}

/// Faults on real processes that took effect, by kind.
fn kinds(runs: &[Value]) -> String {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for run in runs.iter().filter(|run| is_valid(run) && !lies(run)) {
        for (kind, figures) in run["faults_by_kind"].as_object().into_iter().flatten() {
            *kinds.entry(kind).or_default() += figures["with_effect"].as_u64().unwrap_or(0);
        }
    }
    let told = kinds.iter().filter(|(_, count)| **count > 0).map(|(kind, count)| format!("`{kind}` {count}"));
    format!("On real processes took effect: {}.", told.collect::<Vec<_>>().join(", "))
}

/// One line for each run on real processes that found something.
fn bad_runs(runs: &[Value]) -> Vec<String> {
    let told = |run: &Value| {
        let found: Vec<&str> = run["verdicts"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, verdict)| verdict["verdict"] == "violated")
            .map(|(checker, _)| checker.as_str())
            .collect();
        let of = (run["workload"].as_str().unwrap_or("?"), run["seed"].as_u64().unwrap_or(0));
        format!("Violated: {} by seed {} of the {} workload.", found.join(", "), of.1, of.0)
    };
    let bad = |run: &&Value| run["workload"].is_string() && !lies(run) && run["violations"] != 0;
    runs.iter().filter(bad).map(told).collect()
}

fn write(path: &str, told: &str, head: &[&str], rows: &[Vec<String>], after: &[String]) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let new = with_table(&text, told, head, rows, after).with_context(|| path.to_owned())?;
    check(&new, head).with_context(|| path.to_owned())?;
    fs::write(path, new).with_context(|| format!("cannot write {path}"))
}

/// `text` with the table between its markers.
fn with_table(
    text: &str,
    told: &str,
    head: &[&str],
    rows: &[Vec<String>],
    after: &[String],
) -> Result<String> {
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("no line {BEGIN}"))?;
    let (_, behind) = rest.split_once(END).with_context(|| format!("no line {END}"))?;
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut table = format!("\n{told}\n\n");
    table.push_str(&line(&head.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()));
    table.push_str(&format!("|{}\n", "---|".repeat(head.len())));
    rows.iter().for_each(|row| table.push_str(&line(row)));
    for sentence in after {
        table.push_str(&format!("\n{sentence}\n"));
    }
    Ok(format!("{before}{BEGIN}{table}{END}{behind}"))
}

/// Whether a table of that form stands between the markers, once, with a commit.
fn check(text: &str, head: &[&str]) -> Result<()> {
    ensure!(text.matches(BEGIN).count() == 1 && text.matches(END).count() == 1, "not one pair of markers");
    let (_, rest) = text.split_once(BEGIN).context("no beginning")?;
    let (table, _) = rest.split_once(END).context("the markers are in the wrong order")?;
    ensure!(table.trim_start().starts_with("Commit "), "it does not say which commit was run");
    let lines: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).collect();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let Some([first, ruler, rows @ ..]) = lines.get(..) else { bail!("no table") };
    ensure!(cells(first) == head, "its head is not {head:?}");
    ensure!(cells(ruler).iter().all(|cell| cell == "---"), "no line below its head");
    ensure!(!rows.is_empty(), "it has no rows");
    for row in rows {
        let cells = cells(row);
        ensure!(cells.len() == head.len(), "not {} cells: {row}", head.len());
        let known = KINDS.iter().any(|kind| kind.level == cells[0]);
        ensure!(known, "no level is called {:?}", cells[0]);
        let violations = cells.last().map_or("", |cell| cell.as_str());
        ensure!(violations.parse::<u64>().is_ok(), "no number of violations: {row}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_tables_in_the_readmes_have_the_form_in_which_they_are_written() {
        check(include_str!("../../tests/faults/README.md"), &LONG_HEAD).unwrap();
        check(include_str!("../../README.md"), &SHORT_HEAD).unwrap();
    }

    #[test]
    fn runs_are_summed_once_and_those_that_prove_nothing_are_only_counted() {
        let run = |seed: u64, operations: u64, valid: bool| {
            json!({
                "level": "real processes", "workload": "store", "seed": seed, "seconds": 1800.0,
                "operations": operations, "faults": 3, "faults_with_effect": 2, "valid_test": valid, "violations": 0,
                "faults_by_kind": { "Kill": { "count": 3, "with_effect": 2, "effect_count": 2 } },
            })
        };
        let dir = std::env::temp_dir().join(format!("figures-{}", std::process::id()));
        for (name, run) in [("a", run(1, 1_000, true)), ("b", run(2, 234, true)), ("c", run(9, 5, false))] {
            fs::create_dir_all(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("report.json"), run.to_string()).unwrap();
        }
        fs::write(dir.join("out.log"), format!("said\n{}\n", run(2, 234, true))).unwrap();
        let zoo = json!({ "level": "zoo", "planted": 7, "found": 7, "violations": 0 });
        fs::write(dir.join("zoo.log"), zoo.to_string()).unwrap();
        let mut runs = Vec::new();
        collect(&dir, &mut runs).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let rows = rows(&runs);
        assert_eq!(rows.len(), 2);
        let [level, seeds, checked, faults, hours, violations] = rows[0].long();
        assert_eq!(level, "P, clients of the store");
        assert_eq!(seeds, "2: seeds 1-2; 1 more proved nothing");
        assert!(checked.starts_with("1 234 operations"), "{checked}");
        assert!(faults.starts_with("4 with effect, 6 injected"), "{faults}");
        assert_eq!((hours.as_str(), violations.as_str()), ("1.00", "0"));
        assert_eq!(rows[1].long()[2], "7 bugs planted, 7 found");
        assert_eq!(kinds(&runs), "On real processes took effect: `Kill` 4.");
    }

    #[test]
    fn a_table_is_replaced_and_a_damaged_one_is_found() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let row = ["zoo", "7 bugs planted, 7 found", "", "0"].map(str::to_owned).to_vec();
        let new = with_table(&text, "Commit 1, here.", &SHORT_HEAD, &[row], &[]).unwrap();
        check(&new, &SHORT_HEAD).unwrap();
        assert!(new.starts_with("before\n") && new.ends_with("after\n") && !new.contains("old"), "{new}");
        assert!(check(&new, &LONG_HEAD).is_err());
        assert!(check(&new.replace("| 0 |", "| none |"), &SHORT_HEAD).is_err());
        assert!(check(&text, &SHORT_HEAD).is_err());
        assert!(check(&new.replace("| zoo", "| circus"), &SHORT_HEAD).is_err());
    }
}
