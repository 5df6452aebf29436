//! One run's options and its way to the cluster: endpoints, TLS, token, deadline, output format.
//!
//! Options come from flags, then from `ETCDCTL_*` variables. A request is sent once; when nobody answers, the
//! failure names each endpoint that was tried. Not here: what is asked.

use std::{future::Future, time::Duration};

use tonic::{Code, Request, Response, Status, metadata::MetadataValue};
use wire::{
    Client, ClientTls, Transport,
    etcdserverpb::{AuthenticateRequest, MemberListRequest},
};

use crate::{
    failure::{Failure, status_text},
    fields::Fields,
    flags::{Line, parse_switch},
    json, output, text,
};

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Json,
    Fields,
    Table,
}

/// Options that every command has.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) endpoints: Vec<String>,
    pub(crate) format: Format,
    pub(crate) hex: bool,
    pub(crate) command_timeout: Duration,
    dial_timeout: Duration,
    tls: Option<ClientTls>,
    /// Name and password; the password is never printed.
    user: Option<(String, String)>,
}

fn option(line: &Line, name: &str) -> Option<String> {
    let variable = format!("ETCDCTL_{}", name.to_uppercase().replace('-', "_"));
    line.text(name)
        .map(str::to_owned)
        .or_else(|| std::env::var(variable).ok().filter(|text| !text.is_empty()))
}

impl Options {
    pub(crate) fn read(line: &Line) -> Result<Options, Failure> {
        let format = match option(line, "write-out").as_deref() {
            None | Some("simple") => Format::Simple,
            Some("json") => Format::Json,
            Some("fields") => Format::Fields,
            Some("table") => Format::Table,
            Some(_) => return Err(Failure::feature("unsupported output format")),
        };
        let duration = |name: &str, default_s: u64| match option(line, name) {
            None => Ok(Duration::from_secs(default_s)),
            Some(given) => text::parse_duration(&given).ok_or_else(|| {
                Failure::error(format!(
                    "invalid argument {given:?} for \"--{name}\" flag: time: invalid duration {given:?}"
                ))
            }),
        };
        let endpoints = option(line, "endpoints").unwrap_or_else(|| "127.0.0.1:2379".to_owned());
        let endpoints: Vec<String> =
            endpoints.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect();
        Ok(Options {
            format,
            hex: switch(line, "hex"),
            command_timeout: duration("command-timeout", 5)?,
            dial_timeout: duration("dial-timeout", 2)?,
            tls: tls(line, &endpoints)?,
            user: user(line)?,
            endpoints,
        })
    }
}

fn switch(line: &Line, name: &str) -> bool {
    option(line, name).and_then(|text| parse_switch(&text)).unwrap_or(false)
}

fn tls(line: &Line, endpoints: &[String]) -> Result<Option<ClientTls>, Failure> {
    let read = |name: &str| {
        option(line, name)
            .map(|path| {
                std::fs::read(&path).map_err(|error| {
                    Failure::arguments(match error.kind() {
                        std::io::ErrorKind::NotFound => format!("open {path}: no such file or directory"),
                        std::io::ErrorKind::PermissionDenied => format!("open {path}: permission denied"),
                        _ => format!("open {path}: {error}"),
                    })
                })
            })
            .transpose()
    };
    let tls = ClientTls {
        ca_pem: read("cacert")?,
        cert_pem: read("cert")?,
        key_pem: read("key")?,
        server_name: None,
        skip_verify: switch(line, "insecure-skip-tls-verify"),
    };
    let secure = endpoints
        .iter()
        .any(|endpoint| ["https://", "unixs://"].iter().any(|scheme| endpoint.starts_with(scheme)));
    let given = tls.ca_pem.is_some() || tls.cert_pem.is_some() || tls.key_pem.is_some() || tls.skip_verify;
    Ok((given || secure).then_some(tls))
}

fn user(line: &Line) -> Result<Option<(String, String)>, Failure> {
    let Some(user) = option(line, "user") else { return Ok(None) };
    if let Some(password) = option(line, "password") {
        return Ok(Some((user, password)));
    }
    if let Some((name, password)) = user.split_once(':') {
        return Ok(Some((name.to_owned(), password.to_owned())));
    }
    output::raw(b"Password: ");
    Ok(Some((user, read_line()?)))
}

/// One line of standard input without its end.
pub(crate) fn read_line() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().read_line(&mut text).map_err(|error| Failure::arguments(error.to_string()))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Options and a client for their endpoints.
pub(crate) struct Session {
    pub(crate) options: Options,
    pub(crate) client: Client,
    token: Option<MetadataValue<tonic::metadata::Ascii>>,
}

impl Session {
    /// Prepares the client; only with `--user` does this already talk to a member.
    pub(crate) async fn open(options: Options) -> Result<Session, Failure> {
        let transport = Transport::connect(&options.endpoints, options.tls.clone(), options.dial_timeout)
            .map_err(|error| Failure::arguments(error.to_string()))?;
        let mut session = Session { client: Client::new(transport), token: None, options };
        let Some((name, password)) = session.options.user.clone() else { return Ok(session) };
        let mut client = session.client.auth.clone();
        let asked = client.authenticate(AuthenticateRequest { name, password });
        match session.call(asked).await {
            Ok(answer) => {
                let token = answer.token.parse();
                session.token =
                    Some(token.map_err(|_| Failure::connection("the server gave a malformed token"))?);
            }
            // etcd's client goes on without a token then.
            Err(failure) if failure.text.contains("authentication is not enabled") => {}
            Err(failure) => return Err(Failure::connection(failure.text)),
        }
        Ok(session)
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
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
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
            Err(_) => Err(Failure::error("context deadline exceeded")),
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
        Failure::error(status_text(status))
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
            Format::Table => return Err(Failure::table_unsupported()),
        }
        Ok(())
    }
}
