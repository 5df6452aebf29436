//! Which machines are members, as operators and clients know it, and what operators want done with machines.
//!
//! Always holds: a run in which nobody changes members reads its first list for ever. The operator (operator.rs) and the
//! run (run/machines.rs) meet here and nowhere else. Not here: what the cluster says of itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use parking_lot::Mutex;

/// What is to happen to a machine, by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// A new machine starts and joins the members on these.
    Start { number: usize, others: Vec<usize> },
    /// It is switched off for good; nobody needs it any more.
    Retire { number: usize },
    /// It and its disk are gone, though it is a member.
    Destroy { number: usize },
    /// It gets an empty disk and comes back as the same member.
    Empty { number: usize, others: Vec<usize> },
}

#[derive(Default)]
pub(crate) struct Roster {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Voters that clients are to talk to, ascending.
    live: Vec<usize>,
    /// Counts those who asked for any of them.
    asked: usize,
    changes: u64,
    orders: VecDeque<Order>,
    stopping: bool,
    /// Those who still work on members or users.
    busy: usize,
    /// Machines whose disks do not have what they should.
    lost: BTreeSet<usize>,
    ever_lost: BTreeSet<usize>,
    /// Machines by the id of their member.
    numbers: BTreeMap<u64, usize>,
    /// Machines that may lose theirs now, so that every acknowledged entry keeps a copy on a majority.
    may_lose: BTreeSet<usize>,
    destroyed: BTreeSet<usize>,
    /// Machines that were members and are not any more.
    removed: BTreeSet<usize>,
    /// Machines that do not run and never will again.
    gone: BTreeSet<usize>,
}

impl Roster {
    /// `operators`: who says `set_idle` at the end.
    pub(crate) fn new(members: usize, operators: usize) -> Roster {
        let inner = Inner { live: (0..members).collect(), busy: operators, ..Inner::default() };
        Roster { inner: Mutex::new(inner) }
    }

    /// Where the client goes that was at `at` and began at `first`: it stays as long as it can.
    pub(crate) fn stay(&self, at: usize, first: usize) -> usize {
        let inner = self.inner.lock();
        match inner.live.contains(&at) || inner.live.is_empty() {
            true => at,
            false => inner.live[first % inner.live.len()],
        }
    }

    /// The drawn member; one after the other once the list has changed.
    pub(crate) fn any(&self, drawn: usize) -> usize {
        let mut inner = self.inner.lock();
        if inner.changes == 0 || inner.live.is_empty() {
            return drawn;
        }
        inner.asked += 1;
        inner.live[(drawn + inner.asked) % inner.live.len()]
    }

    pub(crate) fn live(&self) -> Vec<usize> {
        self.inner.lock().live.clone()
    }

    pub(crate) fn set_live(&self, live: Vec<usize>) {
        let mut inner = self.inner.lock();
        if inner.live != live && !live.is_empty() {
            inner.live = live;
            inner.changes += 1;
        }
    }

    pub(crate) fn order(&self, order: Order) {
        self.inner.lock().orders.push_back(order);
    }

    pub(crate) fn next_order(&self) -> Option<Order> {
        self.inner.lock().orders.pop_front()
    }

    pub(crate) fn stopping(&self) -> bool {
        self.inner.lock().stopping
    }

    pub(crate) fn stop(&self) {
        self.inner.lock().stopping = true;
    }

    pub(crate) fn is_idle(&self) -> bool {
        let inner = self.inner.lock();
        inner.busy == 0 && inner.orders.is_empty()
    }

    pub(crate) fn set_idle(&self) {
        let mut inner = self.inner.lock();
        inner.busy = inner.busy.saturating_sub(1);
    }

    pub(crate) fn set_losses(&self, lost: BTreeSet<usize>, may_lose: BTreeSet<usize>) {
        let mut inner = self.inner.lock();
        inner.ever_lost.extend(lost.iter().copied());
        inner.lost = lost;
        inner.may_lose = may_lose;
    }

    pub(crate) fn set_numbers(&self, numbers: BTreeMap<u64, usize>) {
        self.inner.lock().numbers = numbers;
    }

    pub(crate) fn number_of(&self, member_id: u64) -> Option<usize> {
        self.inner.lock().numbers.get(&member_id).copied()
    }

    pub(crate) fn is_lost(&self, number: usize) -> bool {
        self.inner.lock().lost.contains(&number)
    }

    pub(crate) fn was_lost(&self, number: usize) -> bool {
        self.inner.lock().ever_lost.contains(&number)
    }

    pub(crate) fn is_anything_lost(&self) -> bool {
        !self.inner.lock().lost.is_empty()
    }

    pub(crate) fn may_lose(&self, number: usize) -> bool {
        self.inner.lock().may_lose.contains(&number)
    }

    pub(crate) fn note_destroyed(&self, number: usize) {
        self.inner.lock().destroyed.insert(number);
    }

    pub(crate) fn is_destroyed(&self, number: usize) -> bool {
        self.inner.lock().destroyed.contains(&number)
    }

    pub(crate) fn note_removed(&self, number: usize) {
        self.inner.lock().removed.insert(number);
    }

    pub(crate) fn is_removed(&self, number: usize) -> bool {
        self.inner.lock().removed.contains(&number)
    }

    pub(crate) fn note_gone(&self, number: usize) {
        self.inner.lock().gone.insert(number);
    }

    /// Machines that were members and still run.
    pub(crate) fn lingering(&self) -> Vec<usize> {
        let inner = self.inner.lock();
        inner.removed.difference(&inner.gone).copied().collect()
    }
}
