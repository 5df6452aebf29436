//! Faults of clocks: a member starts again with clocks of its own.
//!
//! Invariant: the machine's own clocks are never touched.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use rand::Rng as _;

use super::{Injector, Undo};
use crate::schedule::Kind;

const DAY_S: i64 = 86_400;
/// How fast the fastest clock runs.
pub const DRIFT: f64 = 1.5;

/// Where Debian's package `faketime` has its library.
fn faketime() -> PathBuf {
    PathBuf::from(format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH))
}

/// Whether wall clocks can be changed for one process.
pub fn can_fake_time() -> bool {
    faketime().exists()
}

impl Injector<'_> {
    pub(super) async fn change_clock(&mut self, kind: Kind, member: usize) -> Result<(u64, String, Undo)> {
        self.hold(&[member]);
        self.kill(member)?;
        let file = self.cluster.dir.path().join(format!("clock-{member}"));
        let preload = format!("LD_PRELOAD={}", faketime().display());
        let wrapper = match kind {
            Kind::ClockJump => {
                fs::write(&file, format!("{DAY_S:+}\n"))?;
                vec![
                    "env".to_owned(),
                    preload,
                    format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
                    "FAKETIME_NO_CACHE=1".to_owned(),
                    "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
                ]
            }
            Kind::ClockDrift => {
                let rate = if self.random.random_bool(0.5) { DRIFT } else { 1.0 / DRIFT };
                vec!["env".to_owned(), preload, format!("FAKETIME=+0 x{rate:.3}")]
            }
            _ => ["unshare", "--time", "--monotonic", "1000000", "--boottime", "1000000"]
                .map(str::to_owned)
                .to_vec(),
        };
        let evidence = wrapper.join(" ");
        self.cluster.wrap(member, wrapper);
        self.revive(member)?;
        let changed = self.clock_is_changed(kind, member).await;
        if kind == Kind::ClockJump {
            fs::write(&file, format!("{:+}\n", -DAY_S))?;
        }
        Ok((u64::from(changed), evidence, Undo::Unwrap))
    }

    /// As the kernel says of the process: its preloaded library, or its time namespace.
    async fn clock_is_changed(&self, kind: Kind, member: usize) -> bool {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            let Some(process) = self.cluster.process_id(member) else { return false };
            let changed = match kind {
                Kind::ClockOffset => {
                    let own = fs::read_link("/proc/self/ns/time").ok();
                    own.is_some() && fs::read_link(format!("/proc/{process}/ns/time")).ok() != own
                }
                _ => fs::read_to_string(format!("/proc/{process}/maps"))
                    .is_ok_and(|maps| maps.contains("libfaketime") && maps.contains("binnacle")),
            };
            if changed {
                return true;
            }
        }
        false
    }
}
