//! A short run on real processes, in every run of the tests; `cargo run -p faults` makes longer ones.

use std::time::Duration;

use faults::run::{Settings, run};
use faults::schedule;

#[test]
fn the_same_seed_draws_the_same_faults_and_long_schedules_hold_every_kind() {
    let long = Duration::from_secs(60);
    let faults = schedule::draw(7, long);
    assert_eq!(faults, schedule::draw(7, long));
    assert_ne!(faults, schedule::draw(8, long));
    let mut combinations: Vec<_> = faults.iter().map(|fault| (fault.kind, fault.target)).collect();
    combinations.sort_unstable();
    combinations.dedup();
    assert_eq!(combinations.len(), 7);
    assert!(faults.windows(2).any(|pair| pair[0].at + pair[0].lasts > pair[1].at), "none overlap");
}

#[tokio::test]
async fn nothing_is_lost_or_seen_out_of_order_while_members_are_killed_and_paused() {
    run(&Settings { seed: 1, length: Duration::from_secs(12) }).await.unwrap();
}
