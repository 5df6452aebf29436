//! etcd's log line about a command that took long to apply. It names keys and sizes, never values.

use std::time::Duration;

use mvcc::{Applied, Command, KeyRange, Op, Txn};

/// Operations of a transaction that are named.
const OPERATIONS_MAX: usize = 8;

pub(crate) fn warn(took: Duration, expected: Duration, command: &Command, applied: &Applied) {
    let error = applied.result.as_ref().err().map(ToString::to_string).unwrap_or_default();
    tracing::warn!(
        took = ?took,
        "expected-duration" = ?expected,
        prefix = "",
        request = request(command),
        response = format!("revision:{}", applied.revision),
        error,
        "apply request took too long"
    );
}

fn request(command: &Command) -> String {
    match command {
        Command::Put(put) => format!("put:<key:{} value_size:{}>", key(&put.key), put.value.len()),
        Command::DeleteRange(delete) => format!("delete_range:<{}>", range(&delete.range)),
        Command::Txn(txn) => format!("txn:<{}>", transaction(txn)),
        Command::Compact(compact) => format!("compaction:<revision:{}>", compact.revision),
        Command::LeaseGrant(grant) => {
            format!("lease_grant:<ttl:{}-second id:{:016x}>", grant.ttl_s, grant.id)
        }
        Command::LeaseRevoke(revoke) => format!("lease_revoke:<id:{:016x}>", revoke.id),
        Command::LeaseExpire(expire) => format!("lease_expire:<count:{}>", expire.ids.len()),
        Command::LeaseCheckpoint(checkpoint) => {
            format!("lease_checkpoint:<count:{}>", checkpoint.leases.len())
        }
        Command::Alarm(_) => "alarm:<>".to_owned(),
        Command::Auth(_) => "auth:<>".to_owned(),
        Command::MemberAttributes(_) => "member_attributes:<>".to_owned(),
        Command::ClusterVersion(_) => "cluster_version:<>".to_owned(),
        Command::Noop => "noop:<>".to_owned(),
    }
}

fn transaction(txn: &Txn) -> String {
    let branch = |name: &str, operations: &[Op]| {
        let named: Vec<String> = operations.iter().take(OPERATIONS_MAX).map(operation).collect();
        format!("{name}:<{}> {name}_size:{}", named.join(" "), operations.len())
    };
    let (success, failure) = (branch("success", &txn.success), branch("failure", &txn.failure));
    format!("compare_size:{} {success} {failure}", txn.compare.len())
}

fn operation(operation: &Op) -> String {
    match operation {
        Op::Range(query) => format!("request_range:<{}>", range(&query.range)),
        Op::Put(put) => format!("request_put:<key:{} value_size:{}>", key(&put.key), put.value.len()),
        Op::DeleteRange(delete) => format!("request_delete_range:<{}>", range(&delete.range)),
        Op::Txn(nested) => format!("request_txn:<compare_size:{}>", nested.compare.len()),
    }
}

fn range(range: &KeyRange) -> String {
    match range {
        KeyRange::Key(one) => format!("key:{}", key(one)),
        KeyRange::Span { start, end } => format!("key:{} range_end:{}", key(start), key(end)),
        KeyRange::From(start) => format!("key:{} range_end:\"\\000\"", key(start)),
    }
}

fn key(key: &[u8]) -> String {
    format!("\"{}\"", key.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_without_its_values() {
        let put = mvcc::Put { key: "k\n".into(), value: "secret".into(), ..mvcc::Put::default() };
        assert_eq!(request(&Command::Put(put.clone())), r#"put:<key:"k\n" value_size:6>"#);
        let txn = Txn { success: vec![Op::Put(put)], ..Txn::default() };
        let text = request(&Command::Txn(txn));
        assert!(
            text.contains(r#"request_put:<key:"k\n" value_size:6>"#) && !text.contains("secret"),
            "{text}"
        );
    }
}
