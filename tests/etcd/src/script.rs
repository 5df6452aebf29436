//! Runs scripts: cases that call a cluster and say what must come back.
//!
//! ```text
//! ## title {since 3.6}        a case; it begins without keys and leases. Real etcds older than that leave it out
//! KV/Put {"key":"a"}          a call; without an expectation below it, it must succeed
//! = {"header":{"revision":1}} exactly this answer
//! ~ {"header":{}}             an answer that has at least this
//! ! NotFound: text            refused
//! open w Watch/Watch          a stream with the name w
//! w > {...}                   sends on it
//! w < {...}                   its next answer is exactly this; `w ~` at least this; `w ! Code: text` it ends
//! w silent                    no answer comes for a while
//! http POST /path BODY        answers {"status":200,"body":...}
//! as ana                      calls as this user, whose password is her name; `as nobody` ends it
//! wait 1500                   milliseconds
//! ```
//!
//! Every case is run, whichever failed before it; a failure says where it is and what came instead.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use serde_json::{Value, json};
use tonic::Status;
use wire::etcdserverpb as pb;

use crate::{
    call::{self, Call},
    json,
    target::Target,
};

const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a stream must say nothing to be called silent.
const SILENCE: Duration = Duration::from_millis(400);

struct Case<'a> {
    title: &'a str,
    first_line: usize,
    lines: Vec<(usize, &'a str)>,
}

/// Runs all cases of a script. Gives the number of cases that ran and what failed.
pub async fn run(target: &Target, name: &str, script: &str) -> Result<(usize, Vec<String>)> {
    let pool = call::pool()?;
    let (mut ran, mut failures) = (0, Vec::new());
    for case in cases(script)? {
        if !holds_for(case.title, target.version)? {
            continue;
        }
        ran += 1;
        let result = run_case(target, &pool, &case).await;
        if let Err(error) = result {
            failures.push(format!("{name}: {}\n    {error:#}", case.title));
            calm(target).await;
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

/// Whether a case is for this version: `{since 3.6}` and `{until 3.5}` say so.
pub fn holds_for(title: &str, version: (u32, u32)) -> Result<bool> {
    let Some((_, rest)) = title.split_once('{') else { return Ok(true) };
    let words: Vec<&str> = rest.trim_end_matches('}').split_whitespace().collect();
    let [word, number] = words.as_slice() else { bail!("not understood: {{{rest}") };
    let (release, minor) = number.split_once('.').context("a version has two numbers")?;
    let bound: (u32, u32) = (release.parse()?, minor.parse()?);
    match *word {
        "since" => Ok(version >= bound),
        "until" => Ok(version <= bound),
        other => bail!("not understood: {other}"),
    }
}

/// What the last call brought.
enum Outcome {
    Nothing,
    Answer(Value),
    Refused(String),
}

struct Run<'a> {
    target: &'a Target,
    pool: &'a DescriptorPool,
    base: i64,
    metadata: Vec<(&'static str, String)>,
    streams: HashMap<&'a str, (MethodDescriptor, Option<Call>)>,
}

async fn run_case(target: &Target, pool: &DescriptorPool, case: &Case<'_>) -> Result<()> {
    let base = target.clear().await.with_context(|| format!("line {}: clearing", case.first_line))?;
    let mut run = Run { target, pool, base, metadata: Vec::new(), streams: HashMap::new() };
    let mut last = Outcome::Nothing;
    for (number, line) in &case.lines {
        let at = || format!("line {number}: {line}");
        let expectation = line.get(..2).filter(|start| ["= ", "~ ", "! "].contains(start));
        if let Some(kind) = expectation {
            let outcome = std::mem::replace(&mut last, Outcome::Nothing);
            compare(&outcome, kind.trim(), line[2..].trim()).with_context(at)?;
            continue;
        }
        if let Outcome::Refused(status) = &last {
            bail!("before line {number}: refused with {status}");
        }
        last = tokio::time::timeout(3 * ANSWER_TIME_MAX, run.line(line))
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

impl<'a> Run<'a> {
    async fn line(&mut self, line: &'a str) -> Result<Outcome> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "wait" => {
                tokio::time::sleep(Duration::from_millis(rest.parse()?)).await;
                Ok(Outcome::Nothing)
            }
            "as" => {
                self.metadata = login(self.target, rest).await?;
                Ok(Outcome::Nothing)
            }
            "open" => {
                let (name, method) = rest.split_once(' ').context("open NAME METHOD")?;
                let method = call::method(self.pool, method.trim())?;
                self.streams.insert(name, (method, None));
                Ok(Outcome::Nothing)
            }
            "http" => Ok(Outcome::Answer(http(&self.target.url, rest).await?)),
            _ if word.contains('/') => {
                let method = call::method(self.pool, word)?;
                let request = json::request(rest, method.input(), self.base)?;
                match call::one(&self.target.transport, &method, request, &self.metadata).await {
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
        let (method, call) = self.streams.get_mut(name).with_context(|| format!("no stream {name}"))?;
        let (sign, text) = rest.split_once(' ').unwrap_or((rest, ""));
        if sign == ">" {
            let request = json::request(text, method.input(), self.base)?;
            match call {
                Some(call) => call.send(request).await?,
                None => {
                    let transport = &self.target.transport;
                    *call = Some(Call::begin(transport, method, vec![request], &self.metadata).await?);
                }
            }
            return Ok(());
        }
        let call = call.as_mut().context("nothing was sent on it yet")?;
        if sign == "silent" {
            if let Ok(answer) = tokio::time::timeout(SILENCE, call.answers.message()).await {
                bail!("was not silent: {:?}", outcome(answer, self.base)?);
            }
            return Ok(());
        }
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, call.answers.message()).await;
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
pub(crate) async fn login(target: &Target, user: &str) -> Result<Vec<(&'static str, String)>> {
    if user == "nobody" {
        return Ok(Vec::new());
    }
    let request = pb::AuthenticateRequest { name: user.to_owned(), password: user.to_owned() };
    let answer = target.client.auth.clone().authenticate(request).await?.into_inner();
    Ok(vec![("token", answer.token)])
}

/// After a case that failed in between, so that the others can run: no alarm and no authentication.
async fn calm(target: &Target) {
    for alarm in [pb::AlarmType::Nospace, pb::AlarmType::Corrupt] {
        let action = pb::alarm_request::AlarmAction::Deactivate.into();
        let request = pb::AlarmRequest { action, member_id: 9, alarm: alarm.into() };
        // The next case says so if it did not work.
        drop(target.client.maintenance.clone().alarm(request).await);
    }
    let Ok(metadata) = login(target, "root").await else { return };
    let mut request = tonic::Request::new(pb::AuthDisableRequest {});
    for (name, value) in metadata {
        if let Ok(value) = value.parse() {
            request.metadata_mut().insert(name, value);
        }
    }
    // The next case says so if it did not work.
    drop(target.client.auth.clone().auth_disable(request).await);
}

async fn http(url: &str, line: &str) -> Result<Value> {
    let (method, rest) = line.split_once(' ').context("http METHOD PATH BODY")?;
    let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
    let client = HttpClient::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    let request = http::Request::builder()
        .method(method)
        .uri(format!("{url}{path}"))
        .body(Full::new(body.as_bytes().to_vec().into()))?;
    let response = client.request(request).await?;
    let status = response.status().as_u16();
    let text = response.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&text).into_owned();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(json!({ "status": status, "body": body }))
}
