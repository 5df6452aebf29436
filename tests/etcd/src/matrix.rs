//! Who may call what: a table with a row per RPC, and the users that it speaks of.
//!
//! A row is `METHOD REQUEST | WHO`, where WHO are the callers that are not refused for who they are: `nobody` (no token),
//! `stranger` (no role), `reader` (may read the key k), `writer` (may write it), `both`, `root`. Whoever is not named
//! must be refused with etcd's text for it. The rows run in order, with authentication on.
//! Invariant: an RPC without a row fails the test, so a new one is denied until somebody decided.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use tonic::Status;
use wire::{authpb, etcdserverpb as pb};

use crate::{
    call, json,
    script::{holds_for, login},
    target::Target,
};

const CALLERS: &[&str] = &["nobody", "stranger", "reader", "writer", "both", "root"];
/// Packages whose services clients call.
const PACKAGES: &[&str] = &["etcdserverpb", "v3lockpb", "v3electionpb", "grpc.health.v1"];

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

/// Makes the users, runs all rows, and switches authentication off again.
pub async fn run(target: &Target, table: &str) -> Result<Vec<String>> {
    let pool = call::pool()?;
    let base = target.clear().await?;
    let rows = rows(table)?;
    prepare(target).await?;
    let mut failures = Vec::new();
    for row in &rows {
        if !holds_for(row.condition, target)? {
            continue;
        }
        let method = call::method(&pool, row.method)?;
        for caller in CALLERS {
            // Rows change the users' revision, which makes tokens old.
            let metadata = login(target, caller).await.with_context(|| format!("{}: login", row.method))?;
            let request = json::request(row.request, method.input(), base)?;
            let answer = call::one(&target.transport, &method, request, &metadata);
            // A stream that was let through and has nothing to say yet is silent.
            let answer = tokio::time::timeout(std::time::Duration::from_secs(2), answer).await;
            let answer = match answer {
                Err(_) => Err(Status::deadline_exceeded("no answer came")),
                // A watch is refused in an answer.
                Ok(Ok(message)) => match json::answer(&message, base)?.get("cancel_reason") {
                    Some(reason)
                        if reason.as_str().is_some_and(|text| text.contains("permission denied")) =>
                    {
                        Err(Status::permission_denied("etcdserver: permission denied"))
                    }
                    Some(reason)
                        if reason.as_str().is_some_and(|text| text.contains("user name is empty")) =>
                    {
                        Err(Status::invalid_argument("etcdserver: user name is empty"))
                    }
                    _ => Ok(()),
                },
                Ok(Err(status)) => Err(status),
            };
            let problem = match (row.allowed.contains(caller), answer) {
                (true, Err(status)) if is_denial(&status) => Some(status.message().to_owned()),
                (false, Ok(())) => Some("was let through".to_owned()),
                (false, Err(status)) if !is_denial(&status) => {
                    Some(format!("came as far as {:?}: {}", status.code(), status.message()))
                }
                (true, _) | (false, Err(_)) => None,
            };
            failures
                .extend(problem.map(|text| format!("{} {} as {caller}: {text}", row.method, row.request)));
        }
    }
    Ok(failures)
}

fn is_denial(status: &Status) -> bool {
    ["etcdserver: permission denied", "etcdserver: user name is empty"].contains(&status.message())
}

/// The key k on the lease 7, the users, and authentication.
async fn prepare(target: &Target) -> Result<()> {
    let mut auth = target.client.auth.clone();
    target.client.lease.clone().lease_grant(pb::LeaseGrantRequest { ttl: 1000, id: 7 }).await?;
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), lease: 7, ..Default::default() };
    target.client.kv.clone().put(put).await?;
    for (role, kind) in [("reader", 0), ("writer", 1), ("both", 2)] {
        auth.role_add(pb::AuthRoleAddRequest { name: role.into() }).await?;
        // From k up to l, so that locks and elections below k/ are in it.
        let perm = authpb::Permission { perm_type: kind, key: "k".into(), range_end: "l".into() };
        auth.role_grant_permission(pb::AuthRoleGrantPermissionRequest {
            name: role.into(),
            perm: Some(perm),
        })
        .await?;
    }
    auth.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await?;
    for user in &CALLERS[1..] {
        let (name, password) = ((*user).to_owned(), (*user).to_owned());
        auth.user_add(pb::AuthUserAddRequest { name, password, ..Default::default() }).await?;
        if *user != "stranger" {
            let grant = pb::AuthUserGrantRoleRequest { user: (*user).to_owned(), role: (*user).to_owned() };
            auth.user_grant_role(grant).await?;
        }
    }
    auth.auth_enable(pb::AuthEnableRequest {}).await?;
    Ok(())
}
