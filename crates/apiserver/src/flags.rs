//! kube-apiserver's command line: the flags that we act on, and the names that we know but do not need.
//!
//! Invariant: nothing is ignored in silence. A flag of kube-apiserver's without effect here warns, a flag that
//! upstream does not have either is an error, and one that we cannot honour but that would weaken security if
//! dropped is an error too. Go's single dash is accepted. Not here: reading the files that flags name.

mod upstream;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::config::{AuthorizationMode, Config, ConfigError};

/// The Kubernetes API server on an etcd v3 store.
#[derive(Debug, Clone, Parser)]
#[command(name = "Kubernetes", bin_name = "kube-apiserver", version = crate::version::GIT_VERSION, disable_version_flag = false, term_width = 110)]
pub struct Flags {
    /// Address to listen on; unspecified means all interfaces
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// Port for HTTPS
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// Address under which members of the cluster reach this server
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    /// Directory with apiserver.crt and apiserver.key, used when no certificate file is named
    #[arg(long, default_value = "/var/run/kubernetes")]
    cert_dir: PathBuf,
    /// Server certificate, followed by its intermediates, in PEM
    #[arg(long)]
    tls_cert_file: Option<PathBuf>,
    /// Private key of the server certificate, in PEM
    #[arg(long)]
    tls_private_key_file: Option<PathBuf>,
    /// Oldest TLS version: VersionTLS12 or VersionTLS13
    #[arg(long, default_value = "VersionTLS12")]
    tls_min_version: String,
    /// Authorities whose client certificates are accepted, in PEM
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    /// CSV file: token,user,uid[,"group1,group2"]
    #[arg(long)]
    token_auth_file: Option<PathBuf>,
    /// Serve requests without credentials as system:anonymous
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    anonymous_auth: GoBool,
    /// Ordered list of AlwaysAllow, AlwaysDeny, RBAC
    #[arg(long, value_delimiter = ',')]
    authorization_mode: Vec<String>,
    /// File for audit events; - is standard output
    #[arg(long)]
    audit_log_path: Option<PathBuf>,
    /// batch drops events when the queue is full, blocking holds requests back
    #[arg(long, default_value = "blocking")]
    audit_log_mode: String,
    /// Origins allowed by CORS, as regular expressions
    #[arg(long, value_delimiter = ',')]
    cors_allowed_origins: Vec<String>,
    /// Client URLs of the store
    #[arg(long, value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// Authority of the store's certificate
    #[arg(long)]
    etcd_cafile: Option<PathBuf>,
    /// Client certificate for the store
    #[arg(long)]
    etcd_certfile: Option<PathBuf>,
    /// Key of the client certificate for the store
    #[arg(long)]
    etcd_keyfile: Option<PathBuf>,
    /// Prefix of all keys in the store
    #[arg(long, default_value = "/registry")]
    etcd_prefix: String,
    /// How often the store's history is compacted; 0 never
    #[arg(long, default_value = "5m0s", value_parser = go_duration)]
    etcd_compaction_interval: Duration,
    /// How long events are kept
    #[arg(long, default_value = "1h0m0s", value_parser = go_duration)]
    event_ttl: Duration,
    /// CIDR of the addresses given to services
    #[arg(long, default_value = "10.0.0.0/24")]
    service_cluster_ip_range: String,
    /// Ports given to services of type NodePort
    #[arg(long, default_value = "30000-32767")]
    service_node_port_range: String,
    /// Admission plugins to use besides the default ones
    #[arg(long, visible_alias = "admission-control", value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins not to use
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// Reading requests served at once; 0 is unlimited
    #[arg(long, default_value_t = 400)]
    max_requests_inflight: usize,
    /// Writing requests served at once; 0 is unlimited
    #[arg(long, default_value_t = 200)]
    max_mutating_requests_inflight: usize,
    /// Deadline of requests that are not long-running
    #[arg(long, default_value = "1m0s", value_parser = go_duration)]
    request_timeout: Duration,
    /// Shortest life of a watch, in seconds
    #[arg(long, default_value_t = 1800)]
    min_request_timeout: u64,
    /// Chance that a request closes its HTTP/2 connection in peace, 0 to 0.02
    #[arg(long, default_value_t = 0.0)]
    goaway_chance: f64,
    /// Streams per HTTP/2 connection; 0 is the default
    #[arg(long, default_value_t = 0)]
    http2_max_streams_per_connection: u32,
    /// How long /readyz fails before the server stops listening
    #[arg(long, default_value = "0s", value_parser = go_duration)]
    shutdown_delay_duration: Duration,
}

impl Flags {
    /// Reads a command line without the program's name. `--help` and `--version` come back as `Usage` errors
    /// of clap's; `warnings` gets one line per upstream flag that has no effect here.
    pub fn parse_from(
        arguments: impl IntoIterator<Item = OsString>,
        warnings: &mut Vec<String>,
    ) -> Result<Flags, clap::Error> {
        let mut command = Flags::command();
        let known: Vec<String> = command
            .get_arguments()
            .flat_map(|argument| argument.get_long_and_visible_aliases().unwrap_or_default())
            .map(str::to_string)
            .collect();
        let name = OsString::from("kube-apiserver");
        let mut kept = vec![name];
        let mut arguments = arguments.into_iter().peekable();
        while let Some(argument) = arguments.next() {
            let Some((flag, value)) = argument.to_str().and_then(split_flag) else {
                kept.push(argument);
                continue;
            };
            if known.contains(&flag) || matches!(flag.as_str(), "help" | "version" | "h") {
                let dashes = if flag == "h" { "-" } else { "--" };
                let value = value.map(|value| format!("={value}")).unwrap_or_default();
                kept.push(OsString::from(format!("{dashes}{flag}{value}")));
                continue;
            }
            match upstream::find(&flag) {
                Some(upstream::Effect::Refused(why)) => {
                    return Err(
                        command.error(clap::error::ErrorKind::ArgumentConflict, format!("--{flag}: {why}"))
                    );
                }
                Some(upstream::Effect::Switch) => {}
                Some(upstream::Effect::Value) if value.is_none() => {
                    arguments.next();
                }
                Some(upstream::Effect::Value) => {}
                None => {
                    let text = format!("unknown flag: --{flag}");
                    return Err(command.error(clap::error::ErrorKind::UnknownArgument, text));
                }
            }
            warnings.push(format!("flag --{flag} has no effect on this server"));
        }
        let matches = command.try_get_matches_from_mut(kept)?;
        Flags::from_arg_matches(&matches)
    }

    /// Checks the values and fills in what follows from them.
    pub fn into_config(self, warnings: &mut Vec<String>) -> Result<Config, ConfigError> {
        let (tls_cert_file, tls_private_key_file) = self.key_pair();
        let config = Config {
            authorization_modes: authorization_modes(&self.authorization_mode, warnings)?,
            tls13_only: tls13_only(&self.tls_min_version)?,
            audit_drop_when_full: audit_drops(&self.audit_log_mode)?,
            service_node_port_range: port_range(&self.service_node_port_range)?,
            http2_max_streams_per_connection: match self.http2_max_streams_per_connection {
                0 => Config::default().http2_max_streams_per_connection,
                streams => streams,
            },
            min_request_timeout: Duration::from_secs(self.min_request_timeout),
            tls_cert_file,
            tls_private_key_file,
            bind_address: self.bind_address,
            secure_port: self.secure_port,
            advertise_address: self.advertise_address,
            client_ca_file: self.client_ca_file,
            token_auth_file: self.token_auth_file,
            anonymous_auth: self.anonymous_auth.0,
            audit_log_path: self.audit_log_path,
            cors_allowed_origins: self.cors_allowed_origins,
            etcd_servers: self.etcd_servers,
            etcd_cafile: self.etcd_cafile,
            etcd_certfile: self.etcd_certfile,
            etcd_keyfile: self.etcd_keyfile,
            etcd_prefix: self.etcd_prefix,
            etcd_compaction_interval: self.etcd_compaction_interval,
            event_ttl_s: i64::try_from(self.event_ttl.as_secs()).unwrap_or(i64::MAX),
            service_cluster_ip_range: self.service_cluster_ip_range,
            enable_admission_plugins: self.enable_admission_plugins,
            disable_admission_plugins: self.disable_admission_plugins,
            max_requests_inflight: self.max_requests_inflight,
            max_mutating_requests_inflight: self.max_mutating_requests_inflight,
            request_timeout: self.request_timeout,
            goaway_chance: self.goaway_chance,
            shutdown_delay: self.shutdown_delay_duration,
            connections_max: Config::default().connections_max,
        };
        config.validate()?;
        Ok(config)
    }

    /// The files of `--cert-dir` stand in when none is named, as envtest relies on.
    fn key_pair(&self) -> (Option<PathBuf>, Option<PathBuf>) {
        if self.tls_cert_file.is_some() || self.tls_private_key_file.is_some() {
            return (self.tls_cert_file.clone(), self.tls_private_key_file.clone());
        }
        (Some(self.cert_dir.join("apiserver.crt")), Some(self.cert_dir.join("apiserver.key")))
    }
}

/// A boolean as Go's flag package reads it.
#[derive(Debug, Clone, Copy)]
struct GoBool(bool);

impl std::str::FromStr for GoBool {
    type Err = String;

    fn from_str(text: &str) -> Result<GoBool, String> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(GoBool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(GoBool(false)),
            _ => Err("invalid boolean value".to_string()),
        }
    }
}

/// `--name=value`, `--name` or the same with one dash.
fn split_flag(argument: &str) -> Option<(String, Option<String>)> {
    let name = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'))?;
    if name.is_empty() || name.starts_with('-') || !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    match name.split_once('=') {
        Some((name, value)) => Some((name.replace('_', "-"), Some(value.to_string()))),
        None => Some((name.replace('_', "-"), None)),
    }
}

/// Go's `time.ParseDuration` for durations that are not negative: `1h0m0s`, `1.5s`, `100ms`, `0`.
pub(crate) fn go_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total_s = 0.0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit_s = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(invalid()),
        };
        total_s += number.parse::<f64>().map_err(|_| invalid())? * unit_s;
        rest = tail;
    }
    Duration::try_from_secs_f64(total_s).map_err(|_| invalid())
}

fn authorization_modes(
    names: &[String],
    warnings: &mut Vec<String>,
) -> Result<Vec<AuthorizationMode>, ConfigError> {
    let mut modes = Vec::new();
    for name in names {
        let mode = match name.as_str() {
            "AlwaysAllow" => AuthorizationMode::AlwaysAllow,
            "AlwaysDeny" => AuthorizationMode::AlwaysDeny,
            "RBAC" => AuthorizationMode::Rbac,
            // Leaving it out can only deny more; nodes get the rights of the role system:node through RBAC.
            "Node" => {
                warnings.push("authorization mode Node has no effect on this server".to_string());
                continue;
            }
            _ => {
                return Err(ConfigError::Value {
                    flag: "authorization-mode",
                    value: name.clone(),
                    why: "this server knows AlwaysAllow, AlwaysDeny and RBAC".to_string(),
                });
            }
        };
        if !modes.contains(&mode) {
            modes.push(mode);
        }
    }
    if names.is_empty() {
        warnings.push(
            "no --authorization-mode given, RBAC is used (kube-apiserver would allow everything)".to_string(),
        );
        modes.push(AuthorizationMode::Rbac);
    }
    Ok(modes)
}

fn tls13_only(version: &str) -> Result<bool, ConfigError> {
    match version {
        "VersionTLS12" => Ok(false),
        "VersionTLS13" => Ok(true),
        _ => Err(ConfigError::Value {
            flag: "tls-min-version",
            value: version.to_string(),
            why: "must be VersionTLS12 or VersionTLS13".to_string(),
        }),
    }
}

fn audit_drops(mode: &str) -> Result<bool, ConfigError> {
    match mode {
        "batch" => Ok(true),
        "blocking" | "blocking-strict" => Ok(false),
        _ => Err(ConfigError::Value {
            flag: "audit-log-mode",
            value: mode.to_string(),
            why: "must be batch, blocking or blocking-strict".to_string(),
        }),
    }
}

/// `30000-32767`
fn port_range(text: &str) -> Result<(u16, u16), ConfigError> {
    let bounds = text.split_once('-').and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
    match bounds {
        Some((low, high)) if low <= high && low > 0 => Ok((low, high)),
        _ => Err(ConfigError::Value {
            flag: "service-node-port-range",
            value: text.to_string(),
            why: "must be LOW-HIGH".to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Config, Vec<String>), String> {
        let mut warnings = Vec::new();
        let arguments = line.split_whitespace().map(OsString::from);
        let flags = Flags::parse_from(arguments, &mut warnings).map_err(|error| error.to_string())?;
        let config = flags.into_config(&mut warnings).map_err(|error| error.to_string())?;
        Ok((config, warnings))
    }

    #[test]
    fn envtest_starts_us_with_its_flags() {
        let (config, warnings) = parse(
            "--etcd-servers=http://127.0.0.1:2379 --cert-dir=/c --bind-address=127.0.0.1 --secure-port=4443 \
             --client-ca-file=/c/ca.crt --service-account-issuer=https://x/ --service-account-key-file=/c/sa.key \
             --service-account-signing-key-file=/c/sa.key --service-cluster-ip-range=10.0.0.0/24 \
             --authorization-mode=RBAC --allow-privileged=true --disable-admission-plugins=ServiceAccount",
        )
        .unwrap();
        assert_eq!(config.secure_port, 4443);
        assert_eq!(config.tls_cert_file, Some(PathBuf::from("/c/apiserver.crt")));
        assert_eq!(config.disable_admission_plugins, ["ServiceAccount"]);
        assert_eq!(config.authorization_modes, [AuthorizationMode::Rbac]);
        assert!(warnings.iter().any(|line| line.contains("--service-account-issuer")), "{warnings:?}");
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        let (config, _) = parse("-secure-port=1 -anonymous-auth=false -authorization-mode RBAC").unwrap();
        assert_eq!((config.secure_port, config.anonymous_auth), (1, false));
    }

    #[test]
    fn an_upstream_flag_without_effect_warns_and_takes_its_value_along() {
        let (config, warnings) = parse("--feature-gates A=true --profiling --secure-port 7 --v 2").unwrap();
        assert_eq!(config.secure_port, 7);
        for flag in ["--feature-gates", "--profiling", "--v"] {
            assert!(warnings.iter().any(|line| line.contains(flag)), "{flag}");
        }
    }

    #[test]
    fn nonsense_is_an_error_that_names_it() {
        for (line, expected) in [
            ("--nonsense=1", "unknown flag: --nonsense"),
            ("--secure-port=x", "secure-port"),
            ("--authorization-mode=ABAC", "authorization-mode"),
            ("--request-timeout=1parsec", "invalid duration"),
            ("--tls-cert-file=/a", "must be given together"),
            ("--tls-min-version=VersionTLS10", "tls-min-version"),
            ("--audit-policy-file=/p", "audit-policy-file"),
            ("--encryption-provider-config=/p", "encryption-provider-config"),
            ("positional", "positional"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, ms) in [("0", 0), ("1m0s", 60_000), ("1h2m3s", 3_723_000), ("1.5s", 1500), ("250ms", 250)]
        {
            assert_eq!(go_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "1x", "-1s", "1s2", "..s"] {
            assert!(go_duration(text).is_err(), "{text}");
        }
    }
}
