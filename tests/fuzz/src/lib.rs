//! Throws changed inputs at every decoder that reads bytes from a client, from another member or from a disk.
//!
//! Of each decoder must hold, whatever it reads: it does not panic; at no moment does it hold more memory than its target allows for
//! an input of that length; what it took and encoded again, it takes and encodes to the same bytes. Runs are repeatable:
//! a failure tells seed and input. Not here: which decoders there are (targets.rs), how inputs are changed (mutate.rs).

pub mod mutate;
pub mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use peak_alloc::PeakAlloc;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::targets::{Target, Verdict};

/// Knows what is allocated, in whatever program uses this crate.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Inputs that were taken and are changed further, beside the samples.
const CORPUS_MAX: usize = 256;
/// Longer inputs are not made.
const INPUT_SIZE_BYTES_MAX: usize = 64 << 10;

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub inputs: u64,
    /// Inputs that the decoder took; the samples are not counted.
    pub taken: u64,
}

/// Runs one target until the time is over, or that many inputs were tried. Nothing else may run in the process meanwhile: allocations are counted.
pub fn run(target: &Target, seed: u64, time: Duration, inputs_max: u64) -> Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut corpus = (target.samples)();
    ensure!(!corpus.is_empty(), "{} has no samples", target.name);
    // Tables are made when they are first needed; they are not what an input costs.
    drop(catch_unwind(AssertUnwindSafe(|| target.decoder.read(&corpus[0]))));
    let mut verdicts = corpus.iter().map(|sample| check(target, seed, sample)).collect::<Result<Vec<_>>>()?;
    verdicts.retain(|verdict| *verdict != Verdict::Refused);
    ensure!(!verdicts.is_empty(), "{}: every sample is refused, {}", target.name, shown(&corpus[0]));
    let samples = corpus.len();
    let mut tally = Tally::default();
    let begin = Instant::now();
    while begin.elapsed() < time && tally.inputs < inputs_max {
        // The clock is looked at now and then only.
        for _ in 0..32 {
            let at = random.random_range(0..corpus.len());
            let other = random.random_range(0..corpus.len());
            let mut input = mutate::changed(&mut random, &corpus[at], &corpus[other], target.is_text);
            input.truncate(INPUT_SIZE_BYTES_MAX);
            if let Some(repair) = target.repair
                && random.random_bool(0.8)
            {
                repair(&mut input);
            }
            tally.inputs += 1;
            if check(target, seed, &input)? != Verdict::Refused {
                tally.taken += 1;
                if corpus.len() < CORPUS_MAX {
                    corpus.push(input);
                } else {
                    // The samples stay.
                    let at = random.random_range(samples.min(CORPUS_MAX - 1)..CORPUS_MAX);
                    corpus[at] = input;
                }
            }
        }
    }
    Ok(tally)
}

/// What must hold of one input.
pub fn check(target: &Target, seed: u64, input: &[u8]) -> Result<Verdict> {
    let context =
        || format!("{} (seed {seed}), input of {} bytes: {}", target.name, input.len(), shown(input));
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let verdict = catch_unwind(AssertUnwindSafe(|| target.decoder.read(input)));
    let allocated = ALLOCATOR.peak_usage().saturating_sub(before);
    let Ok(verdict) = verdict else { bail!("panicked: {}", context()) };
    let allowed = target.allocation_bytes + input.len().saturating_mul(target.allocation_factor);
    ensure!(allocated <= allowed, "holds {allocated} bytes of {allowed} that are allowed: {}", context());
    if let Verdict::Encoded(encoded) = &verdict {
        let again = catch_unwind(AssertUnwindSafe(|| target.decoder.read(encoded)));
        let Ok(again) = again else {
            bail!("panicked on its own encoding {}: {}", shown(encoded), context())
        };
        ensure!(again == verdict, "encoded as {}, which is read as {again:?}: {}", shown(encoded), context());
    }
    Ok(verdict)
}

/// An input as a test can have it: text if it is some, otherwise in hexadecimal.
fn shown(input: &[u8]) -> String {
    match std::str::from_utf8(input) {
        Ok(text) if !text.contains(|character: char| character.is_control()) => format!("{text:?}"),
        _ => input.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
