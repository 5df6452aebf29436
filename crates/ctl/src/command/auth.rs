//! `user`, `role` and `auth`.

use bytes::Bytes;
use wire::{
    authpb::{Permission, UserAddOptions, permission::Type},
    etcdserverpb::*,
    prefix_end,
};

use super::unknown;
use crate::{
    failure::Failure,
    flags::Line,
    output,
    session::{Session, read_line},
};

/// Prints an answer that carries nothing but its header.
macro_rules! said {
    ($session:expr, $name:literal, $asked:expr, $($text:tt)+) => {{
        let answer = $session.call($asked).await?;
        $session.show($name, &answer, |fields, answer| fields.header(answer.header.as_ref()), |_| output::line(format!($($text)+)))
    }};
}

pub(crate) async fn run(
    session: &Session,
    group: &str,
    subcommand: &str,
    line: &Line,
) -> Result<(), Failure> {
    match group {
        "user" => user(session, subcommand, line).await,
        "role" => role(session, subcommand, line).await,
        _ => auth(session, subcommand, line).await,
    }
}

fn one<'a>(line: &'a Line, wanted: &str) -> Result<&'a String, Failure> {
    match line.words.as_slice() {
        [word] => Ok(word),
        _ => Err(Failure::arguments(wanted)),
    }
}

fn two(line: &Line, wanted: &str) -> Result<(String, String), Failure> {
    match line.words.as_slice() {
        [first, second] => Ok((first.clone(), second.clone())),
        _ => Err(Failure::arguments(wanted)),
    }
}

async fn auth(session: &Session, subcommand: &str, line: &Line) -> Result<(), Failure> {
    if !line.words.is_empty() {
        return Err(Failure::arguments(format!("auth {subcommand} command does not accept any arguments")));
    }
    let mut client = session.client.auth.clone();
    match subcommand {
        "enable" => said!(
            session,
            "AuthEnableResponse",
            client.auth_enable(session.ask(AuthEnableRequest {})),
            "Authentication Enabled"
        ),
        "disable" => said!(
            session,
            "AuthDisableResponse",
            client.auth_disable(session.ask(AuthDisableRequest {})),
            "Authentication Disabled"
        ),
        "status" => {
            let answer = session.call(client.auth_status(session.ask(AuthStatusRequest {}))).await?;
            session.show(
                "AuthStatusResponse",
                &answer,
                |fields, answer| {
                    fields.header(answer.header.as_ref());
                    fields.value("Enabled", answer.enabled);
                    fields.value("AuthRevision", answer.auth_revision);
                },
                |answer| {
                    output::line(format!("Authentication Status: {}", answer.enabled));
                    output::line(format!("AuthRevision: {}", answer.auth_revision));
                },
            )
        }
        other => Err(unknown("auth", other)),
    }
}

/// A password: two prompts that must agree, or one line without prompts.
fn password(line: &Line, user: &str) -> Result<String, Failure> {
    let interactive = line.text("interactive").and_then(crate::flags::parse_switch).unwrap_or(true);
    if !interactive {
        return read_line();
    }
    output::raw(format!("Password of {user}: ").as_bytes());
    let first = read_line()?;
    if first.is_empty() {
        return Err(Failure::arguments("empty password"));
    }
    output::raw(format!("\nType password of {user} again for confirmation: ").as_bytes());
    let second = read_line()?;
    output::line("");
    if first == second { Ok(first) } else { Err(Failure::arguments("given passwords are different")) }
}

async fn user(session: &Session, subcommand: &str, line: &Line) -> Result<(), Failure> {
    let mut client = session.client.auth.clone();
    match subcommand {
        "add" => {
            let given = one(line, "user add command requires user name as its argument")?;
            let no_password = line.has("no-password");
            let (name, password) = match (given.split_once(':'), line.text("new-user-password")) {
                _ if no_password => (given.clone(), String::new()),
                (_, Some(password)) => (given.clone(), password.to_owned()),
                (Some(("", _)), None) => return Err(Failure::arguments("empty user name is not allowed")),
                (Some((name, password)), None) => (name.to_owned(), password.to_owned()),
                (None, None) => (given.clone(), password(line, given)?),
            };
            let request = AuthUserAddRequest {
                name: name.clone(),
                password,
                options: Some(UserAddOptions { no_password }),
                hashed_password: String::new(),
            };
            said!(
                session,
                "AuthUserAddResponse",
                client.user_add(session.ask(request)),
                "User {name} created"
            )
        }
        "delete" => {
            let name = one(line, "user delete command requires user name as its argument")?.clone();
            said!(
                session,
                "AuthUserDeleteResponse",
                client.user_delete(session.ask(AuthUserDeleteRequest { name: name.clone() })),
                "User {name} deleted"
            )
        }
        "passwd" => {
            let name = one(line, "user passwd command requires user name as its argument")?.clone();
            let request = AuthUserChangePasswordRequest {
                password: password(line, &name)?,
                name,
                hashed_password: String::new(),
            };
            said!(
                session,
                "AuthUserChangePasswordResponse",
                client.user_change_password(session.ask(request)),
                "Password updated"
            )
        }
        "grant-role" => {
            let (user, role) =
                two(line, "user grant command requires user name and role name as its argument")?;
            let request = AuthUserGrantRoleRequest { user: user.clone(), role: role.clone() };
            said!(
                session,
                "AuthUserGrantRoleResponse",
                client.user_grant_role(session.ask(request)),
                "Role {role} is granted to user {user}"
            )
        }
        "revoke-role" => {
            let (name, role) =
                two(line, "user revoke-role requires user name and role name as its argument")?;
            let request = AuthUserRevokeRoleRequest { name: name.clone(), role: role.clone() };
            said!(
                session,
                "AuthUserRevokeRoleResponse",
                client.user_revoke_role(session.ask(request)),
                "Role {role} is revoked from user {name}"
            )
        }
        "list" => {
            let answer = session.call(client.user_list(session.ask(AuthUserListRequest {}))).await?;
            session.show(
                "AuthUserListResponse",
                &answer,
                |fields, answer| {
                    fields.header(answer.header.as_ref());
                    answer.users.iter().for_each(|user| fields.quoted("User", user));
                },
                |answer| answer.users.iter().for_each(output::line),
            )
        }
        "get" => user_get(session, line).await,
        other => Err(unknown("user", other)),
    }
}

async fn user_get(session: &Session, line: &Line) -> Result<(), Failure> {
    let name = one(line, "user get command requires user name as its argument")?;
    let mut client = session.client.auth.clone();
    let answer =
        session.call(client.user_get(session.ask(AuthUserGetRequest { name: name.clone() }))).await?;
    if line.has("detail") {
        output::line(format!("User: {name}"));
        for role in &answer.roles {
            output::line("");
            let request = AuthRoleGetRequest { role: role.clone() };
            print_role(role, &session.call(client.role_get(session.ask(request))).await?.perm);
        }
        return Ok(());
    }
    session.show(
        "AuthUserGetResponse",
        &answer,
        |fields, answer| {
            fields.header(answer.header.as_ref());
            answer.roles.iter().for_each(|role| fields.quoted("Role", role));
        },
        |answer| {
            output::line(format!("User: {name}"));
            let roles: String = answer.roles.iter().map(|role| format!(" {role}")).collect();
            output::line(format!("Roles:{roles}"));
        },
    )
}

async fn role(session: &Session, subcommand: &str, line: &Line) -> Result<(), Failure> {
    let mut client = session.client.auth.clone();
    match subcommand {
        "add" => {
            let name = one(line, "role add command requires role name as its argument")?.clone();
            said!(
                session,
                "AuthRoleAddResponse",
                client.role_add(session.ask(AuthRoleAddRequest { name: name.clone() })),
                "Role {name} created"
            )
        }
        "delete" => {
            let role = one(line, "role delete command requires role name as its argument")?.clone();
            said!(
                session,
                "AuthRoleDeleteResponse",
                client.role_delete(session.ask(AuthRoleDeleteRequest { role: role.clone() })),
                "Role {role} deleted"
            )
        }
        "get" => {
            let role = one(line, "role get command requires role name as its argument")?;
            let answer =
                session.call(client.role_get(session.ask(AuthRoleGetRequest { role: role.clone() }))).await?;
            session.show(
                "AuthRoleGetResponse",
                &answer,
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
        "list" => {
            let answer = session.call(client.role_list(session.ask(AuthRoleListRequest {}))).await?;
            session.show(
                "AuthRoleListResponse",
                &answer,
                |fields, answer| {
                    fields.header(answer.header.as_ref());
                    answer.roles.iter().for_each(|role| fields.quoted("Role", role));
                },
                |answer| answer.roles.iter().for_each(output::line),
            )
        }
        "grant-permission" => {
            let [name, kind, range @ ..] = line.words.as_slice() else {
                return Err(Failure::arguments(
                    "role grant command requires role name, permission type, and key [endkey] as its argument",
                ));
            };
            let perm_type = match kind.to_lowercase().as_str() {
                "read" => Type::Read,
                "write" => Type::Write,
                "readwrite" => Type::Readwrite,
                _ => return Err(Failure::arguments(format!("invalid permission type: {kind}"))),
            };
            let (key, range_end) = permission_range(line, range)?;
            let perm = Some(Permission { perm_type: perm_type.into(), key, range_end });
            let request = AuthRoleGrantPermissionRequest { name: name.clone(), perm };
            said!(
                session,
                "AuthRoleGrantPermissionResponse",
                client.role_grant_permission(session.ask(request)),
                "Role {name} updated"
            )
        }
        "revoke-permission" => {
            let [role, range @ ..] = line.words.as_slice() else {
                return Err(Failure::arguments(
                    "role revoke-permission command requires role name and key [endkey] as its argument",
                ));
            };
            let (key, range_end) = permission_range(line, range)?;
            let revoked = match (range_end.as_ref(), String::from_utf8_lossy(&key)) {
                ([], key) => format!("Permission of key {key}"),
                ([0], key) => format!("Permission of range [{key}, <open ended>"),
                (end, key) => format!("Permission of range [{key}, {})", String::from_utf8_lossy(end)),
            };
            let request = AuthRoleRevokePermissionRequest { role: role.clone(), key, range_end };
            said!(
                session,
                "AuthRoleRevokePermissionResponse",
                client.role_revoke_permission(session.ask(request)),
                "{revoked} is revoked from role {role}"
            )
        }
        other => Err(unknown("role", other)),
    }
}

fn permission_range(line: &Line, words: &[String]) -> Result<(Bytes, Bytes), Failure> {
    let (prefix, from_key) = (line.has("prefix"), line.has("from-key"));
    if prefix && from_key {
        return Err(Failure::arguments("--from-key and --prefix flags are mutually exclusive"));
    }
    let open = || Bytes::from_static(&[0]);
    match words {
        [key] if (prefix || from_key) && key.is_empty() => Ok((open(), open())),
        [key] if prefix => Ok((Bytes::from(key.clone()), prefix_end(key.as_bytes()))),
        [key] if from_key => Ok((Bytes::from(key.clone()), open())),
        [key] => Ok((Bytes::from(key.clone()), Bytes::new())),
        [_, _] if prefix || from_key => {
            Err(Failure::arguments("unexpected endkey argument with --prefix or --from-key flag"))
        }
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
    let key = String::from_utf8_lossy(&permission.key);
    match permission.range_end.as_ref() {
        [] => format!("\t{key}"),
        [0] => format!("\t[{key}, <open ended>"),
        end => {
            let prefix =
                if prefix_end(&permission.key) == end { format!(" (prefix {key})") } else { String::new() };
            format!("\t[{key}, {}){prefix}", String::from_utf8_lossy(end))
        }
    }
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
