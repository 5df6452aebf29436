//! The settings of one API server, complete and checked: nothing later reads flags or the environment.
//!
//! Not here: how they are spelled on the command line (`flags.rs`).

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Everything the server needs to know; `Config::default()` serves with no credentials but in-process ones.
#[derive(Debug, Clone)]
pub struct Config {
    pub bind_address: IpAddr,
    pub secure_port: u16,
    /// Address that clients outside reach this server at; `None`: the bind address, or the first local one.
    pub advertise_address: Option<IpAddr>,
    pub tls_cert_file: Option<PathBuf>,
    pub tls_private_key_file: Option<PathBuf>,
    pub tls13_only: bool,
    /// Who signs client certificates; `None` turns certificate authentication off.
    pub client_ca_file: Option<PathBuf>,
    pub token_auth_file: Option<PathBuf>,
    pub anonymous_auth: bool,
    /// Asked in this order; the first that allows or denies decides.
    pub authorization_modes: Vec<AuthorizationMode>,
    /// `-` is standard output; `None` records nothing.
    pub audit_log_path: Option<PathBuf>,
    /// A full audit queue drops and counts events instead of holding requests back.
    pub audit_drop_when_full: bool,
    pub cors_allowed_origins: Vec<String>,
    pub etcd_servers: Vec<String>,
    pub etcd_cafile: Option<PathBuf>,
    pub etcd_certfile: Option<PathBuf>,
    pub etcd_keyfile: Option<PathBuf>,
    pub etcd_prefix: String,
    /// 0 turns compaction by this server off.
    pub etcd_compaction_interval: Duration,
    pub event_ttl_s: i64,
    pub service_cluster_ip_range: String,
    pub service_node_port_range: (u16, u16),
    pub enable_admission_plugins: Vec<String>,
    pub disable_admission_plugins: Vec<String>,
    /// Reading requests served at once; 0 = unlimited.
    pub max_requests_inflight: usize,
    /// Writing requests served at once; 0 = unlimited.
    pub max_mutating_requests_inflight: usize,
    /// Deadline of every request that is not long-running.
    pub request_timeout: Duration,
    /// Shortest life that a watch without `timeoutSeconds` gets; the longest is twice that.
    pub min_request_timeout: Duration,
    /// Chance that an HTTP/2 request closes its connection in peace, so that clients spread over members.
    pub goaway_chance: f64,
    pub http2_max_streams_per_connection: u32,
    pub connections_max: usize,
    /// How long /readyz already fails before the listener closes.
    pub shutdown_delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorizationMode {
    AlwaysAllow,
    AlwaysDeny,
    Rbac,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}")]
    Usage(String),
    #[error("invalid argument {value:?} for \"--{flag}\" flag: {why}")]
    Value { flag: &'static str, value: String, why: String },
    #[error("--tls-cert-file and --tls-private-key-file must be given together")]
    HalfKeyPair,
    #[error("--etcd-certfile and --etcd-keyfile must be given together")]
    HalfEtcdKeyPair,
    #[error("--etcd-servers must be specified")]
    NoEtcd,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            bind_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            secure_port: 6443,
            advertise_address: None,
            tls_cert_file: None,
            tls_private_key_file: None,
            tls13_only: false,
            client_ca_file: None,
            token_auth_file: None,
            anonymous_auth: true,
            authorization_modes: vec![AuthorizationMode::Rbac],
            audit_log_path: None,
            audit_drop_when_full: false,
            cors_allowed_origins: Vec::new(),
            etcd_servers: Vec::new(),
            etcd_cafile: None,
            etcd_certfile: None,
            etcd_keyfile: None,
            etcd_prefix: "/registry".to_string(),
            etcd_compaction_interval: Duration::from_secs(300),
            event_ttl_s: 3600,
            service_cluster_ip_range: "10.0.0.0/24".to_string(),
            service_node_port_range: (30000, 32767),
            enable_admission_plugins: Vec::new(),
            disable_admission_plugins: Vec::new(),
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            request_timeout: Duration::from_secs(60),
            min_request_timeout: Duration::from_secs(1800),
            goaway_chance: 0.0,
            http2_max_streams_per_connection: 250,
            connections_max: 20_000,
            shutdown_delay: Duration::ZERO,
        }
    }
}

impl Config {
    /// The address to hand to clients.
    pub fn advertised(&self) -> IpAddr {
        match self.advertise_address {
            Some(address) => address,
            None if self.bind_address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            None => self.bind_address,
        }
    }

    /// Checks what the type cannot say.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.tls_cert_file.is_some() != self.tls_private_key_file.is_some() {
            return Err(ConfigError::HalfKeyPair);
        }
        if self.etcd_certfile.is_some() != self.etcd_keyfile.is_some() {
            return Err(ConfigError::HalfEtcdKeyPair);
        }
        if self.authorization_modes.is_empty() {
            return Err(ConfigError::Value {
                flag: "authorization-mode",
                value: String::new(),
                why: "at least one authorization-mode must be passed".to_string(),
            });
        }
        if !(0.0..=0.02).contains(&self.goaway_chance) {
            return Err(ConfigError::Value {
                flag: "goaway-chance",
                value: self.goaway_chance.to_string(),
                why: "must be between 0 and 0.02".to_string(),
            });
        }
        if !self.etcd_prefix.starts_with('/') {
            return Err(ConfigError::Value {
                flag: "etcd-prefix",
                value: self.etcd_prefix.clone(),
                why: "must start with /".to_string(),
            });
        }
        Ok(())
    }
}
