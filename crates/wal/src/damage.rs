//! The note that acknowledged data was lost: a record that every new segment repeats until the member has healed.
//!
//! Always holds: a note that cannot be read still says that data was lost. Format: docs/formats.md,
//! "Write-ahead log". Not here: finding damage (recovery.rs), going on behind it (writer.rs).

use std::path::Path;

use bytes::Bytes;

use crate::api::Damage;

/// Largest encoded note.
pub(crate) const NOTE_SIZE_BYTES_MAX: usize = 128;

#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct Note {
    /// Name within the directory.
    pub(crate) file_name: String,
    pub(crate) offset: u64,
    pub(crate) last_good_index: u64,
    pub(crate) acknowledged_index: u64,
}

fn bincode_config() -> impl bincode::config::Config {
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<NOTE_SIZE_BYTES_MAX>()
}

impl Note {
    pub(crate) fn encode(&self) -> Bytes {
        // File names are ours and short; should one not be, the loss itself is what must be kept.
        bincode::encode_to_vec(self, bincode_config())
            .ok()
            .filter(|bytes| bytes.len() <= NOTE_SIZE_BYTES_MAX)
            .map_or_else(Bytes::new, Bytes::from)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Note {
        bincode::decode_from_slice(bytes, bincode_config()).map(|(note, _)| note).unwrap_or_default()
    }

    /// Both losses in one note; the newer one says where to look.
    pub(crate) fn merge(self, older: Option<Note>) -> Note {
        let Some(older) = older else { return self };
        Note {
            last_good_index: self.last_good_index.min(older.last_good_index),
            acknowledged_index: self.acknowledged_index.max(older.acknowledged_index),
            ..self
        }
    }

    pub(crate) fn damage(&self, dir: &Path) -> Damage {
        Damage::LostAcknowledged {
            file: dir.join(&self.file_name),
            offset: self.offset,
            last_good_index: self.last_good_index,
            acknowledged_index: self.acknowledged_index,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_and_junk_is_still_a_loss() {
        let note = Note {
            file_name: "wal-0000000000000001".to_owned(),
            offset: 128,
            last_good_index: 4,
            acknowledged_index: 9,
        };
        assert_eq!(Note::decode(&note.encode()), note);
        assert_eq!(Note::decode(b"\xff\xff\xff\xff\xff\xff\xff\xff junk"), Note::default());
    }
}
