//! One run's options and its way to the cluster: endpoints, TLS, token, deadline, output format.
//!
//! Options come from flags, then from `ETCDCTL_*` variables. A request is sent once, unless it met a token that is no
//! longer good; when nobody answers, the failure names each endpoint that was tried. Not here: what is asked.

use std::{future::Future, sync::Arc, time::Duration};

use tonic::{Code, Request, Response, Status};
use wire::{
    Client, ClientTls, Transport,
    etcdserverpb::{MemberListRequest, ResponseHeader},
};

use crate::{
    failure::{Failure, status_text},
    fields::Fields,
    flags::Line,
    json,
    login::{self, Login},
    output, prompt, text,
};

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Json,
    Fields,
    Table,
    Protobuf,
}

impl Format {
    pub(crate) fn read(line: &Line) -> Result<Format, Failure> {
        match line.text("write-out") {
            "simple" => Ok(Format::Simple),
            "json" => Ok(Format::Json),
            "fields" => Ok(Format::Fields),
            "table" => Ok(Format::Table),
            "protobuf" => Ok(Format::Protobuf),
            _ => Err(Failure::feature("unsupported output format")),
        }
    }

    /// What etcdctl says where a command has no such format.
    pub(crate) fn unsupported(self) -> Failure {
        let name = match self {
            Format::Simple => "simple",
            Format::Json => "json",
            Format::Fields => "fields",
            Format::Table => "table",
            Format::Protobuf => "protobuf",
        };
        Failure::feature(format!("{name} not supported as output format"))
    }
}

/// How a user is proven to be one. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Nobody,
    Password { name: String, password: String },
    Token(String),
}

/// Options that every command has.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) endpoints: Vec<String>,
    pub(crate) format: Format,
    pub(crate) hex: bool,
    pub(crate) command_timeout: Duration,
    /// Whether that was asked for; some commands that may take long otherwise wait as long as it takes.
    pub(crate) command_timeout_given: bool,
    pub(crate) dial_timeout: Duration,
    keep_alive: (Duration, Duration),
    message_size_bytes_max: (usize, usize),
    pub(crate) tls: Option<ClientTls>,
    credentials: Credentials,
}

/// The flags that say how to reach a cluster: `make-mirror` has a second set of them.
pub(crate) struct Reach<'a> {
    pub(crate) ca: &'a str,
    pub(crate) cert: &'a str,
    pub(crate) key: &'a str,
    pub(crate) skip_verify: bool,
    pub(crate) insecure_transport: bool,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) token: &'a str,
    pub(crate) prompt: &'a str,
}

impl Options {
    pub(crate) fn read(line: &Line) -> Result<Options, Failure> {
        for name in ["discovery-srv", "discovery-srv-name"] {
            if !line.text(name).is_empty() {
                return Err(Failure::arguments(format!(
                    "--{name} is not built: no DNS records are looked up, list the members with --endpoints"
                )));
            }
        }
        for name in ["cert", "key", "cacert"] {
            if line.given(name) == Some("") {
                return Err(Failure::arguments(format!("empty string is passed to --{name} option")));
            }
        }
        let size = |name: &str| {
            let given = usize::try_from(line.number(name)).unwrap_or(0);
            if given == 0 { wire::MESSAGE_SIZE_BYTES_MAX } else { given }
        };
        let mut options = Options {
            format: Format::read(line)?,
            hex: line.has("hex"),
            command_timeout: line.duration("command-timeout"),
            command_timeout_given: line.given("command-timeout").is_some(),
            dial_timeout: line.duration("dial-timeout"),
            keep_alive: (line.duration("keepalive-time"), line.duration("keepalive-timeout")),
            message_size_bytes_max: (size("max-request-bytes"), size("max-recv-bytes")),
            endpoints: Vec::new(),
            tls: None,
            credentials: Credentials::Nobody,
        };
        options.reach(
            line.text("endpoints"),
            &Reach {
                ca: line.text("cacert"),
                cert: line.text("cert"),
                key: line.text("key"),
                skip_verify: line.has("insecure-skip-tls-verify"),
                insecure_transport: line.has("insecure-transport"),
                user: line.text("user"),
                password: line.text("password"),
                token: line.text("auth-jwt-token"),
                prompt: "Password: ",
            },
        )?;
        Ok(options)
    }

    /// Directs these options at a cluster.
    pub(crate) fn reach(&mut self, endpoints: &str, reach: &Reach<'_>) -> Result<(), Failure> {
        self.endpoints =
            endpoints.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect();
        self.tls = tls(reach, &self.endpoints)?;
        self.credentials = credentials(reach)?;
        Ok(())
    }
}

fn tls(reach: &Reach<'_>, endpoints: &[String]) -> Result<Option<ClientTls>, Failure> {
    let read = |path: &str| {
        let path = Some(path).filter(|path| !path.is_empty());
        path.map(|path| {
            std::fs::read(path).map_err(|error| Failure::arguments(format!("open {path}: {}", cause(&error))))
        })
        .transpose()
    };
    if reach.cert.is_empty() != reach.key.is_empty() {
        return Err(Failure::arguments(format!(
            "KeyFile and CertFile must both be present[key: {}, cert: {}]",
            reach.key, reach.cert
        )));
    }
    let mut tls = ClientTls {
        ca_pem: read(reach.ca)?,
        cert_pem: read(reach.cert)?,
        key_pem: read(reach.key)?,
        server_name: None,
        skip_verify: reach.skip_verify,
        ca_is_systems: false,
    };
    let secure = endpoints
        .iter()
        .any(|endpoint| ["https://", "unixs://"].iter().any(|scheme| endpoint.starts_with(scheme)));
    let given = tls.ca_pem.is_some() || tls.cert_pem.is_some() || tls.key_pem.is_some() || tls.skip_verify;
    if !(given || secure || !reach.insecure_transport) {
        return Ok(None);
    }
    if tls.ca_pem.is_none() && !tls.skip_verify {
        tls.ca_pem = system_authorities();
        tls.ca_is_systems = true;
    }
    if let Err(error) = tls.settings() {
        let files = [("cacert", reach.ca), ("cert", reach.cert), ("key", reach.key)];
        let files =
            files.iter().map(|(flag, path)| format!("--{flag}={path}")).collect::<Vec<String>>().join(" ");
        return Err(Failure::arguments(format!("{error} ({files})")));
    }
    Ok(Some(tls))
}

/// Where systems keep the authorities that they trust. Source: Go's crypto/x509/root_linux.go.
const SYSTEM_AUTHORITIES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Those that count where no `--cacert` is given, as in every program in Go.
fn system_authorities() -> Option<Vec<u8>> {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        return std::fs::read(path).ok();
    }
    SYSTEM_AUTHORITIES.iter().find_map(|path| std::fs::read(path).ok())
}

/// What Go prints of the two file errors that people meet.
pub(crate) fn cause(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

fn credentials(reach: &Reach<'_>) -> Result<Credentials, Failure> {
    let with = |name: &str, password: String| Credentials::Password { name: name.to_owned(), password };
    Ok(match (reach.token, reach.user, reach.password) {
        ("", "", _) => Credentials::Nobody,
        ("", user, "") => match user.split_once(':') {
            Some((name, password)) => with(name, password.to_owned()),
            None => with(user, prompt::secret(reach.prompt)?),
        },
        ("", user, password) => with(user, password.to_owned()),
        (token, ..) => Credentials::Token(token.to_owned()),
    })
}

fn connect(options: &Options, login: &Arc<Login>) -> Result<Client, Failure> {
    let transport = Transport::connect(&options.endpoints, options.tls.clone(), options.dial_timeout)
        .map_err(|error| Failure::arguments(error.to_string()))?
        .keep_alive(options.keep_alive.0, options.keep_alive.1);
    let (request_size_bytes, answer_size_bytes) = options.message_size_bytes_max;
    Ok(Client::with_limits(login.clone().before(transport), request_size_bytes, answer_size_bytes))
}

/// Options and a client for their endpoints.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) options: Options,
    pub(crate) client: Client,
    login: Arc<Login>,
}

impl Session {
    /// Prepares the client; only with `--user` does this already talk to a member.
    pub(crate) async fn open(options: Options) -> Result<Session, Failure> {
        let login = Arc::new(match options.credentials.clone() {
            Credentials::Nobody => Login::nobody(),
            Credentials::Token(token) => Login::with_token(&token)?,
            Credentials::Password { name, password } => Login::with_password(name, password),
        });
        let session = Session { client: connect(&options, &login)?, login, options };
        if matches!(session.options.credentials, Credentials::Password { .. }) {
            let again = session.login.again(&session.client, None);
            session.call(async { again.await.map(Response::new) }).await.map_err(|failure| {
                // As etcd's client, which could not be made then.
                Failure::connection(failure.text)
            })?;
        }
        Ok(session)
    }

    /// Gets a token that is newer than what the requests so far carried. Without a password there is none to get, and
    /// the answer is false.
    pub(crate) async fn log_in_again(&self) -> Result<bool, Status> {
        self.login.again(&self.client, self.login.token()).await
    }

    /// The same with a connection of its own.
    pub(crate) fn again(&self) -> Result<Session, Failure> {
        let (options, login) = (self.options.clone(), self.login.clone());
        Ok(Session { client: connect(&options, &login)?, options, login })
    }

    /// The same with another limit on how long an answer may take.
    pub(crate) fn patient(&self, time_max: Duration) -> Session {
        let mut session = self.clone();
        session.options.command_timeout = time_max;
        session
    }

    /// The same options against a single endpoint.
    pub(crate) async fn only(&self, endpoint: &str) -> Result<Session, Failure> {
        Session::open(Options { endpoints: vec![endpoint.to_owned()], ..self.options.clone() }).await
    }

    /// The given endpoints, or with `--cluster` the client URLs of all members.
    pub(crate) async fn endpoints(&self, line: &Line) -> Result<Vec<String>, Failure> {
        if !line.has("cluster") {
            return Ok(self.options.endpoints.clone());
        }
        let mut client = self.client.cluster.clone();
        let members = self.call(client.member_list(self.ask(MemberListRequest { linearizable: true }))).await;
        let members = members.map_err(|failure| {
            Failure::error(format!(
                "failed to fetch endpoints from etcd cluster member list: {}",
                failure.text
            ))
        })?;
        Ok(members.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
    }

    /// A request that carries the token.
    pub(crate) fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = self.login.token() {
            request.metadata_mut().insert(login::TOKEN, token);
        }
        request
    }

    /// Waits for an answer, at most the command timeout.
    pub(crate) async fn call<T>(
        &self,
        asked: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.options.command_timeout, asked).await {
            Ok(answer) => answer.map(Response::into_inner).map_err(|status| self.failed(&status)),
            Err(_) => Err(Failure::error(format!(
                "context deadline exceeded: no answer from {} within {} (--command-timeout)",
                self.options.endpoints.join(","),
                text::duration(self.options.command_timeout)
            ))),
        }
    }

    /// What a status means to the user; when nobody answered, each endpoint tried is named.
    pub(crate) fn failed(&self, status: &Status) -> Failure {
        if status.code() == Code::Unavailable && !status.message().starts_with("etcdserver:") {
            return Failure::error(format!(
                "context deadline exceeded: no endpoint answered ({})",
                status.message()
            ));
        }
        if status.code() == Code::Unimplemented && !status.message().starts_with("etcdserver:") {
            return Failure::error(format!(
                "{} ({}: is that a member's port for clients?)",
                status_text(status).trim_end(),
                self.options.endpoints.join(",")
            ));
        }
        Failure::error(status_text(status))
    }

    /// Asks, and prints an answer that carries nothing but its header.
    pub(crate) async fn say<T: prost::Message>(
        &self,
        name: &str,
        asked: impl Future<Output = Result<Response<T>, Status>>,
        header: impl Fn(&T) -> Option<ResponseHeader>,
        simple: impl FnOnce(Option<ResponseHeader>) -> String,
    ) -> Result<(), Failure> {
        let answer = self.call(asked).await?;
        let fields = |fields: &mut Fields, answer: &T| fields.header(header(answer).as_ref());
        self.show(name, &answer, fields, |answer| output::line(simple(header(answer))))
    }

    /// Prints an answer in the format asked for; `simple` prints lines itself.
    pub(crate) fn show<T: prost::Message>(
        &self,
        name: &str,
        answer: &T,
        fields: impl FnOnce(&mut Fields, &T),
        simple: impl FnOnce(&T),
    ) -> Result<(), Failure> {
        match self.options.format {
            Format::Simple => simple(answer),
            Format::Json => output::line(json::message(&format!("etcdserverpb.{name}"), answer)),
            Format::Fields => {
                let mut lines = Fields::default();
                fields(&mut lines, answer);
                output::raw(lines.text.as_bytes());
            }
            Format::Protobuf => output::raw(&answer.encode_to_vec()),
            Format::Table => return Err(Format::Table.unsupported()),
        }
        Ok(())
    }
}
