//! Progress bars of long work, on standard error and only if that is a terminal.

use std::{cell::Cell, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(120);

const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// A bar that goes when it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// What is shown is no bar yet.
    total_comes: Cell<bool>,
}

impl Progress {
    /// Of bytes; the total, if it is 0, is told later.
    pub(crate) fn bytes(doing: &str, total: u64) -> Progress {
        if total > 0 {
            return Progress::styled(ProgressBar::new(total), doing, BYTES);
        }
        let progress = Progress::waiting(doing);
        progress.total_comes.set(true);
        progress
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
        set_style(&bar, template);
        bar.set_message(doing.to_owned());
        Progress { bar, total_comes: Cell::new(false) }
    }

    /// Prints while the bar is out of the way.
    pub(crate) fn beside(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    pub(crate) fn set(&self, done: u64, total: u64) {
        if self.total_comes.take() {
            self.bar.disable_steady_tick();
            self.bar.reset();
            set_style(&self.bar, BYTES);
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    pub(crate) fn add(&self, count: u64) {
        self.bar.inc(count);
    }
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
