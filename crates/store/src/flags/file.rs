//! `--config-file`: the same settings as YAML. A file that is given replaces the command line and the environment.
//!
//! Keys are the flags' names; a transport's security is a mapping of its own, as etcd writes it. A list is the flag's
//! comma-separated list, a number for a duration counts nanoseconds (Go's JSON form). Keys that are not known are
//! reported and ignored, as etcd ignores them.

use std::{fs, path::Path};

use serde_json::{Map, Value};

use super::{FlagError, Flags, find};

/// Longest file that is read.
const FILE_SIZE_BYTES_MAX: u64 = 1 << 20;

/// Durations, which a file may give as a number of nanoseconds.
const DURATIONS: &[&str] = &[
    "grpc-keepalive-min-time",
    "grpc-keepalive-interval",
    "grpc-keepalive-timeout",
    "backend-batch-interval",
    "corrupt-check-time",
    "compact-hash-check-time",
    "compaction-sleep-interval",
    "watch-progress-notify-interval",
    "downgrade-check-time",
    "warning-apply-duration",
    "warning-unary-request-duration",
];

/// A key inside `client-transport-security` and the two flags it stands for, of clients and of peers.
const SECURITY: &[(&str, &str, &str)] = &[
    ("cert-file", "cert-file", "peer-cert-file"),
    ("key-file", "key-file", "peer-key-file"),
    ("client-cert-auth", "client-cert-auth", "peer-client-cert-auth"),
    ("trusted-ca-file", "trusted-ca-file", "peer-trusted-ca-file"),
    ("auto-tls", "auto-tls", "peer-auto-tls"),
    ("crl-file", "client-crl-file", "peer-crl-file"),
    ("client-crl-file", "client-crl-file", "peer-crl-file"),
    ("allowed-cn", "", "peer-cert-allowed-cn"),
    ("allowed-cns", "", "peer-cert-allowed-cn"),
    ("allowed-hostname", "client-cert-allowed-hostname", "peer-cert-allowed-hostname"),
    ("allowed-hostnames", "client-cert-allowed-hostname", "peer-cert-allowed-hostname"),
    ("skip-client-san-verification", "", "peer-skip-client-san-verification"),
];

/// Reads the file into flags of its own.
pub(super) fn read(path: &Path) -> Result<Flags, FlagError> {
    let failed = |reason: String| FlagError::File { path: path.to_owned(), reason };
    let size_bytes = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size_bytes > FILE_SIZE_BYTES_MAX {
        return Err(failed(format!("the file is {size_bytes} bytes, the limit is {FILE_SIZE_BYTES_MAX}")));
    }
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let mut flags = Flags::default();
    let tree: Option<Map<String, Value>> =
        serde_saphyr::from_str(&text).map_err(|error| failed(error.to_string()))?;
    for (key, value) in tree.unwrap_or_default() {
        match (key.as_str(), value) {
            ("client-transport-security", Value::Object(keys)) => flags.read_security(keys, |row| row.1)?,
            ("peer-transport-security", Value::Object(keys)) => flags.read_security(keys, |row| row.2)?,
            ("socket-options", Value::Object(keys)) => {
                for (key, value) in keys {
                    flags.read_key(&format!("socket-{key}"), &value)?;
                }
            }
            (key, value) => flags.read_key(key, &value)?,
        }
    }
    Ok(flags)
}

impl Flags {
    fn read_security(
        &mut self,
        keys: Map<String, Value>,
        flag: impl Fn(&(&str, &'static str, &'static str)) -> &'static str,
    ) -> Result<(), FlagError> {
        for (key, value) in keys {
            match SECURITY.iter().find(|row| row.0 == key).map(&flag) {
                Some(name) if !name.is_empty() => self.read_key(name, &value)?,
                _ => self.unknown_key(&key),
            }
        }
        Ok(())
    }

    fn read_key(&mut self, key: &str, value: &Value) -> Result<(), FlagError> {
        let Some(row) = find(key).filter(|row| row.name != "config-file") else {
            self.unknown_key(key);
            return Ok(());
        };
        let wrong = || FlagError::FileValue { name: row.name };
        match value {
            Value::Null => Ok(()),
            // An empty text is how the sample file says "not set".
            Value::String(text) if text.is_empty() => Ok(()),
            Value::Number(number) if DURATIONS.contains(&row.name) => self.set(row, format!("{number}ns")),
            Value::Array(items) => {
                let items = items.iter().map(scalar).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
                self.set(row, items.join(","))
            }
            other => self.set(row, scalar(other).ok_or_else(wrong)?),
        }
    }

    fn unknown_key(&mut self, key: &str) {
        self.warnings.push(format!("unknown key {key:?} in the configuration file"));
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(on) => Some(on.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn parse(text: &str, arguments: &[&str]) -> Result<Flags, FlagError> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("etcd.conf.yml");
        fs::write(&path, text).unwrap();
        let file = OsString::from(format!("--config-file={}", path.display()));
        let environment = [(OsString::from("ETCD_NAME"), OsString::from("of-the-environment"))];
        Flags::parse(arguments.iter().map(OsString::from).chain([file]), environment)
    }

    #[test]
    fn a_file_says_what_flags_say_and_replaces_them() {
        let text = "
name: 'of-the-file'
snapshot-count: 10000
listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2
advertise-client-urls: http://127.0.0.1:1
initial-cluster:
wal-dir: ''
strict-reconfig-check: false
experimental-watch-progress-notify-interval: 2000000000
grpc-keepalive-timeout: 7s
log-outputs: [stderr]
client-transport-security:
  cert-file: a.crt
  key-file: a.key
  client-cert-auth: true
peer-transport-security:
  trusted-ca-file: ca.crt
  auto-tls: true
mystery: 1
";
        let flags = parse(text, &["--name=of-the-line", "--max-learners=3"]).unwrap();
        for (name, value) in [
            ("name", "of-the-file"),
            ("snapshot-count", "10000"),
            ("listen-client-urls", "http://127.0.0.1:1,http://127.0.0.1:2"),
            ("strict-reconfig-check", "false"),
            ("watch-progress-notify-interval", "2000000000ns"),
            ("grpc-keepalive-timeout", "7s"),
            ("log-outputs", "stderr"),
            ("cert-file", "a.crt"),
            ("client-cert-auth", "true"),
            ("peer-trusted-ca-file", "ca.crt"),
            ("peer-auto-tls", "true"),
            ("auto-tls", "false"),
            ("max-learners", "1"),
        ] {
            assert_eq!(flags.value(name), value, "{name}");
        }
        assert!(!flags.given("initial-cluster") && !flags.given("wal-dir"));
        assert!(flags.warnings.iter().any(|text| text.contains("mystery")), "{:?}", flags.warnings);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_with_the_reason() {
        for (text, part) in [
            ("name: [", "couldn't read the configuration file"),
            ("pre-vote: perhaps", "invalid boolean value \"perhaps\" for -pre-vote: parse error"),
            ("name: {a: b}", "the configuration file has a value of the wrong kind for name"),
            (
                "discovery: http://a",
                "--discovery is not supported by this store: name the members with --initial-cluster",
            ),
        ] {
            let error = parse(text, &[]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let missing = Flags::parse([OsString::from("--config-file=/nonexistent/x")], []).unwrap_err();
        assert!(missing.to_string().contains("No such file"), "{missing}");
        assert!(parse("", &[]).is_ok());
    }
}
