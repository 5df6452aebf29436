//! Which faults happen when, drawn from a seed before the run starts.
//!
//! Invariants: the same seed, length and means give the same schedule; faults overlap, but each is over before the run's
//! quiet end; a schedule that is long enough holds every combination that the means allow at least once.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kill -9`, started again afterwards.
    Kill,
    /// Stopped by a signal as a long pause of the machine would, then continued.
    Pause,
    /// All of it stands still in the kernel's freezer, without a signal.
    Freeze,
    /// Started with less memory than it needs, and killed by the kernel for it.
    OutOfMemory,
    /// It gets a twentieth of one processor.
    SlowProcessor,
    /// It may open hardly any more files and connections than it has, while many want to connect.
    FewDescriptors,
    /// No packet passes between the target and the other members, in either direction.
    Cut,
    /// What the target sends to other members is lost; what they send arrives.
    CutOutgoing,
    /// What other members send to the target is lost.
    CutIncoming,
    /// The target and one other member do not hear each other; both hear the rest.
    CutPair,
    /// Each member hears only its neighbours in a ring; of three members, each is heard by its successor only.
    Ring,
    /// A third of the target's packets are lost, also those to clients.
    Loss,
    /// The target's interface passes 100 kbit/s.
    SlowLink,
    /// What the target sends, also to clients, is late by tens to hundreds of milliseconds, in order.
    Delay,
    /// What the target sends, also to clients, is late by more or less, so that packets overtake each other.
    Reorder,
    /// A third of the packets that the target sends to other members is sent twice.
    Duplicate,
    /// Packets above a size vanish on the way to other members; small ones pass.
    BlackHole,
    /// Connections of the target to other members are killed, again and again.
    Reset,
    /// The target is cut off and reconnected, again and again.
    Flap,
    /// The disk's file system loses all that was not synced, then the process dies and the disk is mounted again.
    PowerCut,
    /// No byte is left on the target's disk.
    DiskFull,
    /// An fdatasync fails with EIO.
    SyncError,
    /// A read of a file fails with EIO.
    ReadError,
    /// A write of a file fails with ENOSPC.
    WriteError,
    /// Every second fdatasync takes 300 ms.
    SlowSync,
    /// The process dies on entering its Nth fdatasync.
    KillAtSync,
    /// One bit of the target's log or state is flipped while it is down.
    FlipBit,
    /// The target's wall clock jumps by a day, forward and back.
    ClockJump,
    /// The target's clocks run faster or slower.
    ClockDrift,
    /// The target starts with another monotonic clock, as after a reboot.
    ClockOffset,
    /// Leadership is handed to another member.
    MoveLeader,
    /// Members are stopped and started in turn, by SIGTERM.
    RollingRestart,
    /// The target is removed, loses its data, is added again and joins.
    Replace,
    /// The leader is removed while it runs; then as [`Kind::Replace`].
    RemoveLeader,
    /// Two learners come, become voters, and are removed: three members, five, three.
    Grow,
    /// The disks of all members are copied at one moment, and a process alone is started on each copy.
    CrashImage,
    /// The target is another build for a while, which the others talk to and whose data the first one opens again.
    OldVersion,
}

/// What the machine must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Means {
    Processes,
    Namespaces,
    /// User space can hold packets back.
    PacketQueues,
    /// The kernel can send a packet twice.
    PacketCopies,
    /// Each member has a file system of its own.
    Disks,
    Strace,
    Faketime,
    TimeNamespaces,
    /// A disk can be copied while it is written to.
    DiskCopies,
    /// Whoever started the run named another build.
    OldVersion,
    /// The kernel limits memory and processor of a group of processes, and freezes it.
    ControlGroups,
}

/// What of a member a fault has in hand. Faults that have the same of the same member in hand do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seizes {
    Nothing,
    /// How fast its link is, or whether it is there.
    Link,
    /// When its packets leave.
    Packets,
    /// Its process, disk, data or clock.
    Process,
}

impl Kind {
    pub fn seizes(self) -> Seizes {
        match self {
            Kind::Cut
            | Kind::CutOutgoing
            | Kind::CutIncoming
            | Kind::CutPair
            | Kind::Ring
            | Kind::Loss
            | Kind::BlackHole
            | Kind::Reset
            | Kind::MoveLeader
            | Kind::Grow
            | Kind::CrashImage => Seizes::Nothing,
            Kind::SlowLink | Kind::Flap => Seizes::Link,
            Kind::Delay | Kind::Reorder | Kind::Duplicate => Seizes::Packets,
            _ => Seizes::Process,
        }
    }
}

/// Whom a fault meets; who leads is only known when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Leader,
    Follower,
    /// The cluster stands still meanwhile.
    Majority,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    pub target: Target,
    pub at: Duration,
    pub lasts: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { kind, target, at, lasts } = self;
        write!(f, "{kind:?} {target:?} at {:.1} s for {:.1} s", at.as_secs_f64(), lasts.as_secs_f64())
    }
}

const COMBINATIONS: &[(Means, Kind, Target)] = &[
    (Means::Processes, Kind::Kill, Target::Leader),
    (Means::Processes, Kind::Pause, Target::Leader),
    (Means::Processes, Kind::Kill, Target::Follower),
    (Means::Processes, Kind::Pause, Target::Follower),
    (Means::Processes, Kind::Kill, Target::All),
    (Means::Processes, Kind::Kill, Target::Majority),
    (Means::Processes, Kind::Pause, Target::All),
    (Means::Processes, Kind::MoveLeader, Target::Leader),
    (Means::Processes, Kind::RollingRestart, Target::All),
    (Means::Processes, Kind::Replace, Target::Follower),
    (Means::Processes, Kind::RemoveLeader, Target::Leader),
    (Means::Namespaces, Kind::Grow, Target::All),
    (Means::DiskCopies, Kind::CrashImage, Target::All),
    (Means::OldVersion, Kind::OldVersion, Target::Follower),
    (Means::OldVersion, Kind::OldVersion, Target::All),
    (Means::Namespaces, Kind::Cut, Target::Leader),
    (Means::Namespaces, Kind::Cut, Target::Follower),
    (Means::Namespaces, Kind::Cut, Target::Majority),
    (Means::Namespaces, Kind::CutOutgoing, Target::Leader),
    (Means::Namespaces, Kind::CutIncoming, Target::Leader),
    (Means::Namespaces, Kind::CutPair, Target::Leader),
    (Means::Namespaces, Kind::Ring, Target::All),
    (Means::Namespaces, Kind::Loss, Target::Leader),
    (Means::Namespaces, Kind::Loss, Target::All),
    (Means::Namespaces, Kind::SlowLink, Target::Follower),
    (Means::PacketQueues, Kind::Delay, Target::Leader),
    (Means::PacketQueues, Kind::Delay, Target::All),
    (Means::PacketQueues, Kind::Reorder, Target::Leader),
    (Means::PacketQueues, Kind::Reorder, Target::All),
    (Means::PacketCopies, Kind::Duplicate, Target::All),
    (Means::Namespaces, Kind::BlackHole, Target::Leader),
    (Means::Namespaces, Kind::Reset, Target::All),
    (Means::Namespaces, Kind::Flap, Target::Leader),
    (Means::Disks, Kind::PowerCut, Target::Leader),
    (Means::Disks, Kind::PowerCut, Target::All),
    (Means::Disks, Kind::DiskFull, Target::Follower),
    (Means::Disks, Kind::FlipBit, Target::Follower),
    (Means::Strace, Kind::SyncError, Target::Leader),
    (Means::Strace, Kind::ReadError, Target::Follower),
    (Means::Strace, Kind::WriteError, Target::Leader),
    (Means::Strace, Kind::SlowSync, Target::Follower),
    (Means::Strace, Kind::KillAtSync, Target::Follower),
    (Means::Faketime, Kind::ClockJump, Target::Leader),
    (Means::Faketime, Kind::ClockDrift, Target::Follower),
    (Means::TimeNamespaces, Kind::ClockOffset, Target::Follower),
    (Means::ControlGroups, Kind::OutOfMemory, Target::Leader),
    (Means::ControlGroups, Kind::SlowProcessor, Target::Leader),
    (Means::ControlGroups, Kind::SlowProcessor, Target::Follower),
    (Means::ControlGroups, Kind::Freeze, Target::Leader),
    (Means::Namespaces, Kind::FewDescriptors, Target::Leader),
];

/// The combinations that `means` allow.
pub fn combinations(means: &[Means]) -> Vec<(Kind, Target)> {
    let allowed = COMBINATIONS.iter().filter(|(needed, ..)| means.contains(needed));
    allowed.map(|(_, kind, target)| (*kind, *target)).collect()
}

/// Those whose kinds are named; all if none is.
pub fn only(combinations: Vec<(Kind, Target)>, names: &[String]) -> Vec<(Kind, Target)> {
    let wanted = |kind: Kind| names.is_empty() || names.contains(&format!("{kind:?}"));
    combinations.into_iter().filter(|(kind, _)| wanted(*kind)).collect()
}

/// Which of the `required` kinds (`all`: every one) cannot be injected with `means`. `Err`: there is no such kind.
pub fn missing(means: &[Means], required: &[String]) -> anyhow::Result<Vec<String>> {
    let allowed = |name: &str| {
        COMBINATIONS.iter().any(|(needed, kind, _)| format!("{kind:?}") == name && means.contains(needed))
    };
    let every: BTreeSet<String> = COMBINATIONS.iter().map(|(_, kind, _)| format!("{kind:?}")).collect();
    // No machine has another build by itself.
    let by_itself = |name: &&String| **name != format!("{:?}", Kind::OldVersion);
    let mut wanted = BTreeSet::new();
    for name in required {
        match name.as_str() {
            "all" => wanted.extend(every.iter().filter(by_itself).cloned()),
            name if every.contains(name) => drop(wanted.insert(name.to_owned())),
            name => anyhow::bail!("there is no fault {name:?}; there are {every:?}"),
        }
    }
    Ok(wanted.into_iter().filter(|name| !allowed(name)).collect())
}

/// Faults within `length`, in order of their beginning, of the kinds `names` (empty: all). With more than processes to disturb, they begin sooner after
/// each other and two to four are active at once.
pub fn draw(seed: u64, length: Duration, means: &[Means], names: &[String]) -> Vec<Fault> {
    let gap_ms = if means.len() > 1 { 800..2_000 } else { 1_000..2_000 };
    draw_of(seed, length, only(combinations(means), names), gap_ms)
}

/// As [`draw`], of these combinations; `gap_ms` is from the beginning of one to that of the next.
pub fn draw_of(
    seed: u64,
    length: Duration,
    combinations: Vec<(Kind, Target)>,
    gap_ms: Range<u64>,
) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut faults = Vec::new();
    if combinations.is_empty() {
        return faults;
    }
    let mut at = Duration::from_millis(random.random_range(500..1_000));
    let mut deck: Vec<(Kind, Target)> = Vec::new();
    loop {
        if deck.is_empty() {
            deck = combinations.clone();
        }
        let (kind, target) = deck.swap_remove(random.random_range(0..deck.len()));
        // Longer than an election timeout, so that a lost leader is replaced before it returns.
        let lasts = Duration::from_millis(random.random_range(400..3_500));
        if at + lasts > length {
            return faults;
        }
        faults.push(Fault { kind, target, at, lasts });
        at += Duration::from_millis(random.random_range(gap_ms.clone()));
    }
}
