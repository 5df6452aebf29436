//! The randomness and the clock of a simulation: what this thread asks the operating system for comes from a seed, and
//! from the virtual time.
//!
//! Hash maps of the standard library, `rand`'s thread generator and tokio take their seeds from the C library's
//! `getrandom`, and clocks are read by `clock_gettime`. This file answers both: on a thread that called `seed` itself, on all others the kernel.
//! What such a seed is kept in lives as long as its thread, so a simulation needs a new thread each time.

#![allow(unsafe_code, reason = "only a symbol of the C library reaches code that asks for no generator")]

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::hash::{BuildHasher as _, RandomState};

use wal::sim_disk::crash::Random;

/// Where the system's clocks stand when a simulation begins, in nanoseconds.
const REALTIME_NS: u64 = 1_800_000_000 * 1_000_000_000;
const MONOTONIC_NS: u64 = 1_000_000 * 1_000_000_000;

thread_local! {
    static NOW_NS: Cell<Option<u64>> = const { Cell::new(None) };
    /// How wrong the wall clock may be, in seconds, and where the randomness of that is.
    static WALL: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From here on this thread's randomness is the seed's, and its wall clock tells a time that is up to so much wrong.
pub(crate) fn seed(seed: u64, wall_wrong_s_max: u64) {
    // Without a use of the symbol the linker would leave this file out.
    std::hint::black_box((getrandom as *const () as usize, clock_gettime as *const () as usize));
    STATE.set(Some(seed));
    WALL.set((wall_wrong_s_max, seed));
    set_now_ms(0);
}

/// Where this thread's randomness stands. Two runs that agree here have drawn equally often, and have made equally many
/// hash maps, even if neither had a consequence yet.
pub(crate) fn fingerprint() -> u64 {
    RandomState::new().hash_one(STATE.get())
}

/// What the system's clocks say on this thread from here on. Code that decides by time asks tokio's clock; this one
/// gets into dates that HTTP sends and into logged text.
pub(crate) fn set_now_ms(now_ms: u64) {
    NOW_NS.set(Some(now_ms * 1_000_000));
}

/// Where the wall clock begins, as it tells this time.
fn wall_ns() -> u64 {
    let (wrong_s_max, state) = WALL.get();
    if wrong_s_max == 0 {
        return REALTIME_NS;
    }
    let mut random = Random(state);
    let wrong_s = random.below(2 * wrong_s_max + 1);
    WALL.set((wrong_s_max, random.0));
    REALTIME_NS + wrong_s * 1_000_000_000 - wrong_s_max * 1_000_000_000
}

/// Answers as the C library's function of this name does.
///
/// # Safety
/// `answer` must be valid for a write.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, answer: *mut libc::timespec) -> c_int {
    let Some(now_ns) = NOW_NS.get() else {
        // SAFETY: the caller's promise is the one that the kernel wants.
        let result: c_long = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, answer) };
        return c_int::try_from(result).unwrap_or(-1);
    };
    let now_ns = now_ns + if clock == libc::CLOCK_REALTIME { wall_ns() } else { MONOTONIC_NS };
    let time = libc::timespec {
        tv_sec: i64::try_from(now_ns / 1_000_000_000).unwrap_or(0),
        tv_nsec: i64::try_from(now_ns % 1_000_000_000).unwrap_or(0),
    };
    // SAFETY: the caller promises that `answer` is valid for a write.
    unsafe { answer.write(time) };
    0
}

/// Fills the buffer as the C library's function of this name does.
///
/// # Safety
/// `buffer` must be valid for `size` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(buffer: *mut c_void, size: usize, flags: c_uint) -> isize {
    let Some(state) = STATE.get() else {
        // SAFETY: the caller's promise about the buffer is the one that the kernel wants.
        let written: c_long = unsafe { libc::syscall(libc::SYS_getrandom, buffer, size, flags) };
        return isize::try_from(written).unwrap_or(-1);
    };
    let mut random = Random(state);
    // SAFETY: the caller promises that the buffer is valid for `size` bytes; zeros make it initialized.
    let bytes = unsafe {
        std::ptr::write_bytes(buffer.cast::<u8>(), 0, size);
        std::slice::from_raw_parts_mut(buffer.cast::<u8>(), size)
    };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random.number().to_le_bytes()[..chunk.len()]);
    }
    STATE.set(Some(random.0));
    isize::try_from(size).unwrap_or(-1)
}
