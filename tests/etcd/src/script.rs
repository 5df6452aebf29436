//! Runs scripts: cases that call a cluster and say what must come back.
//!
//! ```text
//! ## title {since 3.6}        a case; it begins without keys and leases. Real etcds older than that leave it out;
//!                             `{until 3.5}` is the opposite, `{ours}` leaves all of them out, `or` and `,` combine
//! KV/Put {"key":"a"}          a call; without an expectation below it, it must succeed
//! = {"header":{"revision":1}} exactly this answer
//! ~ {"header":{}}             an answer that has at least this
//! ! NotFound: text            refused
//! open w Watch/Watch          a stream with the name w
//! w > {...}                   sends on it
//! w < {...}                   its next answer is exactly this; `w ~` at least this; `w ! Code: text` it ends
//! w * {...}                   an answer that has at least this comes, perhaps behind others
//! w silent                    no answer comes for a while
//! http POST /path BODY        answers {"status":200,"body":...}; `line POST ...` takes the first line of the body
//! as ana                      calls as this user, whose password is her name; `as nobody` ends it
//! with token junk             calls with this metadata beside what they have; `as` ends it
//! at 2                        calls this member; `at leader`, `at follower` whoever is that now
//! wait 1500                   milliseconds
//! ```
//!
//! In a line `$peer2` is the peer URL of the second member and `$member2` its id. `{"*":N,"of":X}` stands for X N times,
//! as a text or as items of a list. An expected text `"...x..."` is any that has an x in it.
//!
//! Every case is run, whichever failed before it; a failure says where it is and what came instead.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use serde_json::Value;
use tokio::task::JoinHandle;
use tonic::Status;
use wire::{Client, Transport, etcdserverpb as pb};

use crate::{
    call::{self, Call},
    http, json,
    target::Target,
};

const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Answers that `w *` passes over.
const OTHERS_MAX: usize = 200;
/// How long a stream must say nothing to be called silent.
const SILENCE: Duration = Duration::from_millis(400);

struct Case<'a> {
    title: &'a str,
    first_line: usize,
    lines: Vec<(usize, &'a str)>,
}

/// Runs all cases of a script. Gives the number of cases that ran and what failed.
pub async fn run(target: &Target, name: &str, script: &str) -> Result<(usize, Vec<String>)> {
    run_on(target, name, script, true).await
}

/// Like `run`, on a cluster that cannot be cleared before each case because nobody leads it.
pub async fn run_without_leader(target: &Target, name: &str, script: &str) -> Result<(usize, Vec<String>)> {
    run_on(target, name, script, false).await
}

async fn run_on(target: &Target, name: &str, script: &str, clears: bool) -> Result<(usize, Vec<String>)> {
    let pool = call::pool()?;
    let (mut ran, mut failures) = (0, Vec::new());
    for case in cases(script)? {
        if !holds_for(case.title, target)? {
            continue;
        }
        ran += 1;
        let result = run_case(target, &pool, &case, clears).await;
        if let Err(error) = result {
            failures.push(format!("{name}: {}\n    {error:#}", case.title));
            if clears {
                calm(target).await;
            }
        }
    }
    Ok((ran, failures))
}

fn cases(script: &str) -> Result<Vec<Case<'_>>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for (number, line) in script.lines().enumerate() {
        let (number, line) = (number + 1, line.trim());
        if let Some(title) = line.strip_prefix("## ") {
            cases.push(Case { title, first_line: number, lines: Vec::new() });
        } else if !line.is_empty() && !line.starts_with('#') {
            let case = cases.last_mut().with_context(|| format!("line {number} is in no case"))?;
            case.lines.push((number, line));
        }
    }
    Ok(cases)
}

/// Whether a case is for this cluster: `{since 3.6}`, `{until 3.5}`, `{ours}`, `{theirs}`, `{since 3.5, until 3.5}`,
/// `{since 3.7 or ours}`.
pub fn holds_for(title: &str, target: &Target) -> Result<bool> {
    let Some((_, rest)) = title.split_once('{') else { return Ok(true) };
    let mut holds = false;
    for alternative in rest.trim_end_matches('}').split(" or ") {
        let mut all = true;
        for condition in alternative.split(',') {
            let words: Vec<&str> = condition.split_whitespace().collect();
            all &= match words.as_slice() {
                ["ours"] => target.is_ours,
                ["theirs"] => !target.is_ours,
                ["since", bound] => target.version >= version(bound)?,
                ["until", bound] => target.version <= version(bound)?,
                _ => bail!("not understood: {{{rest}"),
            };
        }
        holds |= all;
    }
    Ok(holds)
}

fn version(text: &str) -> Result<(u32, u32)> {
    let (release, minor) = text.split_once('.').context("a version has two numbers")?;
    Ok((release.parse()?, minor.parse()?))
}

/// What the last call brought.
enum Outcome {
    Nothing,
    Answer(Value),
    Refused(String),
}

/// A stream that a script has opened, or a call that may take long to answer.
enum Opened {
    Not,
    Stream(Box<Call>),
    Waiting(JoinHandle<Result<DynamicMessage, Status>>),
}

struct Run<'a> {
    target: &'a Target,
    pool: &'a DescriptorPool,
    base: i64,
    transport: Transport,
    url: String,
    metadata: Vec<(&'static str, String)>,
    streams: HashMap<String, (MethodDescriptor, Opened)>,
}

async fn run_case(target: &Target, pool: &DescriptorPool, case: &Case<'_>, clears: bool) -> Result<()> {
    let base = match clears {
        true => target.clear().await.with_context(|| format!("line {}: clearing", case.first_line))?,
        false => 0,
    };
    let (transport, url, metadata) = (target.transport.clone(), target.url.clone(), target.metadata());
    let mut run = Run { target, pool, base, transport, url, metadata, streams: HashMap::new() };
    let mut last = Outcome::Nothing;
    for (number, line) in &case.lines {
        let at = || format!("line {number}: {line}");
        let line = run.fill_in(line).await.with_context(at)?;
        let expectation = line.get(..2).filter(|start| ["= ", "~ ", "! "].contains(start));
        if let Some(kind) = expectation {
            let outcome = std::mem::replace(&mut last, Outcome::Nothing);
            compare(&outcome, kind.trim(), line[2..].trim()).with_context(at)?;
            continue;
        }
        if let Outcome::Refused(status) = &last {
            bail!("before line {number}: refused with {status}");
        }
        last = tokio::time::timeout(3 * ANSWER_TIME_MAX, run.line(&line))
            .await
            .map_err(anyhow::Error::from)
            .and_then(|result| result)
            .with_context(at)?;
    }
    if let Outcome::Refused(status) = &last {
        bail!("at the end: refused with {status}");
    }
    Ok(())
}

fn compare(outcome: &Outcome, kind: &str, expected: &str) -> Result<()> {
    match (outcome, kind) {
        (Outcome::Nothing, _) => bail!("there is no answer to compare"),
        (Outcome::Refused(status), "!") => ensure!(status == expected, "refused with {status}"),
        (Outcome::Refused(status), _) => bail!("refused with {status}"),
        (Outcome::Answer(answer), "!") => bail!("answered {answer}"),
        (Outcome::Answer(answer), kind) => {
            let expected: Value = serde_json::from_str(expected).context("the expectation is not JSON")?;
            let equal = if kind == "=" { *answer == expected } else { json::contains(answer, &expected) };
            ensure!(equal, "answered {answer}");
        }
    }
    Ok(())
}

pub(crate) fn refusal(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

impl Run<'_> {
    /// Puts in the ids and addresses of members.
    async fn fill_in(&self, line: &str) -> Result<String> {
        let mut line = line.to_owned();
        let peer_urls = self.target.peer_urls();
        for (at, url) in peer_urls.iter().enumerate() {
            line = line.replace(&format!("$peer{}", at + 1), url);
        }
        if line.contains("$member") {
            let request = with_metadata(pb::MemberListRequest { linearizable: false }, &self.metadata)?;
            let list = Client::new(self.transport.clone()).cluster.member_list(request).await?.into_inner();
            for (at, url) in peer_urls.iter().enumerate() {
                let found = list.members.iter().find(|member| member.peer_ur_ls.contains(url));
                let id = found.map_or(0, |member| member.id);
                line = line.replace(&format!("$member{}", at + 1), &id.to_string());
            }
        }
        Ok(line)
    }

    async fn line(&mut self, line: &str) -> Result<Outcome> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "wait" => {
                tokio::time::sleep(Duration::from_millis(rest.parse()?)).await;
                Ok(Outcome::Nothing)
            }
            "as" => {
                self.metadata = login(self.target, rest, rest).await?;
                Ok(Outcome::Nothing)
            }
            "with" => {
                let (name, value) = rest.split_once(' ').context("with NAME VALUE")?;
                let name = ["token", "hasleader"].into_iter().find(|known| *known == name);
                self.metadata.push((name.context("not a name that etcd knows")?, value.to_owned()));
                Ok(Outcome::Nothing)
            }
            "at" => {
                let leader = || self.target.leader();
                let number = match rest {
                    "leader" => leader().await?,
                    "follower" if leader().await? == 1 => 2,
                    "follower" => 1,
                    number => number.parse()?,
                };
                self.transport = self.target.member(number)?;
                self.url = self.target.cluster.client_urls[number - 1].clone();
                Ok(Outcome::Nothing)
            }
            "open" => {
                let (name, method) = rest.split_once(' ').context("open NAME METHOD")?;
                let method = call::method(self.pool, method.trim())?;
                self.streams.insert(name.to_owned(), (method, Opened::Not));
                Ok(Outcome::Nothing)
            }
            "http" | "line" => {
                let tls = self.target.tls.as_ref();
                let answer = http::ask(&self.url, tls, rest, &self.metadata, word == "line").await?;
                Ok(Outcome::Answer(answer))
            }
            _ if word.contains('/') => {
                let method = call::method(self.pool, word)?;
                let request = json::request(rest, method.input(), self.base)?;
                match call::one(&self.transport, &method, request, &self.metadata).await {
                    Ok(answer) => Ok(Outcome::Answer(json::answer(&answer, self.base)?)),
                    Err(status) => Ok(Outcome::Refused(refusal(&status))),
                }
            }
            _ => {
                self.stream(word, rest).await?;
                Ok(Outcome::Nothing)
            }
        }
    }

    async fn stream(&mut self, name: &str, rest: &str) -> Result<()> {
        let Some(text) = rest.strip_prefix("* ") else { return self.one_of_stream(name, rest).await };
        let text = format!("~ {text}");
        let mut last = Ok(());
        let deadline = Instant::now() + ANSWER_TIME_MAX;
        for _ in 0..OTHERS_MAX {
            last = self.one_of_stream(name, &text).await;
            if last.is_ok() || Instant::now() > deadline {
                break;
            }
        }
        last
    }

    async fn one_of_stream(&mut self, name: &str, rest: &str) -> Result<()> {
        let (method, opened) = self.streams.get_mut(name).with_context(|| format!("no stream {name}"))?;
        let (sign, text) = rest.split_once(' ').unwrap_or((rest, ""));
        if sign == ">" {
            let request = json::request(text, method.input(), self.base)?;
            let (transport, metadata) = (self.transport.clone(), self.metadata.clone());
            match opened {
                Opened::Stream(call) => call.send(request).await?,
                Opened::Not if method.is_server_streaming() => {
                    let call = Call::begin(&transport, method, vec![request], &metadata).await?;
                    *opened = Opened::Stream(Box::new(call));
                }
                Opened::Not => {
                    let method = method.clone();
                    let call = async move { call::one(&transport, &method, request, &metadata).await };
                    *opened = Opened::Waiting(tokio::spawn(call));
                }
                Opened::Waiting(_) => bail!("it takes one request"),
            }
            return Ok(());
        }
        let limit = if sign == "silent" { SILENCE } else { ANSWER_TIME_MAX };
        let answer = match opened {
            Opened::Not => bail!("nothing was sent on it yet"),
            Opened::Stream(call) => tokio::time::timeout(limit, call.answers.message()).await,
            Opened::Waiting(call) => match tokio::time::timeout(limit, &mut *call).await {
                Ok(answer) => {
                    *opened = Opened::Not;
                    Ok(answer?.map(Some))
                }
                Err(late) => Err(late),
            },
        };
        if sign == "silent" {
            if let Ok(answer) = answer {
                bail!("was not silent: {:?}", outcome(answer, self.base)?);
            }
            return Ok(());
        }
        let answer = outcome(answer.context("no answer came")?, self.base)?;
        match (answer, sign) {
            (Ok(answer), "<") => compare(&Outcome::Answer(answer), "=", text),
            (Ok(answer), "~") => compare(&Outcome::Answer(answer), "~", text),
            (Err(status), "!") => compare(&Outcome::Refused(status), "!", text),
            (Ok(answer), _) => bail!("answered {answer}"),
            (Err(status), _) => bail!("ended with {status}"),
        }
    }
}

fn outcome(
    answer: Result<Option<DynamicMessage>, Status>,
    base: i64,
) -> Result<std::result::Result<Value, String>> {
    Ok(match answer {
        Ok(Some(message)) => Ok(json::answer(&message, base)?),
        Ok(None) => Err("the end".to_owned()),
        Err(status) => Err(refusal(&status)),
    })
}

/// Metadata that makes the calls those of a user.
pub(crate) async fn login(
    target: &Target,
    user: &str,
    password: &str,
) -> Result<Vec<(&'static str, String)>> {
    if user == "nobody" {
        return Ok(Vec::new());
    }
    let request = pb::AuthenticateRequest { name: user.to_owned(), password: password.to_owned() };
    let answer = target.client.auth.clone().authenticate(request).await?.into_inner();
    Ok(vec![("token", answer.token)])
}

/// After a case that failed in between, so that the others can run: no alarm and no authentication.
async fn calm(target: &Target) {
    for alarm in [pb::AlarmType::Nospace, pb::AlarmType::Corrupt] {
        let action = pb::alarm_request::AlarmAction::Deactivate.into();
        let request = pb::AlarmRequest { action, member_id: 9, alarm: alarm.into() };
        let Ok(request) = with_metadata(request, &target.metadata()) else { return };
        // The next case says so if it did not work.
        drop(target.client.maintenance.clone().alarm(request).await);
    }
    if !target.metadata().is_empty() {
        return; // authentication is on for all scripts
    }
    let Ok(metadata) = login(target, "root", "root").await else { return };
    let Ok(request) = with_metadata(pb::AuthDisableRequest {}, &metadata) else { return };
    // The next case says so if it did not work.
    drop(target.client.auth.clone().auth_disable(request).await);
}

fn with_metadata<T>(message: T, metadata: &[(&'static str, String)]) -> Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, value.parse()?);
    }
    Ok(request)
}
