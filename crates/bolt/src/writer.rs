//! Writes a file from beginning to end: each bucket's pairs in ascending order, its tree from the leaves upwards.
//!
//! Invariants: pages are written once, in order, without gaps; both meta pages are written last, so that a file cut
//! short is refused by every reader. Memory: one unfinished page for each level of the tree.

use std::collections::BTreeMap;
use std::io::{self, Seek, SeekFrom, Write};

use crate::layout::*;

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("keys of a bucket must ascend, {key:?} does not")]
    Order { key: Vec<u8> },
    #[error("a key of {size_bytes} bytes, 1 to {KEY_SIZE_BYTES_MAX} are possible")]
    KeySize { size_bytes: usize },
    #[error("a value of {size_bytes} bytes, {VALUE_SIZE_BYTES_MAX} are possible")]
    ValueSize { size_bytes: usize },
    #[error("bucket {name:?} was written before")]
    Twice { name: Vec<u8> },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A file that is being written. Nothing in it is valid before `finish`.
pub struct Writer<W> {
    file: W,
    next_page: u64,
    /// Root page of each finished bucket; 0 for an empty one.
    buckets: BTreeMap<Vec<u8>, u64>,
    open: Option<(Vec<u8>, Tree)>,
}

impl<W: Write + Seek> Writer<W> {
    /// `file` is empty and written from its start.
    pub fn new(mut file: W) -> Result<Writer<W>, WriteError> {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[0; 2 * PAGE_SIZE_BYTES])?;
        let mut writer = Writer { file, next_page: FIRST_PAGE, buckets: BTreeMap::new(), open: None };
        write_page(&mut writer.file, &mut writer.next_page, FREELIST, 0, &[])?;
        Ok(writer)
    }

    /// Pairs from here on belong to this bucket. Buckets may come in any order, each once.
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), WriteError> {
        self.close_bucket()?;
        check_key(name)?;
        if self.buckets.contains_key(name) {
            return Err(WriteError::Twice { name: name.to_vec() });
        }
        self.open = Some((name.to_vec(), Tree::default()));
        Ok(())
    }

    /// # Panics
    /// Without a bucket.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        let (_, tree) = self.open.as_mut().expect("a pair belongs to a bucket");
        tree.put(&mut self.file, &mut self.next_page, 0, key, value)
    }

    /// Writes what is missing, and returns the file and its size in bytes. Nothing is synced.
    pub fn finish(mut self) -> Result<(W, u64), WriteError> {
        self.close_bucket()?;
        let mut root = Tree::default();
        for (name, page) in &self.buckets {
            let mut value = [0; BUCKET_SIZE_BYTES + HEADER_SIZE_BYTES];
            value[..8].copy_from_slice(&page.to_le_bytes());
            // A bucket without a page of its own carries its only page inside, here without elements.
            let inside = Header { page: 0, flags: LEAF, count: 0, overflow: 0 };
            value[BUCKET_SIZE_BYTES..].copy_from_slice(&inside.to_bytes());
            let length = if *page == 0 { value.len() } else { BUCKET_SIZE_BYTES };
            root.put(&mut self.file, &mut self.next_page, IS_BUCKET, name, &value[..length])?;
        }
        let mut root_page = root.finish(&mut self.file, &mut self.next_page)?;
        if root_page == 0 {
            root_page = write_page(&mut self.file, &mut self.next_page, LEAF, 0, &[])?;
        }
        let end = self.next_page;
        self.file.seek(SeekFrom::Start(0))?;
        for page in 0..FIRST_PAGE {
            let meta = Meta {
                page_size_bytes: PAGE_SIZE_BYTES,
                root: root_page,
                freelist: FIRST_PAGE,
                end,
                transaction: page,
            };
            let mut bytes = [0; PAGE_SIZE_BYTES];
            let header = Header { page, flags: META, count: 0, overflow: 0 };
            bytes[..HEADER_SIZE_BYTES].copy_from_slice(&header.to_bytes());
            bytes[HEADER_SIZE_BYTES..HEADER_SIZE_BYTES + META_SIZE_BYTES].copy_from_slice(&meta.to_bytes());
            self.file.write_all(&bytes)?;
        }
        self.file.flush()?;
        Ok((self.file, end * PAGE_SIZE_BYTES as u64))
    }

    fn close_bucket(&mut self) -> Result<(), WriteError> {
        if let Some((name, tree)) = self.open.take() {
            let root = tree.finish(&mut self.file, &mut self.next_page)?;
            self.buckets.insert(name, root);
        }
        Ok(())
    }
}

/// One bucket's tree: a leaf that fills, and above it branches that fill.
#[derive(Default)]
struct Tree {
    leaf: Leaf,
    /// From the leaves upwards; an element is a page and its first key.
    branches: Vec<Branch>,
    last_key: Vec<u8>,
}

#[derive(Default)]
struct Leaf {
    /// Flags, length of key, length of value.
    elements: Vec<(u32, usize, usize)>,
    /// Keys and values.
    data: Vec<u8>,
    first_key: Vec<u8>,
}

#[derive(Default)]
struct Branch {
    elements: Vec<(Vec<u8>, u64)>,
    size_bytes: usize,
}

impl Tree {
    fn put(
        &mut self,
        file: &mut impl Write,
        next_page: &mut u64,
        flags: u32,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), WriteError> {
        check_key(key)?;
        if value.len() > VALUE_SIZE_BYTES_MAX {
            return Err(WriteError::ValueSize { size_bytes: value.len() });
        }
        // Keys are not empty, so the first one is greater than none.
        if *key <= *self.last_key {
            return Err(WriteError::Order { key: key.to_vec() });
        }
        let room = HEADER_SIZE_BYTES
            + (self.leaf.elements.len() + 1) * ELEMENT_SIZE_BYTES
            + self.leaf.data.len()
            + key.len()
            + value.len();
        if room > PAGE_SIZE_BYTES {
            self.flush_leaf(file, next_page)?;
        }
        if self.leaf.elements.is_empty() {
            self.leaf.first_key = key.to_vec();
        }
        self.leaf.elements.push((flags, key.len(), value.len()));
        self.leaf.data.extend_from_slice(key);
        self.leaf.data.extend_from_slice(value);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }

    fn flush_leaf(&mut self, file: &mut impl Write, next_page: &mut u64) -> Result<(), WriteError> {
        let leaf = std::mem::take(&mut self.leaf);
        let count = leaf.elements.len();
        if count == 0 {
            return Ok(());
        }
        let mut body = Vec::with_capacity(count * ELEMENT_SIZE_BYTES + leaf.data.len());
        let mut before = 0;
        for (index, (flags, key, value)) in leaf.elements.iter().enumerate() {
            body.extend_from_slice(&flags.to_le_bytes());
            body.extend_from_slice(&narrow((count - index) * ELEMENT_SIZE_BYTES + before).to_le_bytes());
            body.extend_from_slice(&narrow(*key).to_le_bytes());
            body.extend_from_slice(&narrow(*value).to_le_bytes());
            before += key + value;
        }
        body.extend_from_slice(&leaf.data);
        let page = write_page(file, next_page, LEAF, count, &body)?;
        self.add(file, next_page, 0, leaf.first_key, page)
    }

    /// Enters a finished page into the branch above it.
    fn add(
        &mut self,
        file: &mut impl Write,
        next_page: &mut u64,
        mut level: usize,
        mut key: Vec<u8>,
        mut page: u64,
    ) -> Result<(), WriteError> {
        loop {
            if self.branches.len() == level {
                self.branches.push(Branch::default());
            }
            let branch = &mut self.branches[level];
            let size_bytes = ELEMENT_SIZE_BYTES + key.len();
            let room = HEADER_SIZE_BYTES + branch.size_bytes + size_bytes;
            // Two at least, or the tree would not become narrower upwards.
            let full = room > PAGE_SIZE_BYTES && branch.elements.len() >= 2;
            let finished = full.then(|| std::mem::take(branch));
            branch.size_bytes += size_bytes;
            branch.elements.push((key, page));
            let Some(finished) = finished else { return Ok(()) };
            (key, page) = finished.write(file, next_page)?;
            level += 1;
        }
    }

    /// Writes the unfinished pages; the root's page, or 0 for a tree without pairs.
    fn finish(mut self, file: &mut impl Write, next_page: &mut u64) -> Result<u64, WriteError> {
        self.flush_leaf(file, next_page)?;
        let mut level = 0;
        while level < self.branches.len() {
            let branch = std::mem::take(&mut self.branches[level]);
            if let ([(_, only)], true) = (branch.elements.as_slice(), level + 1 == self.branches.len()) {
                return Ok(*only);
            }
            let (key, page) = branch.write(file, next_page)?;
            level += 1;
            self.add(file, next_page, level, key, page)?;
        }
        Ok(0)
    }
}

impl Branch {
    fn write(self, file: &mut impl Write, next_page: &mut u64) -> Result<(Vec<u8>, u64), WriteError> {
        let count = self.elements.len();
        let mut body = Vec::with_capacity(self.size_bytes);
        let mut before = 0;
        for (index, (key, page)) in self.elements.iter().enumerate() {
            body.extend_from_slice(&narrow((count - index) * ELEMENT_SIZE_BYTES + before).to_le_bytes());
            body.extend_from_slice(&narrow(key.len()).to_le_bytes());
            body.extend_from_slice(&page.to_le_bytes());
            before += key.len();
        }
        for (key, _) in &self.elements {
            body.extend_from_slice(key);
        }
        let page = write_page(file, next_page, BRANCH, count, &body)?;
        let first = self.elements.into_iter().next().map(|(key, _)| key).unwrap_or_default();
        Ok((first, page))
    }
}

/// Appends a page with as many overflow pages as it needs.
fn write_page(
    file: &mut impl Write,
    next_page: &mut u64,
    flags: u16,
    count: usize,
    body: &[u8],
) -> Result<u64, WriteError> {
    let pages = (HEADER_SIZE_BYTES + body.len()).div_ceil(PAGE_SIZE_BYTES);
    let page = *next_page;
    let count = u16::try_from(count).expect("an element takes 16 bytes of a page of 4096");
    let header = Header { page, flags, count, overflow: narrow(pages - 1) };
    file.write_all(&header.to_bytes())?;
    file.write_all(body)?;
    let padding = pages * PAGE_SIZE_BYTES - HEADER_SIZE_BYTES - body.len();
    file.write_all(&[0; PAGE_SIZE_BYTES][..padding])?;
    *next_page += pages as u64;
    Ok(page)
}

fn check_key(key: &[u8]) -> Result<(), WriteError> {
    match key.len() {
        1..=KEY_SIZE_BYTES_MAX => Ok(()),
        size_bytes => Err(WriteError::KeySize { size_bytes }),
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("a page holds one value of less than 2 GiB, or 4096 bytes")
}
