//! Clocks that do not agree: each machine's goes at its own rate, may jump ahead, and the wall clock tells another day
//! whenever it is read.
//!
//! The network and the clients have the right time; machines have that or a faster clock, because a simulated host can
//! only be made to hurry. What a member sees of others depends on the ratio of their clocks alone, so 100 and 300 percent
//! are the 50 and 150 percent of a cluster whose clients live at half speed.
//! Always holds: in each step of the simulation a member's clock moves by whole milliseconds, after its tasks have had
//! their turns. Not here: what may happen earlier because of it (checks.rs).

use std::time::Duration;

use wal::sim_disk::crash::Random;

/// Turns that the tasks of a member get before its clock moves on: as many as there are links in the longest chain of
/// them, several times over.
const TURNS: usize = 8;

/// How wrong the clocks of a run are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Of the right time, at least 100; by machine, from the beginning again for those that join.
    pub percents: Vec<u64>,
    /// Each look at the wall clock tells a time up to this much earlier or later; 0: the right one.
    pub wall_wrong_s_max: u64,
}

impl Clocks {
    pub(crate) fn draw(random: &mut Random, members: usize) -> Clocks {
        let rate = |random: &mut Random| [100, 100, 110, 150, 200, 300][random.below(6) as usize];
        let percents = (0..members).map(|_| rate(random)).collect();
        let wall_wrong_s_max = [0, 3_600, 86_400][random.below(3) as usize];
        Clocks { percents, wall_wrong_s_max }
    }

    pub(crate) fn percent(&self, number: usize) -> u64 {
        self.percents.get(number % self.percents.len().max(1)).copied().unwrap_or(100)
    }

    pub(crate) fn fastest_percent(&self) -> u64 {
        self.percents.iter().copied().max().unwrap_or(100)
    }
}

/// Moves the clock of the runtime that this is a task of, which is the machine's alone, until that ends.
/// `jump_ms`: how far it is to jump now, once.
pub(crate) async fn hurry(percent: u64, jump_ms: impl Fn() -> u64) {
    // What a life did not come to is not made up for in the next.
    jump_ms();
    let mut due = 0;
    loop {
        due += percent;
        let moves_ms = due / 100 + jump_ms();
        due %= 100;
        // Either way this goes on with the next step: a step is over when a millisecond has passed on this clock.
        if moves_ms <= 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(Duration::from_millis(moves_ms)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// What a clock of this rate shows after a second, of which half a second had a jump of 200 ms.
    fn shown_ms(percent: u64) -> u64 {
        let (jump_ms, shown_ms) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut sim = turmoil::Builder::new().tick_duration(Duration::from_millis(1)).build();
        let (jump, shown) = (Arc::clone(&jump_ms), Arc::clone(&shown_ms));
        sim.host("machine", move || {
            let (jump, shown) = (Arc::clone(&jump), Arc::clone(&shown));
            async move {
                tokio::spawn(hurry(percent, move || jump.swap(0, Ordering::Relaxed)));
                let began = tokio::time::Instant::now();
                let mut ticks = tokio::time::interval(Duration::from_millis(1));
                loop {
                    ticks.tick().await;
                    let elapsed_ms = u64::try_from(began.elapsed().as_millis())?;
                    shown.store(elapsed_ms, Ordering::Relaxed);
                }
            }
        });
        for step in 0..1_000 {
            if step == 500 {
                jump_ms.store(200, Ordering::Relaxed);
            }
            sim.step().unwrap();
        }
        shown_ms.load(Ordering::Relaxed)
    }

    #[test]
    fn a_clock_goes_at_its_rate_and_jumps() {
        for percent in [100, 110, 150, 200, 300] {
            let (shown_ms, right_ms) = (shown_ms(percent), 10 * percent + 200);
            assert!(right_ms.abs_diff(shown_ms) <= 5, "{percent} %: {shown_ms} ms, not {right_ms} ms");
        }
    }
}
