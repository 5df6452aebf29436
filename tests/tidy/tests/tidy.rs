//! Rules that no compiler checks: which crate may use which, how files open, where links lead.
//!
//! Invariants: every rule is checked on the tree as it is, never on a list that could go stale; the one list here, the
//! arrows, is the architecture itself (docs/architecture.md draws it).

#![expect(clippy::unwrap_used, reason = "a rule that cannot be checked has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which crate may depend on which of ours. `*` stands for every crate in `crates/`.
const ARROWS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("wal", &[]),
    ("mvcc", &[]),
    ("bolt", &[]),
    ("apimachinery", &[]),
    ("replica", &["wal", "mvcc", "wire"]),
    ("store", &["replica", "mvcc", "wire", "bolt"]),
    ("kubeclient", &["apimachinery"]),
    ("apiserver", &["apimachinery", "wire"]),
    ("scheduler", &["apimachinery", "kubeclient"]),
    ("controllers", &["apimachinery", "kubeclient"]),
    ("ctl", &["wire", "bolt"]),
    ("binnacle", &["*"]),
];

/// What crates outside `crates/` may use: they see the system as its users do, through its protocols.
/// `crash` tests one layer from inside and names it.
const OUTSIDE: &[&str] = &["wire", "apimachinery", "kubeclient", "harness"];
const INSIDE_TESTS: &[(&str, &[&str])] = &[
    ("crash", &["wal", "mvcc", "replica"]),
    ("simulation", &["wal", "mvcc", "replica", "store", "wire", "faults"]),
    ("fuzz", &["wal", "mvcc", "bolt", "replica", "store"]),
];

/// A file longer than this needs a reason; the reason is its line in `LONG_FILES`.
const LINES_MAX: usize = 900;
const LONG_FILES: &[(&str, &str)] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

fn tracked(suffix: &str) -> Vec<PathBuf> {
    let output =
        Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root()).output();
    let listed = output.ok().filter(|output| output.status.success());
    let paths: Vec<PathBuf> = match listed {
        Some(output) => {
            String::from_utf8(output.stdout).unwrap().lines().map(|line| root().join(line)).collect()
        }
        None => walk(&root()), // a source archive without git
    };
    paths.into_iter().filter(|path| path.to_string_lossy().ends_with(suffix) && path.exists()).collect()
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name();
        if name == "target" || name.to_string_lossy().starts_with('.') {
            continue;
        }
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(walk(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let inside = ARROWS.iter().find(|(from, _)| *from == name).map(|(_, to)| *to);
        let test = INSIDE_TESTS.iter().find(|(from, _)| *from == name).map(|(_, to)| *to);
        let in_crates = package["manifest_path"].as_str().unwrap().contains("/crates/");
        if in_crates && inside.is_none() {
            problems.push(format!("crates/{name} has no line in the list of arrows"));
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            let allowed = match (inside, test) {
                (Some(list), _) => list.contains(&"*") || list.contains(&to),
                (None, Some(list)) => list.contains(&to) || OUTSIDE.contains(&to),
                (None, None) => OUTSIDE.contains(&to) || (name == "xtask" && to == "apimachinery"),
            };
            if ours.contains(to) && !allowed {
                problems.push(format!("{name} -> {to} is not an arrow of the architecture"));
            }
        }
    }
    report(&problems);
}

#[test]
fn only_the_simulation_and_the_crash_suite_ask_for_planted_bugs() {
    let mut problems = Vec::new();
    for path in tracked("Cargo.toml") {
        let text = fs::read_to_string(&path).unwrap();
        let asks = text.lines().filter(|line| !line.starts_with('#') && line.contains("planted"));
        let owner =
            ["tests/simulation/", "tests/crash/"].iter().any(|owner| relative(&path).starts_with(owner));
        for line in asks.filter(|line| !owner && *line != "planted = []") {
            problems.push(format!("{}: {line}", relative(&path)));
        }
    }
    report(&problems);
}

/// Whatever is asked for on a command line: without debug assertions they do not compile.
#[test]
fn planted_bugs_cannot_be_in_a_release_build() {
    let refuses = "#[cfg(all(feature = \"planted\", not(debug_assertions)))]\ncompile_error!";
    let release = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(!release.contains("debug-assertions"), "a profile may turn them on");
    let mut problems = Vec::new();
    for path in tracked("Cargo.toml") {
        let owns = fs::read_to_string(&path).unwrap().lines().any(|line| line == "planted = []");
        let source = path.with_file_name("src").join("planted.rs");
        if owns && !fs::read_to_string(source).is_ok_and(|source| source.contains(refuses)) {
            problems.push(format!("{} lets planted bugs into a release build", relative(&path)));
        }
    }
    report(&problems);
}

#[test]
fn the_architecture_page_draws_every_arrow() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let missing: Vec<String> = ARROWS
        .iter()
        .filter(|(name, _)| !page.contains(&format!("`{name}`")) && !page.contains(&format!("{name} ")))
        .map(|(name, _)| format!("docs/architecture.md does not mention the crate {name}"))
        .collect();
    report(&missing);
}

#[test]
fn every_source_file_opens_with_its_purpose() {
    let without: Vec<String> = tracked(".rs")
        .iter()
        .filter(|path| !fs::read_to_string(path).unwrap().starts_with("//! "))
        .map(|path| format!("{} does not open with `//! `", relative(path)))
        .collect();
    report(&without);
}

#[test]
fn no_module_is_named_mod_rs() {
    report(&tracked("/mod.rs").iter().map(|path| relative(path)).collect::<Vec<_>>());
}

#[test]
fn long_files_have_a_reason() {
    let mut problems = Vec::new();
    for path in tracked(".rs") {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        let excused = LONG_FILES.iter().any(|(file, _)| *file == relative(&path));
        if lines > LINES_MAX && !excused {
            problems.push(format!("{} has {lines} lines, the limit is {LINES_MAX}", relative(&path)));
        }
    }
    for (file, _) in LONG_FILES {
        let lines = fs::read_to_string(root().join(file)).map_or(0, |text| text.lines().count());
        if lines <= LINES_MAX {
            problems.push(format!("{file} is no longer long: drop its line here"));
        }
    }
    report(&problems);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut problems = Vec::new();
    for path in tracked(".md") {
        let text = fs::read_to_string(&path).unwrap();
        for target in links(&text) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            if !path.parent().unwrap().join(file).exists() {
                problems.push(format!("{}: link to {target} leads nowhere", relative(&path)));
            }
        }
        for named in code_paths(&text) {
            if !root().join(&named).exists() && !path.parent().unwrap().join(&named).exists() {
                problems.push(format!("{}: `{named}` does not exist", relative(&path)));
            }
        }
    }
    report(&problems);
}

/// Targets of `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

/// Paths in backticks that name a file of this tree: `crates/x/src/y.rs`, `docs/z.md`, `scripts/a.sh`.
fn code_paths(text: &str) -> Vec<String> {
    let roots = ["crates/", "docs/", "tests/", "bench/", "scripts/", "proto/", "xtask/", ".ci/"];
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(|code| code.split([' ', ':', '#']).next().unwrap_or_default())
        .filter(|code| {
            roots.iter().any(|root| code.starts_with(root)) && !code.contains(['*', '<', '{', '\n'])
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let private = ["/wo", "rk/"].concat();
    let home = ["/ro", "ot/"].concat();
    let mut problems = Vec::new();
    for path in tracked("") {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            let absolute = |part: &str| {
                line.match_indices(part).any(|(at, _)| {
                    !line[..at].ends_with(|before: char| before.is_alphanumeric() || "._-*".contains(before))
                })
            };
            if absolute(&private) || absolute(&home) {
                problems.push(format!("{}:{}: names a path of one machine", relative(&path), number + 1));
            }
        }
    }
    report(&problems);
}
