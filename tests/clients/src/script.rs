//! A script: commands as a person types them, each followed by the output that it must print.
//!
//! ```text
//! # a comment
//! $ etcdctl put a 1          the command must succeed and print exactly this (standard error included)
//! OK
//! ! etcdctl get              the command must fail
//! Error: *                   `*` stands for any text within a line
//! ~ kubectl get pods         repeated until it succeeds and matches, 30 s at most
//! ...                        any number of lines
//! ```
//!
//! Invariants: each command runs in a shell in a folder of its own with `set -o pipefail`, ends within 120 s, and sees the
//! cluster through variables: `STORES`, `STORE1`.., `API1`.., `KUBECONFIG`, `DIR` (the cluster's), `FILES` (the script's).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use harness::cluster::LocalCluster;

const EVENTUALLY_TIMEOUT: Duration = Duration::from_secs(30);
const COMMAND_TIMEOUT_S: &str = "120";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Success,
    Failure,
    Eventually,
}

#[derive(Debug)]
struct Step {
    line: usize,
    expect: Expect,
    command: String,
    output: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Script {
    steps: Vec<Step>,
}

/// What the commands of a script see.
pub(crate) struct Setting {
    variables: Vec<(String, String)>,
    folder: PathBuf,
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) passed: usize,
    pub(crate) failures: Vec<String>,
}

impl Setting {
    pub(crate) fn new(
        cluster: &LocalCluster,
        bin_dirs: &[PathBuf],
        files: &Path,
        folder: &Path,
    ) -> Result<Setting> {
        let stores: Vec<&str> = cluster.members.iter().map(|member| member.store_url.as_str()).collect();
        let mut path: Vec<PathBuf> = bin_dirs.to_vec();
        path.push(harness::binary()?.parent().map(Path::to_owned).unwrap_or_default());
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut variables = vec![
            ("PATH".to_owned(), std::env::join_paths(path)?.to_string_lossy().into_owned()),
            ("ETCDCTL_API".to_owned(), "3".to_owned()),
            ("ETCDCTL_ENDPOINTS".to_owned(), stores.join(",")),
            ("STORES".to_owned(), stores.join(",")),
            ("KUBECONFIG".to_owned(), cluster.dir.join("admin.kubeconfig").to_string_lossy().into_owned()),
            ("HOME".to_owned(), folder.to_string_lossy().into_owned()),
            ("DIR".to_owned(), cluster.dir.to_string_lossy().into_owned()),
            ("FILES".to_owned(), files.to_string_lossy().into_owned()),
        ];
        for (number, member) in cluster.members.iter().enumerate() {
            variables.push((format!("STORE{}", number + 1), member.store_url.clone()));
            variables.push((format!("API{}", number + 1), member.api_url.clone()));
            variables.push((format!("PID{}", number + 1), member.process_id.to_string()));
        }
        Ok(Setting { variables, folder: folder.to_owned() })
    }
}

impl Script {
    pub(crate) fn parse(text: &str) -> Result<Script> {
        let mut steps: Vec<Step> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let expect = match line.split_at_checked(2) {
                Some(("$ ", _)) => Expect::Success,
                Some(("! ", _)) => Expect::Failure,
                Some(("~ ", _)) => Expect::Eventually,
                _ if line.starts_with('#') || (line.is_empty() && steps.is_empty()) => continue,
                _ => match steps.last_mut() {
                    Some(step) => {
                        step.output.push(line.to_owned());
                        continue;
                    }
                    None => bail!("line {}: output before the first command", index + 1),
                },
            };
            steps.push(Step { line: index + 1, expect, command: line[2..].to_owned(), output: Vec::new() });
        }
        for step in &mut steps {
            while step.output.last().is_some_and(String::is_empty) {
                step.output.pop(); // blank lines separate steps
            }
        }
        if steps.is_empty() {
            bail!("a script without a command");
        }
        Ok(Script { steps })
    }

    pub(crate) fn run(&self, setting: &Setting) -> Outcome {
        let mut outcome = Outcome::default();
        for step in &self.steps {
            match step.run(setting) {
                Ok(()) => outcome.passed += 1,
                Err(text) => outcome.failures.push(format!("{}: {}\n{text}", step.line, step.command)),
            }
        }
        outcome
    }
}

impl Step {
    fn run(&self, setting: &Setting) -> Result<(), String> {
        let deadline = Instant::now() + EVENTUALLY_TIMEOUT;
        loop {
            let result = self.once(setting);
            if result.is_ok() || self.expect != Expect::Eventually || Instant::now() > deadline {
                return result;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn once(&self, setting: &Setting) -> Result<(), String> {
        let output = Command::new("timeout")
            .args([COMMAND_TIMEOUT_S, "bash", "-c"])
            .arg(format!("set -o pipefail; exec 2>&1; {}", self.command))
            .envs(setting.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(&setting.folder)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
        if output.status.success() == (self.expect == Expect::Failure) {
            return Err(format!("  ended with {}:\n{}", output.status, indented(&lines)));
        }
        let expected: Vec<&str> = self.output.iter().map(|line| line.trim_end()).collect();
        if matches_lines(&expected, &lines) {
            return Ok(());
        }
        Err(format!("  expected:\n{}\n  printed:\n{}", indented(&expected), indented(&lines)))
    }
}

fn indented(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// `...` matches any number of lines.
fn matches_lines(expected: &[&str], lines: &[&str]) -> bool {
    match expected.split_first() {
        None => lines.is_empty(),
        Some((&"...", rest)) => (0..=lines.len()).any(|skipped| matches_lines(rest, &lines[skipped..])),
        Some((pattern, rest)) => lines
            .split_first()
            .is_some_and(|(line, more)| matches_text(pattern, line) && matches_lines(rest, more)),
    }
}

/// `*` matches any text.
fn matches_text(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| matches_text(tail, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::{Script, matches_lines, matches_text};

    #[test]
    fn a_star_stands_for_any_text_and_dots_for_any_lines() {
        assert!(matches_text("a*c*", "abbc"));
        assert!(!matches_text("a*c", "abbcd"));
        assert!(matches_lines(&["...", "b", "..."], &["a", "b"]));
        assert!(!matches_lines(&["a"], &["a", "b"]));
    }

    #[test]
    fn a_script_is_commands_each_with_its_output() {
        let script = Script::parse("# why\n$ echo 1\n1\n\n! false\n").unwrap();
        assert_eq!(script.steps.len(), 2);
        assert_eq!(script.steps[0].output, ["1"]);
        assert!(script.steps[1].output.is_empty());
    }

    #[test]
    fn a_script_without_commands_is_refused() {
        assert!(Script::parse("# nothing\n").is_err());
    }
}
