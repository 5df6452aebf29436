//! The decoders, each with inputs to begin with and with what it may allocate.
//!
//! Not here: fields of single messages, which the tests beside the decoders check.

mod client;
mod file;
mod kubernetes;
mod replicated;

/// What a decoder made of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Refused,
    Taken,
    /// Taken, and encoded again.
    Encoded(Vec<u8>),
}

/// What is tried.
#[derive(Clone, Copy)]
pub enum Decoder {
    /// Says whether it took the input.
    Judges(fn(&[u8]) -> bool),
    /// Encodes again what it took.
    Encodes(fn(&[u8]) -> Option<Vec<u8>>),
}

impl Decoder {
    pub(crate) fn read(self, input: &[u8]) -> Verdict {
        match self {
            Decoder::Judges(decode) => match decode(input) {
                true => Verdict::Taken,
                false => Verdict::Refused,
            },
            Decoder::Encodes(decode) => decode(input).map_or(Verdict::Refused, Verdict::Encoded),
        }
    }
}

/// One decoder with what belongs to it.
#[derive(Clone)]
pub struct Target {
    pub name: &'static str,
    /// Inputs that it takes.
    pub samples: fn() -> Vec<Vec<u8>>,
    pub decoder: Decoder,
    /// Makes checksums right again, so that more than them is looked at.
    pub repair: Option<fn(&mut Vec<u8>)>,
    /// Whether inputs are text.
    pub is_text: bool,
    /// For any input at all, in bytes; what it may hold at a time.
    pub allocation_bytes: usize,
    /// For each byte of the input. Texts of errors are in it, and what `check` encodes again.
    pub allocation_factor: usize,
}

impl Default for Target {
    fn default() -> Target {
        Target {
            name: "",
            samples: Vec::new,
            decoder: Decoder::Judges(|_| false),
            repair: None,
            is_text: false,
            allocation_bytes: 64 << 10,
            allocation_factor: 16,
        }
    }
}

/// Every decoder.
pub fn all() -> Vec<Target> {
    [replicated::targets(), client::targets(), file::targets(), kubernetes::targets()].concat()
}

/// Inputs that once went wrong, with the target that found them.
pub fn found_before() -> Vec<(&'static str, Vec<u8>)> {
    vec![]
}
