//! Crash images: what a power cut would have left of all members, taken while they go on.
//!
//! The disks of all members are copied, each at one moment, and a process alone is started on each copy. Invariants: what
//! clients had been told before the first copy is on a majority of the copies, whole and unchanged, because no answer is
//! given before a majority has it on disk; every copy opens. A minority may lack it, or hold in its place what was never
//! acknowledged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use harness::etcd::Extra;
use serde::{Deserialize, Serialize};
use wire::etcdserverpb as pb;

use crate::cluster::client;
use crate::disk::DiskCopy;
use crate::history::{Entry, Key, Violation};
use crate::log::Log;
use crate::workload::{Shared, entry, revision};

/// A process on a copy answers within this, also on a slow machine.
const OPENED_WITHIN: Duration = Duration::from_secs(90);
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(50);

/// What one copy holds. Those of one moment have the same `at_ns`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub at_ns: u64,
    pub member: usize,
    /// The last revision that anybody had been told before.
    pub wanted: i64,
    /// The last revision of the copy.
    pub revision: i64,
    /// What it says that there was at the revision `wanted`.
    pub entries: Vec<(Key, Entry)>,
    /// Why it could not be opened.
    pub failed: Option<String>,
}

/// A copy, and how a process is started on it.
pub struct Copied {
    pub member: usize,
    pub copy: DiskCopy,
    pub command: Vec<String>,
    pub log: PathBuf,
    pub url: String,
}

/// Opens the copies one after another.
pub async fn open(copies: Vec<Copied>, at_ns: u64, wanted: i64, shared: Arc<Shared>) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for copied in copies {
        let member = copied.member;
        let mut image = Image { at_ns, member, wanted, revision: 0, entries: Vec::new(), failed: None };
        match read(&copied, wanted, &shared).await {
            Ok((revision, entries)) => (image.revision, image.entries) = (revision, entries),
            Err(error) => image.failed = Some(format!("{error:#}")),
        }
        shared.note("images", &image);
        images.push(image);
        // The process has ended; the copy goes with this.
        tokio::task::spawn_blocking(move || drop(copied)).await?;
    }
    Ok(images)
}

/// The copy's last revision, and all keys at revision `at` (none if it does not have that).
async fn read(copied: &Copied, at: i64, shared: &Shared) -> Result<(i64, Vec<(Key, Entry)>)> {
    let mut process = Extra::start(&copied.command, &copied.log)?;
    let deadline = Instant::now() + OPENED_WITHIN;
    let mut client = client(&copied.url)?;
    loop {
        let ask = pb::RangeRequest { key: Bytes::from_static(b"ready"), ..Default::default() };
        if let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_WITHIN, client.kv.range(ask)).await {
            let last = revision(answer.get_ref().header.as_ref())?;
            if last < at {
                return Ok((last, Vec::new()));
            }
            break;
        }
        if let Some(status) = process.ended()? {
            bail!("the process ended ({status}): {}", last_line(copied));
        }
        if Instant::now() > deadline {
            bail!("no answer within {OPENED_WITHIN:?}: {}", last_line(copied));
        }
        tokio::time::sleep(POLL).await;
    }
    let all = Bytes::from_static(b"\0");
    let ask = pb::RangeRequest { key: all.clone(), range_end: all, revision: at, ..Default::default() };
    let answer = client.kv.range(ask).await.context("cannot read the copy")?.into_inner();
    let last = revision(answer.header.as_ref())?;
    let entries = answer.kvs.iter().map(|kv| Ok((shared.key(&kv.key), entry(kv)?)));
    Ok((last, entries.collect::<Result<_>>()?))
}

fn last_line(copied: &Copied) -> String {
    let text = std::fs::read_to_string(&copied.log).unwrap_or_default();
    text.lines().last().unwrap_or_default().to_owned()
}

/// The number of images checked.
pub fn check(log: &Log, members: usize, images: &[Image]) -> Result<usize, Violation> {
    let mut moments: BTreeMap<u64, Vec<&Image>> = BTreeMap::new();
    for image in images {
        if let Some(failed) = &image.failed {
            let sentence = format!("the crash image of m{} does not open: {failed}", image.member + 1);
            return Err(Violation::seen(image.at_ns, sentence));
        }
        moments.entry(image.at_ns).or_default().push(image);
    }
    for (at_ns, images) in moments {
        let wanted = images[0].wanted;
        let held = log.state(wanted);
        let whole = images.iter().filter(|image| {
            let told: BTreeMap<Key, Entry> = image.entries.iter().copied().collect();
            image.revision >= wanted && told == held
        });
        let whole = whole.count();
        if whole <= members / 2 {
            let each = images.iter().map(|image| format!("m{} ends at {}", image.member + 1, image.revision));
            let sentence = format!(
                "clients had been told of revision {wanted}, but only {whole} of {members} crash images hold it as it \
                 was: {}",
                each.collect::<Vec<_>>().join(", ")
            );
            return Err(Violation::seen(at_ns, sentence));
        }
    }
    Ok(images.len())
}
