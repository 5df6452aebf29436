//! Whose write goes to the log next: clients take turns, whatever each of them asks for.
//!
//! The line in front of the log is one for all, so it is kept short: no more than `AT_WORK_MAX` writes of clients are in
//! it, and those for which there is no room wait here, each client's in a line of its own. A free place goes to the next
//! client in a circle. So a client with thousands of writes under way costs another one a place in a short line.
//! Invariants: as long as there is room nobody waits and nothing is counted per client. What waits is bounded in number
//! and in bytes; the last places are for clients that have few waiting. Who is told "too many requests" is in no log.
//! Not here: reads, which join the round that is under way; what is not a write of keys, of which there is little; the
//! member's own writes, which pass by all of this; the limits of the log itself (`replica`).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use mvcc::Caller;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tonic::Request;

use crate::status::Refusal;

/// Enough for full batches in the log and on the way to it, also where a sync or a round trip takes a tenth of a second.
const AT_WORK_MAX: usize = 1024;
/// With those at work as many as etcd lets wait.
const WAITING_MAX: usize = 5000 - AT_WORK_MAX;
/// Places beyond, for clients that have fewer than `FEW` waiting.
const RESERVED: usize = 500;
const FEW: usize = 16;
const WAITING_SIZE_BYTES_MAX: usize = 256 << 20;

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
    lines: Option<Arc<Mutex<Lines>>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Turns {
    lines: Arc<Mutex<Lines>>,
    wait_max: Duration,
}

#[derive(Debug, Default)]
struct Lines {
    at_work: usize,
    /// Of each client that waits; none is empty.
    waiting: BTreeMap<Client, VecDeque<Waiting>>,
    /// The clients that wait, in the order in which they are served.
    circle: VecDeque<Client>,
    count: usize,
    size_bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    turn: oneshot::Sender<Turn>,
    size_bytes: usize,
}

impl Turns {
    /// Nobody waits longer than `wait_max`.
    pub(crate) fn new(wait_max: Duration) -> Turns {
        Turns { lines: Arc::default(), wait_max }
    }

    /// Writes that wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.lines.lock().count
    }

    /// To be held until the write is applied.
    pub(crate) async fn take(&self, client: Client, size_bytes: usize) -> Result<Turn, Refusal> {
        let turn = {
            let mut lines = self.lines.lock();
            // Whoever waits goes first.
            if lines.at_work < AT_WORK_MAX {
                lines.at_work += 1;
                return Ok(Turn { lines: Some(self.lines.clone()) });
            }
            lines.stand(client, size_bytes)?
        };
        let turn = tokio::time::timeout(self.wait_max, turn).await;
        turn.map_err(|_| Refusal::TooManyRequests)?.map_err(|_| Refusal::Stopped)
    }
}

impl Lines {
    /// At the end of the client's line.
    fn stand(&mut self, client: Client, size_bytes: usize) -> Result<oneshot::Receiver<Turn>, Refusal> {
        let has_few = self.waiting.get(&client).is_none_or(|line| line.len() < FEW);
        let waiting_max = if has_few { WAITING_MAX + RESERVED } else { WAITING_MAX };
        if self.count >= waiting_max || self.size_bytes + size_bytes > WAITING_SIZE_BYTES_MAX {
            return Err(Refusal::TooManyRequests);
        }
        let (sender, receiver) = oneshot::channel();
        self.count += 1;
        self.size_bytes += size_bytes;
        let line = self.waiting.entry(client.clone()).or_default();
        if line.is_empty() {
            self.circle.push_back(client);
        }
        line.push_back(Waiting { turn: sender, size_bytes });
        Ok(receiver)
    }

    /// The first of the client whose turn it is; the client is served again after all others.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let client = self.circle.pop_front()?;
        let line = self.waiting.get_mut(&client)?;
        let first = line.pop_front()?;
        if line.is_empty() {
            self.waiting.remove(&client);
        } else {
            self.circle.push_back(client);
        }
        self.count -= 1;
        self.size_bytes -= first.size_bytes;
        Some(first.turn)
    }
}

impl Drop for Turn {
    /// Goes to the next one who still waits.
    fn drop(&mut self) {
        let Some(lines) = self.lines.take() else { return };
        loop {
            let next = {
                let mut locked = lines.lock();
                let next = locked.next();
                locked.at_work -= usize::from(next.is_none());
                next
            };
            let Some(next) = next else { return };
            match next.send(Turn { lines: Some(lines.clone()) }) {
                Ok(()) => return,
                // Gone meanwhile; what comes back is no turn any more.
                Err(mut turn) => turn.lines = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn connection(number: u64) -> Client {
        Client::Connection(Connection(number))
    }

    /// Turns of which all are taken.
    async fn busy() -> (Turns, Vec<Turn>) {
        let turns = Turns::new(Duration::from_secs(60));
        let mut taken = Vec::new();
        for _ in 0..AT_WORK_MAX {
            taken.push(turns.take(connection(0), 1).await.unwrap());
        }
        (turns, taken)
    }

    /// Asks, and waits if there is no turn.
    fn ask(turns: &Turns, client: &Client) -> tokio::task::JoinHandle<Client> {
        let mut waits = Box::pin({
            let (turns, client) = (turns.clone(), client.clone());
            async move { turns.take(client, 1).await }
        });
        assert!(waits.as_mut().now_or_never().is_none(), "has to wait");
        let client = client.clone();
        tokio::spawn(async move {
            // Kept, so that the next turn is given by the test.
            std::mem::forget(waits.await.unwrap());
            client
        })
    }

    #[tokio::test]
    async fn clients_are_served_in_a_circle_however_many_writes_each_of_them_has() {
        let (turns, mut taken) = busy().await;
        let mut waiting = Vec::new();
        for client in [1, 1, 1, 1, 2, 2, 3] {
            waiting.push(ask(&turns, &connection(client)));
        }
        assert_eq!(turns.waiting(), 7);
        for expected in [1, 2, 3, 1, 2, 1, 1] {
            drop(taken.pop());
            let (client, _, rest) = futures_util::future::select_all(waiting).await;
            assert_eq!(client.unwrap(), connection(expected));
            waiting = rest;
        }
        assert_eq!(turns.waiting(), 0);
    }

    #[tokio::test]
    async fn a_client_that_fills_the_line_leaves_places_for_others() {
        let (turns, taken) = busy().await;
        let ask = |client| {
            let mut waits = Box::pin(turns.take(client, 1));
            waits.as_mut().now_or_never().map_or(Ok(waits), Err)
        };
        let mut waiting = Vec::new();
        for _ in 0..WAITING_MAX {
            waiting.push(ask(connection(1)).unwrap_or_else(|_| panic!("there is room")));
        }
        let refused = |asked: Result<_, Result<Turn, Refusal>>| match asked {
            Err(Err(refusal)) => refusal == Refusal::TooManyRequests,
            _ => false,
        };
        assert!(refused(ask(connection(1)).map(drop)));
        let mut others = Vec::new();
        for _ in 0..FEW {
            others.push(ask(connection(2)).unwrap_or_else(|_| panic!("there is room for others")));
        }
        assert!(refused(ask(connection(2)).map(drop)));
        // Whoever gives up is passed over, and none of the places is lost.
        drop((others, waiting));
        drop(taken);
        assert_eq!(turns.waiting(), 0);
        assert_eq!(turns.lines.lock().at_work, 0);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes() {
        let (turns, _taken) = busy().await;
        let mut first = Box::pin(turns.take(connection(1), WAITING_SIZE_BYTES_MAX));
        assert!(first.as_mut().now_or_never().is_none());
        let second = turns.take(connection(2), 1).now_or_never();
        assert_eq!(second.map(|asked| asked.map(drop)), Some(Err(Refusal::TooManyRequests)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let (turns, _taken) = busy().await;
        assert_eq!(turns.take(connection(1), 1).await.map(drop), Err(Refusal::TooManyRequests));
    }
}
