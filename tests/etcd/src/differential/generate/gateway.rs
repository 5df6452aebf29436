//! Calls as JSON over HTTP.

use super::*;

impl Generator<'_> {
    /// A call of the other kinds, as JSON over HTTP; sometimes damaged.
    pub(super) fn gateway(&mut self) {
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
