//! One member's settings: built in code, or from flags that were checked here once.
//!
//! Not here: the syntax of flags (flags.rs), ids of the first members (bootstrap.rs).

mod operations;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    auth::jwt::{Jwt, JwtError},
    flags::Flags,
    tls::parse_suites,
    url::{Url, UrlError},
};

pub use operations::Operations;

/// Answers to a quota of 0 and to a request limit that nobody set. Source: etcd server/etcdserver/quota.go, embed/config.go.
pub(crate) const QUOTA_BYTES_DEFAULT: i64 = 2 * 1024 * 1024 * 1024;
pub(crate) const REQUEST_SIZE_BYTES_MAX_DEFAULT: usize = 1_572_864;
/// What a gRPC message may be longer than the request in it. Source: etcd api/v3rpc/grpc.go `grpcOverheadBytes`.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 512 * 1024;
/// Longest election timeout. Source: etcd embed/config.go `maxElectionMs`.
const ELECTION_TIMEOUT_MS_MAX: u64 = 50_000;

/// Whether the first members are listed here or can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    New,
    Existing,
}

/// Certificate files of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Authorities of the other side. When set, the other side must show a certificate.
    pub trusted_ca_file: Option<PathBuf>,
    pub client_cert_auth: bool,
    /// Serial numbers in it are refused. In PEM or DER form.
    pub crl_file: Option<PathBuf>,
    /// The other side's certificate must have one of these common names; empty means any.
    pub allowed_common_names: Vec<String>,
    /// The other side's certificate must be valid for one of these names; empty means any.
    pub allowed_hostnames: Vec<String>,
    /// The member made it itself: without an authority, peers are not verified.
    pub self_signed: bool,
}

/// What connections may use, clients' and peers'.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsRules {
    pub versions: TlsVersions,
    /// Of TLS 1.2, best first; empty means all.
    pub cipher_suites: Vec<rustls::CipherSuite>,
}

/// Of every socket that is listened on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Other processes may listen on the same port; the system shares the connections out.
    pub reuse_port: bool,
}

/// When history is dropped without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    Off,
    /// Keep this long.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

/// Everything that a member needs to know to start.
#[derive(Debug, Clone)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub listen_client_urls: Vec<Url>,
    pub listen_peer_urls: Vec<Url>,
    pub listen_metrics_urls: Vec<Url>,
    pub socket_options: SocketOptions,
    pub advertise_client_urls: Vec<Url>,
    pub initial_advertise_peer_urls: Vec<Url>,
    /// Name and peer address, one entry per address. Empty: this member alone.
    pub initial_cluster: Vec<(String, Url)>,
    pub initial_cluster_state: ClusterState,
    pub initial_cluster_token: String,
    pub client_tls: Option<TlsFiles>,
    pub peer_tls: Option<TlsFiles>,
    /// Without `client_tls`: a certificate that the member makes itself.
    pub client_auto_tls: bool,
    /// Without `peer_tls`: a certificate that the member makes itself; peers are not verified then.
    pub peer_auto_tls: bool,
    pub self_signed_validity_years: u32,
    pub tls_rules: TlsRules,
    pub heartbeat_interval_ms: u64,
    pub election_timeout_ms: u64,
    pub snapshot_count: u64,
    pub pre_vote: bool,
    pub fsync: bool,
    /// As the flag has it: 0 is the default, negative is none.
    pub quota_backend_bytes: i64,
    pub txn_operations_max: usize,
    pub request_size_bytes_max: usize,
    pub concurrent_streams_max: u32,
    /// Least time between a client's pings during a call; 0 is five minutes.
    pub keepalive_min_time: Duration,
    pub keepalive_interval: Option<Duration>,
    pub keepalive_timeout: Duration,
    pub watch_progress_interval: Duration,
    /// A client that takes nothing of its snapshot for as long loses it.
    pub snapshot_patience: Duration,
    /// Changes that wait for one watch stream in memory; with more the stream reads history instead. No flag.
    pub watch_inbox_entries_max: usize,
    pub auto_compaction: AutoCompaction,
    pub learners_max: usize,
    pub strict_reconfig_check: bool,
    /// Of simple tokens.
    pub auth_token_ttl: Duration,
    /// None: simple tokens.
    pub jwt: Option<Arc<Jwt>>,
    pub bcrypt_cost: u32,
    /// Also count how long requests take.
    pub metrics_extensive: bool,
    /// Serve `/debug/`.
    pub debug: bool,
    /// Of pages in browsers that may use HTTP; `*` among them means any.
    pub cors_origins: Vec<String>,
    /// Names by which HTTP requests without TLS may call this member; `*` among them means any.
    pub allowed_hosts: Vec<String>,
    /// Of the log; etcd's are as large.
    pub log_segment_size_bytes: u64,
    /// At the latest after this the state file has on disk what was applied. No flag.
    pub state_sync_interval: Duration,
    /// What the member reaches below its services: the system's, or a simulation's. The client port is always the
    /// system's; a simulation has none (`Store::routes`).
    pub surroundings: replica::Surroundings,
    pub operations: Operations,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsVersions {
    #[default]
    From12,
    Only12,
    Only13,
}

/// Why settings cannot be used; etcd's texts where it has one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("invalid value {value:?} for flag -{name}: {reason}")]
    Value { name: &'static str, value: String, reason: String },
    #[error(
        "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
    )]
    ElectionTooShort { election: u64, heartbeat: u64 },
    #[error("--election-timeout[{0}ms] is too long, and should be set less than {ELECTION_TIMEOUT_MS_MAX}ms")]
    ElectionTooLong(u64),
    #[error("--heartbeat-interval must be >0 (set to 0ms)")]
    NoHeartbeat,
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    NoAdvertisedUrl,
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    NotInCluster(String),
    #[error("--initial-cluster has {listed} but missing from --initial-advertise-peer-urls={advertised}")]
    PeerUrlsDiffer { listed: String, advertised: String },
    #[error("malformed entry {0:?} in --initial-cluster, want name=URL")]
    ClusterEntry(String),
    #[error("--{0} needs at least one URL")]
    NoUrl(&'static str),
    #[error("{cert} and {key} must be given together")]
    HalfKeyPair { cert: &'static str, key: &'static str },
    #[error("{url} needs TLS: give --{cert} and --{key}")]
    NoCertificate { url: Url, cert: &'static str, key: &'static str },
    #[error("--{auth} needs --{authority} to know whom to let in")]
    NoAuthority { auth: &'static str, authority: &'static str },
    #[error(
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns={common_names:?}, hostnames={hostnames:?})"
    )]
    TwoNameRules { common_names: String, hostnames: String },
    #[error("{0} and {1}: a socket file cannot have both")]
    TwoKinds(Url, Url),
    #[error("unknown auto-compaction-mode {0:?}")]
    CompactionMode(String),
    #[error("--{0} must not be empty")]
    Empty(&'static str),
    #[error("setting enable-lease-checkpoint-persist requires enable-lease-checkpoint")]
    PersistWithoutCheckpoint,
}

impl Config {
    /// etcd's defaults: a new cluster of one member on 127.0.0.1:2379 and 127.0.0.1:2380.
    pub fn new(name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Config {
        let client = vec![Url::http(SocketAddr::from(([127, 0, 0, 1], 2379)))];
        let peer = vec![Url::http(SocketAddr::from(([127, 0, 0, 1], 2380)))];
        Config {
            name: name.into(),
            data_dir: data_dir.into(),
            listen_client_urls: client.clone(),
            listen_peer_urls: peer.clone(),
            listen_metrics_urls: Vec::new(),
            socket_options: SocketOptions::default(),
            advertise_client_urls: client,
            initial_advertise_peer_urls: peer,
            initial_cluster: Vec::new(),
            initial_cluster_state: ClusterState::New,
            initial_cluster_token: "etcd-cluster".to_owned(),
            client_tls: None,
            peer_tls: None,
            client_auto_tls: false,
            peer_auto_tls: false,
            self_signed_validity_years: 1,
            tls_rules: TlsRules::default(),
            heartbeat_interval_ms: 100,
            election_timeout_ms: 1000,
            snapshot_count: 100_000,
            pre_vote: true,
            fsync: true,
            quota_backend_bytes: 0,
            txn_operations_max: 128,
            request_size_bytes_max: REQUEST_SIZE_BYTES_MAX_DEFAULT,
            concurrent_streams_max: u32::MAX,
            keepalive_min_time: Duration::from_secs(5),
            keepalive_interval: Some(Duration::from_secs(2 * 3600)),
            keepalive_timeout: Duration::from_secs(20),
            watch_progress_interval: Duration::from_secs(600),
            snapshot_patience: Duration::from_secs(60),
            watch_inbox_entries_max: crate::watch::hub::INBOX_ENTRIES_MAX,
            auto_compaction: AutoCompaction::Off,
            learners_max: 1,
            strict_reconfig_check: true,
            auth_token_ttl: Duration::from_secs(300),
            jwt: None,
            bcrypt_cost: 10,
            metrics_extensive: false,
            debug: false,
            cors_origins: vec!["*".to_owned()],
            allowed_hosts: vec!["*".to_owned()],
            log_segment_size_bytes: 64 << 20,
            state_sync_interval: replica::STATE_SYNC_INTERVAL,
            surroundings: replica::Surroundings::system(),
            operations: Operations::default(),
        }
    }

    /// The quota in bytes; none when negative.
    pub fn quota_bytes(&self) -> Option<i64> {
        match self.quota_backend_bytes {
            0 => Some(QUOTA_BYTES_DEFAULT),
            bytes if bytes < 0 => None,
            bytes => Some(bytes),
        }
    }

    /// How long an answer may take: source etcd server/config `ReqTimeout`, 5 s and two election timeouts.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * Duration::from_millis(self.election_timeout_ms)
    }

    /// Reads settings from flags.
    pub fn from_flags(flags: &Flags) -> Result<Config, ConfigError> {
        let name = flags.value("name").to_owned();
        let data_dir = match flags.value("data-dir") {
            "" => PathBuf::from(format!("{name}.etcd")),
            given => PathBuf::from(given),
        };
        let mut config = Config::new(name, data_dir);
        config.read_urls(flags)?;
        config.read_cluster(flags)?;
        config.read_security(flags)?;
        config.read_limits(flags)?;
        config.operations = Operations::from_flags(flags)?;
        config.check()?;
        Ok(config)
    }

    fn read_urls(&mut self, flags: &Flags) -> Result<(), ConfigError> {
        if flags.given("listen-client-urls") && !flags.given("advertise-client-urls") {
            return Err(ConfigError::NoAdvertisedUrl);
        }
        self.listen_client_urls = urls(flags, "listen-client-urls")?;
        self.listen_client_urls.extend(urls(flags, "listen-client-http-urls")?);
        self.listen_peer_urls = urls(flags, "listen-peer-urls")?;
        self.listen_metrics_urls = urls(flags, "listen-metrics-urls")?;
        self.socket_options.reuse_port = flags.is_on("socket-reuse-port");
        self.advertise_client_urls = urls(flags, "advertise-client-urls")?;
        self.initial_advertise_peer_urls = urls(flags, "initial-advertise-peer-urls")?;
        Ok(())
    }

    fn read_cluster(&mut self, flags: &Flags) -> Result<(), ConfigError> {
        for entry in
            flags.value("initial-cluster").split(',').map(str::trim).filter(|entry| !entry.is_empty())
        {
            let wrong = || ConfigError::ClusterEntry(entry.to_owned());
            let (name, url) = entry.split_once('=').ok_or_else(wrong)?;
            let url = url.parse().map_err(|error| invalid("initial-cluster", url, error))?;
            self.initial_cluster.push((name.trim().to_owned(), url));
        }
        self.initial_cluster_state = match flags.value("initial-cluster-state") {
            "new" => ClusterState::New,
            "existing" => ClusterState::Existing,
            other => {
                let reason = "want one of [new existing]";
                return Err(invalid("initial-cluster-state", other, reason));
            }
        };
        self.initial_cluster_token = flags.value("initial-cluster-token").to_owned();
        self.strict_reconfig_check = flags.is_on("strict-reconfig-check");
        self.pre_vote = flags.is_on("pre-vote");
        self.learners_max = number(flags, "max-learners")?;
        Ok(())
    }

    fn read_security(&mut self, flags: &Flags) -> Result<(), ConfigError> {
        self.client_tls = tls_files(flags, CLIENT)?;
        self.peer_tls = tls_files(flags, PEER)?;
        self.client_auto_tls = flags.is_on("auto-tls");
        self.peer_auto_tls = flags.is_on("peer-auto-tls");
        self.cors_origins = names(flags.value("cors"));
        self.allowed_hosts = names(flags.value("host-whitelist"));
        self.self_signed_validity_years = number(flags, "self-signed-cert-validity")?;
        if self.self_signed_validity_years == 0 {
            return Err(invalid("self-signed-cert-validity", "0", "must be at least 1"));
        }
        self.tls_rules.cipher_suites = parse_suites(flags.value("cipher-suites"))
            .map_err(|error| invalid("cipher-suites", flags.value("cipher-suites"), error))?;
        self.tls_rules.versions = match (flags.value("tls-min-version"), flags.value("tls-max-version")) {
            ("TLS1.2" | "", "TLS1.3" | "") => TlsVersions::From12,
            ("TLS1.2" | "", "TLS1.2") => TlsVersions::Only12,
            ("TLS1.3", "TLS1.3" | "") => TlsVersions::Only13,
            (min, max) => {
                return Err(invalid("tls-min-version", &format!("{min}..{max}"), "no such TLS versions"));
            }
        };
        self.jwt = match flags.value("auth-token").split_once(',').unwrap_or((flags.value("auth-token"), ""))
        {
            ("simple" | "", _) => None,
            ("jwt", options) => Some(Arc::new(Jwt::from_options(options).map_err(|error| match error {
                // etcd says no more than this.
                JwtError::Method | JwtError::Read { .. } => {
                    invalid("auth-token", "jwt", format!("{} ({error})", JwtError::Options))
                }
                error => invalid("auth-token", "jwt", error),
            })?)),
            (kind, _) => return Err(invalid("auth-token", kind, JwtError::Options)),
        };
        self.bcrypt_cost = number(flags, "bcrypt-cost")?;
        if !(4..=31).contains(&self.bcrypt_cost) {
            return Err(invalid("bcrypt-cost", flags.value("bcrypt-cost"), "must be 4 to 31"));
        }
        self.auth_token_ttl = Duration::from_secs(number(flags, "auth-token-ttl")?);
        Ok(())
    }

    fn read_limits(&mut self, flags: &Flags) -> Result<(), ConfigError> {
        self.heartbeat_interval_ms = number(flags, "heartbeat-interval")?;
        self.election_timeout_ms = number(flags, "election-timeout")?;
        self.snapshot_count = number(flags, "snapshot-count")?;
        self.fsync = !flags.is_on("unsafe-no-fsync");
        self.quota_backend_bytes = number(flags, "quota-backend-bytes")?;
        self.txn_operations_max = number(flags, "max-txn-ops")?;
        self.request_size_bytes_max = number(flags, "max-request-bytes")?;
        self.concurrent_streams_max = number(flags, "max-concurrent-streams")?;
        self.keepalive_min_time = duration(flags, "grpc-keepalive-min-time")?;
        self.keepalive_interval =
            Some(duration(flags, "grpc-keepalive-interval")?).filter(|time| !time.is_zero());
        self.keepalive_timeout = duration(flags, "grpc-keepalive-timeout")?;
        self.watch_progress_interval =
            duration(flags, "watch-progress-notify-interval")?.max(Duration::from_millis(100));
        self.auto_compaction = auto_compaction(flags)?;
        self.debug = flags.is_on("enable-pprof");
        self.metrics_extensive = match flags.value("metrics") {
            "basic" => false,
            "extensive" => true,
            other => return Err(invalid("metrics", other, "want basic or extensive")),
        };
        Ok(())
    }

    /// What must hold between settings, whoever made them.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (name, list) in [
            ("listen-client-urls", &self.listen_client_urls),
            ("listen-peer-urls", &self.listen_peer_urls),
            ("advertise-client-urls", &self.advertise_client_urls),
            ("initial-advertise-peer-urls", &self.initial_advertise_peer_urls),
        ] {
            if list.is_empty() {
                return Err(ConfigError::NoUrl(name));
            }
        }
        if self.name.is_empty() {
            return Err(ConfigError::Empty("name"));
        }
        if self.heartbeat_interval_ms == 0 {
            return Err(ConfigError::NoHeartbeat);
        }
        if self.election_timeout_ms > ELECTION_TIMEOUT_MS_MAX {
            return Err(ConfigError::ElectionTooLong(self.election_timeout_ms));
        }
        if self.election_timeout_ms / 5 < self.heartbeat_interval_ms {
            let (election, heartbeat) = (self.election_timeout_ms, self.heartbeat_interval_ms);
            return Err(ConfigError::ElectionTooShort { election, heartbeat });
        }
        let need = |list: &[Url], missing: bool, cert, key| match list.iter().find(|url| url.tls) {
            Some(url) if missing => Err(ConfigError::NoCertificate { url: url.clone(), cert, key }),
            _ => Ok(()),
        };
        let client = self.client_tls.is_none() && !self.client_auto_tls;
        let peer = self.peer_tls.is_none() && !self.peer_auto_tls;
        need(&self.listen_client_urls, client, "cert-file", "key-file")?;
        need(&self.listen_metrics_urls, client, "cert-file", "key-file")?;
        need(&self.listen_peer_urls, peer, "peer-cert-file", "peer-key-file")?;
        for list in [&self.listen_client_urls, &self.listen_metrics_urls] {
            let sockets = || list.iter().filter(|url| url.socket().is_some());
            for url in sockets() {
                if let Some(other) = sockets().find(|other| other.place == url.place && other.tls != url.tls)
                {
                    return Err(ConfigError::TwoKinds(url.clone(), other.clone()));
                }
            }
        }
        self.check_cluster()
    }

    /// This member must be in the list of first members, with the addresses that it advertises.
    pub(crate) fn check_cluster(&self) -> Result<(), ConfigError> {
        if self.initial_cluster.is_empty() {
            return Ok(());
        }
        let own = |entry: &&(String, Url)| entry.0 == self.name;
        let listed: Vec<&Url> = self.initial_cluster.iter().filter(own).map(|entry| &entry.1).collect();
        if listed.is_empty() {
            return Err(ConfigError::NotInCluster(self.name.clone()));
        }
        let advertised = &self.initial_advertise_peer_urls;
        let same = listed.iter().all(|url| advertised.contains(url))
            && advertised.iter().all(|url| listed.contains(&url));
        if same {
            return Ok(());
        }
        let entries: Vec<String> = listed.iter().map(|url| format!("{}={url}", self.name)).collect();
        let advertised: Vec<String> = advertised.iter().map(Url::to_string).collect();
        Err(ConfigError::PeerUrlsDiffer { listed: entries.join(","), advertised: advertised.join(",") })
    }
}

fn invalid(name: &'static str, value: &str, reason: impl ToString) -> ConfigError {
    ConfigError::Value { name, value: value.to_owned(), reason: reason.to_string() }
}

fn urls(flags: &Flags, name: &'static str) -> Result<Vec<Url>, ConfigError> {
    Url::parse_list(flags.value(name)).map_err(|error: UrlError| invalid(name, flags.value(name), error))
}

/// The parts of a comma-separated list.
fn names(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn number<T: std::str::FromStr>(flags: &Flags, name: &'static str) -> Result<T, ConfigError> {
    flags.value(name).parse().map_err(|_| invalid(name, flags.value(name), "parse error"))
}

fn duration(flags: &Flags, name: &'static str) -> Result<Duration, ConfigError> {
    parse_duration(flags.value(name)).ok_or_else(|| invalid(name, flags.value(name), "parse error"))
}

/// Go's duration syntax without signs: `1h30m`, `1.5s`, `100ms`, `0`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_s = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|character: char| character.is_ascii_digit()).unwrap_or(rest.len());
        total_s += value
            * match &rest[..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total_s).ok()).flatten()
}

/// The flags that describe one side's certificates.
struct TlsNames {
    cert: &'static str,
    key: &'static str,
    authority: &'static str,
    auth: &'static str,
    auto: &'static str,
    crl: &'static str,
    /// Empty: there is no such flag.
    common_name: &'static str,
    hostname: &'static str,
}

const CLIENT: TlsNames = TlsNames {
    cert: "cert-file",
    key: "key-file",
    authority: "trusted-ca-file",
    auth: "client-cert-auth",
    auto: "auto-tls",
    crl: "client-crl-file",
    common_name: "",
    hostname: "client-cert-allowed-hostname",
};

const PEER: TlsNames = TlsNames {
    cert: "peer-cert-file",
    key: "peer-key-file",
    authority: "peer-trusted-ca-file",
    auth: "peer-client-cert-auth",
    auto: "peer-auto-tls",
    crl: "peer-crl-file",
    common_name: "peer-cert-allowed-cn",
    hostname: "peer-cert-allowed-hostname",
};

fn tls_files(flags: &Flags, flag_names: TlsNames) -> Result<Option<TlsFiles>, ConfigError> {
    let TlsNames { cert, key, authority, auth, auto, crl, common_name, hostname } = flag_names;
    let path = |name| Some(flags.value(name)).filter(|path| !path.is_empty()).map(PathBuf::from);
    let trusted_ca_file = path(authority);
    let allowed_common_names = match common_name {
        "" => Vec::new(),
        name => names(flags.value(name)),
    };
    let allowed_hostnames = names(flags.value(hostname));
    if !allowed_common_names.is_empty() && !allowed_hostnames.is_empty() {
        return Err(ConfigError::TwoNameRules {
            common_names: allowed_common_names.join(","),
            hostnames: allowed_hostnames.join(","),
        });
    }
    let (cert_file, key_file) = match (flags.value(cert), flags.value(key)) {
        ("", "") if flags.is_on(auto) => return Ok(None),
        ("", "") if flags.is_on(auth) && trusted_ca_file.is_none() => {
            return Err(ConfigError::NoAuthority { auth, authority });
        }
        ("", "") => return Ok(None),
        ("", _) | (_, "") => return Err(ConfigError::HalfKeyPair { cert, key }),
        (cert_file, key_file) => (cert_file.into(), key_file.into()),
    };
    // A rule about certificates that nobody is asked for would let everybody in.
    let rules = [auth, crl, common_name, hostname];
    let rule = rules.into_iter().find(|name| !name.is_empty() && !["", "false"].contains(&flags.value(name)));
    match rule {
        Some(auth) if trusted_ca_file.is_none() => Err(ConfigError::NoAuthority { auth, authority }),
        _ => Ok(Some(TlsFiles {
            cert_file,
            key_file,
            trusted_ca_file,
            client_cert_auth: flags.is_on(auth),
            crl_file: path(crl),
            allowed_common_names,
            allowed_hostnames,
            self_signed: false,
        })),
    }
}

/// A bare number counts hours in periodic mode and revisions in revision mode, as in etcd.
fn auto_compaction(flags: &Flags) -> Result<AutoCompaction, ConfigError> {
    let retention = flags.value("auto-compaction-retention");
    let wrong = || invalid("auto-compaction-retention", retention, "parse error");
    match flags.value("auto-compaction-mode") {
        "periodic" => {
            let time = match retention.parse::<u32>() {
                Ok(hours) => Duration::from_secs(3600) * hours,
                Err(_) => parse_duration(retention).ok_or_else(wrong)?,
            };
            Ok(if time.is_zero() { AutoCompaction::Off } else { AutoCompaction::Periodic(time) })
        }
        "revision" => match retention.parse::<i64>().map_err(|_| wrong())? {
            0 => Ok(AutoCompaction::Off),
            revisions if revisions > 0 => Ok(AutoCompaction::Revision(revisions)),
            _ => Err(wrong()),
        },
        other => Err(ConfigError::CompactionMode(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn config(line: &str) -> Result<Config, ConfigError> {
        Config::from_flags(&Flags::parse(line.split_whitespace().map(OsString::from), []).unwrap())
    }

    #[test]
    fn wrong_settings_are_named() {
        for (line, text) in [
            ("--heartbeat-interval=x", "invalid value \"x\" for flag -heartbeat-interval: parse error"),
            (
                "--election-timeout=400",
                "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]",
            ),
            (
                "--listen-client-urls=http://127.0.0.1:1",
                "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            ),
            (
                "--name a --initial-cluster b=http://h:1",
                "couldn't find local name \"a\" in the initial cluster configuration",
            ),
            (
                "--name a --initial-cluster a=http://h:1",
                "--initial-cluster has a=http://h:1 but missing from --initial-advertise-peer-urls=http://localhost:2380",
            ),
            ("--cert-file x", "cert-file and key-file must be given together"),
            ("--client-cert-auth", "--client-cert-auth needs --trusted-ca-file to know whom to let in"),
            (
                "--listen-peer-urls https://h:1",
                "https://h:1 needs TLS: give --peer-cert-file and --peer-key-file",
            ),
            (
                "--initial-cluster-state=old",
                "invalid value \"old\" for flag -initial-cluster-state: want one of [new existing]",
            ),
            (
                "--cert-file c --key-file k --client-crl-file x",
                "--client-crl-file needs --trusted-ca-file to know whom to let in",
            ),
            (
                "--peer-cert-allowed-cn a,b --peer-cert-allowed-hostname c",
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns=\"a,b\", hostnames=\"c\")",
            ),
            (
                "--cipher-suites=X",
                "invalid value \"X\" for flag -cipher-suites: unexpected TLS cipher suite \"X\"",
            ),
            (
                "--self-signed-cert-validity=0",
                "invalid value \"0\" for flag -self-signed-cert-validity: must be at least 1",
            ),
            (
                "--auth-token=other",
                "invalid value \"other\" for flag -auth-token: auth: invalid auth options",
            ),
            (
                "--auth-token=jwt,sign-method=ES256",
                "invalid value \"jwt\" for flag -auth-token: auth: missing key data",
            ),
            ("--auto-compaction-mode=x", "unknown auto-compaction-mode \"x\""),
        ] {
            assert_eq!(config(line).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn certificates_are_described_by_flags() {
        let config = config(
            "--listen-client-urls https://h:1 --advertise-client-urls https://h:1 --auto-tls \
             --peer-cert-file c --peer-key-file k --peer-trusted-ca-file a --peer-crl-file r \
             --peer-cert-allowed-cn one,two --cipher-suites TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        )
        .unwrap();
        assert!(config.client_auto_tls && config.client_tls.is_none());
        let peer = config.peer_tls.unwrap();
        assert_eq!(peer.crl_file, Some(PathBuf::from("r")));
        assert_eq!(peer.allowed_common_names, ["one", "two"]);
        assert_eq!(config.tls_rules.cipher_suites.len(), 1);
    }

    #[test]
    fn defaults_are_those_of_etcd() {
        let config = config("").unwrap();
        assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
        assert_eq!(config.quota_bytes(), Some(QUOTA_BYTES_DEFAULT));
        assert_eq!(config.request_timeout(), Duration::from_secs(7));
        assert_eq!(config.auto_compaction, AutoCompaction::Off);
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, milliseconds) in
            [("1h30m", Some(5_400_000)), ("1.5s", Some(1500)), ("100ms", Some(100)), ("0", Some(0))]
        {
            assert_eq!(parse_duration(text).map(|time| time.as_millis()), milliseconds, "{text}");
        }
        for text in ["", "5", "x", "1y", "-1s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
