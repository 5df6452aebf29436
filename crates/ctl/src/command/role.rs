//! `role add`, `delete`, `get`, `list`, `grant-permission` and `revoke-permission`.

use bytes::Bytes;
use wire::{
    authpb::{Permission, permission::Type},
    etcdserverpb::{
        AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGetResponse,
        AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthRoleRevokePermissionRequest,
    },
    prefix_end,
};

use crate::{
    catalog::{Command, Run},
    failure::Failure,
    flags::{Line, switch},
    output,
    session::Session,
    text,
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "role add",
        takes: "<role name>",
        about: "Adds a new role",
        detail: "",
        example: "role add readers",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(add(session, line))),
    },
    Command {
        name: "role delete",
        takes: "<role name>",
        about: "Deletes a role",
        detail: "",
        example: "role delete readers",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(delete(session, line))),
    },
    Command {
        name: "role get",
        takes: "<role name>",
        about: "Gets detailed information of a role",
        detail: "",
        example: "role get readers",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(get(session, line))),
    },
    Command {
        name: "role list",
        takes: "",
        about: "Lists all roles",
        detail: "",
        example: "role list",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(list(session, line))),
    },
    Command {
        name: "role grant-permission",
        takes: "[options] <role name> <permission type> <key> [endkey]",
        about: "Grants a key to a role",
        detail: "The permission type is read, write or readwrite.",
        example: "role grant-permission readers read --prefix /registry/",
        flags: &[
            switch(
                "from-key",
                "grant a permission of keys that are greater than or equal to the given key using byte compare",
            ),
            switch("prefix", "grant a prefix permission"),
        ],
        run: Run::Online(|session, line| Box::pin(grant(session, line))),
    },
    Command {
        name: "role revoke-permission",
        takes: "<role name> <key> [endkey]",
        about: "Revokes a key from a role",
        detail: "",
        example: "role revoke-permission readers --prefix /registry/",
        flags: &[
            switch(
                "from-key",
                "revoke a permission of keys that are greater than or equal to the given key using byte compare",
            ),
            switch("prefix", "revoke a prefix permission"),
        ],
        run: Run::Online(|session, line| Box::pin(revoke(session, line))),
    },
];

async fn add(session: &Session, line: &Line) -> Result<(), Failure> {
    let [name] = line.words_of("role add command requires role name as its argument")?;
    let mut client = session.client.auth.clone();
    let asked = client.role_add(session.ask(AuthRoleAddRequest { name: name.to_owned() }));
    session
        .say("AuthRoleAddResponse", asked, |answer| answer.header, |_| format!("Role {name} created"))
        .await
}

async fn delete(session: &Session, line: &Line) -> Result<(), Failure> {
    let [role] = line.words_of("role delete command requires role name as its argument")?;
    let mut client = session.client.auth.clone();
    let asked = client.role_delete(session.ask(AuthRoleDeleteRequest { role: role.to_owned() }));
    session
        .say("AuthRoleDeleteResponse", asked, |answer| answer.header, |_| format!("Role {role} deleted"))
        .await
}

async fn get(session: &Session, line: &Line) -> Result<(), Failure> {
    let [role] = line.words_of("role get command requires role name as its argument")?;
    let mut client = session.client.auth.clone();
    let request = AuthRoleGetRequest { role: role.to_owned() };
    show_role(session, role, &session.call(client.role_get(session.ask(request))).await?)
}

pub(crate) fn show_role(session: &Session, role: &str, answer: &AuthRoleGetResponse) -> Result<(), Failure> {
    session.show(
        "AuthRoleGetResponse",
        answer,
        |fields, answer| {
            fields.header(answer.header.as_ref());
            for permission in &answer.perm {
                fields.value("PermType", format!(" {}", permission.perm_type().as_str_name()));
                fields.quoted("Key", &permission.key);
                fields.quoted("RangeEnd", &permission.range_end);
            }
        },
        |answer| print_role(role, &answer.perm),
    )
}

async fn list(session: &Session, line: &Line) -> Result<(), Failure> {
    let [] = line.words_of("role list command requires no arguments")?;
    let mut client = session.client.auth.clone();
    let answer = session.call(client.role_list(session.ask(AuthRoleListRequest {}))).await?;
    session.show(
        "AuthRoleListResponse",
        &answer,
        |fields, answer| {
            fields.header(answer.header.as_ref());
            let roles = answer.roles.iter().map(|role| text::quote(role.as_bytes()));
            fields.value("Roles", roles.collect::<Vec<_>>().join(" "));
        },
        |answer| answer.roles.iter().for_each(output::line),
    )
}

async fn grant(session: &Session, line: &Line) -> Result<(), Failure> {
    let [name, kind, range @ ..] = line.words.as_slice() else {
        return Err(Failure::arguments(GRANT_WORDS));
    };
    if range.is_empty() {
        return Err(Failure::arguments(GRANT_WORDS));
    }
    let perm_type = match kind.to_lowercase().as_str() {
        "read" => Type::Read,
        "write" => Type::Write,
        "readwrite" => Type::Readwrite,
        _ => return Err(Failure::arguments(format!("invalid permission type: {kind}"))),
    };
    let (key, range_end) = permission_range(line, range)?;
    let perm = Some(Permission { perm_type: perm_type.into(), key, range_end });
    let request = AuthRoleGrantPermissionRequest { name: name.clone(), perm };
    let mut client = session.client.auth.clone();
    let asked = client.role_grant_permission(session.ask(request));
    let said = |_| format!("Role {name} updated");
    session.say("AuthRoleGrantPermissionResponse", asked, |answer| answer.header, said).await
}

const GRANT_WORDS: &str =
    "role grant command requires role name, permission type, and key [endkey] as its argument";

async fn revoke(session: &Session, line: &Line) -> Result<(), Failure> {
    let [role, range @ ..] = line.words.as_slice() else {
        return Err(Failure::arguments(REVOKE_WORDS));
    };
    let [shown, ..] = range else { return Err(Failure::arguments(REVOKE_WORDS)) };
    let (key, range_end) = permission_range(line, range)?;
    let revoked = match range_end.as_ref() {
        [] => format!("Permission of key {shown}"),
        [0] => format!("Permission of range [{shown}, <open ended>"),
        end => format!("Permission of range [{shown}, {})", String::from_utf8_lossy(end)),
    };
    let request = AuthRoleRevokePermissionRequest { role: role.clone(), key, range_end };
    let mut client = session.client.auth.clone();
    let asked = client.role_revoke_permission(session.ask(request));
    let said = |_| format!("{revoked} is revoked from role {role}");
    session.say("AuthRoleRevokePermissionResponse", asked, |answer| answer.header, said).await
}

const REVOKE_WORDS: &str =
    "role revoke-permission command requires role name and key [endkey] as its argument";

fn permission_range(line: &Line, words: &[String]) -> Result<(Bytes, Bytes), Failure> {
    let (prefix, from_key) = (line.has("prefix"), line.has("from-key"));
    if prefix && from_key {
        return Err(Failure::arguments("--from-key and --prefix flags are mutually exclusive"));
    }
    let open = || Bytes::from_static(&[0]);
    match words {
        [key, ..] if key.is_empty() => Ok((open(), if prefix || from_key { open() } else { Bytes::new() })),
        [key] if prefix => Ok((Bytes::from(key.clone()), prefix_end(key.as_bytes()))),
        [key] if from_key => Ok((Bytes::from(key.clone()), open())),
        [key] => Ok((Bytes::from(key.clone()), Bytes::new())),
        [_, _] if prefix => Err(Failure::arguments("unexpected endkey argument with --prefix flag")),
        [_, _] if from_key => Err(Failure::arguments("unexpected endkey argument with --from-key flag")),
        [key, end] => Ok((Bytes::from(key.clone()), Bytes::from(end.clone()))),
        _ => Err(Failure::arguments("role command requires a key and an optional endkey")),
    }
}

fn print_role(role: &str, permissions: &[Permission]) {
    output::line(format!("Role {role}"));
    for (title, kind) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
        output::line(title);
        let matching = |permission: &&Permission| {
            permission.perm_type() == kind || permission.perm_type() == Type::Readwrite
        };
        permissions.iter().filter(matching).for_each(|permission| output::line(permission_text(permission)));
    }
}

fn permission_text(permission: &Permission) -> String {
    let (key, end) = (&permission.key, &permission.range_end);
    let shown = String::from_utf8_lossy(key);
    let range = match end.as_ref() {
        [] => return format!("\t{shown}"),
        [0] => format!("\t[{shown}, <open ended>"),
        end => format!("\t[{shown}, {})", String::from_utf8_lossy(end)),
    };
    let is_prefix = !key.is_empty() && prefix_end(key) == *end;
    if is_prefix { format!("{range} (prefix {shown})") } else { range }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_print_as_etcdctl_prints_them() {
        for (key, end, text) in [
            (&b"one"[..], &b""[..], "\tone"),
            (b"k", b"kz", "\t[k, kz)"),
            (b"p", b"q", "\t[p, q) (prefix p)"),
            (b"f", b"\0", "\t[f, <open ended>"),
        ] {
            let permission =
                Permission { key: Bytes::from_static(key), range_end: Bytes::from_static(end), perm_type: 0 };
            assert_eq!(permission_text(&permission), text);
        }
    }
}
