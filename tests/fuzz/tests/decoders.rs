//! Every decoder for a short while, and each input that once went wrong.
//!
//! `FUZZ_SEED` repeats a run. Longer runs: `cargo run -p fuzz -- --seconds 60`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fuzz::targets;

/// The same in every run, so that a failure is one of the change that is tested; longer runs take other ones.
const SEED: u64 = 20_261_121;
const INPUTS_OF_EACH: u64 = 8_000;
/// Only slow decoders on slow machines come to this: how fast a machine is shall not decide what is found.
const TIME_OF_EACH: Duration = Duration::from_secs(2);

/// Allocations are counted for the whole process, so that one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn no_decoder_is_hurt_by_what_it_reads() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = std::env::var("FUZZ_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let mut failures = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for target in targets::all() {
        assert!(names.insert(target.name), "two targets are called {}", target.name);
        match fuzz::run(&target, seed, TIME_OF_EACH, INPUTS_OF_EACH) {
            Ok(tally) => assert!(tally.inputs > 0, "{} was not run", target.name),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    for (name, input) in targets::found_before() {
        let target = targets::all().into_iter().find(|target| target.name == name).unwrap();
        if let Err(error) = fuzz::check(&target, 0, &input) {
            failures.push(format!("again: {error:#}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A decoder of which everything that can be found is wrong.
#[test]
fn each_kind_of_mistake_is_found() {
    use fuzz::targets::{Decoder, Target};
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let base = Target { name: "wrong", samples: || vec![b"sample".to_vec()], ..Target::default() };
    let with = |decoder| fuzz::run(&Target { decoder, ..base.clone() }, SEED, TIME_OF_EACH, INPUTS_OF_EACH);
    assert!(with(Decoder::Judges(|_| true)).is_ok());
    assert!(with(Decoder::Encodes(|input| Some(input.to_vec()))).is_ok());
    let told = |decoder, part: &str| {
        let text = with(decoder).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    };
    told(
        Decoder::Judges(|input| {
            assert!(!input.contains(&0xff), "planted");
            true
        }),
        "panicked",
    );
    told(Decoder::Judges(|input| vec![0_u8; (input.len() + 100) << 10].len() > 1), "holds");
    told(Decoder::Encodes(|input| Some(input.get(1..).unwrap_or_default().to_vec())), "encoded as");
}
