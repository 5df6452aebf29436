//! The renewals of one keep-alive stream: independent of each other, answered in order as long as nobody has to wait.
//!
//! Invariants: the renewals of one lease are done one after the other, in the order in which they were asked for. Those
//! of several leases run at the same time; an answer waits for those before it, but for none longer than `PATIENCE`: a
//! lease whose time is over is answered when it is gone, and nobody else waits for that. The first error whose turn
//! it is ends the stream. At most `PENDING_MAX` renewals of a stream are under way; the next request is read when one of
//! them is answered. Not here: what a renewal is (lease.rs), when it ends (replica).

use std::{collections::VecDeque, time::Duration};

use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

const PENDING_MAX: usize = 256;
/// How long a renewal that does not end holds up the answers behind it.
const PATIENCE: Duration = Duration::from_millis(100);

type Answer<A> = Result<A, Status>;

/// Renews the leases that `requests` names until it ends and all are answered. `Err` is what the stream ends with.
pub(super) async fn answer_all<'a, A: Send + 'a>(
    mut requests: impl Stream<Item = Result<i64, Status>> + Unpin,
    renew: impl Fn(i64) -> BoxFuture<'a, Answer<A>>,
    answers: &mpsc::Sender<Answer<A>>,
) -> Result<(), Status> {
    let mut pending =
        Pending { renew, asked: VecDeque::new(), running: FuturesUnordered::new(), next_place: 0 };
    let mut end = None;
    loop {
        while let Some(answer) = pending.next_ready() {
            if answers.send(Ok(answer?)).await.is_err() {
                return Ok(());
            }
        }
        if pending.asked.is_empty()
            && let Some(end) = end
        {
            return end;
        }
        let turn = pending.turn_of_others();
        let reads = end.is_none() && pending.asked.len() < PENDING_MAX;
        tokio::select! {
            Some((place, answer)) = pending.running.next() => pending.take(place, answer),
            () = tokio::time::sleep_until(turn.unwrap_or_else(Instant::now)), if turn.is_some() => {}
            request = requests.next(), if reads => match request {
                Some(Ok(lease)) => pending.ask(lease),
                Some(Err(status)) => end = Some(Err(status)),
                None => end = Some(Ok(())),
            },
        }
    }
}

/// What was asked and not answered yet, in its order.
struct Pending<'a, A, R> {
    renew: R,
    asked: VecDeque<Asked<A>>,
    /// Each with the place of its request.
    running: FuturesUnordered<BoxFuture<'a, (u64, Answer<A>)>>,
    next_place: u64,
}

struct Asked<A> {
    place: u64,
    lease: i64,
    state: State<A>,
}

enum State<A> {
    /// Behind another renewal of the same lease.
    Queued,
    Running {
        since: Instant,
    },
    Done(Answer<A>),
}

impl<A> Asked<A> {
    fn is_done(&self) -> bool {
        matches!(self.state, State::Done(_))
    }

    /// `None`: nobody behind it waits for it any more.
    fn holds_up_until(&self) -> Option<Instant> {
        match self.state {
            State::Running { since } => Some(since + PATIENCE).filter(|turn| *turn > Instant::now()),
            // The one that it waits for was asked for before it.
            State::Queued | State::Done(_) => None,
        }
    }
}

impl<'a, A: Send + 'a, R: Fn(i64) -> BoxFuture<'a, Answer<A>>> Pending<'a, A, R> {
    fn ask(&mut self, lease: i64) {
        let place = self.next_place;
        self.next_place += 1;
        let is_first = !self.asked.iter().any(|asked| asked.lease == lease && !asked.is_done());
        let state = if is_first { self.begin(place, lease) } else { State::Queued };
        self.asked.push_back(Asked { place, lease, state });
    }

    fn begin(&mut self, place: u64, lease: i64) -> State<A> {
        self.running.push((self.renew)(lease).map(move |answer| (place, answer)).boxed());
        State::Running { since: Instant::now() }
    }

    fn take(&mut self, place: u64, answer: Answer<A>) {
        let Some(at) = self.asked.iter().position(|asked| asked.place == place) else { return };
        self.asked[at].state = State::Done(answer);
        let lease = self.asked[at].lease;
        let next = (at + 1..self.asked.len()).find(|at| self.asked[*at].lease == lease);
        if let Some(next) = next {
            self.asked[next].state = self.begin(self.asked[next].place, lease);
        }
    }

    /// The next answer whose turn it is.
    fn next_ready(&mut self) -> Option<Answer<A>> {
        for at in 0..self.asked.len() {
            if self.asked[at].is_done() {
                let State::Done(answer) = self.asked.remove(at)?.state else { return None };
                return Some(answer);
            }
            if self.asked[at].holds_up_until().is_some() {
                return None;
            }
        }
        None
    }

    /// When the renewal that holds up the others does so no longer, if there is one.
    fn turn_of_others(&self) -> Option<Instant> {
        self.asked.iter().find_map(Asked::holds_up_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as long as its lease says, in milliseconds; a negative one is refused.
    fn renew(lease: i64) -> BoxFuture<'static, Answer<(i64, u128)>> {
        async move {
            let begun = Instant::now();
            tokio::time::sleep(Duration::from_millis(lease.unsigned_abs())).await;
            if lease < 0 {
                Err(Status::unavailable("refused"))
            } else {
                Ok((lease, begun.elapsed().as_millis()))
            }
        }
        .boxed()
    }

    /// The answers, each with the milliseconds since the begin, and how the stream ended.
    async fn told(leases: &[i64]) -> (Vec<(i64, u128)>, Result<(), Status>) {
        let (answers, mut receiver) = mpsc::channel(1);
        let requests = futures_util::stream::iter(leases.iter().map(|lease| Ok(*lease)).collect::<Vec<_>>());
        let stream = tokio::spawn(async move { answer_all(requests, renew, &answers).await });
        let (begun, mut told) = (Instant::now(), Vec::new());
        while let Some(answer) = receiver.recv().await {
            told.push((answer.unwrap().0, begun.elapsed().as_millis()));
        }
        (told, stream.await.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_waits_for_the_end_of_its_lease_holds_up_no_other() {
        let (told, end) = told(&[1, 7000, 2, 3]).await;
        let leases: Vec<i64> = told.iter().map(|(lease, _)| *lease).collect();
        assert_eq!(leases, [1, 2, 3, 7000]);
        assert!(told[2].1 < 200, "{told:?}");
        assert!(end.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn answers_come_in_the_order_of_the_requests_while_nobody_waits_for_long() {
        let (told, _) = told(&[90, 5, 60, 1]).await;
        assert_eq!(told, [(90, 90), (5, 90), (60, 90), (1, 90)]);
    }

    #[tokio::test(start_paused = true)]
    async fn renewals_of_one_lease_come_one_after_the_other() {
        let (told, _) = told(&[300, 300, 10, 300]).await;
        assert_eq!(told, [(10, 100), (300, 300), (300, 600), (300, 900)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_ends_the_stream_after_what_was_answered_before() {
        let (told, end) = told(&[50, -10, 20]).await;
        assert_eq!(told, [(50, 50)]);
        assert_eq!(end.unwrap_err().message(), "refused");
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_wait_as_are_bounded_and_all_are_answered() {
        let leases: Vec<i64> = (0..1000).map(|place| 7000 + place).collect();
        let (told, _) = told(&leases).await;
        assert_eq!(told.len(), leases.len());
        assert!(told.last().unwrap().1 > 20_000, "four rounds");
    }
}
