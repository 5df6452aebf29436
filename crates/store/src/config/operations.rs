//! Settings of the replicated store itself: recovery, checks, compaction, what is kept and what is logged as slow.
//!
//! Not here: clients, addresses, certificates and limits of requests (config.rs).

use std::{path::PathBuf, time::Duration};

use super::{ConfigError, duration, invalid, number};
use crate::flags::Flags;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operations {
    /// A cluster of one from this member's data.
    pub force_new_cluster: bool,
    /// Compare with the others before serving anybody.
    pub initial_corrupt_check: bool,
    /// Time between comparisons of everything with the others; `None`: never.
    pub corrupt_check_interval: Option<Duration>,
    /// Time between looks whether a compaction is there whose remains were not compared; `None`: never.
    pub compact_hash_check_interval: Option<Duration>,
    /// Time after which the log learns how much is left of a long lease; `None`: never.
    pub lease_checkpoint_interval: Option<Duration>,
    /// A directory for the log alone.
    pub wal_dir: Option<PathBuf>,
    pub compaction_batch_limit: usize,
    pub compaction_sleep_interval: Duration,
    /// Log entries kept however long the log is.
    pub snapshot_catchup_entries: u64,
    /// An apply that takes longer is logged.
    pub warning_apply_duration: Duration,
    /// A unary request that takes longer is logged.
    pub warning_unary_request_duration: Duration,
}

/// Source: etcd server/lease/lessor.go `defaultLeaseCheckpointInterval`.
const LEASE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);

impl Default for Operations {
    /// etcd's.
    fn default() -> Operations {
        Operations {
            force_new_cluster: false,
            initial_corrupt_check: false,
            corrupt_check_interval: None,
            compact_hash_check_interval: None,
            lease_checkpoint_interval: None,
            wal_dir: None,
            compaction_batch_limit: 1000,
            compaction_sleep_interval: Duration::from_millis(10),
            snapshot_catchup_entries: 5000,
            warning_apply_duration: Duration::from_millis(100),
            warning_unary_request_duration: Duration::from_millis(300),
        }
    }
}

impl Operations {
    pub(super) fn from_flags(flags: &Flags) -> Result<Operations, ConfigError> {
        let gates = Gates::parse(flags.value("feature-gates"))?;
        let corrupt_check = duration(flags, "corrupt-check-time")?;
        let hash_check = duration(flags, "compact-hash-check-time")?;
        let hash_check_on = gates.compact_hash_check || flags.is_on("compact-hash-check-enabled");
        if hash_check_on && hash_check.is_zero() {
            let reason = "must be >0 (set to 0s)";
            return Err(invalid("compact-hash-check-time", flags.value("compact-hash-check-time"), reason));
        }
        let checkpoints = gates.lease_checkpoint || flags.is_on("enable-lease-checkpoint");
        let persist = gates.lease_checkpoint_persist || flags.is_on("enable-lease-checkpoint-persist");
        if persist && !checkpoints {
            return Err(ConfigError::PersistWithoutCheckpoint);
        }
        let wal_dir = flags.value("wal-dir");
        Ok(Operations {
            force_new_cluster: flags.is_on("force-new-cluster"),
            initial_corrupt_check: gates.initial_corrupt_check || flags.is_on("initial-corrupt-check"),
            corrupt_check_interval: Some(corrupt_check).filter(|time| !time.is_zero()),
            compact_hash_check_interval: Some(hash_check).filter(|_| hash_check_on),
            lease_checkpoint_interval: Some(LEASE_CHECKPOINT_INTERVAL).filter(|_| checkpoints),
            wal_dir: Some(wal_dir).filter(|path| !path.is_empty()).map(PathBuf::from),
            compaction_batch_limit: number::<usize>(flags, "compaction-batch-limit")?.max(1),
            compaction_sleep_interval: duration(flags, "compaction-sleep-interval")?,
            snapshot_catchup_entries: number(flags, "snapshot-catchup-entries")?,
            warning_apply_duration: duration(flags, "warning-apply-duration")?,
            warning_unary_request_duration: duration(flags, "warning-unary-request-duration")?,
        })
    }

    /// Hands on what the replica acts upon.
    pub(crate) fn apply_to(&self, replica: &mut replica::Config) {
        replica.force_new_cluster = self.force_new_cluster;
        replica.initial_corrupt_check = self.initial_corrupt_check;
        replica.corrupt_check_interval = self.corrupt_check_interval;
        replica.compact_hash_check_interval = self.compact_hash_check_interval;
        replica.lease_checkpoint_interval = self.lease_checkpoint_interval;
        replica.wal_dir = self.wal_dir.clone();
        replica.compact_keys_max = self.compaction_batch_limit;
        replica.compact_pause = self.compaction_sleep_interval;
        replica.log_entries_min = self.snapshot_catchup_entries;
        replica.slow_apply = self.warning_apply_duration;
    }
}

/// The switches of `--feature-gates` that mean something here.
#[derive(Debug, Default)]
struct Gates {
    initial_corrupt_check: bool,
    compact_hash_check: bool,
    lease_checkpoint: bool,
    lease_checkpoint_persist: bool,
}

impl Gates {
    /// `Name=true,Other=false`. Source: etcd pkg/featuregate, server/features/etcd_features.go.
    fn parse(text: &str) -> Result<Gates, ConfigError> {
        let mut gates = Gates::default();
        let mut ignored = false;
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = |reason: String| invalid("feature-gates", text, reason);
            let (name, value) =
                part.split_once('=').ok_or_else(|| wrong(format!("missing bool value for {part}")))?;
            let on = match value.trim() {
                "true" | "True" | "TRUE" | "t" | "T" | "1" => true,
                "false" | "False" | "FALSE" | "f" | "F" | "0" => false,
                _ => return Err(wrong(format!("invalid value of {part}"))),
            };
            let gate = match name.trim() {
                "InitialCorruptCheck" => &mut gates.initial_corrupt_check,
                "CompactHashCheck" => &mut gates.compact_hash_check,
                "LeaseCheckpoint" => &mut gates.lease_checkpoint,
                "LeaseCheckpointPersist" => &mut gates.lease_checkpoint_persist,
                // They concern the inside of etcd.
                "AllAlpha"
                | "AllBeta"
                | "StopGRPCServiceOnDefrag"
                | "TxnModeWriteWithSharedBuffer"
                | "SetMemberLocalAddr"
                | "FastLeaseKeepAlive"
                | "PriorityRequest" => &mut ignored,
                other => return Err(wrong(format!("unrecognized feature gate: {other}"))),
            };
            *gate = on;
        }
        Ok(gates)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn operations(line: &str) -> Result<Operations, ConfigError> {
        let flags = Flags::parse(line.split_whitespace().map(OsString::from), []).unwrap();
        Operations::from_flags(&flags)
    }

    #[test]
    fn without_flags_the_settings_are_etcds_defaults() {
        assert_eq!(operations("").unwrap(), Operations::default());
    }

    #[test]
    fn flags_and_feature_gates_mean_the_same() {
        let by_flags = operations(
            "--experimental-initial-corrupt-check --experimental-compact-hash-check-enabled \
             --experimental-enable-lease-checkpoint --experimental-enable-lease-checkpoint-persist",
        )
        .unwrap();
        let by_gates = operations(
            "--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true,LeaseCheckpoint=true,LeaseCheckpointPersist=true",
        )
        .unwrap();
        assert_eq!(by_flags, by_gates);
        assert!(by_flags.initial_corrupt_check && by_flags.lease_checkpoint_interval.is_some());
        assert_eq!(by_flags.compact_hash_check_interval, Some(Duration::from_secs(60)));
        assert_eq!(operations("--feature-gates=PriorityRequest=true").unwrap(), Operations::default());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (line, text) in [
            (
                "--feature-gates=Nonsense=true",
                "invalid value \"Nonsense=true\" for flag -feature-gates: unrecognized feature gate: Nonsense",
            ),
            (
                "--enable-lease-checkpoint-persist",
                "setting enable-lease-checkpoint-persist requires enable-lease-checkpoint",
            ),
            (
                "--compact-hash-check-enabled --compact-hash-check-time=0",
                "invalid value \"0\" for flag -compact-hash-check-time: must be >0 (set to 0s)",
            ),
        ] {
            assert_eq!(operations(line).unwrap_err().to_string(), text);
        }
    }
}
