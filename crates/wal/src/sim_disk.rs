//! A disk in memory that can lose power: what was not synced may be lost, in part, in any order. For tests.
//!
//! Always holds: data is durable after `sync_data` of its file, a name after `sync_directory` of its directory, and
//! nothing else is. A sector of 512 bytes is old or new, never mixed. Everything is deterministic.
//! Directories themselves are always there. Not here: which crashes to try (crash.rs), what must hold afterwards
//! (the suites that use this).

pub mod contents;
pub mod crash;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::disk::{DirectoryLock, Disk, DiskFile};
use crash::{Moment, Pending, Platter};

/// What the disk was asked to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Change(Pending),
    SyncFile {
        file: usize,
    },
    SyncDirectory {
        directory: PathBuf,
    },
    /// Of the test, not of the disk.
    Note(u64),
}

/// What goes wrong without a crash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// So many bytes can still be written before the disk is full.
    pub free_bytes: Option<u64>,
    /// No file can be created: the process has no descriptor left (EMFILE).
    pub no_descriptor: bool,
    /// So many syncs of files still work; the next one fails, and what it should have written stays in the page
    /// cache, looks clean, and is not on disk.
    pub syncs_before_failure: Option<u32>,
    /// So many writes still work; the next one fails.
    pub writes_before_failure: Option<u32>,
    /// No write takes more than this at a time.
    pub write_size_bytes_max: Option<usize>,
    /// So many changes and syncs still work; then the power is off: everything fails, and what is pending stays so.
    pub operations_before_power_cut: Option<u64>,
}

#[derive(Default)]
struct World {
    /// What programs see.
    cache: Platter,
    /// What survives, and what may.
    moment: Moment,
    trace: Vec<Operation>,
    /// Long runs do not keep what they did.
    untraced: bool,
    faults: Faults,
    locks: BTreeSet<PathBuf>,
    syncs: u64,
}

/// Clones share one disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

/// An open file of a `SimDisk`.
#[derive(Clone)]
pub struct SimFile {
    world: Arc<Mutex<World>>,
    file: usize,
}

struct SimLock {
    world: Arc<Mutex<World>>,
    path: PathBuf,
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no such file: {}", path.display()))
}

impl World {
    fn change(&mut self, pending: Pending) {
        self.cache.apply(&pending);
        self.record(Operation::Change(pending));
    }

    fn record(&mut self, operation: Operation) {
        self.moment.advance(&operation);
        if !self.untraced {
            self.trace.push(operation);
        }
    }

    /// Counts an operation; fails once the power is off.
    fn powered(&mut self) -> io::Result<()> {
        match &mut self.faults.operations_before_power_cut {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn number(&self, path: &Path) -> io::Result<usize> {
        self.cache.names.get(path).copied().ok_or_else(|| not_found(path))
    }
}

impl SimDisk {
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// After a power cut left this.
    pub fn with(platter: Platter) -> SimDisk {
        let disk = SimDisk::default();
        {
            let mut world = disk.world.lock();
            world.cache = platter.clone();
            world.moment = Moment { platter, pending: Vec::new() };
        }
        disk
    }

    /// After the process was killed: the page cache lives on, what was pending still is, faults are over.
    pub fn killed(&self) -> SimDisk {
        let world = self.world.lock();
        let (cache, moment) = (world.cache.clone(), world.moment.clone());
        SimDisk { world: Arc::new(Mutex::new(World { cache, moment, ..World::default() })) }
    }

    /// Keeps no trace from now on.
    pub fn untraced(self) -> SimDisk {
        self.world.lock().untraced = true;
        self
    }

    /// Begins a trace anew.
    pub fn trace_from_here(&self) {
        let mut world = self.world.lock();
        world.untraced = false;
        world.trace.clear();
    }

    /// `Faults::operations_before_power_cut` has come true.
    pub fn is_off(&self) -> bool {
        self.world.lock().faults.operations_before_power_cut == Some(0)
    }

    pub fn set_faults(&self, faults: Faults) {
        self.world.lock().faults = faults;
    }

    /// Writes a note of the test between the operations.
    pub fn note(&self, note: u64) {
        self.world.lock().record(Operation::Note(note));
    }

    /// All operations since the disk was made.
    pub fn trace(&self) -> Vec<Operation> {
        self.world.lock().trace.clone()
    }

    /// What is durable and what is pending now.
    pub fn moment(&self) -> Moment {
        self.world.lock().moment.clone()
    }

    /// What programs see now.
    pub fn cache(&self) -> Platter {
        self.world.lock().cache.clone()
    }

    /// Successful syncs of files.
    pub fn sync_count(&self) -> u64 {
        self.world.lock().syncs
    }

    pub fn open_file(&self, path: &Path) -> io::Result<SimFile> {
        let file = self.world.lock().number(path)?;
        Ok(SimFile { world: Arc::clone(&self.world), file })
    }

    pub fn create_file(&self, path: &Path) -> io::Result<SimFile> {
        let mut world = self.world.lock();
        if world.cache.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.powered()?;
        if world.faults.no_descriptor {
            return Err(io::Error::from_raw_os_error(24));
        }
        let file = world.cache.files.len();
        world.change(Pending::Create { path: path.to_owned(), file });
        Ok(SimFile { world: Arc::clone(&self.world), file })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.world.lock();
        let file = world.cache.files.get(self.file);
        Ok(file.map_or(0, |file| usize::try_from(offset).map_or(0, |offset| file.read(buffer, offset))))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut world = self.world.lock();
        world.powered()?;
        let mut size = bytes.len().min(world.faults.write_size_bytes_max.unwrap_or(usize::MAX));
        match &mut world.faults.writes_before_failure {
            Some(0) => return Err(io::Error::other("injected write error")),
            Some(left) => *left -= 1,
            None => {}
        }
        if let Some(free) = &mut world.faults.free_bytes {
            size = size.min(usize::try_from(*free).unwrap_or(usize::MAX));
            *free -= size as u64;
            if size == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let bytes = bytes.get(..size).unwrap_or_default().to_vec();
        world.change(Pending::Write { file: self.file, offset, bytes });
        Ok(size)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.world.lock().cache.files.get(self.file).map_or(0, |file| file.len() as u64))
    }

    fn set_size_bytes(&self, size_bytes: u64) -> io::Result<()> {
        let mut world = self.world.lock();
        world.powered()?;
        world.change(Pending::Resize { file: self.file, size_bytes });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.world.lock();
        world.powered()?;
        match &mut world.faults.syncs_before_failure {
            Some(0) => {
                let file = self.file;
                // As a kernel does: the error is told once.
                world.faults.syncs_before_failure = None;
                world.moment.pending.retain(|pending| pending.file_of_data() != Some(file));
                return Err(io::Error::other("injected sync error"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        world.syncs += 1;
        world.record(Operation::SyncFile { file: self.file });
        Ok(())
    }
}

impl DirectoryLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.world.lock().locks.remove(&self.path);
    }
}

impl Disk for SimDisk {
    fn create_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DirectoryLock>>> {
        if !self.world.lock().locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { world: Arc::clone(&self.world), path: path.to_owned() })))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let world = self.world.lock();
        let inside = world.cache.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.open_file(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.create_file(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world.lock();
        world.powered()?;
        let file = world.number(from)?;
        world.change(Pending::Rename { from: from.to_owned(), to: to.to_owned(), file });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world.lock();
        world.powered()?;
        let file = world.number(path)?;
        world.change(Pending::Remove { path: path.to_owned(), file });
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut world = self.world.lock();
        world.powered()?;
        world.record(Operation::SyncDirectory { directory: directory.to_owned() });
        Ok(())
    }

    /// A microsecond a sync: only differences matter, and they must be the same each time.
    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.world.lock().syncs)
    }
}
