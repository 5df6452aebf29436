//! `lock` and `elect`: a lease is kept alive while the lock or the leadership is held, and revoked at the end.
//!
//! Both end on an interrupt. `lock` with a command runs it while holding the lock.

use std::{process::Command, time::Duration};

use bytes::Bytes;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use wire::{
    etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest},
    v3electionpb::{CampaignRequest, LeaderRequest, ResignRequest},
    v3lockpb::{LockRequest, UnlockRequest},
};

use super::key::print_key_value;
use crate::{failure::Failure, flags::Line, output, session::Session};

/// The default of etcdctl's `--ttl`, in seconds.
const LEASE_TTL_S: i64 = 60;

async fn lease(session: &Session, ttl: i64) -> Result<i64, Failure> {
    let mut client = session.client.lease.clone();
    let id = session.call(client.lease_grant(session.ask(LeaseGrantRequest { ttl, id: 0 }))).await?.id;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let asked = session.ask(ReceiverStream::new(receiver));
    // Ends with the program, or with the lease.
    tokio::spawn(async move {
        let every = Duration::from_millis(u64::try_from(ttl).unwrap_or(1).saturating_mul(1000) / 3);
        let _ = sender.send(LeaseKeepAliveRequest { id }).await;
        let Ok(answers) = client.lease_keep_alive(asked).await else { return };
        let mut answers = answers.into_inner();
        while let Some(Ok(answer)) = answers.next().await {
            if answer.ttl <= 0 {
                return;
            }
            tokio::time::sleep(every).await;
            if sender.send(LeaseKeepAliveRequest { id }).await.is_err() {
                return;
            }
        }
    });
    Ok(id)
}

async fn revoke(session: &Session, id: i64) {
    let mut client = session.client.lease.clone();
    let _ = session.call(client.lease_revoke(session.ask(LeaseRevokeRequest { id }))).await;
}

async fn interrupted() {
    let _ = tokio::signal::ctrl_c().await;
}

pub(crate) async fn lock(session: &Session, line: &Line) -> Result<(), Failure> {
    let Some((name, command)) = line.words.split_first() else {
        return Err(Failure::arguments(
            "lock takes one lock name argument and an optional command to execute",
        ));
    };
    let ttl = if line.given("ttl") { line.number("ttl")? } else { LEASE_TTL_S };
    let id = lease(session, ttl).await?;
    let mut client = session.client.lock.clone();
    let request = LockRequest { name: Bytes::from(name.clone()), lease: id };
    let key = tokio::select! {
        answer = client.lock(session.ask(request)) => answer.map_err(|status| session.failed(&status))?.into_inner().key,
        () = interrupted() => {
            revoke(session, id).await;
            return Ok(());
        }
    };
    let result = match command.split_first() {
        None => {
            output::line(&key);
            output::line(""); // the key's value
            interrupted().await;
            Ok(())
        }
        Some((program, arguments)) => {
            let mut process = Command::new(program);
            process.args(arguments).env("ETCD_LOCK_KEY", String::from_utf8_lossy(&key).into_owned());
            match tokio::task::spawn_blocking(move || process.status()).await {
                Ok(Ok(status)) if status.success() => Ok(()),
                Ok(Ok(status)) => Err(Failure::error(format!("exit status {}", status.code().unwrap_or(-1)))),
                Ok(Err(error)) => Err(Failure::error(format!("exec: {program:?}: {error}"))),
                Err(error) => Err(Failure::error(error.to_string())),
            }
        }
    };
    let _ = session.call(client.unlock(session.ask(UnlockRequest { key }))).await;
    revoke(session, id).await;
    result
}

pub(crate) async fn elect(session: &Session, line: &Line) -> Result<(), Failure> {
    let (name, proposal) = match line.words.as_slice() {
        [name] => (name, None),
        [name, proposal] => (name, Some(proposal)),
        _ => {
            return Err(Failure::arguments(
                "elect takes one election name argument and an optional proposal argument",
            ));
        }
    };
    match (proposal, line.has("listen")) {
        (None, true) => observe(session, name).await,
        (Some(_), true) => Err(Failure::arguments("no proposal expected")),
        (None, false) => Err(Failure::arguments("missing proposal")),
        (Some(proposal), false) => campaign(session, name, proposal).await,
    }
}

async fn observe(session: &Session, name: &str) -> Result<(), Failure> {
    let mut client = session.client.election.clone();
    let request = LeaderRequest { name: Bytes::from(name.to_owned()) };
    let answers = client.observe(session.ask(request)).await.map_err(|status| session.failed(&status))?;
    let mut answers = answers.into_inner();
    loop {
        let answer = tokio::select! {
            answer = answers.next() => answer,
            () = interrupted() => return Ok(()),
        };
        match answer {
            Some(Ok(answer)) => print_key_value(&answer.kv.unwrap_or_default(), session.options.hex, false),
            Some(Err(status)) => return Err(session.failed(&status)),
            None => return Err(Failure::error("elect: observer lost")),
        }
    }
}

async fn campaign(session: &Session, name: &str, proposal: &str) -> Result<(), Failure> {
    let id = lease(session, LEASE_TTL_S).await?;
    let mut client = session.client.election.clone();
    let (name, value) = (Bytes::from(name.to_owned()), Bytes::from(proposal.to_owned()));
    let leader = tokio::select! {
        answer = client.campaign(session.ask(CampaignRequest { name, lease: id, value })) => {
            answer.map_err(|status| session.failed(&status))?.into_inner().leader
        }
        () = interrupted() => {
            revoke(session, id).await;
            return Ok(());
        }
    };
    output::line(leader.clone().unwrap_or_default().key);
    output::line(proposal);
    interrupted().await;
    let _ = session.call(client.resign(session.ask(ResignRequest { leader }))).await;
    revoke(session, id).await;
    Ok(())
}
