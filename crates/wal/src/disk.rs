//! The seam between the log and storage: files and directory entries behind two small traits.
//!
//! Always holds: nothing here caches, retries or reorders; an error of the operating system is handed up as it is.
//! A write may be short. Not here: the crash-simulating disk (sim_disk.rs), what the bytes mean (record.rs,
//! segment.rs).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One open file. Reads and writes name their offset, so readers and the writer share a handle.
pub trait DiskFile: Send + Sync {
    /// Reads what is there, at most `buffer.len()`; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// May write less than asked.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    fn size_bytes(&self) -> io::Result<u64>;
    /// Cuts the file, or makes it longer with zeros.
    fn set_size_bytes(&self, size_bytes: u64) -> io::Result<()>;
    /// fdatasync: the data, and what is needed to read it back.
    fn sync_data(&self) -> io::Result<()>;
}

/// Held by the owner of the log; dropping it gives the directory free.
pub trait DirectoryLock: Send {}

/// One disk for several users.
impl<D: Disk + ?Sized> Disk for Arc<D> {
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        (**self).create_directory(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DirectoryLock>>> {
        (**self).lock(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        (**self).list(directory)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        (**self).open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        (**self).create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (**self).rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        (**self).remove(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        (**self).sync_directory(directory)
    }

    fn elapsed(&self) -> Duration {
        (**self).elapsed()
    }
}

/// Files and directories. A created, renamed or removed name is durable only after `sync_directory`.
pub trait Disk: Send + Sync + 'static {
    /// Creates the directory and its missing parents, readable by the owner only, and makes that durable.
    fn create_directory(&self, directory: &Path) -> io::Result<()>;
    /// Takes the exclusive lock in the file `path`; `None`: somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DirectoryLock>>>;
    /// The names in `directory`, in any order.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Fails with `AlreadyExists` when there is one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Time on a monotonic clock; only metrics look at it.
    fn elapsed(&self) -> Duration;
}

/// The operating system's files.
#[derive(Debug)]
pub struct RealDisk {
    started: Instant,
}

impl RealDisk {
    pub fn new() -> RealDisk {
        RealDisk { started: Instant::now() }
    }
}

impl Default for RealDisk {
    fn default() -> RealDisk {
        RealDisk::new()
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_size_bytes(&self, size_bytes: u64) -> io::Result<()> {
        self.set_len(size_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}

impl DirectoryLock for File {}

impl Disk for RealDisk {
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        if directory.is_dir() {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        match directory.parent() {
            Some(parent) if parent.as_os_str().is_empty() => self.sync_directory(Path::new(".")),
            Some(parent) => self.sync_directory(parent),
            None => Ok(()),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DirectoryLock>>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
