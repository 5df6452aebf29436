//! Users, roles and rights that change under load: one who changes them and switches authentication on and off, and
//! users who read and write keys of their own with tokens. All other clients have no name.
//!
//! Always holds: changes are asked for one after the other, and what each came to is recorded; at the end authentication
//! is off. Not here: whether an answer may be (permissions.rs).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use faults::history::{Answer, Key, Operation, Outcome, Request};
use tonic::transport::Channel;
use tonic::{Code, Status};
use wal::sim_disk::crash::Random;
use wire::authpb;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::auth_client::AuthClient;
use wire::etcdserverpb::kv_client::KvClient;

use crate::member::{CLIENT_PORT, host};
use crate::network::channel;
use crate::observers::BATCH_KEYS;
use crate::permissions::{Asked, Change, DENIED, NAMELESS, Range, Right, Tried};
use crate::workload::{Shared, failed, found, key_bytes, now_ns, revision};

/// Keys of users, behind those of all others.
pub(crate) const USER_KEYS: Key = BATCH_KEYS + 1_000_000;
const USER_KEYS_COUNT: u32 = 3;
const ROLES: u64 = 2;
const ROOT: &str = "root";
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// After the faults: until authentication is off.
const TIDY_TIME_MAX: Duration = Duration::from_secs(25);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);

fn user_name(number: usize) -> String {
    format!("u{number}")
}

fn role_name(number: u64) -> String {
    format!("r{number}")
}

/// Somebody with a name, at one member.
struct Session {
    name: String,
    member: usize,
    channel: Channel,
    token: Option<String>,
}

impl Session {
    fn new(name: &str, member: usize) -> Session {
        Session { name: name.to_owned(), member, channel: channel(&host(member), CLIENT_PORT), token: None }
    }

    /// The token, if there is one, goes along.
    fn move_to(&mut self, member: usize) {
        if member != self.member {
            (self.member, self.channel) = (member, channel(&host(member), CLIENT_PORT));
        }
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = self.token.as_ref().and_then(|token| token.parse().ok()) {
            request.metadata_mut().insert("token", token);
        }
        request
    }

    /// Without a token if that fails, or if there is no need of one.
    async fn log_in(&mut self) {
        let name = self.name.clone();
        let mut auth = AuthClient::new(self.channel.clone());
        let asking = auth.authenticate(pb::AuthenticateRequest { password: name.clone(), name });
        let answered = tokio::time::timeout(ANSWER_TIME_MAX, asking).await;
        self.token = answered.ok().and_then(Result::ok).map(|answer| answer.into_inner().token);
    }

    async fn change(&self, change: &Change) -> Result<(), Status> {
        let mut auth = AuthClient::new(self.channel.clone());
        match change.clone() {
            Change::Enable => auth.auth_enable(self.request(pb::AuthEnableRequest {})).await.map(drop),
            Change::Disable => auth.auth_disable(self.request(pb::AuthDisableRequest {})).await.map(drop),
            Change::AddUser { name } => {
                let add = pb::AuthUserAddRequest { password: name.clone(), name, ..Default::default() };
                auth.user_add(self.request(add)).await.map(drop)
            }
            Change::AddRole { name } => {
                auth.role_add(self.request(pb::AuthRoleAddRequest { name })).await.map(drop)
            }
            Change::GrantRole { user, role } => auth
                .user_grant_role(self.request(pb::AuthUserGrantRoleRequest { user, role }))
                .await
                .map(drop),
            Change::RevokeRole { user, role } => {
                let revoke = pb::AuthUserRevokeRoleRequest { name: user, role };
                auth.user_revoke_role(self.request(revoke)).await.map(drop)
            }
            Change::Permit { role, range: (key, range_end), right } => {
                let perm_type = match (right.reads, right.writes) {
                    (true, true) => authpb::permission::Type::Readwrite,
                    (true, false) => authpb::permission::Type::Read,
                    (false, _) => authpb::permission::Type::Write,
                };
                let perm = Some(authpb::Permission { perm_type: perm_type.into(), key, range_end });
                let permit = pb::AuthRoleGrantPermissionRequest { name: role, perm };
                auth.role_grant_permission(self.request(permit)).await.map(drop)
            }
            Change::Forbid { role, range: (key, range_end) } => {
                let forbid = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
                auth.role_revoke_permission(self.request(forbid)).await.map(drop)
            }
        }
    }
}

/// Makes users and roles, then changes them until the faults are over.
pub(crate) async fn root(users: usize, seed: u64, shared: Arc<Shared>) {
    let mut random = Random(seed);
    let mut session = Session::new(ROOT, 0);
    for change in first(users) {
        while !shared.roster.stopping() && !ask(&mut session, &change, &mut random, &shared).await {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    }
    while !shared.roster.stopping() {
        tokio::time::sleep(Duration::from_millis(30 + random.below(300))).await;
        let change = draw(users, &mut random);
        ask(&mut session, &change, &mut random, &shared).await;
    }
    let began = tokio::time::Instant::now();
    while !ask(&mut session, &Change::Disable, &mut random, &shared).await {
        if began.elapsed() > TIDY_TIME_MAX {
            shared.find(format!("authentication cannot be switched off for {} s", TIDY_TIME_MAX.as_secs()));
            break;
        }
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
    }
    shared.roster.set_idle();
}

fn first(users: usize) -> Vec<Change> {
    let root = || ROOT.to_owned();
    let mut changes =
        vec![Change::AddUser { name: root() }, Change::GrantRole { user: root(), role: root() }];
    changes.extend((0..users).map(|number| Change::AddUser { name: user_name(number) }));
    changes.extend((0..ROLES).map(|number| Change::AddRole { name: role_name(number) }));
    changes
}

fn draw(users: usize, random: &mut Random) -> Change {
    let user = user_name(usize::try_from(random.below(users as u64)).unwrap_or(0));
    let role = role_name(random.below(ROLES));
    let key = |number: u64| key_bytes(USER_KEYS + u32::try_from(number).unwrap_or(0));
    let range: Range = match random.below(3) {
        0 => (key(0), key(u64::from(USER_KEYS_COUNT))),
        _ => (key(random.below(u64::from(USER_KEYS_COUNT))), Bytes::new()),
    };
    let right = [(true, true), (true, false), (false, true)][random.below(3) as usize];
    match random.below(12) {
        0..3 => Change::Enable,
        3 => Change::Disable,
        4..8 => Change::Permit { role, range, right: Right { reads: right.0, writes: right.1 } },
        8 => Change::Forbid { role, range },
        9..11 => Change::GrantRole { user, role },
        _ => Change::RevokeRole { user, role },
    }
}

/// Answers whether it is done, by this or before.
async fn ask(session: &mut Session, change: &Change, random: &mut Random, shared: &Shared) -> bool {
    let live = shared.roster.live();
    session.move_to(live[usize::try_from(random.below(live.len() as u64)).unwrap_or(0)]);
    let call_ns = now_ns();
    let answered = tokio::time::timeout(ANSWER_TIME_MAX, session.change(change)).await;
    let (done, told) = match &answered {
        Ok(Ok(())) => (Some(true), "done".to_owned()),
        Ok(Err(status)) => (refused(status).then_some(false), status.message().to_owned()),
        Err(_) => (None, "no answer in time".to_owned()),
    };
    shared.trace.line(&format!("root at member {}: {change:?}: {told}", session.member));
    let is_there = told.contains("already exists");
    shared.asked(Asked { change: change.clone(), call_ns, return_ns: now_ns(), done });
    if needs_token(&told) {
        session.log_in().await;
    }
    done == Some(true) || is_there
}

/// Whether nothing has happened and nothing will.
fn refused(status: &Status) -> bool {
    status.code() == Code::Unauthenticated || matches!(failed(status), Outcome::Refused(_))
}

fn needs_token(told: &str) -> bool {
    told.contains("invalid auth token") || told.contains(NAMELESS)
}

/// Reads and writes with a name until the load ends.
pub(crate) async fn user(number: usize, member: usize, seed: u64, shared: Arc<Shared>) {
    let _running = shared.begin();
    let mut random = Random(seed);
    let mut session = Session::new(&user_name(number), member);
    let timeout = Duration::from_millis(shared.load.timeout_ms);
    while !shared.stopping() {
        session.move_to(shared.roster.stay(session.member, member));
        let key = USER_KEYS + u32::try_from(random.below(u64::from(USER_KEYS_COUNT))).unwrap_or(0);
        let request = match random.below(2) {
            0 => Request::Get { key },
            _ => Request::Put { key, value: shared.value() },
        };
        let call_ns = now_ns();
        let answered = tokio::time::timeout(timeout, send(&session, request)).await;
        let told = match &answered {
            Ok(Err(status)) => status.message().to_owned(),
            Ok(Ok(_)) | Err(_) => String::new(),
        };
        let outcome = match answered {
            Ok(Ok(Ok(answer))) => Outcome::Done(answer),
            Ok(Ok(Err(finding))) => {
                shared.find(finding.clone());
                Outcome::Unknown(finding)
            }
            Ok(Err(status)) if refused(&status) => Outcome::Refused(status.message().to_owned()),
            Ok(Err(status)) => failed(&status),
            Err(_) => Outcome::Unknown("no answer in time".to_owned()),
        };
        let return_ns = now_ns();
        let permitted = match &outcome {
            Outcome::Done(_) => Some(true),
            Outcome::Refused(text) if text.contains(DENIED) => Some(false),
            // Nobody knows who it was.
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        };
        let client = 300 + number;
        if let Some(permitted) = permitted {
            let user = session.token.is_some().then(|| session.name.clone());
            let writes = request.value().is_some();
            let member = session.member;
            shared.tried(Tried { user, member, key, writes, call_ns, return_ns, permitted });
        }
        shared.record(Operation { client, member: session.member, call_ns, return_ns, request, outcome });
        if needs_token(&told) {
            session.log_in().await;
        }
        tokio::time::sleep(Duration::from_millis(random.below(shared.load.pause_ms_max + 1))).await;
    }
}

async fn send(session: &Session, request: Request) -> Result<Result<Answer, String>, Status> {
    let mut kv = KvClient::new(session.channel.clone());
    let key = key_bytes(request.key());
    match request.value() {
        Some(value) => {
            let put = pb::PutRequest { key, value: value.to_string().into(), ..Default::default() };
            let answer = kv.put(session.request(put)).await?.into_inner();
            Ok(revision(answer.header.as_ref()).map(|revision| Answer::Put { revision }))
        }
        None => {
            let get = pb::RangeRequest { key, ..Default::default() };
            let answer = kv.range(session.request(get)).await?.into_inner();
            Ok(found(&answer).map(|(revision, entry)| Answer::Found { revision, entry }))
        }
    }
}
