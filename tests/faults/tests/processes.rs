//! A short run on real processes, in every run of the tests; `cargo run -p faults` makes longer ones.

use std::time::Duration;

use faults::judge::judge;
use faults::page;
use faults::record::Recording;
use faults::run::{Settings, run};
use faults::schedule::{self, Means};

#[test]
fn the_same_seed_draws_the_same_faults_and_long_schedules_hold_every_kind() {
    let long = Duration::from_secs(100);
    let everything = [
        Means::Processes,
        Means::Namespaces,
        Means::PacketQueues,
        Means::PacketCopies,
        Means::Disks,
        Means::Strace,
        Means::Faketime,
        Means::TimeNamespaces,
        Means::ControlGroups,
        Means::DiskCopies,
        Means::OldVersion,
    ];
    for means in [&everything[..1], &everything[..]] {
        let faults = schedule::draw(7, long, means, &[]);
        assert_eq!(faults, schedule::draw(7, long, means, &[]));
        assert_ne!(faults, schedule::draw(8, long, means, &[]));
        let mut drawn: Vec<_> = faults.iter().map(|fault| (fault.kind, fault.target)).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), schedule::combinations(means).len());
        assert!(faults.windows(2).any(|pair| pair[0].at + pair[0].lasts > pair[1].at), "none overlap");
    }
}

#[test]
fn what_is_required_and_cannot_be_injected_is_named() {
    let required = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let some = [Means::Processes, Means::Namespaces];
    assert!(schedule::missing(&some, &[]).unwrap().is_empty());
    assert!(schedule::missing(&some, &required(&["Kill", "Cut"])).unwrap().is_empty());
    assert_eq!(schedule::missing(&some, &required(&["Kill", "PowerCut"])).unwrap(), ["PowerCut"]);
    let missing = schedule::missing(&[Means::Processes], &required(&["all"])).unwrap();
    assert!(
        missing.contains(&"Cut".to_owned()) && missing.contains(&"ClockOffset".to_owned()),
        "{missing:?}"
    );
    assert!(!missing.contains(&"Kill".to_owned()), "{missing:?}");
    assert!(schedule::missing(&some, &required(&["Earthquake"])).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_seen_out_of_order_while_members_are_killed_and_paused() {
    let run = run(&Settings::processes_only(1, Duration::from_secs(12))).await.unwrap();
    let judgement = judge(&run.recording);
    let dir = tempfile::tempdir().unwrap();
    run.recording.save(dir.path()).unwrap();
    page::write(dir.path(), &page::store::page(&run.recording, &judgement)).unwrap();
    if judgement.first_violation().is_some() || judgement.invalid.is_some() {
        let (bad, logs) = (judgement.first_violation(), run.cluster.log_ends());
        panic!("{bad:?} {:?}, kept in {}\n{logs}", judgement.invalid, dir.keep().display());
    }
    let kept = Recording::load(dir.path()).unwrap();
    assert_eq!(kept, run.recording, "what is read back is not what was recorded");
    assert!(judge(&kept).first_violation().is_none());
}
