//! What may differ: values that no two servers share, and where ours is another on purpose.
//!
//! Every exception is a row or a function here that says why it is one; those on purpose are in README.md, too.

use serde_json::{Value, json};

use super::side::Side;

/// Ids that a sequence gives itself are small; larger ones were drawn by the server.
const GIVEN_ID_MAX: u64 = 1_000_000;

/// Fields that say how a server is built or how long it runs.
const OF_THE_SERVER: &[&str] = &[
    "version",
    "dbSize",
    "dbSizeInUse",
    "leader",
    "raftIndex",
    "raftTerm",
    "raftAppliedIndex",
    // Only equal among the members of one cluster: it depends on how rows are stored.
    "hash",
    // Differs from the rows that are stored, like `dbSize`.
    "dbSizeQuota",
];

/// Whether two outcomes without what may differ are one.
pub(super) fn same(line: &str, theirs: &Value, ours: &Value) -> bool {
    // For everybody, as in 3.7.
    let is_open_to_all = line.starts_with("Auth/AuthStatus") || line.contains("/v3/auth/status");
    theirs == ours
        || is_open_to_all
        || (is_unreadable(theirs) && is_unreadable(ours))
        || is_of_before_compaction(line, theirs, ours)
        || is_downgrade(line, theirs, ours)
}

/// No version is a target of ours.
fn is_downgrade(line: &str, theirs: &Value, ours: &Value) -> bool {
    let is_taken = theirs.get("answer").is_some() || theirs["status"] == 200;
    let text = ours["refused"].as_str().or_else(|| ours["body"]["message"].as_str()).unwrap_or_default();
    line.to_lowercase().contains("maintenance/downgrade")
        && is_taken
        && text.ends_with("etcdserver: invalid downgrade target version")
}

/// A transaction that deletes a key and then puts it with what it had ends an etcd: it checks all puts before the first
/// change, and panics where one fails then.
pub(super) fn died(theirs: &Value) -> bool {
    let refused = theirs["refused"].as_str().unwrap_or_default();
    refused.starts_with("Unavailable") && refused.contains("connection error")
}

/// Asked for exactly the revision of its last compaction, an etcd tells the checksum that it noted right before it.
fn is_of_before_compaction(line: &str, theirs: &Value, ours: &Value) -> bool {
    let name = if line.starts_with("http") { "body" } else { "answer" };
    let (mut theirs, mut ours) = (theirs.clone(), ours.clone());
    let compacted = ours[name]["compact_revision"].clone();
    for outcome in [&mut theirs, &mut ours] {
        outcome[name].as_object_mut().and_then(|fields| fields.remove("compact_revision"));
    }
    line.to_lowercase().contains("maintenance/hashkv")
        && compacted == ours[name]["hash_revision"]
        && theirs == ours
}

/// A body that is no such message is refused alike, but in words of the library that read it.
fn is_unreadable(outcome: &Value) -> bool {
    let body = &outcome["body"];
    let words = body["message"].as_str().unwrap_or("etcdserver:");
    outcome["status"] == 400 && body["code"] == 3 && !words.starts_with("etcdserver:")
}

/// An outcome without what may differ.
pub(super) fn normal(line: &str, mut outcome: Value, side: &Side) -> Value {
    let revisions_are_relative = !line.starts_with("http") && !line.starts_with("line");
    let is_status = line.contains("Maintenance/Status") || line.contains("maintenance/status");
    walk(&mut outcome, side, revisions_are_relative, is_status);
    outcome
}

fn walk(value: &mut Value, side: &Side, revisions_are_relative: bool, is_status: bool) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(|item| walk(item, side, revisions_are_relative, is_status));
        }
        Value::Object(fields) => {
            fields.retain(|name, _| {
                let name = name.as_str();
                let differs = ["cluster_id", "member_id", "raft_term", "token", "hash"].contains(&name)
                    || is_status && OF_THE_SERVER.contains(&name);
                !differs
            });
            // Refusals over HTTP repeat their text as releases before 3.6 do.
            if fields.contains_key("code") && fields.get("error") == fields.get("message") {
                fields.remove("error");
            }
            // Seconds go on: what is left of a lease is what was granted, or nearly so.
            let granted = fields.get("grantedTTL").and_then(number);
            if let (Some(granted), Some(left)) = (granted, fields.get("TTL").and_then(number))
                && (granted - left) < 120
                && left <= granted
            {
                fields.insert("TTL".to_owned(), json!("as good as new"));
            }
            // In the order in which they end, which two clocks may see differently.
            if let Some(Value::Array(leases)) = fields.get_mut("leases") {
                leases.sort_by_key(ToString::to_string);
            }
            // The keys of a lease are those of a Go map.
            if let (true, Some(Value::Array(keys))) = (granted.is_some(), fields.get_mut("keys")) {
                keys.sort_by_key(ToString::to_string);
            }
            // So are alarms.
            if let Some(Value::Array(alarms)) = fields.get_mut("alarms") {
                alarms.sort_by_key(ToString::to_string);
            }
            for (name, value) in fields.iter_mut() {
                if ["ID", "lease", "memberID"].contains(&name.as_str())
                    && number(value).is_some_and(|id| id.unsigned_abs() > u128::from(GIVEN_ID_MAX))
                {
                    *value = json!("drawn");
                }
                if !revisions_are_relative
                    && name.ends_with("revision")
                    && let Some(revision) = number(value)
                    && revision != 0
                {
                    *value = json!(revision - i128::from(side.base()));
                }
                walk(value, side, revisions_are_relative, is_status);
            }
        }
        Value::String(text) => *text = side.without_addresses(text),
        _ => {}
    }
}

/// Numbers of 64 bits are texts over HTTP.
fn number(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => number.as_i128(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}
