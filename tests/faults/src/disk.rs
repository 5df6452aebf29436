//! A file system of its own for each member, on a loop device, so that power can be cut and the disk can be full.
//!
//! Invariants: power is cut by shutting the file system down without flushing its journal, so exactly what was synced
//! is there after the next mount; a copy of a disk is what was on it at one moment; mounts live in the harness's own mount namespace and go with it.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rand::Rng as _;
use rand::rngs::StdRng;

use crate::network::sh;

/// Two log segments of 64 MiB and a state file fit.
const SIZE: &str = "320M";
/// `FS_IOC_SHUTDOWN` with `FS_SHUTDOWN_FLAGS_NOLOGFLUSH`. Our own code contains nothing unsafe, and an ioctl is.
const SHUTDOWN: &str = "import fcntl,os,struct,sys;\
                        fcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),0x8004587d,struct.pack('I',2))";

/// Of the disk that holds the images of disks, which only uses what is written.
const IMAGES_SIZE: &str = "8G";

#[derive(Debug)]
pub struct Disks {
    dir: PathBuf,
    /// Where the images of the disks lie.
    images: PathBuf,
}

/// What was on a member's disk at one moment, mounted; it goes with this.
#[derive(Debug)]
pub struct DiskCopy {
    image: PathBuf,
    home: PathBuf,
}

impl DiskCopy {
    /// Where the member's directory lies in it.
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }
}

impl Drop for DiskCopy {
    fn drop(&mut self) {
        drop(sh(&["umount", "-l", &self.home.display().to_string()])); // gone with the namespace otherwise
        drop(fs::remove_file(&self.image));
    }
}

/// Whether a file can be copied at one moment, while it is written to.
pub fn can_copy() -> bool {
    let Ok(dir) = tempfile::tempdir() else { return false };
    let Ok(images) = mount_images(dir.path()) else { return false };
    let (one, other) = (images.join("one").display().to_string(), images.join("other").display().to_string());
    let copied =
        sh(&["truncate", "-s", "1M", &one]).and_then(|_| sh(&["cp", "--reflink=always", &one, &other]));
    drop(sh(&["umount", "-l", &images.display().to_string()]));
    copied.is_ok()
}

/// A file system that copies a file by sharing its blocks.
fn mount_images(dir: &Path) -> Result<PathBuf> {
    let (image, images) = (dir.join("images.img").display().to_string(), dir.join("images"));
    sh(&["truncate", "-s", IMAGES_SIZE, &image])?;
    sh(&["mkfs.xfs", "-q", "-f", "-m", "reflink=1", &image])?;
    fs::create_dir_all(&images)?;
    sh(&["mount", "-o", "loop", &image, &images.display().to_string()])?;
    Ok(images)
}

impl Disks {
    /// Makes and mounts the disks of `members` members, so that they can be copied where that is asked for; every
    /// second is xfs where that can be made.
    pub fn build(dir: &Path, members: usize, copied: bool) -> Result<Disks> {
        let images = if copied { mount_images(dir)? } else { dir.to_owned() };
        let disks = Disks { dir: dir.to_owned(), images };
        let xfs = sh(&["sh", "-c", "command -v mkfs.xfs"]).is_ok();
        for member in 0..members {
            let image = disks.image(member);
            sh(&["truncate", "-s", SIZE, &image])?;
            if xfs && member % 2 == 1 {
                sh(&["mkfs.xfs", "-q", "-f", &image])?;
            } else {
                sh(&["mkfs.ext4", "-q", "-F", "-m", "0", &image])?;
            }
            fs::create_dir_all(disks.home(member))?;
            disks.mount(member)?;
        }
        Ok(disks)
    }

    fn image(&self, member: usize) -> String {
        self.images.join(format!("m{}.img", member + 1)).display().to_string()
    }

    fn home(&self, member: usize) -> PathBuf {
        self.dir.join(format!("m{}", member + 1))
    }

    fn mount(&self, member: usize) -> Result<()> {
        // Without this ext4 makes all durable every five seconds, whoever asks for it.
        let (image, home) = (self.image(member), self.home(member).display().to_string());
        sh(&["mount", "-o", "loop,commit=60", "-t", "ext4", &image, &home])
            .or_else(|_| sh(&["mount", "-o", "loop", &image, &home]))
            .map(drop)
    }

    /// A copy of the member's disk as it is now, whatever the member does. What it does not hold was not synced.
    pub fn copy(&self, member: usize, number: u64) -> Result<DiskCopy> {
        let name = format!("copy-{number}-m{}", member + 1);
        let copy = DiskCopy { image: self.images.join(format!("{name}.img")), home: self.dir.join(&name) };
        let (image, home) = (copy.image.display().to_string(), copy.home.display().to_string());
        sh(&["cp", "--reflink=always", &self.image(member), &image])?;
        fs::create_dir_all(&copy.home)?;
        // The names of the two would be the same, which xfs takes for a mistake.
        sh(&["mount", "-o", "loop,nouuid", "-t", "xfs", &image, &home])
            .or_else(|_| sh(&["mount", "-o", "loop", &image, &home]))?;
        free(&copy.home)?;
        Ok(copy)
    }

    /// From now on the member's file system fails every write; what was not synced is lost. Verified by a write.
    pub fn cut_power(&self, member: usize) -> Result<String> {
        let home = self.home(member);
        sh(&["python3", "-c", SHUTDOWN, &home.display().to_string()])?;
        let refused =
            File::create(home.join("after-the-power-cut")).err().context("the disk still takes writes")?;
        Ok(format!("then a write said: {refused}"))
    }

    /// Mounts the disk again after a power cut; no process may use it.
    pub fn restore_power(&self, member: usize) -> Result<()> {
        let home = self.home(member).display().to_string();
        sh(&["umount", &home]).or_else(|_| sh(&["umount", "-l", &home]))?;
        self.mount(member)
    }

    /// Takes all the space; how many bytes. Verified by a write that fails.
    pub fn fill(&self, member: usize) -> Result<(u64, String)> {
        let home = self.home(member);
        let mut size: u64 = 256 * 1024 * 1024;
        let mut number = 0;
        while size >= 4096 {
            // One that fails may have taken a part.
            let path = home.join(format!("fill-{number}"));
            if sh(&["fallocate", "-l", &size.to_string(), &path.display().to_string()]).is_err() {
                size /= 2;
            }
            number += 1;
        }
        let refused = use_up(&home.join("fill-last")).err();
        let files = fillers(&home)?;
        let blocks = files.iter().filter_map(|path| Some(path.metadata().ok()?.blocks()));
        let taken = 512 * blocks.sum::<u64>();
        match refused {
            Some(refused) => Ok((taken.max(1), format!("{taken} bytes taken, then a write said: {refused}"))),
            None => Ok((0, "there is still space".to_owned())),
        }
    }

    pub fn free(&self, member: usize) -> Result<()> {
        free(&self.home(member))
    }
}

fn fillers(home: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(home)?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_filler =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("fill-"));
    Ok(entries.filter(is_filler).collect())
}

fn free(home: &Path) -> Result<()> {
    for path in fillers(home)? {
        fs::remove_file(path)?;
    }
    Ok(())
}

impl Drop for Disks {
    fn drop(&mut self) {
        for member in 0.. {
            let home = self.home(member);
            if !home.exists() {
                break;
            }
            drop(sh(&["umount", "-l", &home.display().to_string()])); // gone with the namespace otherwise
        }
        if self.images != self.dir {
            drop(sh(&["umount", "-l", &self.images.display().to_string()]));
        }
    }
}

/// Writes what may be left behind what `fallocate` could take; succeeds if that has no end.
fn use_up(path: &Path) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    for _ in 0..64 {
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
    }
    Ok(())
}

/// Flips one bit that is not in a stretch of zeros of the newest log segment, or of the state file. The member must be
/// down. What was changed where.
pub fn flip_bit(data: &Path, random: &mut StdRng) -> Result<String> {
    let directory = data.join("member/wal");
    let segment = fs::read_dir(&directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("wal-")))
        .max()
        .context("no log segment")?;
    let path = if random.random_bool(0.5) { segment } else { data.join("member/state.redb") };
    let mut file = File::options().read(true).write(true).open(&path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let used = bytes.iter().rposition(|byte| *byte != 0).context("the file holds nothing")?;
    let place = loop {
        let place = random.random_range(0..=used);
        if bytes[place] != 0 {
            break place;
        }
    };
    let bit = random.random_range(0..8);
    file.seek(SeekFrom::Start(place as u64))?;
    file.write_all(&[bytes[place] ^ (1 << bit)])?;
    file.sync_all()?;
    let mut now = [0];
    file.seek(SeekFrom::Start(place as u64))?;
    file.read_exact(&mut now)?;
    ensure!(now[0] != bytes[place], "the bit is as before");
    Ok(format!("bit {bit} of byte {place} in {}", path.file_name().unwrap_or_default().to_string_lossy()))
}
