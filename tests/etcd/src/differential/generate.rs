//! Makes a sequence of calls from a seed, as lines of the scripts' language.
//!
//! Keys, leases, users and names of locks come from small sets, so that calls meet each other. A guess of the current
//! revision makes revisions that are compacted, past, current and future. The same seed gives the same lines.
//! Not here: what comes back; each kind of call (generate/).

mod gateway;
mod keys;
mod users;

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
}
