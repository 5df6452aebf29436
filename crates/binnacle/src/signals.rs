//! When to stop: SIGTERM, SIGINT, or the end of a parent process.
//!
//! Invariants: the first signal stops in order, a second one ends the process at once (exit status 130).

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first signal.
pub(crate) struct Stop {
    token: CancellationToken,
}

impl Stop {
    pub(crate) fn install() -> Result<Stop> {
        let token = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        let cancelled = token.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            cancelled.cancel();
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            std::process::exit(130);
        });
        Ok(Stop { token })
    }

    /// Also stops when standard input closes: the parent holds the other end.
    pub(crate) fn with_parent(self) -> Stop {
        let token = self.token.clone();
        tokio::spawn(async move {
            let mut sink = [0u8; 64];
            let mut stdin = tokio::io::stdin();
            while matches!(stdin.read(&mut sink).await, Ok(1..)) {}
            token.cancel();
        });
        self
    }

    pub(crate) fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    pub(crate) async fn wait(&mut self) {
        self.token.cancelled().await;
    }
}
