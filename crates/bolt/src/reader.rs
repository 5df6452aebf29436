//! Reads a file whose bytes are not trusted.
//!
//! Invariants: every offset and length is checked against its page, every page against the file; keys ascend; a walk
//! visits no more pages than the file has, and descends at most `DEPTH_MAX` levels. Memory: one page for each level.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use crate::layout::*;

/// Levels of a tree. bbolt's files have four or five.
const DEPTH_MAX: usize = 64;
/// A page together with its overflow pages.
const PAGE_SIZE_BYTES_MAX: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No meta page is valid.
    #[error("invalid database")]
    NotBolt,
    #[error("page {page} is damaged: {reason}")]
    Damaged { page: u64, reason: &'static str },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Bytes at offsets: a file, or memory in tests.
pub trait ReadAt {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn size_bytes(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let part = usize::try_from(offset).ok().and_then(|from| self.get(from..)?.get(..buffer.len()));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// An open file.
pub struct Reader<S> {
    source: S,
    meta: Meta,
}

/// Where a bucket's tree begins.
#[derive(Clone, Debug)]
pub struct Bucket {
    root: Root,
}

#[derive(Clone, Debug)]
enum Root {
    Page(u64),
    /// A small bucket's only page lies in its parent's value. `page` is the parent's, for errors.
    Inline {
        page: u64,
        bytes: Bytes,
    },
}

/// One element of a leaf.
#[derive(Clone, Debug)]
pub enum Entry {
    Pair { key: Bytes, value: Bytes },
    Bucket { name: Bytes, bucket: Bucket },
}

impl Entry {
    fn key(&self) -> &Bytes {
        match self {
            Entry::Pair { key, .. } => key,
            Entry::Bucket { name, .. } => name,
        }
    }
}

impl<S: ReadAt> Reader<S> {
    pub fn open(source: S) -> Result<Reader<S>, ReadError> {
        let size_bytes = source.size_bytes()?;
        let at = |offset: usize| -> Result<Option<Meta>, ReadError> {
            let offset = offset as u64;
            if size_bytes < offset + (HEADER_SIZE_BYTES + META_SIZE_BYTES) as u64 {
                return Ok(None);
            }
            let mut bytes = [0; META_SIZE_BYTES];
            source.read_exact_at(&mut bytes, offset + HEADER_SIZE_BYTES as u64)?;
            Ok(Meta::read(&bytes))
        };
        let mut newest = at(0)?;
        for offset in PAGE_SIZES {
            let Some(second) = at(offset)?.filter(|meta| meta.page_size_bytes == offset) else { continue };
            if newest.is_none_or(|first| first.transaction < second.transaction) {
                newest = Some(second);
            }
        }
        let meta = newest.ok_or(ReadError::NotBolt)?;
        let used = meta.end.checked_mul(meta.page_size_bytes as u64);
        if used.is_none_or(|used| used > size_bytes) {
            return Err(ReadError::Damaged { page: 0, reason: "the file is shorter than its pages" });
        }
        Ok(Reader { source, meta })
    }

    /// Bytes that the database says it has, without what was appended to the file.
    pub fn size_bytes(&self) -> u64 {
        self.meta.end * self.meta.page_size_bytes as u64
    }

    /// The bucket that holds all others.
    pub fn root(&self) -> Bucket {
        Bucket { root: Root::Page(self.meta.root) }
    }

    /// A bucket of the first level. Reads the names of the others.
    pub fn bucket(&self, wanted: &[u8]) -> Result<Option<Bucket>, ReadError> {
        for entry in self.entries(&self.root())? {
            match entry? {
                Entry::Bucket { name, bucket } if name == wanted => return Ok(Some(bucket)),
                Entry::Bucket { .. } | Entry::Pair { .. } => {}
            }
        }
        Ok(None)
    }

    /// Everything in a bucket, ascending. After an error there is nothing more.
    pub fn entries(&self, bucket: &Bucket) -> Result<Entries<'_, S>, ReadError> {
        let first = match &bucket.root {
            Root::Page(page) => self.page(*page)?,
            Root::Inline { page, bytes } => Page::new(*page, bytes.clone())?,
        };
        Ok(Entries {
            reader: self,
            stack: vec![(first, 0)],
            last_key: None,
            pages_left: self.meta.end,
            ended: false,
        })
    }

    fn page(&self, page: u64) -> Result<Page, ReadError> {
        let damaged = |reason| ReadError::Damaged { page, reason };
        if !(FIRST_PAGE..self.meta.end).contains(&page) {
            return Err(damaged("it is referred to and does not exist"));
        }
        // `open` has seen that `end` pages fit into the file.
        let offset = page * self.meta.page_size_bytes as u64;
        let mut header = [0; HEADER_SIZE_BYTES];
        self.source.read_exact_at(&mut header, offset)?;
        let header = Header::read(&header).ok_or_else(|| damaged("header"))?;
        if header.page != page {
            return Err(damaged("it says that it is another page"));
        }
        let pages = u64::from(header.overflow) + 1;
        if pages > self.meta.end - page {
            return Err(damaged("it is longer than the file"));
        }
        let size_bytes = pages * self.meta.page_size_bytes as u64;
        if size_bytes > PAGE_SIZE_BYTES_MAX {
            return Err(damaged("it is longer than 256 MiB"));
        }
        let mut bytes = vec![0; usize::try_from(size_bytes).map_err(|_| damaged("length"))?];
        self.source.read_exact_at(&mut bytes, offset)?;
        Page::new(page, bytes.into())
    }
}

/// A branch or a leaf whose element headers are known to lie inside.
struct Page {
    page: u64,
    is_leaf: bool,
    count: usize,
    bytes: Bytes,
}

impl Page {
    fn new(page: u64, bytes: Bytes) -> Result<Page, ReadError> {
        let damaged = |reason| ReadError::Damaged { page, reason };
        let header = Header::read(&bytes).ok_or_else(|| damaged("header"))?;
        let is_leaf = match header.flags {
            LEAF => true,
            BRANCH => false,
            _ => return Err(damaged("it is neither branch nor leaf")),
        };
        let count = usize::from(header.count);
        if HEADER_SIZE_BYTES + count * ELEMENT_SIZE_BYTES > bytes.len() {
            return Err(damaged("more elements than there is room"));
        }
        Ok(Page { page, is_leaf, count, bytes })
    }

    fn damaged(&self, reason: &'static str) -> ReadError {
        ReadError::Damaged { page: self.page, reason }
    }

    fn slice(&self, from: Option<usize>, length: usize) -> Result<Bytes, ReadError> {
        let outside = || self.damaged("an element lies outside of the page");
        let from = from.ok_or_else(outside)?;
        let to = from.checked_add(length).filter(|to| *to <= self.bytes.len()).ok_or_else(outside)?;
        Ok(self.bytes.slice(from..to))
    }

    fn field(&self, at: usize) -> Result<usize, ReadError> {
        let number = u32_at(&self.bytes, at).ok_or_else(|| self.damaged("element"))?;
        usize::try_from(number).map_err(|_| self.damaged("element"))
    }

    /// The page that a branch's element leads to.
    fn child(&self, index: usize) -> Result<u64, ReadError> {
        let at = HEADER_SIZE_BYTES + index * ELEMENT_SIZE_BYTES;
        u64_at(&self.bytes, at + 8).ok_or_else(|| self.damaged("element"))
    }

    fn entry(&self, index: usize) -> Result<Entry, ReadError> {
        let at = HEADER_SIZE_BYTES + index * ELEMENT_SIZE_BYTES;
        let flags = u32_at(&self.bytes, at).ok_or_else(|| self.damaged("element"))?;
        let (position, key_size, value_size) =
            (self.field(at + 4)?, self.field(at + 8)?, self.field(at + 12)?);
        let from = at.checked_add(position);
        let key = self.slice(from, key_size)?;
        let value = self.slice(from.and_then(|from| from.checked_add(key_size)), value_size)?;
        if flags & IS_BUCKET == 0 {
            return Ok(Entry::Pair { key, value });
        }
        let root = u64_at(&value, 0).filter(|_| value.len() >= BUCKET_SIZE_BYTES);
        let root = match root.ok_or_else(|| self.damaged("a bucket is too short"))? {
            0 => Root::Inline { page: self.page, bytes: value.slice(BUCKET_SIZE_BYTES..) },
            page => Root::Page(page),
        };
        Ok(Entry::Bucket { name: key, bucket: Bucket { root } })
    }
}

/// A walk over one bucket.
pub struct Entries<'a, S> {
    reader: &'a Reader<S>,
    /// Pages from the root down, each with its next element.
    stack: Vec<(Page, usize)>,
    last_key: Option<Bytes>,
    pages_left: u64,
    ended: bool,
}

impl<S: ReadAt> Entries<'_, S> {
    fn step(&mut self) -> Result<Option<Entry>, ReadError> {
        while let Some((page, index)) = self.stack.last_mut() {
            if *index >= page.count {
                self.stack.pop();
                continue;
            }
            *index += 1;
            if page.is_leaf {
                let entry = page.entry(*index - 1)?;
                if self.last_key.as_ref().is_some_and(|last| last >= entry.key()) {
                    return Err(page.damaged("keys do not ascend"));
                }
                self.last_key = Some(entry.key().clone());
                return Ok(Some(entry));
            }
            let child = page.child(*index - 1)?;
            let loops = page.damaged("the tree has a loop");
            self.pages_left = self.pages_left.checked_sub(1).ok_or(loops)?;
            let child = self.reader.page(child)?;
            if self.stack.len() >= DEPTH_MAX {
                return Err(child.damaged("the tree is too deep"));
            }
            self.stack.push((child, 0));
        }
        Ok(None)
    }
}

impl<S: ReadAt> Iterator for Entries<'_, S> {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}
