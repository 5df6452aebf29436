//! What a person or a supervisor does to end a command that waits.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Which of the two signals came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Ctrl-C; the shell gives it to the programs that a command runs, too.
    Interrupt,
    Terminate,
}

/// SIGINT and SIGTERM, which no longer end the program by themselves.
pub(crate) struct Signals {
    /// None if they cannot be caught; then they do end it.
    caught: Option<(Signal, Signal)>,
}

impl Signals {
    pub(crate) fn catch() -> Signals {
        let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        Signals { caught: interrupt.ok().zip(terminate.ok()) }
    }

    /// Waits for the next one since `catch`.
    pub(crate) async fn next(&mut self) -> Ended {
        let Some((interrupt, terminate)) = &mut self.caught else { return std::future::pending().await };
        tokio::select! {
            _ = interrupt.recv() => Ended::Interrupt,
            _ = terminate.recv() => Ended::Terminate,
        }
    }
}
