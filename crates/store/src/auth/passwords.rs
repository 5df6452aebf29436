//! Hashing and comparing passwords, which is slow on purpose.
//!
//! Invariants: no more at a time than there are processors, so that what else blocks, the log's readers among it, finds a
//! thread; a bounded number waits, in order, for a bounded time. Whoever goes away while it waits gives up its place.
//! Not here: whose password it is (auth.rs).

use std::{sync::Arc, time::Duration};

use replica::Surroundings;
use tokio::sync::Semaphore;

use crate::status::Refusal;

/// Logins that may wait, and for how long. A comparison takes about 50 ms of a processor.
const WAITING_MAX: usize = 1024;
const WAIT_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Passwords {
    surroundings: Surroundings,
    at_work: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Passwords {
    pub(crate) fn new(surroundings: Surroundings) -> Passwords {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Passwords::with_places(surroundings, processors, WAITING_MAX)
    }

    fn with_places(surroundings: Surroundings, at_work: usize, waiting: usize) -> Passwords {
        let at_work = Arc::new(Semaphore::new(at_work));
        Passwords { surroundings, at_work, waiting: Semaphore::new(waiting) }
    }

    pub(crate) async fn verify(&self, password: String, hash: String) -> Result<bool, Refusal> {
        // A hash that cannot be read is nobody's.
        self.work(move || bcrypt::verify(password, &hash).unwrap_or(false)).await
    }

    pub(crate) async fn hash(
        &self,
        password: String,
        cost: u32,
    ) -> Result<Result<String, bcrypt::BcryptError>, Refusal> {
        self.work(move || bcrypt::hash(password, cost)).await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        let place = self.waiting.try_acquire().map_err(|_| Refusal::TooManyRequests)?;
        let turn = tokio::time::timeout(WAIT_MAX, self.at_work.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| Refusal::TooManyRequests)?.map_err(|_| Refusal::Stopped)?;
        drop(place);
        let working = self.surroundings.blocking(move || {
            // Held to the end of the work, also when nobody waits for it any more.
            let _turn = turn;
            work()
        });
        working.await.map_err(|_| Refusal::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_works_one_waits_and_the_next_is_refused_until_somebody_goes_away() {
        let passwords = Passwords::with_places(Surroundings::system(), 1, 1);
        let (finish, finished) = mpsc::channel::<()>();
        let mut working = Box::pin(passwords.work(move || finished.recv().is_ok()));
        assert!(working.as_mut().now_or_never().is_none());
        let mut waiting = Box::pin(passwords.work(|| 2));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(passwords.work(|| 3).now_or_never(), Some(Err(Refusal::TooManyRequests)));
        drop(waiting);
        let mut waiting = Box::pin(passwords.work(|| 4));
        assert!(waiting.as_mut().now_or_never().is_none(), "the place is free again");
        finish.send(()).unwrap();
        assert_eq!(working.await, Ok(true));
        assert_eq!(waiting.await, Ok(4));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_keeps_its_turn() {
        let passwords = Passwords::with_places(Surroundings::system(), 1, 8);
        let (finish, finished) = mpsc::channel::<()>();
        let mut gone = Box::pin(passwords.work(move || finished.recv().is_ok()));
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        let mut next = Box::pin(passwords.work(|| ()));
        assert!(next.as_mut().now_or_never().is_none());
        assert_eq!(passwords.at_work.available_permits(), 0);
        finish.send(()).unwrap();
        assert_eq!(next.await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let passwords = Passwords::with_places(Surroundings::system(), 0, 8);
        assert_eq!(passwords.work(|| ()).await, Err(Refusal::TooManyRequests));
    }

    #[tokio::test]
    async fn a_password_is_its_own_hash_s_and_no_other_s() {
        let passwords = Passwords::new(Surroundings::system());
        let hash = passwords.hash("right".to_owned(), 4).await.unwrap().unwrap();
        assert_eq!(passwords.verify("right".to_owned(), hash.clone()).await, Ok(true));
        assert_eq!(passwords.verify("wrong".to_owned(), hash).await, Ok(false));
        assert_eq!(passwords.verify("right".to_owned(), "junk".to_owned()).await, Ok(false));
    }
}
