//! Progress bars of long work, on standard error and only if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(120);

/// A bar that goes when it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of bytes; the total may be told later.
    pub(crate) fn bytes(doing: &str, total: u64) -> Progress {
        Progress::styled(
            ProgressBar::new(total),
            doing,
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        )
    }

    /// Of things that are counted, such as keys or seconds.
    pub(crate) fn count(doing: &str, total: u64) -> Progress {
        Progress::styled(ProgressBar::new(total), doing, "{msg} {wide_bar} {pos}/{len} {eta}")
    }

    /// Of what has no known end.
    pub(crate) fn endless(doing: &str) -> Progress {
        let progress = Progress::styled(ProgressBar::new_spinner(), doing, "{spinner} {msg} {pos} {elapsed}");
        progress.bar.enable_steady_tick(TICK);
        progress
    }

    /// Waits of one step, of which nothing is known until it is over.
    pub(crate) fn waiting(doing: &str) -> Progress {
        let progress = Progress::styled(ProgressBar::new_spinner(), doing, "{spinner} {msg} {elapsed}");
        progress.bar.enable_steady_tick(TICK);
        progress
    }

    fn styled(bar: ProgressBar, doing: &str, template: &str) -> Progress {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(doing.to_owned());
        Progress { bar }
    }

    pub(crate) fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    pub(crate) fn add(&self, count: u64) {
        self.bar.inc(count);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
