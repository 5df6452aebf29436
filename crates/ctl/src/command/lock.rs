//! `lock` and `elect`: a lease is held as long as the lock or the leadership, and given back at the end.
//!
//! Both end on SIGINT and SIGTERM. `lock` with a command runs it while holding the lock and ends with its exit code.
//! A request that met a broken connection is sent again: with the same lease it asks for the same place in the queue.

use std::{os::unix::process::ExitStatusExt as _, process::Stdio, time::Duration};

use bytes::Bytes;
use tokio::process::Command as Process;
use tokio_stream::StreamExt;
use tonic::{Code, Response, Status};
use wire::{
    etcdserverpb::{RangeRequest, RangeResponse},
    mvccpb::KeyValue,
    v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ResignRequest},
    v3lockpb::{LockRequest, LockResponse, UnlockRequest},
};

use super::key::show_range;
use crate::{
    catalog::{Command, Run},
    failure::Failure,
    flags::{Line, number, switch},
    held::Held,
    login,
    session::Session,
    signals::{Ended, Signals},
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "lock",
        takes: "<lockname> [exec-command arg1 arg2 ...]",
        about: "Acquires a named lock",
        detail: "Without a command, prints the lock's key once it is held and holds it until the program is stopped.\n\
                 With one, runs it while the lock is held, with ETCD_LOCK_KEY and ETCD_LOCK_REV in its environment,\n\
                 and ends with its exit code.",
        example: "lock backup -- /usr/local/bin/backup --all\nlock mylock --ttl=30",
        flags: &[number("ttl", "10", "timeout for session, in seconds")],
        run: Run::Online(|session, line| Box::pin(lock(session, line))),
    },
    Command {
        name: "elect",
        takes: "<election-name> [proposal]",
        about: "Observes and participates in leader election",
        detail: "",
        example: "elect leader host-a\nelect leader --listen",
        flags: &[switch("listen", "observation mode").short('l')],
        run: Run::Online(|session, line| Box::pin(elect(session, line))),
    },
];

/// Of the lease behind a leadership, in seconds: the default of etcd's client.
const ELECTION_TTL_S: i64 = 60;
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// What is over soon, among the refusals that etcd gives without a code.
const PASSING: [&str; 6] = [
    "etcdserver: no leader",
    "etcdserver: leader changed",
    "etcdserver: server stopped",
    "etcdserver: request timed out",
    "etcdserver: unhealthy cluster",
    "etcdserver: too many requests",
];

/// Whether it is worth asking again.
fn passes(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Cancelled => true,
        Code::Unknown => {
            let message = status.message();
            !message.starts_with("etcdserver: ") || PASSING.iter().any(|text| message.starts_with(text))
        }
        _ => false,
    }
}

/// Asks until a member has answered, the lease is lost or a signal came (then nothing is answered).
async fn ask_while<T>(
    session: &Session,
    held: &mut Held,
    signals: &mut Signals,
    lost: &str,
    ask: impl AsyncFn() -> Result<Response<T>, Status>,
) -> Result<Option<T>, Failure> {
    let answered = async {
        loop {
            match ask().await {
                Err(status) if passes(&status) => tokio::time::sleep(RETRY_INTERVAL).await,
                answer => return answer,
            }
        }
    };
    tokio::select! {
        answer = answered => Ok(Some(answer.map_err(|status| session.failed(&status))?.into_inner())),
        () = held.lost() => Err(Failure::error(lost)),
        _ = signals.next() => Ok(None),
    }
}

async fn lock(session: &Session, line: &Line) -> Result<(), Failure> {
    let Some((name, command)) = line.words.split_first() else {
        return Err(Failure::arguments("lock takes a lock name argument and an optional command to execute"));
    };
    let mut signals = Signals::catch();
    let mut held = Held::new(session, line.number("ttl")).await?;
    let request = LockRequest { name: Bytes::from(name.clone()), lease: held.id };
    let ask = async || session.client.lock.clone().lock(session.ask(request.clone())).await;
    let result = match ask_while(session, &mut held, &mut signals, "session expired", ask).await {
        Ok(Some(locked)) => {
            let result = use_lock(session, &mut held, &mut signals, &locked, command).await;
            let unlock = UnlockRequest { key: locked.key };
            let _ = session.call(session.client.lock.clone().unlock(session.ask(unlock))).await;
            result
        }
        // As etcd's client, whose wait was ended.
        Ok(None) => Err(Failure::error("context canceled")),
        Err(failure) => Err(failure),
    };
    held.release(session).await;
    result
}

async fn use_lock(
    session: &Session,
    held: &mut Held,
    signals: &mut Signals,
    locked: &LockResponse,
    command: &[String],
) -> Result<(), Failure> {
    if let Some((program, arguments)) = command.split_first() {
        let revision = locked.header.as_ref().map_or(0, |header| header.revision);
        let mut process = Process::new(program);
        process
            .args(arguments)
            .env("ETCD_LOCK_KEY", String::from_utf8_lossy(&locked.key).into_owned())
            .env("ETCD_LOCK_REV", revision.to_string());
        return run(process, program, signals).await;
    }
    let shown = show_key(session, &locked.key).await?;
    if shown.kvs.is_empty() {
        return Err(Failure::error("lock lost on init"));
    }
    tokio::select! {
        _ = signals.next() => Ok(()),
        () = held.lost() => Err(Failure::error("session expired")),
    }
}

/// Runs a program to its end. What would end this one is passed on, so that the lock is not left behind.
async fn run(mut process: Process, program: &str, signals: &mut Signals) -> Result<(), Failure> {
    let started = process.stdin(Stdio::null()).spawn();
    let mut child = started.map_err(|error| Failure::error(format!("exec: {program:?}: {error}")))?;
    let status = loop {
        let ended = tokio::select! {
            status = child.wait() => break status,
            ended = signals.next() => ended,
        };
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let (Ended::Terminate, Some(pid)) = (ended, pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    };
    let status = status.map_err(|error| Failure::error(format!("exec: {program:?}: {error}")))?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => {
            Err(Failure { code: u8::try_from(code).unwrap_or(u8::MAX), text: format!("exit status {code}") })
        }
        (None, signal) => Err(Failure {
            code: u8::MAX,
            text: format!("signal: {}", signal.map_or_else(|| "unknown".to_owned(), signal_name)),
        }),
    }
}

/// What Go calls the usual ones.
fn signal_name(number: i32) -> String {
    match rustix::process::Signal::from_named_raw(number) {
        Some(rustix::process::Signal::TERM) => "terminated".to_owned(),
        Some(rustix::process::Signal::INT) => "interrupt".to_owned(),
        Some(rustix::process::Signal::KILL) => "killed".to_owned(),
        _ => number.to_string(),
    }
}

/// Prints what is stored under a key of ours.
async fn show_key(session: &Session, key: &Bytes) -> Result<RangeResponse, Failure> {
    let request = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    let answer = session.call(session.client.kv.clone().range(session.ask(request))).await?;
    show_range(session, &answer, false)?;
    Ok(answer)
}

async fn elect(session: &Session, line: &Line) -> Result<(), Failure> {
    match (line.words.as_slice(), line.has("listen")) {
        ([name], true) => observe(session, name).await,
        ([_], false) => Err(Failure::arguments("no proposal argument but -l not set")),
        ([_, _], true) => Err(Failure::arguments("proposal given but -l is set")),
        ([name, proposal], false) => campaign(session, name, proposal).await,
        _ => Err(Failure::arguments(
            "elect takes one election name argument and an optional proposal argument",
        )),
    }
}

/// Prints each leader once, over lost connections too.
async fn observe(session: &Session, name: &str) -> Result<(), Failure> {
    let mut signals = Signals::catch();
    let mut shown = KeyValue::default();
    let mut logins = 0;
    loop {
        let request = LeaderRequest { name: Bytes::from(name.to_owned()) };
        let watched = async {
            let mut client = session.client.election.clone();
            let mut answers = client.observe(session.ask(request)).await?.into_inner();
            while let Some(answer) = answers.next().await {
                let answer = answer?;
                logins = 0;
                let leader = answer.kv.unwrap_or_default();
                if (&leader.key, leader.mod_revision) != (&shown.key, shown.mod_revision) {
                    shown = leader.clone();
                    let answer = RangeResponse {
                        header: answer.header,
                        kvs: vec![leader],
                        count: 1,
                        ..RangeResponse::default()
                    };
                    let _ = show_range(session, &answer, false);
                }
            }
            Ok(())
        };
        let ended: Result<(), Status> = tokio::select! {
            ended = watched => ended,
            _ = signals.next() => return Ok(()),
        };
        match ended {
            Err(status) if passes(&status) => {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Err(status) if login::is_stale(&status) && logins < login::ATTEMPTS_MAX => {
                logins += 1;
                let logged_in = session.log_in_again().await.map_err(|status| session.failed(&status))?;
                if !logged_in {
                    return Err(session.failed(&status));
                }
                // Members that are behind may not know the new token yet.
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Err(status) => return Err(session.failed(&status)),
            Ok(()) => return Err(Failure::error("elect: observer lost")),
        }
    }
}

async fn campaign(session: &Session, name: &str, proposal: &str) -> Result<(), Failure> {
    let mut signals = Signals::catch();
    let mut held = Held::new(session, ELECTION_TTL_S).await?;
    let request = CampaignRequest {
        name: Bytes::from(name.to_owned()),
        lease: held.id,
        value: Bytes::from(proposal.to_owned()),
    };
    let ask = async || session.client.election.clone().campaign(session.ask(request.clone())).await;
    let result = match ask_while(session, &mut held, &mut signals, "elect: session expired", ask).await {
        Ok(Some(won)) => lead(session, &mut held, &mut signals, won.leader.unwrap_or_default()).await,
        Ok(None) => Err(Failure::error("context canceled")),
        Err(failure) => Err(failure),
    };
    held.release(session).await;
    result
}

async fn lead(
    session: &Session,
    held: &mut Held,
    signals: &mut Signals,
    leader: LeaderKey,
) -> Result<(), Failure> {
    show_key(session, &leader.key).await?;
    tokio::select! {
        _ = signals.next() => {}
        () = held.lost() => return Err(Failure::error("elect: session expired")),
    }
    let request = ResignRequest { leader: Some(leader) };
    let _ = session.call(session.client.election.clone().resign(session.ask(request))).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_without_a_code_is_judged_by_its_text() {
        for (text, is_passing) in [
            ("etcdserver: permission denied", false),
            ("etcdserver: mvcc: database space exceeded", false),
            ("etcdserver: request timed out, possibly due to connection lost", true),
            ("etcdserver: no leader", true),
            ("transport error", true),
        ] {
            assert_eq!(passes(&Status::unknown(text)), is_passing, "{text}");
        }
        assert!(!passes(&Status::permission_denied("no")));
    }
}
