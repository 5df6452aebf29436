//! Faults of processes: ended, stopped, restarted; and members that end by themselves.
//!
//! Invariants: what ended without a reason that a fault gave it is a finding; every start is noted before the member can
//! answer anybody.

use std::fs;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Injector, POLL, Undo};
use crate::cluster;
use crate::record::{Finding, Injected};
use crate::schedule::Kind;
use crate::stale::Started;

/// A control plane lets answers end that are under way, which takes seconds.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// A rolling restart goes on with the next member after this, even if the last does not answer yet.
const BACK_WITHIN: Duration = Duration::from_secs(1);

/// What a member that lacks room or open files may say before it ends.
pub(super) const NO_SPACE: &str = "No space left on device";
pub(super) const NO_DESCRIPTORS: &str = "Too many open files";

/// Something that a member lacks or lacked, which may end it until then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lacked {
    pub until: Instant,
    pub says: &'static str,
}

/// What a member did that was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    DidNotRun,
    Ended,
    /// It took too long.
    Killed,
}

impl Injector<'_> {
    pub fn revive(&mut self, member: usize) -> Result<()> {
        if self.cluster.process_id(member).is_none() {
            // Before it can answer anybody.
            let started = Started { member, at_ns: self.shared.now_ns() };
            self.shared.note("starts", &started);
            self.starts.push(started);
            self.cluster.revive(member)?;
        }
        self.processes[member].store(self.cluster.process_id(member).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn kill(&mut self, member: usize) -> Result<bool> {
        self.processes[member].store(0, Ordering::Relaxed);
        let _status = self.cluster.ended(member)?; // then there is nothing to kill, which is no error
        self.cluster.kill(member)
    }

    /// Asks the member to end, and kills it when it takes too long.
    pub(super) async fn terminate(&mut self, member: usize) -> Result<Stopped> {
        if !self.cluster.terminate(member)? {
            return Ok(Stopped::DidNotRun);
        }
        let deadline = Instant::now() + ENDS_WITHIN;
        while self.cluster.process_id(member).is_some() && self.cluster.ended(member)?.is_none() {
            if Instant::now() > deadline {
                self.kill(member)?;
                return Ok(Stopped::Killed);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Stopped::Ended)
    }

    /// Until it answers, but not long.
    pub(super) async fn wait_for(&self, member: usize) {
        let back = Instant::now() + BACK_WITHIN;
        while Instant::now() < back && !cluster::answers(&self.cluster.client_urls[member], POLL * 2).await {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts members again that have ended by themselves, and notes those that had no reason to.
    pub async fn supervise(&mut self) -> Result<()> {
        self.finish_replacement().await?;
        for member in 0..self.cluster.size() {
            if self.held.contains(&member) {
                continue;
            }
            if let Some(status) = self.cluster.ended(member)? {
                self.judge(member, status);
                self.revive(member)?;
            }
        }
        Ok(())
    }

    /// Whether the member ended while a fault had it in hand that gives no reason to end but the one that it says.
    pub(super) fn judge_end(&mut self, member: usize, record: &mut Injected) -> Result<()> {
        if let Some(status) = self.cluster.ended(member)? {
            record.evidence += &format!("; the member ended ({status})");
            self.judge(member, status);
        }
        Ok(())
    }

    /// A finding, unless the member had a reason to end and says it.
    fn judge(&mut self, member: usize, status: ExitStatus) {
        let log_end = last_lines(self.cluster.log(member), 20);
        let lacked = self.lacked.get(&member).copied();
        let joins = self.replaced == Some(member);
        let blameless = self.unsound.contains(&member) || self.traced.contains(&member);
        if blameless || excused(lacked, joins, Instant::now(), &log_end) {
            return;
        }
        self.findings.push(Finding {
            checker: "LIV".to_owned(),
            sentence: format!(
                "m{} ended by itself ({status}) at {:.3} s; its log ends with:\n{}",
                member + 1,
                self.shared.started.elapsed().as_secs_f64(),
                last_lines(self.cluster.log(member), 3)
            ),
        });
    }

    pub(super) async fn stop_processes(
        &mut self,
        kind: Kind,
        members: &[usize],
    ) -> Result<(u64, String, Undo)> {
        self.hold(members);
        let mut effect = 0;
        let mut killed = 0;
        let mut evidence = String::new();
        for member in members.iter().copied() {
            match kind {
                Kind::Pause => {
                    self.cluster.pause(member)?;
                    let state = self.cluster.process_id(member).map(process_state);
                    effect += u64::from(state == Some('T'));
                    evidence = format!("state {state:?} in the process table");
                }
                Kind::PowerCut => {
                    evidence = self.disks.context("no disks")?.cut_power(member)?;
                    effect += 1;
                }
                Kind::RollingRestart => {
                    match self.terminate(member).await? {
                        Stopped::DidNotRun => {}
                        Stopped::Ended => effect += 1,
                        Stopped::Killed => killed += 1,
                    }
                    self.revive(member)?;
                    evidence =
                        format!("{effect} ended after SIGTERM, {killed} had to be killed; all started again");
                    self.wait_for(member).await;
                    self.held.remove(&member);
                }
                _ => {
                    effect += u64::from(self.kill(member)?);
                    evidence = "the process ended by signal 9".to_owned();
                }
            }
        }
        if kind == Kind::PowerCut {
            // All disks first, so that it happens to all at once.
            for member in members.iter().copied() {
                self.kill(member)?;
            }
        }
        Ok((
            effect,
            evidence,
            match kind {
                Kind::Pause => Undo::Resume,
                Kind::PowerCut => Undo::Power,
                Kind::RollingRestart => Undo::Nothing,
                _ => Undo::Revive,
            },
        ))
    }
}

/// The letter of the process table: T is stopped.
fn process_state(process: u32) -> char {
    // A stopped process shows it as soon as its threads have noticed.
    for _ in 0..50 {
        let state = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let letter = state.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if letter == Some('T') {
            return 'T';
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    '?'
}

/// Whether a member may have ended by itself: it `lacked` something until a while ago, or it joins and found nobody who
/// tells it of the cluster, as etcd does then; and it says so.
fn excused(lacked: Option<Lacked>, joins: bool, now: Instant, log_end: &str) -> bool {
    lacked.is_some_and(|lacked| now < lacked.until && log_end.contains(lacked.says))
        || joins && log_end.contains("no peer answered")
}

fn last_lines(log: &Path, count: usize) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Lacked, NO_SPACE, excused};

    #[test]
    fn what_a_member_lacks_excuses_an_end_that_names_it_and_only_for_a_while() {
        let now = Instant::now();
        let later = Some(Lacked { until: now + Duration::from_secs(1), says: NO_SPACE });
        let says = "the log failed: No space left on device (os error 28)";
        assert!(excused(later, false, now, says));
        assert!(!excused(later, true, now, "panicked at src/lib.rs"));
        assert!(!excused(later, true, now, "Too many open files (os error 24)"), "the excuse of another");
        assert!(!excused(Some(Lacked { until: now, says: NO_SPACE }), true, now, says), "the excuse stays");
        assert!(!excused(None, false, now, says), "an excuse without a fault");
    }

    #[test]
    fn only_a_member_that_joins_may_give_up_when_nobody_answers() {
        let says = "etcd: --initial-cluster-state=existing: no peer answered: Connection refused";
        assert!(excused(None, true, Instant::now(), says));
        assert!(!excused(None, false, Instant::now(), says));
    }
}
