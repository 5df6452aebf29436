//! `etcd gateway start`: passes TCP connections on to the members of a cluster, without looking into them.
//!
//! Invariants: members take turns; one that takes no connection is left out until it does again, which is tried after
//! each delay. When none takes any, the client's connection is closed. Connections are bounded in number, and a
//! client that connects waits for nobody else's.
//! Not here: what flows through (TLS is between client and member).

use std::{
    ffi::OsString,
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};
use tokio_util::sync::CancellationToken;

use crate::config::parse_duration;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Connections that are passed on at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16_384;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const DELAY_DEFAULT: Duration = Duration::from_secs(60);

/// Why the gateway does not start. One line each.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("unknown command {0:?} for \"etcd gateway\", want start")]
    Command(String),
    #[error("unknown flag: {0}")]
    Flag(String),
    #[error("flag needs an argument: {0}")]
    NoValue(&'static str),
    #[error("invalid argument {value:?} for \"{flag}\" flag")]
    Value { flag: &'static str, value: String },
    #[error("--{0} is not supported by this store: name the members with --endpoints")]
    Discovery(&'static str),
    #[error("error parsing endpoint {0:?}")]
    Endpoint(String),
    #[error("no endpoints found")]
    NoEndpoint,
    #[error("endpoint {endpoint} should not resolve to the gateway listen addr ({listen})")]
    Itself { endpoint: String, listen: String },
    #[error("listen tcp {address}: {source}")]
    Listen { address: String, source: std::io::Error },
}

/// What the gateway was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    listen: String,
    /// `host:port`
    endpoints: Vec<String>,
    retry_delay: Duration,
    help: bool,
}

const HELP: &str = "Usage:\n  etcd gateway start [flags]\n\nFlags:\n  \
    --endpoints '127.0.0.1:2379'\n    Members to pass connections to, separated by commas.\n  \
    --listen-addr '127.0.0.1:23790'\n    Address to listen on.\n  \
    --retry-delay '1m0s'\n    Time until a member that took no connection is tried again.\n";

/// Runs until a signal. `arguments` come without `gateway`; `install_logging` is called once.
pub fn main(arguments: Vec<OsString>, install_logging: impl FnOnce()) -> ExitCode {
    let options = match parse(arguments) {
        Ok(options) => options,
        Err(error) => return crate::command::fail(1, &error),
    };
    if options.help {
        return crate::command::print(HELP);
    }
    install_logging();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return crate::command::fail(1, &error),
    };
    runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::select! {
            ended = run(options, stop.clone()) => match ended {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => crate::command::fail(1, &error),
            },
            ended = crate::command::signalled() => {
                stop.cancel();
                ended
            }
        }
    })
}

fn parse(arguments: Vec<OsString>) -> Result<Options, GatewayError> {
    let mut options = Options {
        listen: "127.0.0.1:23790".to_owned(),
        endpoints: vec!["127.0.0.1:2379".to_owned()],
        retry_delay: DELAY_DEFAULT,
        help: false,
    };
    let mut started = false;
    let mut arguments = arguments.into_iter().map(|argument| argument.to_string_lossy().into_owned());
    while let Some(argument) = arguments.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut value = |flag| inline.clone().or_else(|| arguments.next()).ok_or(GatewayError::NoValue(flag));
        match name {
            "start" if !started => started = true,
            "-h" | "--help" => options.help = true,
            "--listen-addr" => options.listen = value("--listen-addr")?,
            "--endpoints" => options.endpoints = endpoints(&value("--endpoints")?)?,
            "--retry-delay" => {
                let (flag, value) = ("--retry-delay", value("--retry-delay")?);
                options.retry_delay = parse_duration(&value).ok_or(GatewayError::Value { flag, value })?;
            }
            "--discovery-srv" => return Err(GatewayError::Discovery("discovery-srv")),
            "--discovery-srv-name" => return Err(GatewayError::Discovery("discovery-srv-name")),
            "--trusted-ca-file" => return Err(GatewayError::Discovery("trusted-ca-file")),
            "--insecure-discovery" => return Err(GatewayError::Discovery("insecure-discovery")),
            _ if name.starts_with('-') => return Err(GatewayError::Flag(name.to_owned())),
            _ => return Err(GatewayError::Command(argument)),
        }
    }
    match started || options.help {
        true => Ok(options),
        false => Err(GatewayError::Command(String::new())),
    }
}

/// Schemes and paths of the endpoints say nothing to a TCP proxy.
fn endpoints(list: &str) -> Result<Vec<String>, GatewayError> {
    let parse = |text: &str| {
        let address = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
        let valid = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if valid { Ok(address.to_owned()) } else { Err(GatewayError::Endpoint(text.to_owned())) }
    };
    let list: Vec<String> = list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(parse)
        .collect::<Result<_, _>>()?;
    if list.is_empty() { Err(GatewayError::NoEndpoint) } else { Ok(list) }
}

/// A member to pass connections to.
struct Remote {
    address: String,
    inactive: AtomicBool,
}

struct Proxy {
    remotes: Vec<Remote>,
    turn: AtomicUsize,
    retry_delay: Duration,
}

async fn run(options: Options, stop: CancellationToken) -> Result<(), GatewayError> {
    let failed = |source| GatewayError::Listen { address: options.listen.clone(), source };
    let listener = TcpListener::bind(&options.listen).await.map_err(failed)?;
    let own = listener.local_addr().map_err(failed)?;
    for endpoint in &options.endpoints {
        let addresses: Vec<SocketAddr> =
            match time::timeout(CONNECT_TIME_MAX, tokio::net::lookup_host(endpoint)).await {
                Ok(Ok(addresses)) => addresses.collect(),
                Ok(Err(_)) | Err(_) => return Err(GatewayError::Endpoint(endpoint.clone())),
            };
        if addresses.contains(&own) {
            let (endpoint, listen) = (endpoint.clone(), options.listen);
            return Err(GatewayError::Itself { endpoint, listen });
        }
    }
    tracing::info!(endpoints = %options.endpoints.join(","), "ready to proxy client requests");
    crate::notify::ready();
    let remotes = options.endpoints.into_iter();
    let proxy = Arc::new(Proxy {
        remotes: remotes.map(|address| Remote { address, inactive: AtomicBool::new(false) }).collect(),
        turn: AtomicUsize::new(0),
        retry_delay: options.retry_delay,
    });
    let monitor = tokio::spawn(watch(proxy.clone(), stop.clone()));
    accept(&proxy, listener, &stop).await;
    monitor.abort();
    Ok(())
}

async fn accept(proxy: &Arc<Proxy>, listener: TcpListener, stop: &CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((client, _)) => {
                let (proxy, stop) = (proxy.clone(), stop.clone());
                tokio::spawn(async move {
                    let _slot = slot;
                    tokio::select! {
                        () = proxy.pass(client) => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Proxy {
    async fn pass(&self, mut client: TcpStream) {
        let Some(mut member) = self.connect().await else { return };
        for stream in [&client, &member] {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "no delay not set");
            }
        }
        // How either side ended is told to the other by closing; nobody else needs to know.
        drop(tokio::io::copy_bidirectional(&mut client, &mut member).await);
    }

    /// To the next member in turn that takes a connection.
    async fn connect(&self) -> Option<TcpStream> {
        let first = self.turn.fetch_add(1, Relaxed);
        for step in 0..self.remotes.len() {
            let remote = &self.remotes[(first.wrapping_add(step)) % self.remotes.len()];
            if remote.inactive.load(Relaxed) {
                continue;
            }
            match dial(&remote.address).await {
                Ok(stream) => return Some(stream),
                Err(error) => {
                    remote.inactive.store(true, Relaxed);
                    let (address, interval) = (&remote.address, self.retry_delay);
                    tracing::warn!(%address, ?interval, %error, "deactivated endpoint");
                }
            }
        }
        None
    }
}

async fn dial(address: &str) -> std::io::Result<TcpStream> {
    time::timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await?
}

/// Tries members that took no connection again.
async fn watch(proxy: Arc<Proxy>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = time::sleep(proxy.retry_delay.max(Duration::from_millis(10))) => {}
            () = stop.cancelled() => return,
        }
        for remote in proxy.remotes.iter().filter(|remote| remote.inactive.load(Relaxed)) {
            let address = &remote.address;
            match dial(address).await {
                Ok(_) => {
                    remote.inactive.store(false, Relaxed);
                    tracing::info!(%address, "activated");
                }
                Err(error) => tracing::warn!(%address, %error, "failed to activate endpoint"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        let arguments = line.split_whitespace().map(OsString::from).collect();
        parse(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_are_those_of_etcd() {
        let options =
            parsed("--endpoints=http://127.0.0.1:1,[::1]:2 start --listen-addr a:3 --retry-delay=1m30s")
                .unwrap();
        assert_eq!(options.endpoints, ["127.0.0.1:1", "[::1]:2"]);
        assert_eq!((options.listen.as_str(), options.retry_delay.as_secs()), ("a:3", 90));
        for (line, error) in [
            ("", "unknown command \"\" for \"etcd gateway\", want start"),
            ("stop", "unknown command \"stop\" for \"etcd gateway\", want start"),
            ("start --endpoints=a", "error parsing endpoint \"a\""),
            ("start --endpoints=", "no endpoints found"),
            ("start --bogus", "unknown flag: --bogus"),
            ("start --retry-delay x", "invalid argument \"x\" for \"--retry-delay\" flag"),
            ("start --listen-addr", "flag needs an argument: --listen-addr"),
            (
                "start --discovery-srv=example.com",
                "--discovery-srv is not supported by this store: name the members with --endpoints",
            ),
        ] {
            assert_eq!(parsed(line).unwrap_err(), error, "{line}");
        }
    }

    /// Answers each connection with one byte.
    async fn server(byte: u8) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(&[byte]).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn members_take_turns_and_dead_ones_are_left_out() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let addresses = [server(b'a').await, closed, server(b'b').await];
        let proxy = Arc::new(Proxy {
            remotes: addresses
                .into_iter()
                .map(|address| Remote { address, inactive: AtomicBool::new(false) })
                .collect(),
            turn: AtomicUsize::new(0),
            retry_delay: DELAY_DEFAULT,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (own, end) = (proxy.clone(), stop.clone());
        let serving = tokio::spawn(async move { accept(&own, listener, &end).await });
        let mut told = String::new();
        for _ in 0..6 {
            TcpStream::connect(address).await.unwrap().read_to_string(&mut told).await.unwrap();
        }
        assert_eq!(told, "abbabb");
        assert!(proxy.remotes[1].inactive.load(Relaxed));
        for remote in &proxy.remotes {
            remote.inactive.store(true, Relaxed);
        }
        let left = TcpStream::connect(address).await.unwrap().read_to_string(&mut told).await;
        assert!(left.is_ok_and(|bytes| bytes == 0) || told == "abbabb");
        stop.cancel();
        serving.await.unwrap();
    }
}
