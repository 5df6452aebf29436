//! Reads a directory back: which segments count, where the log ends, and whether anything acknowledged is missing.
//!
//! Always holds: damage followed by a mark, by a segment, or before the end that the next segment's header states is
//! `LostAcknowledged`, and then nothing on disk is changed; other damage is a torn write and is cut by going on in a
//! new segment. What is handed out is durable: the part that no mark speaks of is written and synced again, because
//! after a failed sync the page cache may show bytes that the disk does not have.
//! Not here: one segment's records (replay.rs), which segments follow each other (chain.rs), writing (writer.rs).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::api::{Config, Damage, OpenError, Recovered};
use crate::chain::{self, Found};
use crate::damage::Note;
use crate::disk::{DirectoryLock, Disk, DiskFile};
use crate::handle::Shared;
use crate::index::{Index, Segment};
use crate::planted::{self, Bug};
use crate::replay::{self, Beyond, State, Stop};
use crate::segment::{self, Name, read_full, write_full};
use crate::vote_file::Saved;
use crate::writer::{Active, Writer};

const SEGMENT_SIZE_BYTES_MIN: u64 = 1 << 10;
const SEGMENT_SIZE_BYTES_MAX: u64 = 1 << 30;
const REWRITE_CHUNK_BYTES: u64 = 256 << 10;

/// Result of reading the chain.
#[derive(Default)]
struct Outcome {
    state: State,
    index: Index,
    /// The last segment that counts, and where reading it stopped.
    last: Option<(Active, Stop)>,
    beyond: Beyond,
    /// File and offset where acknowledged data ends too early.
    loss: Option<(PathBuf, u64)>,
    /// So many segments of the chain count.
    keep: usize,
    /// The vote that counts was not read on the way to where the log ends: the segment does not have it.
    vote_found_aside: bool,
}

impl Outcome {
    /// Takes the vote that was saved beside the log if the log's own is older.
    fn adopt(&mut self, saved: Option<Saved>) {
        let Some(saved) = saved.filter(|saved| self.state.vote_place < Some(saved.place)) else { return };
        self.vote_found_aside |= self.state.carried.vote.as_ref() != Some(&saved.vote);
        self.state.vote_place = Some(saved.place);
        self.state.carried.vote = Some(saved.vote);
    }
}

pub(crate) fn disk_error<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> OpenError + 'a {
    move |source| OpenError::Disk { action, path: path.to_owned(), source }
}

pub(crate) fn recover(
    disk: Box<dyn Disk>,
    config: Config,
    shared: Arc<Shared>,
) -> Result<(Writer, Recovered), OpenError> {
    let (min_bytes, max_bytes) = (SEGMENT_SIZE_BYTES_MIN, SEGMENT_SIZE_BYTES_MAX);
    let size_bytes = config.segment_size_bytes;
    if !(min_bytes..=max_bytes).contains(&size_bytes) {
        return Err(OpenError::SegmentSize { size_bytes, min_bytes, max_bytes });
    }
    let lock = lock(&*disk, &config.dir)?;
    let dir = config.dir.clone();
    let mut names = disk.list(&dir).map_err(disk_error("list", &dir))?;
    names.sort();
    let mut writer = Writer::new(disk, lock, config, shared);
    let mut found = chain::find(&*writer.disk, &writer.config, &names)?;
    writer.next_sequence = found.last().map_or(1, |newest| newest.sequence + 1);
    let surplus = adopt_spares(&mut writer, &names)?;

    let chain = chain::link(&mut found).map_err(disk_error("read", &dir))?;
    let mut outcome = read_chain(&dir, &chain).map_err(disk_error("read", &dir))?;
    let saved = writer.vote_file.read(&*writer.disk, &names);
    outcome.adopt(saved.map_err(disk_error("read", &writer.vote_file.path))?);
    let useless = chain.iter().skip(outcome.keep).chain(&found).map(|found| found.path.clone());
    let mut useless: Vec<PathBuf> = useless.collect();
    useless.sort();
    writer.obsolete.extend(useless.into_iter().chain(surplus));
    let recovered = install(&mut writer, outcome)?;
    Ok((writer, recovered))
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DirectoryLock>, OpenError> {
    disk.create_directory(dir).map_err(disk_error("create", dir))?;
    let path = dir.join("lock");
    let lock = disk.lock(&path).map_err(disk_error("lock", &path))?;
    lock.ok_or_else(|| OpenError::Locked { dir: dir.to_owned() })
}

/// Returns the spares that are too many.
fn adopt_spares(writer: &mut Writer, names: &[String]) -> Result<Vec<PathBuf>, OpenError> {
    let mut surplus = Vec::new();
    for name in names {
        let Name::Spare(number) = Name::parse(name) else { continue };
        let path = segment::spare_path(&writer.config.dir, number);
        let adopted = writer.spares.adopt(&*writer.disk, &writer.config.dir, number);
        if !adopted.map_err(disk_error("open", &path))? {
            surplus.push(path);
        }
    }
    Ok(surplus)
}

fn read_chain(dir: &Path, chain: &[Found]) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    for (position, segment) in chain.iter().enumerate() {
        let before = position.checked_sub(1).and_then(|before| chain.get(before));
        outcome.loss = seam_loss(dir, before, segment, outcome.state.next_index);
        let (None, Some(header), Some(seed)) = (&outcome.loss, &segment.header, segment.seed()) else {
            break;
        };
        if before.is_none() {
            outcome.state.next_index = header.first_index;
        }
        let (sequence, path, file) = (segment.sequence, segment.path.clone(), Arc::clone(&segment.file));
        outcome.index.begin_segment(Segment::new(path.clone(), Arc::clone(&file), seed, header.first_index));
        let next = chain.get(position + 1);
        let limit = next.and_then(|next| next.header.as_ref());
        let limit = limit.filter(|header| header.previous_sequence == sequence);
        let limit = limit.map(|header| header.previous_end_bytes);
        let stop = replay::replay(&*file, (sequence, seed), limit, &mut outcome.state, &mut outcome.index)?;
        if limit.is_some_and(|limit| stop.offset != limit) {
            outcome.loss = Some((path.clone(), stop.offset));
        }
        if next.is_none() {
            outcome.beyond = replay::look_beyond(&*file, seed, stop.offset)?;
            if outcome.beyond.marked && !planted::is(Bug::MarksIgnored) {
                outcome.loss = Some((path.clone(), stop.offset));
            }
        }
        let filled_bytes = file.size_bytes()?;
        let active = Active { sequence, path, file, seed, position: stop.offset, filled_bytes };
        outcome.last = Some((active, stop));
        outcome.keep = position + 1;
        if outcome.loss.is_some() {
            break;
        }
    }
    catch_up_purge(chain, &mut outcome)?;
    check_front(dir, chain, &mut outcome);
    if outcome.loss.is_some() {
        salvage(chain, &mut outcome)?;
    } else if let (Some((offset, vote)), Some((last, _))) = (outcome.beyond.vote.take(), &outcome.last) {
        // One that nobody was told of, or an older build's second copy: to keep it harms nobody.
        outcome.state.vote_place = Some((last.sequence, offset));
        outcome.state.carried.vote = Some(vote);
        outcome.vote_found_aside = true;
    }
    Ok(outcome)
}

/// Whether `segment` continues what was read so far.
fn seam_loss(
    dir: &Path,
    before: Option<&Found>,
    segment: &Found,
    next_index: Option<u64>,
) -> Option<(PathBuf, u64)> {
    let Some(header) = &segment.header else { return Some((segment.path.clone(), 0)) };
    let before = before?;
    if header.previous_sequence != before.sequence {
        return Some((segment::path(dir, header.previous_sequence), 0));
    }
    (header.first_index != next_index).then(|| (segment.path.clone(), 0))
}

/// Segments behind a loss carry a purge that was durable: what it covers was not lost.
fn catch_up_purge(chain: &[Found], outcome: &mut Outcome) -> io::Result<()> {
    let purged = outcome.state.carried.purged.as_ref().map(|(purged, _)| *purged);
    if let Some((upto_index, payload)) = chain::newest_purge(chain)?
        && purged.is_none_or(|purged| purged < upto_index)
    {
        outcome.state.purge(upto_index, payload);
        outcome.index.purge(upto_index);
    }
    Ok(())
}

/// Segments are removed from the front only below the purged index.
fn check_front(dir: &Path, chain: &[Found], outcome: &mut Outcome) {
    let Some(header) = chain.first().and_then(|first| first.header.as_ref()) else { return };
    let purged = outcome.state.carried.purged.as_ref().map(|(purged, _)| *purged);
    if header.previous_sequence == 0 || chain::is_covered(header.first_index, purged) {
        return;
    }
    outcome.state.next_index = purged.map(|purged| purged.saturating_add(1));
    outcome.state.entries.clear();
    outcome.index = Index::default();
    outcome.last = None;
    outcome.keep = 0;
    outcome.loss = Some((segment::path(dir, header.previous_sequence), 0));
}

/// A vote behind the damage must not be forgotten, and marks there say how much is missing.
fn salvage(chain: &[Found], outcome: &mut Outcome) -> io::Result<()> {
    for (position, segment) in chain.iter().enumerate().skip(outcome.keep.saturating_sub(1)) {
        let (Some(header), Some(seed)) = (&segment.header, segment.seed()) else { continue };
        let stopped = outcome.last.as_ref().filter(|_| position < outcome.keep);
        let offset = stopped.map_or(segment::HEADER_SIZE_BYTES, |(_, stop)| stop.offset);
        let beyond = replay::look_beyond(&*segment.file, seed, offset)?;
        let state = &mut outcome.state;
        if let Some((offset, vote)) = beyond.vote {
            state.vote_place = Some((segment.sequence, offset));
            state.carried.vote = Some(vote);
        }
        let begun = header.first_index.unwrap_or(0).saturating_sub(1);
        state.acknowledged_index = state.acknowledged_index.max(begun).max(beyond.acknowledged_index);
    }
    Ok(())
}

fn install(writer: &mut Writer, outcome: Outcome) -> Result<Recovered, OpenError> {
    let Outcome { mut state, index, last, beyond, loss, vote_found_aside, .. } = outcome;
    let last_good_index = state.next_index.map_or(0, |next| next.saturating_sub(1));
    writer.repair_waits = loss.is_some();
    if let Some((file, offset)) = loss {
        let file_name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        let acknowledged_index = state.acknowledged_index.max(last_good_index);
        let note =
            Note { file_name: file_name.unwrap_or_default(), offset, last_good_index, acknowledged_index };
        state.carried.loss = Some(note.merge(state.carried.loss.take()));
    }
    let damage = match (&state.carried.loss, &last) {
        (Some(note), _) => note.damage(&writer.config.dir),
        (None, Some((active, stop))) => torn_tail(&active.path, stop.offset, &beyond),
        (None, None) => Damage::None,
    };
    *writer.shared.index.write() = index;
    writer.next_index = state.next_index;
    writer.carried = state.carried.clone();
    let stop = last.as_ref().map(|(_, stop)| *stop);
    writer.marked = stop.is_none_or(|stop| stop.after_mark);
    writer.active = last.map(|(active, _)| active);
    if !writer.repair_waits {
        settle(writer, stop, beyond.records_end.is_some(), vote_found_aside)?;
    }
    let (vote, committed, purged) = (state.carried.vote, state.carried.committed, state.carried.purged);
    Ok(Recovered { entries: state.entries.into(), vote, committed, purged, damage })
}

fn torn_tail(path: &Path, offset: u64, beyond: &Beyond) -> Damage {
    let file = path.to_owned();
    match beyond.records_end {
        Some(end) => Damage::TornTail { file, offset, dropped_bytes: end.saturating_sub(offset) },
        None if beyond.begins_with_zeros => Damage::None,
        None => Damage::TornTail { file, offset, dropped_bytes: 0 },
    }
}

/// Makes durable what was read, and gets a segment to write to.
fn settle(
    writer: &mut Writer,
    stop: Option<Stop>,
    stale_records_follow: bool,
    vote_found_aside: bool,
) -> Result<(), OpenError> {
    let dir = writer.config.dir.clone();
    if let (Some(active), Some(stop)) = (&writer.active, stop)
        && writer.config.fsync
        && !planted::is(Bug::FoundNotSynced)
    {
        let from = stop.last_mark.unwrap_or(segment::HEADER_SIZE_BYTES);
        rewrite(&*active.file, from, stop.offset).map_err(disk_error("write", &active.path))?;
        for (path, file) in writer.shared.index.read().files() {
            file.sync_data().map_err(disk_error("sync", path))?;
        }
        writer.disk.sync_directory(&dir).map_err(disk_error("sync", &dir))?;
    }
    let stale_records_follow = stale_records_follow && !planted::is(Bug::StaleTailKept);
    if stop.is_none() || stale_records_follow || vote_found_aside {
        let begun = writer.begin_segment();
        begun.map_err(|failure| disk_error("begin a segment in", &dir)(failure.to_error()))?;
    }
    let renewed = writer.renew_vote_file();
    renewed.map_err(|failure| disk_error("write a vote in", &dir)(failure.to_error()))?;
    writer.collect_obsolete();
    Ok(())
}

fn rewrite(file: &dyn DiskFile, from: u64, end: u64) -> io::Result<()> {
    let mut offset = from;
    while offset < end {
        let mut bytes = vec![0; REWRITE_CHUNK_BYTES.min(end - offset) as usize];
        let read = read_full(file, &mut bytes, offset)?;
        if read < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_full(file, &bytes, offset)?;
        offset += bytes.len() as u64;
    }
    Ok(())
}
