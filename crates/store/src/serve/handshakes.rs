//! How many connections may be in the middle of their TLS handshake, and who has to go when there are too many.
//!
//! Invariants: at most as many as were said are under way. When there are, no further connection is accepted until one
//! has ended; the oldest is given up when it has had `TIME_MIN`, so that silent clients cannot keep the others out for
//! long. Not here: how long a single handshake may take (serve.rs).

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

/// What a handshake has in any case; on a healthy line it takes milliseconds.
const TIME_MIN: Duration = Duration::from_secs(1);

pub(super) struct Handshakes {
    places: Arc<Semaphore>,
    begun: Mutex<Begun>,
}

#[derive(Default)]
struct Begun {
    next: u64,
    /// In the order in which they began; those that were given up are not among them.
    waiting: BTreeMap<u64, (Instant, CancellationToken)>,
}

/// The place of one handshake, until it is dropped.
pub(super) struct Place {
    handshakes: Arc<Handshakes>,
    number: u64,
    given_up: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Handshakes {
    pub(super) fn new(unfinished_max: usize) -> Arc<Handshakes> {
        Arc::new(Handshakes { places: Arc::new(Semaphore::new(unfinished_max)), begun: Mutex::default() })
    }

    /// Waits for a place. `None`: the member ends.
    pub(super) async fn begin(self: &Arc<Self>) -> Option<Place> {
        let oldest = {
            let begun = self.begun.lock();
            begun.waiting.first_key_value().map(|(number, (since, _))| (*number, *since + TIME_MIN))
        };
        let mut permit = pin!(self.places.clone().acquire_owned());
        tokio::select! {
            biased;
            permit = &mut permit => return Some(self.place(permit.ok()?)),
            () = until(oldest.map(|(_, turn)| turn)) => {
                let oldest = oldest.and_then(|(number, _)| self.begun.lock().waiting.remove(&number));
                if let Some((_, given_up)) = oldest {
                    given_up.cancel();
                }
            }
        }
        // It goes at once, or another one did meanwhile.
        Some(self.place(permit.await.ok()?))
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let given_up = CancellationToken::new();
        let mut begun = self.begun.lock();
        let number = begun.next;
        begun.next += 1;
        begun.waiting.insert(number, (Instant::now(), given_up.clone()));
        Place { handshakes: self.clone(), number, given_up, _permit: permit }
    }
}

impl Place {
    /// Resolves when others are waiting and this one has had its time.
    pub(super) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshakes.begun.lock().waiting.remove(&self.number);
    }
}

async fn until(turn: Option<Instant>) {
    match turn {
        Some(turn) => time::sleep_until(turn).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_goes_when_there_are_too_many_and_not_before_its_time() {
        let handshakes = Handshakes::new(2);
        let begin = Instant::now();
        let (first, second) = (handshakes.begin().await.unwrap(), handshakes.begin().await.unwrap());
        let giving_up = tokio::spawn(async move {
            first.given_up().await;
        });
        let third = handshakes.begin().await.unwrap();
        assert_eq!(begin.elapsed(), TIME_MIN);
        giving_up.await.unwrap();
        assert!(!second.given_up.is_cancelled() && !third.given_up.is_cancelled());
        drop(second);
        let _fourth = handshakes.begin().await.unwrap();
        assert_eq!(begin.elapsed(), TIME_MIN, "a place was free");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_has_to_go_while_there_is_room() {
        let handshakes = Handshakes::new(2);
        let slow = handshakes.begin().await.unwrap();
        for _ in 0..100 {
            time::sleep(TIME_MIN).await;
            drop(handshakes.begin().await.unwrap());
        }
        assert!(!slow.given_up.is_cancelled());
    }
}
