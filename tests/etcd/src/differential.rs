//! The same calls to ours and to a real etcd, and every answer compared.
//!
//! A seed makes a sequence of lines of the scripts' language (`generate`); each line is executed on both servers, and
//! what came back must be the same but for what differs by nature or on purpose (`known`). A sequence that ends in a
//! difference is shortened until no line can be left out, and told with both answers. Nothing depends on time: events of
//! a watch are awaited, and compared as one list for each watch.
//! Not here: what is right (scripts/ says that; here etcd is right).

pub mod generate;
mod known;
mod side;

use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use prost_reflect::DescriptorPool;
use serde_json::Value;

use crate::call;
use side::Side;

/// Until both have told the same, or one of them has told something else for so long.
const AGREE_TIME_MAX: Duration = Duration::from_secs(8);
/// A call that waits for others by nature is given up when neither has answered for so long. Once one has, the other has
/// as long as for any call: only a slow machine makes it late.
const BLOCKING_TIME_MAX: Duration = Duration::from_secs(4);
const SHORTEN_TRIES_MAX: usize = 120;
const SHORTEN_TIME_MAX: Duration = Duration::from_secs(90);

/// Ours beside a real etcd.
pub struct Pair {
    pool: DescriptorPool,
    theirs: Side,
    ours: Side,
    program: std::path::PathBuf,
}

/// A line that was not answered alike.
#[derive(Debug)]
pub struct Difference {
    /// The line's place in the sequence.
    pub at: usize,
    pub theirs: Value,
    pub ours: Value,
}

/// What a seed brought.
pub struct Report {
    pub lines: usize,
    /// A script that repeats the difference, with both answers.
    pub difference: Option<String>,
}

impl Pair {
    /// `program`: the real etcd.
    pub async fn start(program: &Path) -> Result<Pair> {
        let (theirs, ours) = tokio::try_join!(Side::start(Some(program)), Side::start(None))?;
        Ok(Pair { pool: call::pool()?, theirs, ours, program: program.to_owned() })
    }

    /// Runs what a seed makes.
    pub async fn run_seed(&mut self, seed: u64, count: usize) -> Result<Report> {
        let lines = generate::lines(&self.pool, seed, count);
        let Some(difference) = self.run(&lines).await? else {
            return Ok(Report { lines: lines.len(), difference: None });
        };
        let mut short = lines[..=difference.at].to_vec();
        let shortened = self.shorten(&mut short, difference).await?;
        let mut script = format!("## seed {seed}, {} of {} lines\n", short.len(), lines.len());
        for line in &short {
            script.push_str(line);
            script.push('\n');
        }
        script.push_str(&format!("# etcd: {}\n# ours: {}\n", shortened.theirs, shortened.ours));
        Ok(Report { lines: lines.len(), difference: Some(script) })
    }

    /// Leaves out what the difference does not need. Gives the difference that is left.
    async fn shorten(&mut self, lines: &mut Vec<String>, found: Difference) -> Result<Difference> {
        let (begin, mut tries, mut found) = (Instant::now(), 0, found);
        let mut piece = (lines.len() / 2).max(1);
        loop {
            let (mut at, mut shorter) = (0, false);
            while at < lines.len() {
                if tries >= SHORTEN_TRIES_MAX || begin.elapsed() > SHORTEN_TIME_MAX {
                    return Ok(found);
                }
                tries += 1;
                let end = (at + piece).min(lines.len());
                let mut fewer = lines.clone();
                fewer.drain(at..end);
                match self.run(&fewer).await? {
                    // Another difference is one as well, but that of a line before may hide this one.
                    Some(difference) if same_kind(&difference, &found) => {
                        fewer.truncate(difference.at + 1);
                        *lines = fewer;
                        found = difference;
                        shorter = true;
                    }
                    _ => at = end,
                }
            }
            if piece > 1 {
                piece /= 2;
            } else if !shorter {
                return Ok(found);
            }
        }
    }

    /// Executes the lines on both until they differ.
    pub async fn run(&mut self, lines: &[String]) -> Result<Option<Difference>> {
        self.clear().await?;
        for (at, line) in lines.iter().enumerate() {
            if side::ends_history(line)
                && let Some((theirs, ours)) = self.agree().await?
            {
                return Ok(Some(Difference { at: at.saturating_sub(1), theirs, ours }));
            }
            let (theirs, ours) = (self.theirs.line(&self.pool, line), self.ours.line(&self.pool, line));
            let (theirs, ours) = both(line, theirs, ours).await.with_context(|| line.clone())?;
            if known::died(&theirs) {
                eprintln!("this etcd ended at line {at}, so nothing is compared behind it: {line}");
                return Ok(None);
            }
            let (theirs, ours) =
                (known::normal(line, theirs, &self.theirs), known::normal(line, ours, &self.ours));
            if !known::same(line, &theirs, &ours) {
                return Ok(Some(Difference { at, theirs, ours }));
            }
            if (side::is_sent(line) || at + 1 == lines.len())
                && let Some((theirs, ours)) = self.agree().await?
            {
                return Ok(Some(Difference { at, theirs, ours }));
            }
        }
        Ok(None)
    }

    /// Waits until the streams of both have told the same. Gives what they told if they do not.
    async fn agree(&mut self) -> Result<Option<(Value, Value)>> {
        if !self.theirs.has_streams() {
            return Ok(None);
        }
        // Which watchers read history is known of etcd alone.
        self.theirs.catch_up().await?;
        let (theirs, ours) = tokio::join!(self.theirs.flush(), self.ours.flush());
        theirs?;
        ours?;
        let begin = Instant::now();
        loop {
            let (theirs, ours) = (self.theirs.told(), self.ours.told());
            if theirs == ours {
                return Ok(None);
            }
            if begin.elapsed() > AGREE_TIME_MAX {
                return Ok(Some((theirs, ours)));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Both as new: no keys, leases, users, alarms or streams, and all history compacted. Fresh servers if need be.
    async fn clear(&mut self) -> Result<()> {
        let bases = tokio::join!(self.theirs.clear(), self.ours.clear());
        if let (Ok(theirs), Ok(ours)) = bases
            && theirs == ours
        {
            return Ok(());
        }
        *self = Pair::start(&self.program).await?;
        let (theirs, ours) = tokio::try_join!(self.theirs.clear(), self.ours.clear())?;
        ensure!(theirs == ours, "fresh servers begin differently: {theirs:?} and {ours:?}");
        Ok(())
    }
}

/// What both answer to one line.
async fn both(
    line: &str,
    theirs: impl Future<Output = Result<Value>>,
    ours: impl Future<Output = Result<Value>>,
) -> Result<(Value, Value)> {
    if !side::blocks(line) {
        return tokio::try_join!(theirs, ours);
    }
    let (mut theirs, mut ours) = (pin!(theirs), pin!(ours));
    tokio::select! {
        theirs = &mut theirs => Ok((theirs?, ours.await?)),
        ours = &mut ours => Ok((theirs.await?, ours?)),
        () = tokio::time::sleep(BLOCKING_TIME_MAX) => Ok((side::NO_ANSWER.into(), side::NO_ANSWER.into())),
    }
}

/// Whether two differences may be one: both answered, or one was refused in the same way.
fn same_kind(one: &Difference, other: &Difference) -> bool {
    let kind = |value: &Value| value.get("refused").cloned();
    kind(&one.theirs) == kind(&other.theirs) && kind(&one.ours) == kind(&other.ours)
}
