//! A disturbance that is repeated on a thread of its own until it is stopped.
//!
//! Invariant: it ends when it is stopped and when it is dropped, so that an error or a cancelled run leaves no thread
//! behind that a runtime would wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use tokio::task::JoinHandle;

/// Given to the work, which has to look at it at least every half second.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub struct Background {
    stop: Stop,
    task: Option<JoinHandle<Result<u64>>>,
}

impl Background {
    pub fn spawn(work: impl FnOnce(&Stop) -> Result<u64> + Send + 'static) -> Background {
        let stop = Stop::default();
        let stopped = stop.clone();
        Background { stop, task: Some(tokio::task::spawn_blocking(move || work(&stopped))) }
    }

    /// Stops it; what it did, in its own count.
    pub async fn finish(mut self) -> Result<u64> {
        self.stop.set();
        match self.task.take() {
            Some(task) => task.await?,
            None => Ok(0),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.set();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::{Background, Stop};

    fn until_stopped(stop: &Stop, ended: &mpsc::Sender<()>) -> anyhow::Result<u64> {
        let mut times = 1;
        while !stop.is_set() {
            std::thread::sleep(Duration::from_millis(5));
            times += 1;
        }
        ended.send(()).unwrap();
        Ok(times)
    }

    #[test]
    fn what_runs_in_the_background_ends_with_a_run_that_fails() {
        let (ended, end) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let failed: anyhow::Result<()> = runtime.block_on(async {
            let _background = Background::spawn(move |stop| until_stopped(stop, &ended));
            anyhow::bail!("the next fault could not be injected")
        });
        assert!(failed.is_err());
        end.recv_timeout(Duration::from_secs(30)).unwrap();
    }

    #[tokio::test]
    async fn what_is_stopped_says_what_it_did() {
        let (ended, _end) = mpsc::channel();
        let background = Background::spawn(move |stop| until_stopped(stop, &ended));
        assert!(background.finish().await.unwrap() > 0);
    }
}
