//! Makes a sequence of calls from a seed, as lines of the scripts' language.
//!
//! Keys, leases, users and names of locks come from small sets, so that calls meet each other. A guess of the current
//! revision makes revisions that are compacted, past, current and future. The same seed gives the same lines.
//! Not here: what comes back.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::call;

const KEYS: &[&str] = &["a", "a", "b", "b", "c", "c", "aa", "ab", "d", "e"];
const ENDS: &[&str] = &["", "", "", "b", "c", "e", "aa", "a", "\0", "ac"];
const VALUES: &[&str] = &["", "1", "2", "v", "zz"];
const LEASES: &[i64] = &[1, 2, 3, 1, 2, 3, 4, -5];
const USERS: &[&str] = &["ana", "ben", "ana", "ben", "cy", "root"];
const ROLES: &[&str] = &["r1", "r2", "r1", "r2", "r3", "root"];
const STREAMS: &[&str] = &["w", "x"];

/// What a sequence is mostly about, by the seed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Keys,
    Watches,
    Users,
    Alarms,
    Gateway,
    Locks,
}

const SUBJECTS: &[Subject] = &[
    Subject::Keys,
    Subject::Watches,
    Subject::Users,
    Subject::Gateway,
    Subject::Users,
    Subject::Alarms,
    Subject::Watches,
    Subject::Locks,
];

/// The lines of a seed.
pub fn lines(pool: &DescriptorPool, seed: u64, count: usize) -> Vec<String> {
    let subject = usize::try_from(seed % SUBJECTS.len() as u64).map_or(Subject::Keys, |at| SUBJECTS[at]);
    let mut generator = Generator {
        pool,
        random: StdRng::seed_from_u64(seed),
        subject,
        revision: 0,
        holders: HashMap::new(),
        lines: Vec::new(),
    };
    if subject == Subject::Users {
        generator.users_to_begin_with();
    }
    while generator.lines.len() < count {
        generator.step();
    }
    generator.lines
}

struct Generator<'a> {
    pool: &'a DescriptorPool,
    random: StdRng,
    subject: Subject,
    /// A guess: how many changes there were.
    revision: i64,
    /// Who may hold a lock or lead an election: whoever else asked would wait for ever.
    holders: HashMap<String, i64>,
    lines: Vec<String>,
}

impl Generator<'_> {
    fn one_in(&mut self, count: u32) -> bool {
        self.random.random_range(0..count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.random_range(0..from.len())]
    }

    fn key(&mut self) -> &'static str {
        match self.random.random_range(0..60) {
            0 => "",
            1 => "\0",
            2 => "l1/",
            _ => self.pick(KEYS),
        }
    }

    /// Past, current or future; sometimes none or one that cannot be.
    fn at_revision(&mut self) -> Value {
        match self.random.random_range(0..20) {
            0 => json!(-1),
            1 => json!(i64::MAX),
            2 => json!(0),
            _ => {
                let offset = self.random.random_range(-2..=self.revision + 2);
                json!(format!("@{offset}"))
            }
        }
    }

    fn step(&mut self) {
        let dice = self.random.random_range(0..100);
        match self.subject {
            Subject::Keys => match dice {
                0..75 => self.keys(),
                75..95 => self.leases(),
                95..97 => self.authentication(),
                _ => self.maintenance(),
            },
            Subject::Watches => match dice {
                0..35 => self.watch(),
                35..85 => self.keys(),
                85..97 => self.leases(),
                _ => self.maintenance(),
            },
            Subject::Users => match dice {
                0..22 => self.authentication(),
                22..36 => self.log_in(),
                36..74 => self.keys(),
                74..84 => self.leases(),
                84..92 => self.watch(),
                92..97 => self.maintenance(),
                _ => self.gateway(),
            },
            Subject::Alarms => match dice {
                0..20 => self.maintenance(),
                20..80 => self.keys(),
                80..95 => self.leases(),
                _ => self.authentication(),
            },
            Subject::Gateway => self.gateway(),
            Subject::Locks => match dice {
                0..45 => self.locks(),
                45..75 => self.keys(),
                _ => self.leases(),
            },
        }
    }

    fn call(&mut self, method: &str, request: &Value) {
        self.lines.push(format!("{method} {request}"));
    }

    fn keys(&mut self) {
        match self.random.random_range(0..100) {
            0..30 => {
                let put = self.put();
                self.revision += 1;
                self.call("KV/Put", &put);
            }
            30..55 => {
                let range = self.range();
                self.call("KV/Range", &range);
            }
            55..67 => {
                let delete = self.delete();
                self.revision += 1;
                self.call("KV/DeleteRange", &delete);
            }
            67..93 => {
                let txn = self.txn(0);
                self.revision += 1;
                self.call("KV/Txn", &txn);
            }
            93..96 => self.oversized(),
            _ => {
                let mut compact = json!({ "revision": self.at_revision() });
                if self.one_in(2) {
                    compact["physical"] = json!(true);
                }
                self.call("KV/Compact", &compact);
            }
        }
    }

    fn put(&mut self) -> Value {
        let mut put = json!({ "key": self.key() });
        if !self.one_in(6) {
            put["value"] = json!(self.pick(VALUES));
        }
        if self.one_in(4) {
            put["lease"] = json!(self.pick(LEASES));
        }
        for (field, odds) in [("prev_kv", 3), ("ignore_value", 10), ("ignore_lease", 10)] {
            if self.one_in(odds) {
                put[field] = json!(true);
                // Mostly in a form that is allowed.
                if field == "ignore_value" && !self.one_in(4) {
                    put["value"] = json!("");
                }
                if field == "ignore_lease" && !self.one_in(4) {
                    put["lease"] = json!(0);
                }
            }
        }
        put
    }

    fn range(&mut self) -> Value {
        let mut range = json!({ "key": self.key() });
        let end = self.pick(ENDS);
        if !end.is_empty() {
            range["range_end"] = json!(end);
        }
        if self.one_in(4) {
            range["limit"] = json!(self.pick(&[0, 1, 1, 2, 2, 3, -1, i64::MAX]));
        }
        if self.one_in(4) {
            range["revision"] = self.at_revision();
        }
        if self.one_in(3) {
            range["sort_order"] = json!(self.pick(&[0, 1, 2, 1, 2, 2, 1, 7, -1]));
        }
        if self.one_in(3) {
            range["sort_target"] = json!(self.pick(&[0, 1, 2, 3, 4, 4, 3, 2, 9]));
        }
        for flag in ["serializable", "keys_only", "count_only"] {
            if self.one_in(7) {
                range[flag] = json!(true);
            }
        }
        for bound in ["min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"] {
            if self.one_in(12) {
                range[bound] = self.at_revision();
            }
        }
        range
    }

    fn delete(&mut self) -> Value {
        let mut delete = json!({ "key": self.key() });
        if self.one_in(3) {
            delete["range_end"] = json!(self.pick(ENDS));
        }
        if self.one_in(2) {
            delete["prev_kv"] = json!(true);
        }
        delete
    }

    fn compare(&mut self) -> Value {
        let target = self.pick(&["VERSION", "CREATE", "MOD", "VALUE", "LEASE"]);
        let mut compare = json!({ "key": self.key() });
        if target != "VERSION" {
            compare["target"] = json!(target);
        }
        if self.one_in(2) {
            compare["result"] = json!(self.pick(&["GREATER", "LESS", "NOT_EQUAL"]));
        }
        let mut given = target;
        if self.one_in(40) {
            // Another one than the target says.
            given = self.pick(&["VERSION", "CREATE", "MOD", "VALUE", "LEASE"]);
        }
        match given {
            "VERSION" => compare["version"] = json!(self.random.random_range(-1..4)),
            "CREATE" => compare["create_revision"] = self.at_revision(),
            "MOD" => compare["mod_revision"] = self.at_revision(),
            "VALUE" => compare["value"] = json!(self.pick(VALUES)),
            _ => compare["lease"] = json!(self.pick(&[0, 1, 2, 3])),
        }
        if self.one_in(30)
            && let Some(fields) = compare.as_object_mut()
        {
            fields.retain(|name, _| ["key", "target", "result"].contains(&name.as_str()));
        }
        if self.one_in(5) {
            compare["range_end"] = json!(self.pick(ENDS));
        }
        compare
    }

    fn operation(&mut self, depth: usize) -> Value {
        match self.random.random_range(0..100) {
            0..40 => json!({ "request_put": self.put() }),
            40..65 => json!({ "request_range": self.range() }),
            65..82 => json!({ "request_delete_range": self.delete() }),
            82..98 if depth < 3 => json!({ "request_txn": self.txn(depth + 1) }),
            _ => json!({}),
        }
    }

    fn txn(&mut self, depth: usize) -> Value {
        let mut txn = json!({});
        let compares = self.pick(&[0, 0, 1, 1, 2]);
        if compares > 0 {
            txn["compare"] = (0..compares).map(|_| self.compare()).collect();
        }
        for branch in ["success", "failure"] {
            let most = if depth == 0 { 4 } else { 3 };
            let count = self.random.random_range(0..most);
            if count > 0 {
                txn[branch] = (0..count).map(|_| self.operation(depth)).collect();
            }
        }
        txn
    }

    fn oversized(&mut self) {
        let key = self.pick(KEYS);
        // Not near the limit: etcd counts the bytes of its own log entry.
        let size = self.pick(&[1_500_000, 1_600_000, 2_200_000]);
        let count = self.pick(&[127, 128, 129, 200]);
        match self.random.random_range(0..6) {
            0 => {
                let value = json!({ "*": size, "of": "x" });
                self.call("KV/Put", &json!({ "key": key, "value": value }));
                self.call("KV/DeleteRange", &json!({ "key": key }));
            }
            1 => {
                let same = json!({ "request_range": { "key": key } });
                self.call("KV/Txn", &json!({ "success": [{ "*": count, "of": same }] }));
            }
            2 => {
                let same = json!({ "key": key, "target": "VERSION", "version": 0 });
                self.call("KV/Txn", &json!({ "compare": [{ "*": count, "of": same }] }));
            }
            3 => {
                let same = json!({ "request_delete_range": { "key": key } });
                let inner = json!({ "request_txn": { "failure": [{ "*": count - 3, "of": same }] } });
                let outer = json!({ "success": [inner, { "request_put": { "key": "b" } }, same] });
                self.call("KV/Txn", &outer);
            }
            4 => {
                let same = json!({ "request_put": { "key": key } });
                self.call("KV/Txn", &json!({ "failure": [{ "*": count, "of": same }] }));
            }
            _ => {
                let name = json!({ "*": 70_000, "of": "k" });
                self.call("KV/Put", &json!({ "key": name, "value": "1", "prev_kv": true }));
                self.call("KV/Range", &json!({ "key": "k", "range_end": "l", "count_only": true }));
                self.call("KV/DeleteRange", &json!({ "key": "k", "range_end": "l" }));
            }
        }
    }

    fn leases(&mut self) {
        let id = self.pick(LEASES);
        match self.random.random_range(0..100) {
            0..40 => {
                let ttl = self.pick(&[600, 700, 800, 9_000_000_000, 9_000_000_001, i64::MAX, 600, 600, 700]);
                self.call("Lease/LeaseGrant", &json!({ "ID": id, "TTL": ttl }));
            }
            40..58 => {
                self.holders.retain(|_, holder| *holder != id);
                self.revision += 1;
                self.call("Lease/LeaseRevoke", &json!({ "ID": id }));
            }
            58..82 => {
                let keys = self.one_in(2);
                self.call("Lease/LeaseTimeToLive", &json!({ "ID": id, "keys": keys }));
            }
            82..90 => self.call("Lease/LeaseLeases", &json!({})),
            _ => self.call("Lease/LeaseKeepAlive", &json!({ "ID": id })),
        }
    }

    fn watch(&mut self) {
        let stream = self.pick(STREAMS);
        let fresh = !self.lines.iter().any(|line| line.starts_with(&format!("open {stream} ")));
        if fresh || self.one_in(12) {
            self.lines.push(format!("open {stream} Watch/Watch"));
        }
        let request = match self.random.random_range(0..100) {
            0..70 => json!({ "create_request": self.watch_request() }),
            70..85 => {
                json!({ "cancel_request": { "watch_id": self.random.random_range(-1..6) } })
            }
            85..97 => json!({ "progress_request": {} }),
            _ => json!({}),
        };
        self.lines.push(format!("{stream} > {request}"));
    }

    fn watch_request(&mut self) -> Value {
        let mut create = json!({ "key": self.key() });
        if self.one_in(2) {
            create["range_end"] = json!(self.pick(ENDS));
        }
        if self.one_in(2) {
            create["start_revision"] = self.at_revision();
        }
        if self.one_in(4) {
            create["filters"] = self
                .pick(&[&["NOPUT"][..], &["NODELETE"], &["NOPUT", "NODELETE"], &["NOPUT", "NOPUT"]])
                .into();
        }
        for flag in ["prev_kv", "fragment", "progress_notify"] {
            if self.one_in(3) {
                create[flag] = json!(true);
            }
        }
        if self.one_in(3) {
            create["watch_id"] = json!(self.random.random_range(-2..5));
        }
        create
    }

    fn users_to_begin_with(&mut self) {
        for user in ["root", "ana", "ben"] {
            self.call("Auth/UserAdd", &json!({ "name": user, "password": user }));
        }
        for role in ["root", "r1", "r2"] {
            self.call("Auth/RoleAdd", &json!({ "name": role }));
        }
        for (user, role) in [("root", "root"), ("ana", "r1"), ("ben", "r2")] {
            self.call("Auth/UserGrantRole", &json!({ "user": user, "role": role }));
        }
        for role in ["r1", "r2", "r1"] {
            let perm = self.permission();
            self.call("Auth/RoleGrantPermission", &json!({ "name": role, "perm": perm }));
        }
        self.call("Auth/AuthEnable", &json!({}));
        self.lines.push("as root".to_owned());
    }

    fn permission(&mut self) -> Value {
        let mut perm = json!({ "permType": self.pick(&["READ", "WRITE", "READWRITE"]), "key": self.key() });
        if self.one_in(2) {
            perm["range_end"] = json!(self.pick(ENDS));
        }
        perm
    }

    fn log_in(&mut self) {
        match self.random.random_range(0..12) {
            0 => self.lines.push("as nobody".to_owned()),
            1 => self.lines.push("with token junk".to_owned()),
            2 => {
                let request = json!({ "name": self.pick(USERS), "password": self.pick(&["wrong", ""]) });
                self.call("Auth/Authenticate", &request);
            }
            3..7 => self.lines.push("as root".to_owned()),
            _ => {
                let user = self.pick(USERS);
                self.lines.push(format!("as {user}"));
            }
        }
    }

    fn authentication(&mut self) {
        let (user, role) = (self.pick(USERS), self.pick(ROLES));
        let empty = self.one_in(30);
        let (user, role) = if empty { ("", "") } else { (user, role) };
        match self.random.random_range(0..100) {
            0..10 => {
                let mut request = json!({ "name": user, "password": user });
                match self.random.random_range(0..12) {
                    0 => request["options"] = json!({ "no_password": true }),
                    1 => request = json!({ "name": user, "options": { "no_password": true } }),
                    2 => request = json!({ "name": user }),
                    3 => request = json!({ "name": user, "hashedPassword": "junk" }),
                    _ => {}
                }
                self.call("Auth/UserAdd", &request);
            }
            10..16 => self.call("Auth/UserGet", &json!({ "name": user })),
            16..20 => self.call("Auth/UserList", &json!({})),
            20..26 => self.call("Auth/UserDelete", &json!({ "name": user })),
            26..31 => {
                // The same as before, which still ends what was said under the old one.
                let password = if user != "root" && self.one_in(4) { "" } else { user };
                self.call("Auth/UserChangePassword", &json!({ "name": user, "password": password }));
            }
            31..40 => self.call("Auth/UserGrantRole", &json!({ "user": user, "role": role })),
            40..46 => self.call("Auth/UserRevokeRole", &json!({ "name": user, "role": role })),
            46..52 => self.call("Auth/RoleAdd", &json!({ "name": role })),
            52..60 => self.call("Auth/RoleGet", &json!({ "role": role })),
            60..64 => self.call("Auth/RoleList", &json!({})),
            64..68 => self.call("Auth/RoleDelete", &json!({ "role": role })),
            68..85 => {
                let mut request = json!({ "name": role, "perm": self.permission() });
                if self.one_in(25) {
                    request = json!({ "name": role });
                }
                self.call("Auth/RoleGrantPermission", &request);
            }
            85..91 => {
                let mut request = json!({ "role": role, "key": self.key() });
                if self.one_in(2) {
                    request["range_end"] = json!(self.pick(ENDS));
                }
                self.call("Auth/RoleRevokePermission", &request);
            }
            91..95 => self.call("Auth/AuthEnable", &json!({})),
            95..97 => self.call("Auth/AuthDisable", &json!({})),
            _ => self.call("Auth/AuthStatus", &json!({})),
        }
    }

    fn maintenance(&mut self) {
        let id = self.pick(&[0, 7]);
        match self.random.random_range(0..100) {
            0..15 => self.call("Maintenance/Alarm", &json!({})),
            15..22 => {
                let alarm = self.pick(&["NOSPACE", "NOSPACE", "NONE", "CORRUPT"]);
                let request = json!({ "action": "GET", "alarm": alarm, "memberID": 7 });
                self.call("Maintenance/Alarm", &request);
            }
            22..32 => {
                let (member, alarm) = (self.pick(&[0, 7, 8]), self.pick(&[1, 1, 1, 0, 2, 1]));
                let request = json!({ "action": "ACTIVATE", "alarm": alarm, "memberID": member });
                self.call("Maintenance/Alarm", &request);
            }
            32..52 => {
                let (member, alarm) = (self.pick(&[0, 7, 8]), self.pick(&[1, 1, 1, 2, 2, 0]));
                let request = json!({ "action": "DEACTIVATE", "alarm": alarm, "memberID": member });
                self.call("Maintenance/Alarm", &request);
            }
            // Not an unknown action: etcd ends at that.
            52..62 => self.call("Maintenance/Status", &json!({})),
            62..70 => {
                let request = json!({ "revision": self.at_revision() });
                self.call("Maintenance/HashKV", &request);
            }
            70..73 => self.call("Maintenance/Hash", &json!({})),
            73..76 => self.call("Maintenance/Defragment", &json!({})),
            76..84 => {
                let version =
                    self.pick(&["3.6.0", "3.4.0", "3.7", "x", "", "4.0.0", "3.6", "3.5.0.1", "03.5.0"]);
                let action = self.pick(&[0, 0, 2]);
                self.call("Maintenance/Downgrade", &json!({ "action": action, "version": version }));
            }
            84..87 => {
                self.call("Maintenance/MoveLeader", &json!({ "targetID": id }));
            }
            87..92 => {
                let request = json!({ "linearizable": self.one_in(2) });
                self.call("Cluster/MemberList", &request);
            }
            92..94 => {
                let url = self.pick(&[
                    "no url",
                    "http://127.0.0.1",
                    "http://127.0.0.1:1/path",
                    "ftp://127.0.0.1:1",
                ]);
                self.call("Cluster/MemberAdd", &json!({ "peerURLs": [url] }));
            }
            94..96 => self.call("Cluster/MemberRemove", &json!({ "ID": id })),
            96..98 => {
                let request = json!({ "ID": id, "peerURLs": ["http://127.0.0.1:1"] });
                self.call("Cluster/MemberUpdate", &request);
            }
            _ => self.call("Cluster/MemberPromote", &json!({ "ID": id })),
        }
    }

    fn locks(&mut self) {
        let (name, lease) = (self.pick(&["l1", "l2", "e1", "e2"]), self.pick(&[1, 2, 3, 4]));
        let held = self.holders.get(name).copied();
        let election = name.starts_with('e');
        let rev = self.at_revision();
        let holder = held.unwrap_or(lease);
        let key = format!("{name}/{holder:x}");
        let leader = json!({ "name": name, "key": key, "rev": rev, "lease": holder });
        match self.random.random_range(0..100) {
            0..45 if held.is_none_or(|held| held == lease) => {
                self.holders.insert(name.to_owned(), lease);
                self.revision += 1;
                match election {
                    false => self.call("v3lockpb.Lock/Lock", &json!({ "name": name, "lease": lease })),
                    true => {
                        let value = self.pick(VALUES);
                        let request = json!({ "name": name, "lease": lease, "value": value });
                        self.call("v3electionpb.Election/Campaign", &request);
                    }
                }
            }
            0..70 if !election => {
                self.holders.remove(name);
                self.revision += 1;
                self.call("v3lockpb.Lock/Unlock", &json!({ "key": key }));
            }
            0..70 => {
                // The holder is kept: with another revision this resigns nothing.
                self.call("v3electionpb.Election/Resign", &json!({ "leader": leader }));
            }
            70..85 => {
                let request = json!({ "leader": leader, "value": self.pick(VALUES) });
                self.call("v3electionpb.Election/Proclaim", &request);
            }
            85..93 => self.call("v3electionpb.Election/Leader", &json!({ "name": name })),
            _ => {
                let request = json!({ "key": name, "range_end": format!("{name}0") });
                self.call("KV/Range", &request);
            }
        }
    }

    /// A call of the other kinds, as JSON over HTTP; sometimes damaged.
    fn gateway(&mut self) {
        let before = self.lines.len();
        match self.random.random_range(0..20) {
            0..10 => self.keys(),
            10..14 => self.leases(),
            14..17 => self.authentication(),
            17 => self.locks(),
            _ => self.maintenance(),
        }
        let made = self.lines.split_off(before);
        for line in made {
            let line = self.over_http(&line).unwrap_or(line);
            self.lines.push(line);
        }
    }

    fn over_http(&mut self, line: &str) -> Option<String> {
        let (name, request) = line.split_once(' ')?;
        if request.contains("\"*\"") {
            return None;
        }
        let path = PATHS.iter().find(|(method, _)| *method == name)?.1;
        let method = call::method(self.pool, name).ok()?;
        let mut request = serde_json::from_str(request).ok()?;
        encode_bytes(&mut request, &method.input());
        // A stream's first message is answered before the rest is read.
        let body = if !method.is_client_streaming() && self.one_in(4) {
            self.damaged(request)
        } else {
            request.to_string()
        };
        let word = if method.is_server_streaming() { "line" } else { "http" };
        Some(format!("{word} POST /v3/{path} {body}"))
    }

    /// What a client could send that knows the form only from hearsay.
    fn damaged(&mut self, mut request: Value) -> String {
        let names: Vec<String> =
            request.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default();
        let name = names.get(self.random.random_range(0..names.len().max(1))).cloned().unwrap_or_default();
        let text = request.to_string();
        match self.random.random_range(2..10) {
            2 => {
                // Anything but the whole of it, at a place between characters.
                let at = self.random.random_range(0..text.len());
                text.chars().take(at).collect()
            }
            3 => {
                request["unknown_field"] = json!(1);
                request.to_string()
            }
            4 => "null".to_owned(),
            5 => format!("[{text}]"),
            _ if name.is_empty() => "\"text\"".to_owned(),
            _ => {
                request[name] = match self.random.random_range(0..8) {
                    0 => json!(null),
                    1 => json!(1.5),
                    2 => json!("*"),
                    3 => json!({}),
                    4 => json!([]),
                    5 => json!(true),
                    6 => json!("12345678901234567890123"),
                    _ => json!(-3),
                };
                request.to_string()
            }
        }
    }
}

/// Bytes are base64 over HTTP.
fn encode_bytes(value: &mut Value, descriptor: &MessageDescriptor) {
    let Value::Object(fields) = value else { return };
    for (name, value) in fields {
        let field = descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name));
        let Some(field) = field else { continue };
        let items = match value {
            Value::Array(items) => items.iter_mut().collect(),
            one => vec![one],
        };
        for item in items {
            match (field.kind(), item.as_str()) {
                (Kind::Message(inner), _) => encode_bytes(item, &inner),
                (Kind::Bytes, Some(text)) => *item = STANDARD.encode(text).into(),
                _ => {}
            }
        }
    }
}

/// Below `/v3/`.
const PATHS: &[(&str, &str)] = &[
    ("KV/Range", "kv/range"),
    ("KV/Put", "kv/put"),
    ("KV/DeleteRange", "kv/deleterange"),
    ("KV/Txn", "kv/txn"),
    ("KV/Compact", "kv/compaction"),
    ("Lease/LeaseGrant", "lease/grant"),
    ("Lease/LeaseRevoke", "lease/revoke"),
    ("Lease/LeaseKeepAlive", "lease/keepalive"),
    ("Lease/LeaseTimeToLive", "lease/timetolive"),
    ("Lease/LeaseLeases", "lease/leases"),
    ("Cluster/MemberAdd", "cluster/member/add"),
    ("Cluster/MemberRemove", "cluster/member/remove"),
    ("Cluster/MemberUpdate", "cluster/member/update"),
    ("Cluster/MemberList", "cluster/member/list"),
    ("Cluster/MemberPromote", "cluster/member/promote"),
    ("Maintenance/Alarm", "maintenance/alarm"),
    ("Maintenance/Status", "maintenance/status"),
    ("Maintenance/Defragment", "maintenance/defragment"),
    ("Maintenance/Hash", "maintenance/hash"),
    ("Maintenance/HashKV", "maintenance/hashkv"),
    ("Maintenance/MoveLeader", "maintenance/transfer-leadership"),
    ("Maintenance/Downgrade", "maintenance/downgrade"),
    ("Auth/AuthEnable", "auth/enable"),
    ("Auth/AuthDisable", "auth/disable"),
    ("Auth/AuthStatus", "auth/status"),
    ("Auth/Authenticate", "auth/authenticate"),
    ("Auth/UserAdd", "auth/user/add"),
    ("Auth/UserGet", "auth/user/get"),
    ("Auth/UserList", "auth/user/list"),
    ("Auth/UserDelete", "auth/user/delete"),
    ("Auth/UserChangePassword", "auth/user/changepw"),
    ("Auth/UserGrantRole", "auth/user/grant"),
    ("Auth/UserRevokeRole", "auth/user/revoke"),
    ("Auth/RoleAdd", "auth/role/add"),
    ("Auth/RoleGet", "auth/role/get"),
    ("Auth/RoleList", "auth/role/list"),
    ("Auth/RoleDelete", "auth/role/delete"),
    ("Auth/RoleGrantPermission", "auth/role/grant"),
    ("Auth/RoleRevokePermission", "auth/role/revoke"),
    ("v3lockpb.Lock/Lock", "lock/lock"),
    ("v3lockpb.Lock/Unlock", "lock/unlock"),
    ("v3electionpb.Election/Campaign", "election/campaign"),
    ("v3electionpb.Election/Proclaim", "election/proclaim"),
    ("v3electionpb.Election/Leader", "election/leader"),
    ("v3electionpb.Election/Resign", "election/resign"),
];
