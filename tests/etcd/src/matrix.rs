//! Who may call what: a table with a row per RPC, and the users that it speaks of.
//!
//! A row is `METHOD REQUEST | WHO`, where WHO are the callers that are not refused for who they are: `nobody` (no token),
//! `stranger` (no role), `reader` (may read the key k), `writer` (may write it), `both`, `root`. Whoever is not named
//! must be refused with etcd's text for it; so must `forged`, whose token nobody gave him, and `elsewhere`, who has all
//! rights on other keys. The rows run in order, with authentication on, through gRPC and through the JSON gateway.
//! Meanwhile the members say all that they can say, and no password and no token may be in it.
//! Invariant: an RPC without a row fails the test, so a new one is denied until somebody decided.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use wire::{authpb, etcdserverpb as pb};

use crate::{
    call, http, json,
    script::{holds_for, login},
    target::Target,
};

/// Each with the one as whom the rows judge him.
const CALLERS: &[(&str, &str)] = &[
    ("nobody", "nobody"),
    ("forged", "forged"),
    ("stranger", "stranger"),
    ("elsewhere", "stranger"),
    ("reader", "reader"),
    ("writer", "writer"),
    ("both", "both"),
    ("root", "root"),
];
const USERS: &[&str] = &["stranger", "elsewhere", "reader", "writer", "both", "root"];
/// Has the form of a token, and names a place in the log that is there.
const FORGED: &str = "ZYXWVUTSRQPONMLKJIHGFEDC.1";
/// In every password, also in those of the rows, and in nothing else.
const CANARY: &str = "canary";
/// A stream that was let through and has nothing to say yet is silent.
const SILENCE: Duration = Duration::from_secs(2);
/// Packages whose services clients call.
const PACKAGES: &[&str] = &["etcdserverpb", "v3lockpb", "v3electionpb", "grpc.health.v1"];

fn password(user: &str) -> String {
    format!("{CANARY}-of-{user}")
}

struct Row<'a> {
    method: &'a str,
    request: &'a str,
    allowed: Vec<&'a str>,
    condition: &'a str,
}

fn rows(table: &str) -> Result<Vec<Row<'_>>> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (call, rest) = line.rsplit_once('|').with_context(|| format!("no `|` in {line:?}"))?;
            let (method, request) = call.trim().split_once(' ').unwrap_or((call.trim(), ""));
            let (allowed, condition) = match rest.find('{') {
                Some(position) => rest.split_at(position),
                None => (rest, ""),
            };
            let allowed = allowed.split_whitespace().collect();
            Ok(Row { method, request: request.trim(), allowed, condition })
        })
        .collect()
}

/// RPCs of the API that the table does not mention.
pub fn unlisted(table: &str) -> Result<BTreeSet<String>> {
    let pool = call::pool()?;
    let mut methods = BTreeSet::new();
    for service in pool.services() {
        if PACKAGES.contains(&service.package_name()) {
            methods.extend(service.methods().map(|method| method.full_name().to_owned()));
        }
    }
    for row in rows(table)? {
        methods.remove(call::method(&pool, row.method)?.full_name());
    }
    Ok(methods)
}

/// Routes of the gateway, each with the RPC behind it, as the gateway's own table has them.
fn routes() -> Vec<(&'static str, &'static str)> {
    let table = include_str!("../../../crates/store/src/http/gateway.rs");
    let table =
        table.split_once("const ROUTES").and_then(|(_, rest)| rest.split_once("];")).map(|(rows, _)| rows);
    let row = |line: &'static str| {
        let (route, method) = line.trim().strip_prefix("(\"")?.split_once("\", \"")?;
        Some((route, method.strip_suffix("\"),")?))
    };
    table.unwrap_or_default().lines().filter_map(row).collect()
}

/// RPCs that the gateway does not offer, and why.
const WITHOUT_ROUTE: &[(&str, &str)] = &[
    ("etcdserverpb.KV.RangeStream", "etcd 3.7 gives it none either"),
    ("grpc.health.v1.Health.Check", "over HTTP health is /health"),
    ("grpc.health.v1.Health.Watch", "over HTTP health is /health"),
];

/// RPCs without a route that nobody decided on, and routes to no RPC.
pub fn unrouted() -> Result<BTreeSet<String>> {
    let pool = call::pool()?;
    let mut wrong = unlisted("")?;
    for (route, target) in routes() {
        let known = call::method(&pool, target).map(|method| wrong.remove(method.full_name()));
        if known.is_err() {
            wrong.insert(route.to_owned());
        }
    }
    for (method, _) in WITHOUT_ROUTE {
        if !wrong.remove(*method) {
            wrong.insert(format!("{method} has a route"));
        }
    }
    Ok(wrong)
}

/// Makes the users, runs all rows as everybody, and looks for what was secret in what the members have written. Through
/// the gateway the same must come of it as through gRPC, and an RPC with two routes is asked through both.
pub async fn run(target: &Target, table: &str) -> Result<Vec<String>> {
    let mut matrix = Matrix::prepare(target).await?;
    let mut secrets = vec![CANARY.to_owned(), FORGED.to_owned()];
    for row in rows(table)?.iter().filter(|row| holds_for(row.condition, target).unwrap_or(true)) {
        for (caller, judged_as) in CALLERS {
            // Rows change the users' revision, which makes tokens old.
            let metadata = match *caller {
                "forged" => vec![("token", FORGED.to_owned())],
                caller => login(target, caller, &password(caller))
                    .await
                    .with_context(|| format!("{}: login", row.method))?,
            };
            secrets.extend(metadata.iter().map(|(_, token)| token.clone()));
            matrix.ask_all(&Question { row, caller, judged_as, metadata: &metadata }).await?;
        }
    }
    if target.is_ours {
        matrix.failures.extend(leaked(target, &secrets)?);
    }
    Ok(matrix.failures)
}

/// All rows as the user whom the target's client certificate names. The gateway must not take a certificate for a
/// user: it is the member's own, or that of a proxy.
pub async fn run_certified(target: &Target, table: &str, user: &str) -> Result<Vec<String>> {
    let mut matrix = Matrix::prepare(target).await?;
    for row in rows(table)?.iter().filter(|row| holds_for(row.condition, target).unwrap_or(true)) {
        let question = Question { row, caller: "certificate", judged_as: user, metadata: &[] };
        matrix.ask(&question).await?;
        matrix.ask_gateway(&Question { judged_as: "proxied", ..question }).await?;
    }
    Ok(matrix.failures)
}

/// Which of these are in a member's log.
fn leaked(target: &Target, secrets: &[String]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for number in 0..target.cluster.size() {
        let log = std::fs::read_to_string(target.cluster.log(number))?;
        // The log of somebody who says nothing would prove nothing.
        ensure!(log.lines().count() > 10, "m{} has hardly written anything", number + 1);
        // Behind the dot of a token is a place in the log, which is no secret.
        let secret = |secret: &String| secret.split('.').next().unwrap_or_default().to_owned();
        let told = secrets.iter().map(secret).filter(|secret| log.contains(secret));
        found.extend(told.map(|secret| format!("{secret} is in the log of m{}", number + 1)));
    }
    Ok(found)
}

struct Matrix<'a> {
    target: &'a Target,
    pool: DescriptorPool,
    base: i64,
    failures: Vec<String>,
}

/// One row, asked by one caller.
#[derive(Clone, Copy)]
struct Question<'a> {
    row: &'a Row<'a>,
    caller: &'a str,
    judged_as: &'a str,
    metadata: &'a [(&'static str, String)],
}

impl Matrix<'_> {
    async fn prepare(target: &Target) -> Result<Matrix<'_>> {
        let (pool, base) = (call::pool()?, target.clear().await?);
        prepare(target).await?;
        Ok(Matrix { target, pool, base, failures: Vec::new() })
    }

    async fn ask_all(&mut self, question: &Question<'_>) -> Result<()> {
        self.ask(question).await?;
        if self.target.is_ours {
            self.ask_gateway(question).await?;
        }
        Ok(())
    }

    /// The RPC of a row, and its request.
    fn call(&self, row: &Row<'_>) -> Result<(MethodDescriptor, DynamicMessage)> {
        let method = call::method(&self.pool, row.method)?;
        let request = json::request(row.request, method.input(), self.base)?;
        Ok((method, request))
    }

    async fn ask(&mut self, question: &Question<'_>) -> Result<()> {
        let (method, request) = self.call(question.row)?;
        let answer = call::one(&self.target.transport, &method, request, question.metadata);
        let text = match tokio::time::timeout(SILENCE, answer).await {
            Err(_) => None,
            // A watch is refused in an answer.
            Ok(Ok(message)) => {
                let answer = json::answer(&message, self.base)?;
                let reason =
                    answer.get("cancel_reason").and_then(|reason| reason.as_str()).unwrap_or_default();
                Some(format!("{reason:?}"))
            }
            Ok(Err(status)) => Some(format!("{:?}: {}", status.code(), status.message())),
        };
        self.judge(question, "gRPC", text);
        Ok(())
    }

    async fn ask_gateway(&mut self, question: &Question<'_>) -> Result<()> {
        let (method, request) = self.call(question.row)?;
        let body = serde_json::to_string(&request)?;
        let full = format!("{}/{}", method.parent_service().full_name(), method.name());
        for (route, _) in routes().iter().filter(|(_, behind)| *behind == full) {
            let line = format!("POST /v3/{route} {body}");
            let target = self.target;
            let answer = http::ask(&target.url, target.tls.as_ref(), &line, question.metadata, true);
            let text = match tokio::time::timeout(SILENCE, answer).await {
                Err(_) => None,
                Ok(answer) => Some(answer?.to_string()),
            };
            self.judge(question, route, text);
        }
        Ok(())
    }

    /// `answer`: `None` if none came in time.
    fn judge(&mut self, question: &Question<'_>, through: &str, answer: Option<String>) {
        let Question { row, caller, judged_as, .. } = *question;
        let denied = answer.as_ref().is_some_and(|answer| is_denied(judged_as, answer));
        // With a token that is none even what is for everybody may be refused.
        let open = judged_as == "forged" && row.allowed.contains(&"nobody");
        let problem = match (row.allowed.contains(&judged_as), denied) {
            _ if open => return,
            (true, true) => "was refused".to_owned(),
            (false, false) => format!("came as far as {}", answer.as_deref().unwrap_or("silence")),
            (true, false) | (false, true) => return,
        };
        self.failures
            .push(format!("{} {} as {caller} through {through}: {problem}", row.method, row.request));
    }
}

/// Whether it was refused for who the caller is.
fn is_denied(judged_as: &str, answer: &str) -> bool {
    let denials: &[&str] = match judged_as {
        // etcd 3.5 has the latter for watches.
        "forged" => &["etcdserver: invalid auth token", "etcdserver: permission denied"],
        "proxied" => &["CommonName of client sending a request against gateway will be ignored"],
        _ => &["etcdserver: permission denied", "etcdserver: user name is empty"],
    };
    denials.iter().any(|text| answer.contains(text))
}

/// The key k on the lease 7, the users, and authentication.
async fn prepare(target: &Target) -> Result<()> {
    let mut auth = target.client.auth.clone();
    target.client.lease.clone().lease_grant(pb::LeaseGrantRequest { ttl: 1000, id: 7 }).await?;
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), lease: 7, ..Default::default() };
    target.client.kv.clone().put(put).await?;
    for (role, kind, first, end) in
        [("reader", 0, "k", "l"), ("writer", 1, "k", "l"), ("both", 2, "k", "l"), ("elsewhere", 2, "l", "o")]
    {
        auth.role_add(pb::AuthRoleAddRequest { name: role.into() }).await?;
        // From k up to l, so that locks and elections below k/ are in it.
        let perm = authpb::Permission { perm_type: kind, key: first.into(), range_end: end.into() };
        auth.role_grant_permission(pb::AuthRoleGrantPermissionRequest {
            name: role.into(),
            perm: Some(perm),
        })
        .await?;
    }
    auth.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await?;
    for user in USERS {
        let (name, password) = ((*user).to_owned(), password(user));
        auth.user_add(pb::AuthUserAddRequest { name, password, ..Default::default() }).await?;
        if *user != "stranger" {
            let grant = pb::AuthUserGrantRoleRequest { user: (*user).to_owned(), role: (*user).to_owned() };
            auth.user_grant_role(grant).await?;
        }
    }
    auth.auth_enable(pb::AuthEnableRequest {}).await?;
    Ok(())
}
