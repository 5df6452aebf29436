//! The fixed parts of the format: page headers, meta pages, elements.
//!
//! Numbers are little endian, as bbolt writes them on every machine that etcd supports. Offsets of an element's key
//! count from the element itself. Source: bbolt `internal/common/{page,meta,inode}.go`.

/// The page size of files that are written here; one that is read says its own.
pub(crate) const PAGE_SIZE_BYTES: usize = 4096;
pub(crate) const PAGE_SIZES: [usize; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

pub(crate) const HEADER_SIZE_BYTES: usize = 16;
/// A branch element and a leaf element are equally long.
pub(crate) const ELEMENT_SIZE_BYTES: usize = 16;
pub(crate) const BUCKET_SIZE_BYTES: usize = 16;
pub(crate) const META_SIZE_BYTES: usize = 64;

pub(crate) const BRANCH: u16 = 0x01;
pub(crate) const LEAF: u16 = 0x02;
pub(crate) const META: u16 = 0x04;
pub(crate) const FREELIST: u16 = 0x10;

/// Flag of a leaf element whose value is a bucket.
pub(crate) const IS_BUCKET: u32 = 0x01;
/// The first page behind the two meta pages.
pub(crate) const FIRST_PAGE: u64 = 2;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// bbolt's own limit.
pub const KEY_SIZE_BYTES_MAX: usize = 32_768;
/// bbolt's own limit.
pub const VALUE_SIZE_BYTES_MAX: usize = (1 << 31) - 2;

/// What every page begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) page: u64,
    pub(crate) flags: u16,
    /// Elements in the page.
    pub(crate) count: u16,
    /// Pages behind this one that belong to it.
    pub(crate) overflow: u32,
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER_SIZE_BYTES] {
        let mut out = [0; HEADER_SIZE_BYTES];
        out[..8].copy_from_slice(&self.page.to_le_bytes());
        out[8..10].copy_from_slice(&self.flags.to_le_bytes());
        out[10..12].copy_from_slice(&self.count.to_le_bytes());
        out[12..].copy_from_slice(&self.overflow.to_le_bytes());
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Header> {
        Some(Header {
            page: u64_at(bytes, 0)?,
            flags: u16_at(bytes, 8)?,
            count: u16_at(bytes, 10)?,
            overflow: u32_at(bytes, 12)?,
        })
    }
}

/// The body of a meta page: where the tree begins. The valid one with the higher transaction counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_size_bytes: usize,
    pub(crate) root: u64,
    pub(crate) freelist: u64,
    /// First page that was never used.
    pub(crate) end: u64,
    pub(crate) transaction: u64,
}

impl Meta {
    pub(crate) fn to_bytes(self) -> [u8; META_SIZE_BYTES] {
        let mut out = [0; META_SIZE_BYTES];
        let page_size = u32::try_from(self.page_size_bytes).unwrap_or(0);
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&VERSION.to_le_bytes());
        out[8..12].copy_from_slice(&page_size.to_le_bytes());
        out[16..24].copy_from_slice(&self.root.to_le_bytes());
        out[32..40].copy_from_slice(&self.freelist.to_le_bytes());
        out[40..48].copy_from_slice(&self.end.to_le_bytes());
        out[48..56].copy_from_slice(&self.transaction.to_le_bytes());
        let sum = checksum(&out[..56]);
        out[56..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// `None` unless magic, version, page size and checksum are right.
    pub(crate) fn read(bytes: &[u8]) -> Option<Meta> {
        let page_size_bytes = usize::try_from(u32_at(bytes, 8)?).ok()?;
        let known = u32_at(bytes, 0)? == MAGIC
            && u32_at(bytes, 4)? == VERSION
            && PAGE_SIZES.contains(&page_size_bytes)
            && u64_at(bytes, 56)? == checksum(bytes.get(..56)?);
        if !known {
            return None;
        }
        Some(Meta {
            page_size_bytes,
            root: u64_at(bytes, 16)?,
            freelist: u64_at(bytes, 32)?,
            end: u64_at(bytes, 40)?,
            transaction: u64_at(bytes, 48)?,
        })
    }
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    field(bytes, at).map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    field(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    field(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_page_with_any_flipped_bit_is_not_taken() {
        let meta = Meta { page_size_bytes: PAGE_SIZE_BYTES, root: 3, freelist: 2, end: 4, transaction: 1 };
        let bytes = meta.to_bytes();
        assert_eq!(Meta::read(&bytes), Some(meta));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Meta::read(&damaged), None, "bit {bit}");
        }
        assert_eq!(Meta::read(&bytes[..63]), None);
    }

    #[test]
    fn a_header_comes_back() {
        let header = Header { page: 7, flags: LEAF, count: 3, overflow: 9 };
        assert_eq!(Header::read(&header.to_bytes()), Some(header));
        assert_eq!(Header::read(&[0; 15]), None);
    }
}
