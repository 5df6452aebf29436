//! One of the two servers: executes lines and keeps what its streams told.
//!
//! A stream's answers are sorted by watch as they come: creation, cancelling and progress in their order, events in
//! theirs. How events are spread over answers is not kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tonic::Status;
use wire::etcdserverpb as pb;

use crate::{
    call::{self, Call, Requests},
    http, json,
    script::refusal,
    target::Target,
};

/// A call that takes longer is recorded as one that does not answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
pub(super) const NO_ANSWER: &str = "no answer";
const FLUSH_TIME_MAX: Duration = Duration::from_secs(20);
/// bcrypt cheap, no fsync: neither is looked at here.
const FLAGS: &[&str] = &["--bcrypt-cost=4", "--unsafe-no-fsync"];
/// Every stream has a watch of its own on this key: when its event is there, those before it are.
const MARK_KEY: &str = "\u{7f}mark";
const MARK_WATCH: i64 = 900;

pub(super) struct Side {
    target: Target,
    /// The revision that `@0` means.
    base: i64,
    metadata: Vec<(&'static str, String)>,
    streams: BTreeMap<String, Stream>,
    /// How many streams were opened under a name that was taken.
    reopened: usize,
}

struct Stream {
    requests: Requests,
    told: Arc<Mutex<Told>>,
    reader: JoinHandle<()>,
    /// How many watches it was asked to create.
    asked: usize,
}

/// What a stream said up to now.
#[derive(Default)]
struct Told {
    watches: BTreeMap<i64, (Vec<Value>, Vec<Value>)>,
    progress: Vec<Value>,
    created: usize,
    mark: i64,
    marked: bool,
    compacted: bool,
    end: Option<String>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Whether what comes before this line must have been told before it.
pub(super) fn ends_history(line: &str) -> bool {
    line.starts_with("KV/Compact")
        || line.contains("/kv/compaction")
        || line.starts_with("open ")
        || is_sent(line)
        || line.contains("Auth/")
        || line.starts_with("Maintenance/Alarm")
}

/// Whether a line may wait for others by nature.
pub(super) fn blocks(line: &str) -> bool {
    ["Lock/Lock", "Campaign", "/lock/lock", "/campaign"].iter().any(|word| line.contains(word))
}

/// Whether a line sends something on a stream.
pub(super) fn is_sent(line: &str) -> bool {
    line.split_once(' ').is_some_and(|(_, rest)| rest.starts_with('>'))
}

impl Side {
    pub(super) async fn start(program: Option<&Path>) -> Result<Side> {
        let target = Target::start_program(program, 1, None, None, FLAGS).await?;
        Ok(Side { target, base: 0, metadata: Vec::new(), streams: BTreeMap::new(), reopened: 0 })
    }

    pub(super) fn base(&self) -> i64 {
        self.base
    }

    pub(super) fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    pub(super) fn without_addresses(&self, text: &str) -> String {
        let text = text.replace(&self.target.url, "$client");
        text.replace(self.target.cluster.peer_url(0), "$peer")
    }

    /// What came back for one line.
    pub(super) async fn line(&mut self, pool: &DescriptorPool, line: &str) -> Result<Value> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "as" => self.log_in(rest).await,
            "with" => {
                let (_, value) = rest.split_once(' ').context("with NAME VALUE")?;
                self.metadata = vec![("token", value.to_owned())];
                Ok(json!("done"))
            }
            "open" => {
                let (name, _) = rest.split_once(' ').context("open NAME METHOD")?;
                self.open(pool, name).await
            }
            "http" | "line" => {
                let line = self.with_revisions(rest)?;
                let asked = http::ask(&self.target.url, None, &line, &self.metadata, word == "line");
                match tokio::time::timeout(ANSWER_TIME_MAX, asked).await {
                    Ok(answer) => answer,
                    Err(_) => Ok(json!(NO_ANSWER)),
                }
            }
            _ if rest.starts_with('>') => self.send(pool, word, rest[1..].trim()).await,
            _ => {
                let method = call::method(pool, word)?;
                let request = json::request(rest, method.input(), self.base)?;
                let asked = call::one(&self.target.transport, &method, request, &self.metadata);
                match tokio::time::timeout(ANSWER_TIME_MAX, asked).await {
                    Ok(Ok(answer)) => Ok(json!({ "answer": json::answer(&answer, self.base)? })),
                    Ok(Err(status)) => Ok(json!({ "refused": refusal(&status) })),
                    Err(_) => Ok(json!(NO_ANSWER)),
                }
            }
        }
    }

    async fn log_in(&mut self, user: &str) -> Result<Value> {
        if user == "nobody" {
            self.metadata.clear();
            return Ok(json!("done"));
        }
        let request = pb::AuthenticateRequest { name: user.to_owned(), password: user.to_owned() };
        Ok(match self.target.client.auth.clone().authenticate(request).await {
            Ok(answer) => {
                self.metadata = vec![("token", answer.into_inner().token)];
                json!("done")
            }
            Err(status) => json!({ "refused": refusal(&status) }),
        })
    }

    /// Puts in the revisions of an HTTP body.
    fn with_revisions(&self, body: &str) -> Result<String> {
        let mut parts = body.split("\"@");
        let mut filled = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            match part.split_once('"') {
                Some((offset, rest)) if offset.parse::<i64>().is_ok() => {
                    filled.push_str(&format!("\"{}\"{rest}", self.base + offset.parse::<i64>()?));
                }
                _ => filled.push_str(&format!("\"@{part}")),
            }
        }
        Ok(filled)
    }

    async fn open(&mut self, pool: &DescriptorPool, name: &str) -> Result<Value> {
        let method = call::method(pool, "Watch/Watch")?;
        let first = json!({ "create_request": { "key": MARK_KEY, "watch_id": MARK_WATCH } });
        let first = json::request(&first.to_string(), method.input(), self.base)?;
        let transport = self.target.transport.clone();
        let begun = Call::begin(&transport, &method, vec![first], &self.metadata);
        let call = match tokio::time::timeout(ANSWER_TIME_MAX, begun).await {
            Ok(Ok(call)) => call,
            Ok(Err(status)) => return Ok(json!({ "refused": refusal(&status) })),
            Err(_) => return Ok(json!(NO_ANSWER)),
        };
        let told = Arc::new(Mutex::new(Told::default()));
        let (requests, answers) = call.split();
        let reader = tokio::spawn(read(answers, told.clone(), self.base));
        if let Some(before) = self.streams.remove(name) {
            self.reopened += 1;
            // It goes on, unseen by later lines.
            self.streams.insert(format!("{name} {}", self.reopened), before);
        }
        let stream = Stream { requests, told, reader, asked: 1 };
        self.streams.insert(name.to_owned(), stream);
        self.flush().await?;
        Ok(json!("done"))
    }

    async fn send(&mut self, pool: &DescriptorPool, name: &str, text: &str) -> Result<Value> {
        let method = call::method(pool, "Watch/Watch")?;
        let request = json::request(text, method.input(), self.base)?;
        let Some(stream) = self.streams.get_mut(name) else { return Ok(json!("no stream")) };
        if text.contains("create_request") {
            stream.asked += 1;
        }
        // One that has ended takes no more, which `told` tells.
        drop(stream.requests.send(request).await);
        Ok(json!("done"))
    }

    /// Waits until no watcher of a real etcd reads history any more.
    pub(super) async fn catch_up(&self) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < FLUSH_TIME_MAX {
            let page = http::ask(&self.target.url, None, "GET /metrics", &[], false).await?;
            let page = page["body"].as_str().context("no metrics")?;
            let slow = page
                .lines()
                .find_map(|line| line.strip_prefix("etcd_debugging_mvcc_slow_watcher_total "))
                .context("this etcd does not tell how many watchers are slow")?;
            if slow.trim() == "0" {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("watchers stay slow")
    }

    /// Waits until every stream has told what it was asked and what happened up to now.
    pub(super) async fn flush(&mut self) -> Result<()> {
        let mut kv = self.target.client.kv.clone();
        let put = pb::PutRequest { key: MARK_KEY.as_bytes().to_vec().into(), ..Default::default() };
        // Refused with authentication or an alarm: then the events have to be waited for.
        let mark = kv.put(put).await.ok().and_then(|answer| Some(answer.into_inner().header?.revision));
        let begin = Instant::now();
        for (name, stream) in &self.streams {
            loop {
                {
                    let told = stream.told.lock().unwrap_or_else(PoisonError::into_inner);
                    let all_created = told.created >= stream.asked;
                    let all_told = mark.is_none_or(|mark| !told.marked || told.mark >= mark);
                    if told.end.is_some() || (all_created && all_told) {
                        break;
                    }
                }
                if begin.elapsed() > FLUSH_TIME_MAX {
                    // The comparison tells what is missing.
                    eprintln!("stream {name} does not tell what it should");
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        Ok(())
    }

    /// All that the streams told up to now.
    pub(super) fn told(&self) -> Value {
        let mut all = json!({});
        for (name, stream) in &self.streams {
            let told = stream.told.lock().unwrap_or_else(PoisonError::into_inner);
            let mut watches = json!({});
            for (id, (controls, events)) in &told.watches {
                watches[id.to_string()] = json!({ "controls": controls, "events": events });
            }
            if told.compacted {
                // From now on etcd's stream tells no progress, confirms that this watch is cancelled, and keeps its
                // id: its watch is gone from the store, but not from the stream.
                all[name.as_str()] = json!("a watch was cancelled by a compaction");
                continue;
            }
            all[name.as_str()] = json!({ "watches": watches, "progress": told.progress, "end": told.end });
        }
        all
    }

    /// Gives the revision and how often users changed: both must agree on where they begin.
    pub(super) async fn clear(&mut self) -> Result<(i64, u64)> {
        self.streams.clear();
        self.metadata.clear();
        let (mut auth, mut maintenance) =
            (self.target.client.auth.clone(), self.target.client.maintenance.clone());
        if self.log_in("root").await? == json!("done") {
            let mut request = tonic::Request::new(pb::AuthDisableRequest {});
            let (_, token) = self.metadata.pop().context("no token")?;
            request.metadata_mut().insert("token", token.parse()?);
            auth.auth_disable(request).await?;
        }
        let get = pb::AlarmRequest::default();
        for set in maintenance.alarm(get).await?.into_inner().alarms {
            let action = pb::alarm_request::AlarmAction::Deactivate.into();
            maintenance
                .alarm(pb::AlarmRequest { action, member_id: set.member_id, alarm: set.alarm })
                .await?;
        }
        for name in auth.user_list(pb::AuthUserListRequest {}).await?.into_inner().users {
            auth.user_delete(pb::AuthUserDeleteRequest { name }).await?;
        }
        for role in auth.role_list(pb::AuthRoleListRequest {}).await?.into_inner().roles {
            auth.role_delete(pb::AuthRoleDeleteRequest { role }).await?;
        }
        let mut revision = self.target.clear().await?;
        // One more change, so that the revision of now was never compacted.
        for _ in 0..2 {
            let put = pb::PutRequest { key: "begin".into(), ..Default::default() };
            self.target.client.kv.clone().put(put).await?;
            revision = self.target.clear().await?;
        }
        let compact = pb::CompactionRequest { revision, physical: true };
        self.target.client.kv.clone().compact(compact).await?;
        self.base = revision;
        let status = auth.auth_status(pb::AuthStatusRequest {}).await?.into_inner();
        ensure!(!status.enabled, "authentication is still enabled");
        Ok((revision, status.auth_revision))
    }
}

/// Sorts what a stream says until it ends.
async fn read(mut answers: tonic::Streaming<DynamicMessage>, told: Arc<Mutex<Told>>, base: i64) {
    loop {
        let answer = answers.message().await;
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let end = match answer {
            Ok(Some(answer)) => match json::answer(&answer, base) {
                Ok(answer) => {
                    told.take(answer, base);
                    continue;
                }
                Err(error) => format!("{error:#}"),
            },
            Ok(None) => "ended".to_owned(),
            Err(status) => end_of(&status),
        };
        told.end = Some(end);
        return;
    }
}

fn end_of(status: &Status) -> String {
    format!("ended with {}", refusal(status))
}

impl Told {
    fn take(&mut self, mut answer: Value, base: i64) {
        let flag = |name: &str| answer.get(name).and_then(Value::as_bool).unwrap_or_default();
        let (created, canceled) = (flag("created"), flag("canceled"));
        let id = answer.get("watch_id").and_then(Value::as_i64).unwrap_or_default();
        self.created += usize::from(created);
        self.compacted |= canceled && answer.get("compact_revision").is_some();
        if id == MARK_WATCH {
            self.marked |= created && !canceled;
            if let Some(Value::Array(events)) = answer.get("events") {
                let revisions = events.iter().filter_map(|event| event["kv"]["mod_revision"].as_i64());
                self.mark = revisions.map(|revision| revision + base).fold(self.mark, i64::max);
                return;
            }
        }
        let events = answer.as_object_mut().and_then(|fields| fields.remove("events"));
        if let Some(Value::Array(events)) = events {
            // Empty lists do not come as fields, so there is at least one.
            self.watches.entry(id).or_default().1.extend(events);
        } else if created || canceled {
            self.watches.entry(id).or_default().0.push(answer);
        } else {
            self.progress.push(answer);
        }
    }
}
