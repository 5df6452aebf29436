//! The bytes of one simulated file, in chunks that copies share until one of them is written.
//!
//! Always holds: what was never written is zeros; the bytes behind the end are zeros too, so that a file that grows
//! again shows none of its old ones. Not here: names, syncs (sim_disk.rs).

use std::fmt;
use std::sync::Arc;

const CHUNK_SIZE_BYTES: usize = 4096;

/// A power cut is tried by copying the disk, and a state file has a megabyte and more.
#[derive(Clone, Default)]
pub struct Contents {
    /// `None`: zeros.
    chunks: Vec<Option<Arc<[u8; CHUNK_SIZE_BYTES]>>>,
    size_bytes: usize,
}

impl Contents {
    pub fn len(&self) -> usize {
        self.size_bytes
    }

    pub fn is_empty(&self) -> bool {
        self.size_bytes == 0
    }

    /// Cuts, or adds zeros.
    pub fn resize(&mut self, size_bytes: usize) {
        self.chunks.resize(size_bytes.div_ceil(CHUNK_SIZE_BYTES), None);
        let inside = size_bytes % CHUNK_SIZE_BYTES;
        if size_bytes < self.size_bytes
            && inside > 0
            && let Some(Some(chunk)) = self.chunks.last_mut()
            && let Some(rest) = Arc::make_mut(chunk).get_mut(inside..)
        {
            rest.fill(0);
        }
        self.size_bytes = size_bytes;
    }

    /// What is there, at most `buffer.len()` bytes; answers how many.
    pub fn read(&self, buffer: &mut [u8], offset: usize) -> usize {
        let size = self.size_bytes.saturating_sub(offset).min(buffer.len());
        let mut done = 0;
        while done < size {
            let (chunk, inside, part) = place(offset + done, size - done);
            let Some(to) = buffer.get_mut(done..done + part) else { break };
            match self.chunks.get(chunk) {
                Some(Some(chunk)) => to.copy_from_slice(chunk.get(inside..inside + part).unwrap_or_default()),
                Some(None) | None => to.fill(0),
            }
            done += part;
        }
        done
    }

    /// Makes the file longer where needed.
    pub fn write(&mut self, bytes: &[u8], offset: usize) {
        if self.size_bytes < offset + bytes.len() {
            self.resize(offset + bytes.len());
        }
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let (chunk, inside, part) = place(at, rest.len());
            let (now, later) = rest.split_at(part);
            if let Some(chunk) = self.chunks.get_mut(chunk) {
                let chunk = chunk.get_or_insert_with(|| Arc::new([0; CHUNK_SIZE_BYTES]));
                if let Some(to) = Arc::make_mut(chunk).get_mut(inside..inside + part) {
                    to.copy_from_slice(now);
                }
            }
            (rest, at) = (later, at + part);
        }
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size_bytes];
        self.read(&mut bytes, 0);
        bytes
    }
}

/// The chunk, the place inside of it, and how much of `size_bytes` fits there.
fn place(offset: usize, size_bytes: usize) -> (usize, usize, usize) {
    let inside = offset % CHUNK_SIZE_BYTES;
    (offset / CHUNK_SIZE_BYTES, inside, size_bytes.min(CHUNK_SIZE_BYTES - inside))
}

impl From<Vec<u8>> for Contents {
    fn from(bytes: Vec<u8>) -> Contents {
        let mut contents = Contents::default();
        contents.write(&bytes, 0);
        contents
    }
}

impl PartialEq for Contents {
    fn eq(&self, other: &Contents) -> bool {
        let shared = |(one, other): (&Option<Arc<_>>, &Option<Arc<_>>)| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        self.size_bytes == other.size_bytes
            && (self.chunks.iter().zip(&other.chunks).all(shared) || self.to_vec() == other.to_vec())
    }
}

impl Eq for Contents {}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.size_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::Contents;

    #[test]
    fn a_file_reads_as_it_was_written_and_copies_do_not_move() {
        let mut file = Contents::default();
        file.write(&[1; 5000], 4000);
        assert_eq!(file.len(), 9000);
        let copy = file.clone();
        file.write(&[2; 10], 4090);
        file.resize(4093);
        file.resize(5000);
        let mut expected = vec![0; 4000];
        expected.extend([1; 90]);
        expected.extend([2; 3]);
        expected.resize(5000, 0);
        assert_eq!(file.to_vec(), expected);
        assert_eq!(file, Contents::from(expected));
        assert_eq!(copy.to_vec()[4000..], [1; 5000]);
        let mut buffer = [9; 8];
        assert_eq!(copy.read(&mut buffer, 8996), 4);
        assert_eq!(buffer, [1, 1, 1, 1, 9, 9, 9, 9]);
        assert_eq!(copy.read(&mut buffer, 9000), 0);
        assert_ne!(copy, file);
    }
}
