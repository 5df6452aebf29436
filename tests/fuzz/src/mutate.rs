//! Ways to change an input, as fuzzers have found them useful.
//!
//! Invariant: the same random numbers make the same input. Not here: what is done with it.

use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

/// Numbers at which lengths and indexes go wrong.
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    63,
    64,
    127,
    128,
    255,
    256,
    4095,
    4096,
    u16::MAX as u64,
    1 << 16,
    1 << 24,
    i32::MAX as u64,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];
/// Pieces that mean something in one of the texts that are read here.
const PIECES: &[&str] = &[
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "-1",
    "1e999",
    "0.1",
    ".",
    "-",
    "\n",
    "\r\n",
    "  ",
    "\t",
    "- ",
    "&a ",
    "*a",
    "<<: ",
    "!!binary ",
    "? ",
    "|",
    ">",
    "#",
    "%",
    "=",
    "/",
    "@",
    "~",
    "*",
    "\u{0}",
    "\u{feff}",
    "\u{10ffff}",
    "é",
    "http://",
    "[::1]",
    "--",
    "$patch",
    "replace",
    "metadata",
    "labels",
];

/// The input with one to eight changes; now and then one from nothing.
pub fn changed(random: &mut StdRng, input: &[u8], other: &[u8], is_text: bool) -> Vec<u8> {
    if random.random_bool(0.01) {
        let length = random.random_range(0..64);
        return (0..length).map(|_| random.random()).collect();
    }
    let mut bytes = input.to_vec();
    for _ in 0..random.random_range(1..=8) {
        change(random, &mut bytes, other, is_text);
        if random.random_bool(0.4) {
            break;
        }
    }
    bytes
}

fn change(random: &mut StdRng, bytes: &mut Vec<u8>, other: &[u8], is_text: bool) {
    let at = random.random_range(0..=bytes.len());
    let end = at + random.random_range(0..=(bytes.len() - at).min(64));
    match random.random_range(0..if is_text { 14 } else { 10 }) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = random.random(),
        2 => drop(bytes.drain(at..end)),
        3 => bytes.truncate(at),
        4 => {
            // The same again, once or so often that it nests deep.
            let piece = bytes[at..end].to_vec();
            let times = if random.random_bool(0.1) { random.random_range(1..500) } else { 1 };
            drop(bytes.splice(at..at, piece.repeat(times)));
        }
        5 => {
            let from = random.random_range(0..=other.len());
            let to = from + random.random_range(0..=(other.len() - from).min(256));
            drop(bytes.splice(at..end, other[from..to].iter().copied()));
        }
        6 => {
            let number = number(random);
            let width = *[1, 2, 4, 8].choose(random).unwrap_or(&1);
            let mut little = number.to_le_bytes()[..width].to_vec();
            if random.random_bool(0.3) {
                little.reverse();
            }
            let end = (at + width).min(bytes.len());
            drop(bytes.splice(at..end, little));
        }
        7 => {
            let mut varint = Vec::new();
            let mut number = number(random);
            while number >= 0x80 {
                varint.push(number as u8 | 0x80);
                number >>= 7;
            }
            varint.push(number as u8);
            let end = (at + random.random_range(0..=2)).min(bytes.len());
            drop(bytes.splice(at..end, varint));
        }
        8 => {
            let length = random.random_range(1..=16);
            let junk: Vec<u8> = (0..length).map(|_| random.random()).collect();
            drop(bytes.splice(at..at, junk));
        }
        9 => {
            let length = if random.random_bool(0.05) { 20_000 } else { random.random_range(1..100) };
            drop(bytes.splice(at..at, std::iter::repeat_n(random.random::<u8>(), length)));
        }
        10 => drop(bytes.splice(at..end, number(random).to_string().into_bytes())),
        11 => drop(bytes.splice(at..at, format!("-{}", number(random)).into_bytes())),
        _ => {
            let piece = PIECES.choose(random).copied().unwrap_or_default();
            let times = if random.random_bool(0.03) { random.random_range(1..5000) } else { 1 };
            drop(bytes.splice(at..at, piece.repeat(times).into_bytes()));
        }
    }
}

fn number(random: &mut StdRng) -> u64 {
    match random.random_bool(0.8) {
        true => NUMBERS.choose(random).copied().unwrap_or_default(),
        false => random.random(),
    }
}
