//! Whose write goes to the log next: clients take turns, whatever each of them asks for.
//!
//! The line in front of the log is one for all, so it is kept short: no more than `AT_WORK_MAX` writes of clients are in
//! it, of about `AT_WORK_SIZE_BYTES_MAX`, and those for which there is no room wait here, each client's in a line of its
//! own. A free place goes to the next client in a circle. So a client with thousands of writes under way costs another
//! one a place in a short line.
//! Invariants: as long as there is room nobody waits and nothing is counted per client. What waits is bounded in number
//! and in bytes; the last of both is for clients that have few waiting. Who gives up is gone from the line at once. Who
//! is told "too many requests" is in no log.
//! A known limit: a client that takes its call back gives its place back with it, while the write may still be on its way
//! through the log. It can have more at work than its turns, up to what the replica takes of all (`replica`).
//! Not here: reads, which join the round that is under way; what changes neither keys nor leases, of which there is
//! little; the member's own writes, which pass by all of this; the limits of the log itself (`replica`).

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use mvcc::Caller;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};
use tonic::Request;

use crate::status::Refusal;

/// Enough for full batches in the log and on the way to it, also where a sync or a round trip takes a tenth of a second.
const AT_WORK_MAX: usize = 1024;
/// The last one to get a turn may go beyond. Far below what the log lets wait for its disk.
const AT_WORK_SIZE_BYTES_MAX: usize = 64 << 20;
/// With those at work as many as etcd lets wait.
const WAITING_MAX: usize = 5000 - AT_WORK_MAX;
const WAITING_SIZE_BYTES_MAX: usize = 256 << 20;
/// Places and bytes beyond, for clients that have fewer than `FEW` waiting, of less than `FEW_SIZE_BYTES`.
const RESERVED: usize = 500;
const RESERVED_SIZE_BYTES: usize = 64 << 20;
const FEW: usize = 16;
const FEW_SIZE_BYTES: usize = 1 << 20;

/// One client's connection; travels in a request's extensions. The gateway is one, too, as it is in etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Connection(pub u64);

impl Connection {
    pub(crate) const GATEWAY: Connection = Connection(0);

    /// `None`: the request did not come from outside.
    pub(crate) fn of<T>(request: &Request<T>) -> Option<Connection> {
        request.extensions().get().copied()
    }
}

/// With whom others share: a user, over all connections; without a name the connection; this process, if there is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    Inside,
    Connection(Connection),
    User(String),
}

impl Client {
    pub(crate) fn of(connection: Option<Connection>, caller: &Caller) -> Client {
        match (caller, connection) {
            (Caller::User { name, .. }, _) => Client::User(name.clone()),
            (Caller::Anonymous | Caller::System, Some(connection)) => Client::Connection(connection),
            (Caller::Anonymous | Caller::System, None) => Client::Inside,
        }
    }
}

/// A place in the line in front of the log, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    /// `None`: it was offered to somebody who had gone, and is no turn any more.
    lines: Option<Arc<Mutex<Lines>>>,
    size_bytes: usize,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Turns {
    lines: Arc<Mutex<Lines>>,
}

/// Somebody waits only while there is no room.
#[derive(Debug, Default)]
struct Lines {
    at_work: usize,
    at_work_size_bytes: usize,
    /// Of each client that waits; none is empty.
    waiting: BTreeMap<Client, Line>,
    /// The clients that wait, in the order in which they are served.
    circle: BTreeMap<u64, Client>,
    /// Places in the circle and in lines are numbered in the order in which they are taken.
    next_number: u64,
    count: usize,
    size_bytes: usize,
}

#[derive(Debug)]
struct Line {
    /// In the circle.
    place: u64,
    writes: BTreeMap<u64, Waiting>,
    size_bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    turn: oneshot::Sender<Turn>,
    size_bytes: usize,
}

/// A place in a client's line. Whoever has got his turn or gives up has none any more.
struct Standing<'a> {
    turns: &'a Turns,
    client: Client,
    number: u64,
}

impl Turns {
    /// Writes that wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.lines.lock().count
    }

    /// To be held until the write is answered.
    pub(crate) async fn take(
        &self,
        client: Client,
        size_bytes: usize,
        deadline: Instant,
    ) -> Result<Turn, Refusal> {
        let (number, turn) = {
            let mut lines = self.lines.lock();
            if lines.has_room() {
                lines.begin(size_bytes);
                return Ok(Turn { lines: Some(self.lines.clone()), size_bytes });
            }
            lines.stand(client.clone(), size_bytes)?
        };
        let _until_it_comes = Standing { turns: self, client, number };
        let turn = tokio::time::timeout_at(deadline, turn).await;
        turn.map_err(|_| Refusal::TimedOut)?.map_err(|_| Refusal::Stopped)
    }
}

impl Lines {
    fn has_room(&self) -> bool {
        self.at_work < AT_WORK_MAX && self.at_work_size_bytes < AT_WORK_SIZE_BYTES_MAX
    }

    fn begin(&mut self, size_bytes: usize) {
        self.at_work += 1;
        self.at_work_size_bytes += size_bytes;
    }

    fn end(&mut self, size_bytes: usize) {
        self.at_work -= 1;
        self.at_work_size_bytes -= size_bytes;
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// At the end of the client's line. Gives the number of the place.
    fn stand(
        &mut self,
        client: Client,
        size_bytes: usize,
    ) -> Result<(u64, oneshot::Receiver<Turn>), Refusal> {
        let line = self.waiting.get(&client);
        let has_few = line.is_none_or(|line| line.writes.len() < FEW && line.size_bytes < FEW_SIZE_BYTES);
        let (places, bytes) = if has_few { (RESERVED, RESERVED_SIZE_BYTES) } else { (0, 0) };
        if self.count >= WAITING_MAX + places || self.size_bytes + size_bytes > WAITING_SIZE_BYTES_MAX + bytes
        {
            return Err(Refusal::TooManyRequests);
        }
        let (number, place) = (self.number(), self.number());
        let line = self.waiting.entry(client.clone()).or_insert_with(|| {
            self.circle.insert(place, client);
            Line { place, writes: BTreeMap::new(), size_bytes: 0 }
        });
        let (turn, receiver) = oneshot::channel();
        line.writes.insert(number, Waiting { turn, size_bytes });
        line.size_bytes += size_bytes;
        self.count += 1;
        self.size_bytes += size_bytes;
        Ok((number, receiver))
    }

    /// Takes one out of its client's line, and the client out of the circle with its last one.
    fn remove(&mut self, client: Client, number: u64) -> Option<Waiting> {
        let Entry::Occupied(mut entry) = self.waiting.entry(client) else { return None };
        let line = entry.get_mut();
        let removed = line.writes.remove(&number)?;
        line.size_bytes -= removed.size_bytes;
        if line.writes.is_empty() {
            self.circle.remove(&line.place);
            entry.remove();
        }
        self.count -= 1;
        self.size_bytes -= removed.size_bytes;
        Some(removed)
    }

    /// The first of the client whose turn it is; the client is served again after all others.
    fn next(&mut self) -> Option<Waiting> {
        let (_, client) = self.circle.pop_first()?;
        let place = self.number();
        self.circle.insert(place, client.clone());
        let line = self.waiting.get_mut(&client)?;
        line.place = place;
        let (&number, _) = line.writes.first_key_value()?;
        self.remove(client, number)
    }
}

impl Drop for Turn {
    /// Goes to whoever is next, or to several if their writes are smaller.
    fn drop(&mut self) {
        let Some(lines) = self.lines.take() else { return };
        let mut locked = lines.lock();
        locked.end(self.size_bytes);
        while locked.has_room()
            && let Some(Waiting { turn, size_bytes }) = locked.next()
        {
            locked.begin(size_bytes);
            // Dropped by a receiver that goes at this moment it waits for the lock, on another thread.
            if let Err(mut nobodys) = turn.send(Turn { lines: Some(lines.clone()), size_bytes }) {
                nobodys.lines = None;
                locked.end(size_bytes);
            }
        }
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        let client = std::mem::replace(&mut self.client, Client::Inside);
        let _given_up = self.turns.lines.lock().remove(client, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::Pin, time::Duration};

    use futures_util::FutureExt as _;

    use super::*;

    fn connection(number: u64) -> Client {
        Client::Connection(Connection(number))
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Turns of which all are taken.
    async fn busy() -> (Turns, Vec<Turn>) {
        let turns = Turns::default();
        let mut taken = Vec::new();
        for _ in 0..AT_WORK_MAX {
            taken.push(turns.take(connection(0), 1, later()).await.unwrap());
        }
        (turns, taken)
    }

    type Asking<'a> = Pin<Box<dyn Future<Output = Result<Turn, Refusal>> + 'a>>;

    /// Of somebody who has to wait.
    fn wait(turns: &Turns, client: u64, size_bytes: usize) -> Asking<'_> {
        let mut asking = Box::pin(turns.take(connection(client), size_bytes, later()));
        assert!(asking.as_mut().now_or_never().is_none(), "has to wait");
        asking
    }

    fn is_refused(turns: &Turns, client: u64, size_bytes: usize) -> bool {
        let asked = turns.take(connection(client), size_bytes, later()).now_or_never();
        asked.is_some_and(|asked| asked.is_err_and(|refusal| refusal == Refusal::TooManyRequests))
    }

    /// Whoever of them has got a turn, which he keeps.
    fn served<'a>(asking: &mut Vec<(u64, Asking<'a>)>, kept: &mut Vec<Turn>) -> Vec<u64> {
        let mut clients = Vec::new();
        asking.retain_mut(|(client, asking)| match asking.as_mut().now_or_never() {
            Some(turn) => {
                kept.push(turn.unwrap());
                clients.push(*client);
                false
            }
            None => true,
        });
        clients
    }

    #[tokio::test]
    async fn clients_are_served_in_a_circle_however_many_writes_each_of_them_has() {
        let (turns, mut taken) = busy().await;
        let mut kept = Vec::new();
        let mut waiting: Vec<_> =
            [1, 1, 1, 1, 2, 2, 3].into_iter().map(|client| (client, wait(&turns, client, 1))).collect();
        assert_eq!(turns.waiting(), 7);
        for expected in [1, 2, 3, 1, 2, 1, 1] {
            drop(taken.pop());
            assert_eq!(served(&mut waiting, &mut kept), [expected]);
        }
        assert_eq!(turns.waiting(), 0);
    }

    #[tokio::test]
    async fn a_client_that_fills_the_line_leaves_places_for_others() {
        let (turns, taken) = busy().await;
        let full: Vec<_> = (0..WAITING_MAX).map(|_| wait(&turns, 1, 1)).collect();
        assert!(is_refused(&turns, 1, 1));
        let others: Vec<_> = (0..FEW).map(|_| wait(&turns, 2, 1)).collect();
        assert!(is_refused(&turns, 2, 1));
        drop((full, others, taken));
        assert_eq!(turns.lines.lock().at_work, 0);
        assert_eq!(turns.lines.lock().at_work_size_bytes, 0);
    }

    #[tokio::test]
    async fn a_client_that_fills_the_line_with_bytes_leaves_some_for_others() {
        let (turns, _taken) = busy().await;
        let _full = wait(&turns, 1, WAITING_SIZE_BYTES_MAX);
        assert!(is_refused(&turns, 1, 1));
        let _other = wait(&turns, 2, FEW_SIZE_BYTES);
        assert!(is_refused(&turns, 2, 1), "of little, but much");
        assert!(is_refused(&turns, 3, RESERVED_SIZE_BYTES), "the reserve is bounded, too");
    }

    #[tokio::test]
    async fn who_gives_up_is_gone_from_the_line_and_costs_his_client_no_turn() {
        let (turns, mut taken) = busy().await;
        let full: Vec<_> = (0..WAITING_MAX).map(|_| wait(&turns, 1, 1)).collect();
        drop(full);
        assert_eq!(turns.waiting(), 0);
        let (gone, mut kept) = (wait(&turns, 1, 1), Vec::new());
        let mut waiting = vec![(2, wait(&turns, 2, 1)), (1, wait(&turns, 1, 1))];
        drop(gone);
        for expected in [1, 2] {
            drop(taken.pop());
            assert_eq!(served(&mut waiting, &mut kept), [expected]);
        }
        // All of its writes gone, the client goes to the end of the circle.
        drop(wait(&turns, 1, 1));
        let mut waiting = vec![(2, wait(&turns, 2, 1)), (1, wait(&turns, 1, 1))];
        for expected in [2, 1] {
            drop(taken.pop());
            assert_eq!(served(&mut waiting, &mut kept), [expected]);
        }
        assert_eq!(turns.waiting(), 0);
    }

    #[tokio::test]
    async fn large_writes_wait_while_there_are_few_at_work_and_one_gives_way_to_many_small_ones() {
        let turns = Turns::default();
        let large = turns.take(connection(1), 2 * AT_WORK_SIZE_BYTES_MAX, later()).await.unwrap();
        let mut kept = Vec::new();
        let mut waiting = vec![
            (1, wait(&turns, 1, AT_WORK_SIZE_BYTES_MAX)),
            (2, wait(&turns, 2, 1)),
            (3, wait(&turns, 3, 1)),
        ];
        // However large: one always is at work.
        drop(large);
        assert_eq!(served(&mut waiting, &mut kept), [1]);
        drop(kept.pop());
        assert_eq!(served(&mut waiting, &mut kept), [2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_beyond_his_deadline() {
        let (turns, _taken) = busy().await;
        assert_eq!(turns.take(connection(1), 1, later()).await.map(drop), Err(Refusal::TimedOut));
        assert_eq!(turns.waiting(), 0);
    }
}
