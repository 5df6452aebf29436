//! Bugs that were made on purpose: each must be found, by a process of its own.
//!
//! Always holds: a bug counts only if the seed that finds it finds nothing without it; a bug that no suite plants counts
//! as missed; what a process says that dies counts only if it is what that bug is known to die with. The output of every
//! process is kept. Not here: the bugs (`planted.rs` of wal, mvcc, replica and store), the runs (`simulation-zoo`,
//! `crash-zoo`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the bugs whose name contains this.
    #[arg(long, default_value = "")]
    bug: String,
    /// Where `figures.jsonl` and what the processes printed are left.
    #[arg(long, default_value = "target/zoo")]
    dir: PathBuf,
}

const FEATURES: &str = "simulation/planted,crash/planted";
const SUITES: [&str; 2] = ["simulation-zoo", "crash-zoo"];
/// Where the bugs are, and what their crate is called.
const PLANTED: [(&str, &str); 4] = [
    ("wal", include_str!("../../crates/wal/src/planted.rs")),
    ("mvcc", include_str!("../../crates/mvcc/src/planted.rs")),
    ("replica", include_str!("../../crates/replica/src/planted.rs")),
    ("store", include_str!("../../crates/store/src/planted.rs")),
];
/// For all seeds of one bug; a seed takes seconds, on a machine that does much else fifty times as long.
const BUG_TIME_MAX: Duration = Duration::from_secs(900);
const SENTENCE_CHARS_MAX: usize = 160;

/// One that a suite can plant.
struct Bug {
    suite: PathBuf,
    name: String,
    level: String,
    /// The known one first.
    seeds: Vec<u64>,
    dies_saying: Option<String>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ended {
    Found {
        seed: u64,
        what: String,
    },
    Nothing,
    /// Without a result and without the expected last words: it aborted, panicked or was killed, but not by us.
    Died(String),
    /// It was not a run that could have found anything, or it took too long.
    Worthless(String),
}

/// What the seeds of one bug showed.
struct Tried {
    found: Option<(u64, String)>,
    /// Why seeds did not count.
    remarks: Vec<String>,
    took: Duration,
}

type Place = (PathBuf, String, u64);

struct Zoo {
    dir: PathBuf,
    /// What seeds show without a bug, each run once: by suite, crate (the crash suites differ) and seed.
    clean: Mutex<BTreeMap<Place, Arc<OnceLock<Ended>>>>,
}

/// Ends with an error if a planted bug is missed, or if a seed violates something without one. The last line says how
/// many there are.
#[expect(clippy::print_stdout, reason = "the table is the output")]
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let began = Instant::now();
    let bugs = build_and_list()?;
    let wanted: Vec<&Bug> = bugs.iter().filter(|bug| bug.name.contains(&arguments.bug)).collect();
    fs::create_dir_all(&arguments.dir).with_context(|| format!("cannot make {}", arguments.dir.display()))?;
    let zoo = Zoo { dir: arguments.dir.clone(), clean: Mutex::default() };
    let missed = Mutex::new(unplanted(&bugs, &arguments.bug));
    for name in locked(&missed).iter() {
        println!("no suite plants {name}");
    }
    let planted = wanted.len() + locked(&missed).len();
    println!("| bug | level | seed | seconds | found because |\n|---|---|---|---|---|");
    let next = Mutex::new(wanted.iter());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(bug) = { locked(&next).next() } {
                    let tried = zoo.hunt(bug);
                    println!("{}", tried.row(bug));
                    if tried.found.is_none() {
                        locked(&missed).push(format!("{} ({})", bug.name, bug.level));
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let violated = zoo.violations();
    violated.iter().for_each(|violation| println!("without a bug: {violation}"));
    let found = planted - missed.len();
    let figures = json!({
        "level": "zoo", "planted": planted, "found": found, "violations": violated.len(),
        "seconds": began.elapsed().as_secs_f64(),
    });
    println!("{figures}");
    fs::write(arguments.dir.join("figures.jsonl"), format!("{figures}\n"))?;
    println!("found {found} of {planted}");
    ensure!(planted > 0, "no bug is called so");
    ensure!(missed.is_empty(), "not found: {}", missed.join(", "));
    ensure!(violated.is_empty(), "seeds without a bug violate something");
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// With the features of the whole workspace, so that what others built is used again.
fn build_and_list() -> Result<Vec<Bug>> {
    let mut cargo = Command::new(crate::cargo());
    cargo.args(["build", "--quiet", "--locked", "--workspace", "--features", FEATURES]);
    let built = cargo.args(SUITES.map(|suite| format!("--bin={suite}"))).status().context("cargo build")?;
    ensure!(built.success(), "the planted bugs do not compile");
    let here = std::env::current_exe()?;
    let mut bugs = Vec::new();
    for suite in SUITES {
        let suite = here.with_file_name(suite);
        let listed = Command::new(&suite).arg("list").output().context(suite.display().to_string())?;
        ensure!(listed.status.success(), "{} lists nothing", suite.display());
        for line in String::from_utf8_lossy(&listed.stdout).lines() {
            let bug = listed_bug(&suite, line);
            bugs.push(bug.with_context(|| format!("{} lists {line:?}", suite.display()))?);
        }
    }
    Ok(bugs)
}

fn listed_bug(suite: &Path, line: &str) -> Option<Bug> {
    let bug: Value = serde_json::from_str(line).ok()?;
    Some(Bug {
        suite: suite.to_owned(),
        name: bug["bug"].as_str()?.to_owned(),
        level: bug["level"].as_str()?.to_owned(),
        seeds: bug["seeds"].as_array()?.iter().filter_map(Value::as_u64).collect(),
        dies_saying: bug["dies_saying"].as_str().map(str::to_owned),
    })
}

/// The bugs in the crates that no suite lists.
fn unplanted(listed: &[Bug], part: &str) -> Vec<String> {
    let listed: BTreeSet<&str> = listed.iter().map(|bug| bug.name.as_str()).collect();
    let all = PLANTED.iter().flat_map(|(of, source)| variants(source).map(move |bug| format!("{of}::{bug}")));
    all.filter(|name| name.contains(part) && !listed.contains(name.as_str())).collect()
}

/// Of `pub enum Bug`, as the formatter writes it.
fn variants(source: &str) -> impl Iterator<Item = &str> {
    let body = source.split("pub enum Bug {\n").nth(1).and_then(|rest| rest.split("\n}").next());
    body.unwrap_or_default()
        .lines()
        .filter_map(|line| line.trim().strip_suffix(','))
        .filter(|name| name.chars().all(|letter| letter.is_ascii_alphanumeric()))
}

impl Zoo {
    /// One seed after the other, until one finds it and finds nothing without it.
    fn hunt(&self, bug: &Bug) -> Tried {
        let began = Instant::now();
        let mut tried = Tried { found: None, remarks: Vec::new(), took: Duration::ZERO };
        for seed in &bug.seeds {
            let left = BUG_TIME_MAX.saturating_sub(began.elapsed());
            if left.is_zero() {
                tried.remarks.push("no time is left for more".to_owned());
                break;
            }
            match self.process(bug, "run", *seed, left) {
                Ended::Found { seed, what } => match self.clean(bug, seed) {
                    Ended::Nothing => {
                        tried.found = Some((seed, what));
                        break;
                    }
                    Ended::Found { what, .. } => {
                        tried.remarks.push(format!("{seed} fails without it: {what}"))
                    }
                    Ended::Died(why) | Ended::Worthless(why) => {
                        tried.remarks.push(format!("{seed} without it: {why}"))
                    }
                },
                Ended::Nothing => tried.remarks.push(format!("{seed} finds nothing")),
                Ended::Died(why) | Ended::Worthless(why) => tried.remarks.push(format!("{seed}: {why}")),
            }
        }
        tried.took = began.elapsed();
        tried
    }

    fn clean(&self, bug: &Bug, seed: u64) -> Ended {
        let of = bug.name.split("::").next().unwrap_or_default();
        // Only the suites of level C differ by crate.
        let of = if bug.level == "C" { of } else { "" };
        let once = locked(&self.clean).entry((bug.suite.clone(), of.to_owned(), seed)).or_default().clone();
        once.get_or_init(|| self.process(bug, "clean", seed, BUG_TIME_MAX)).clone()
    }

    /// What was found without a bug; a process that dies is something found.
    fn violations(&self) -> Vec<String> {
        let clean = locked(&self.clean);
        let told = clean.iter().filter_map(|((suite, of, seed), ended)| match ended.get()? {
            Ended::Found { what, .. } | Ended::Died(what) => {
                Some(format!("{} {of} seed {seed}: {what}", suite.display()))
            }
            Ended::Nothing | Ended::Worthless(_) => None,
        });
        told.collect()
    }

    fn process(&self, bug: &Bug, verb: &str, seed: u64, time_max: Duration) -> Ended {
        let log = self.dir.join(format!("{}-{}-{verb}-{seed}.log", bug.name.replace("::", "-"), bug.level));
        let mut command = Command::new(&bug.suite);
        command.args([verb, &bug.name, &seed.to_string()]);
        let dies_saying = bug.dies_saying.as_deref().filter(|_| verb == "run");
        watched(command, seed, dies_saying, time_max, &log)
            .unwrap_or_else(|error| Ended::Worthless(format!("{error:#}")))
    }
}

/// Lets a process run to its end, or ends it.
fn watched(
    mut command: Command,
    seed: u64,
    dies_saying: Option<&str>,
    time_max: Duration,
    log: &Path,
) -> Result<Ended> {
    let output = File::create(log).with_context(|| log.display().to_string())?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).env("RUST_BACKTRACE", "0");
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if began.elapsed() > time_max => {
                child.kill()?;
                child.wait()?;
                return Ok(Ended::Worthless(format!("no result after {} s", time_max.as_secs())));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let told = fs::read(log)?;
    let told = String::from_utf8_lossy(&told);
    let last_words = dies_saying.and_then(|says| told.lines().find(|line| line.contains(says)));
    Ok(match (result(&told), last_words) {
        (Some(ended), _) if status.success() => ended,
        (_, Some(line)) if !status.success() => {
            Ended::Found { seed, what: format!("the process ends ({status}): {line}") }
        }
        _ => Ended::Died(format!("{status}, see {}", log.display())),
    })
}

/// The last line of a process that came to its end.
fn result(told: &str) -> Option<Ended> {
    let result: Value = serde_json::from_str(told.lines().last()?).ok()?;
    Some(match (result["found"].as_str(), result["is_valid"].as_bool()?) {
        (Some(what), true) => Ended::Found { seed: result["seed"].as_u64()?, what: what.to_owned() },
        (None, true) => Ended::Nothing,
        (what, false) => Ended::Worthless(what.unwrap_or_default().to_owned()),
    })
}

impl Tried {
    fn row(&self, bug: &Bug) -> String {
        let Bug { name, level, .. } = bug;
        let seconds = self.took.as_secs_f64();
        let remarks = match self.remarks.is_empty() {
            true => String::new(),
            false => format!(" ({})", self.remarks.join("; ")),
        };
        match &self.found {
            Some((seed, what)) => {
                let what: String =
                    what.lines().next().unwrap_or_default().chars().take(SENTENCE_CHARS_MAX).collect();
                format!("| {name} | {level} | {seed} | {seconds:.1} | {what}{remarks} |")
            }
            None => format!("| {name} | {level} | none | {seconds:.1} | NOT FOUND{remarks} |"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_of_the_crates_is_known_by_name() {
        let names: Vec<&str> =
            variants("x\npub enum Bug {\n    /// One, or\n    One,\n    Two,\n}\nThree,\n}").collect();
        assert_eq!(names, ["One", "Two"]);
        for (of, source) in PLANTED {
            assert!(variants(source).count() > 0, "no bugs in {of}");
        }
        let missing = unplanted(&[], "");
        assert!(missing.contains(&"wal::SyncRetried".to_owned()) && missing.len() > 40, "{missing:?}");
    }

    /// How a process counts that does what the script says.
    fn ends(name: &str, script: &str, dies_saying: Option<&str>) -> Ended {
        ends_within(Duration::from_secs(60), name, script, dies_saying)
    }

    fn ends_within(time_max: Duration, name: &str, script: &str, dies_saying: Option<&str>) -> Ended {
        let log = std::env::temp_dir().join(format!("zoo-{}-{name}.log", std::process::id()));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let ended = watched(command, 7, dies_saying, time_max, &log).unwrap();
        fs::remove_file(log).unwrap();
        ended
    }

    #[test]
    fn only_a_result_or_the_expected_last_words_count() {
        let found = r#"echo said; echo '{"seed": 9, "found": "a lie", "is_valid": true}'"#;
        assert_eq!(ends("found", found, None), Ended::Found { seed: 9, what: "a lie".into() });
        let clean = r#"echo '{"seed": 9, "found": null, "is_valid": true}'"#;
        assert_eq!(ends("clean", clean, None), Ended::Nothing);
        let worthless = |ended| matches!(ended, Ended::Worthless(_));
        assert!(worthless(ends("invalid", r#"echo '{"seed": 9, "found": null, "is_valid": false}'"#, None)));
        let died = |ended| matches!(ended, Ended::Died(_));
        assert!(died(ends("silent", "true", None)));
        assert!(died(ends("dies", "echo 'assertion failed: x'; kill -9 $$", None)));
        assert!(died(ends("dies of another", "echo oops; kill -9 $$", Some("assertion failed"))));
        let hangs = ends_within(Duration::from_secs(2), "hangs", "exec sleep 600", Some("assertion failed"));
        assert!(worthless(hangs));
        assert!(died(ends("only says so", "echo 'assertion failed: x'", Some("assertion failed"))));
        let dead = ends("dies as known", "echo 'assertion failed: x'; kill -9 $$", Some("assertion failed"));
        assert!(matches!(dead, Ended::Found { seed: 7, what } if what.ends_with("assertion failed: x")));
    }

    #[test]
    fn what_is_found_without_a_bug_or_dies_is_a_violation_and_what_says_nothing_is_none() {
        let place = |seed| (PathBuf::from("suite"), String::new(), seed);
        let said = |ended| Arc::new(OnceLock::from(ended));
        let clean = BTreeMap::from([
            (place(1), said(Ended::Nothing)),
            (place(2), said(Ended::Worthless("no result after 900 s".into()))),
            (place(3), said(Ended::Found { seed: 3, what: "a lie".into() })),
            (place(4), said(Ended::Died("signal: 6".into()))),
        ]);
        let zoo = Zoo { dir: PathBuf::new(), clean: Mutex::new(clean) };
        assert_eq!(zoo.violations(), ["suite  seed 3: a lie", "suite  seed 4: signal: 6"]);
    }
}
