//! `user add`, `delete`, `passwd`, `get`, `list`, `grant-role` and `revoke-role`.
//!
//! Passwords come from a prompt, from standard input or from the line itself, and are never printed.

use wire::{
    authpb::UserAddOptions,
    etcdserverpb::{
        AuthRoleGetRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
        AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
    },
};

use super::role::show_role;
use crate::{
    catalog::{Command, Run},
    failure::Failure,
    flags::{Line, switch, text},
    output, prompt,
    session::Session,
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "user add",
        takes: "<user name or user:password> [options]",
        about: "Adds a new user",
        detail: "",
        example: "user add alice\nuser add alice --interactive=false <password-file\nuser add proxy --no-password",
        flags: &[
            switch("interactive", "Ask for the password twice; false reads it as one line of standard input")
                .on(),
            text("new-user-password", "", "Supply password from the command line flag"),
            switch("no-password", "Create a user without password (CN based auth only)"),
        ],
        run: Run::Online(|session, line| Box::pin(add(session, line))),
    },
    Command {
        name: "user delete",
        takes: "<user name>",
        about: "Deletes a user",
        detail: "",
        example: "user delete alice",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(delete(session, line))),
    },
    Command {
        name: "user get",
        takes: "<user name> [options]",
        about: "Gets detailed information of a user",
        detail: "",
        example: "user get alice --detail",
        flags: &[switch("detail", "Show permissions of roles granted to the user")],
        run: Run::Online(|session, line| Box::pin(get(session, line))),
    },
    Command {
        name: "user list",
        takes: "",
        about: "Lists all users",
        detail: "",
        example: "user list",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(list(session, line))),
    },
    Command {
        name: "user passwd",
        takes: "<user name> [options]",
        about: "Changes password of user",
        detail: "",
        example: "user passwd alice",
        flags: &[switch(
            "interactive",
            "Ask for the password twice; false reads it as one line of standard input",
        )
        .on()],
        run: Run::Online(|session, line| Box::pin(change_password(session, line))),
    },
    Command {
        name: "user grant-role",
        takes: "<user name> <role name>",
        about: "Grants a role to a user",
        detail: "",
        example: "user grant-role alice readers",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(grant_role(session, line))),
    },
    Command {
        name: "user revoke-role",
        takes: "<user name> <role name>",
        about: "Revokes a role from a user",
        detail: "",
        example: "user revoke-role alice readers",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(revoke_role(session, line))),
    },
];

fn password(line: &Line, user: &str) -> Result<String, Failure> {
    if !line.has("interactive") {
        return Ok(prompt::line()?.split_whitespace().next().unwrap_or_default().to_owned());
    }
    let first = prompt::secret(&format!("Password of {user}: "))?;
    if first.is_empty() {
        return Err(Failure::arguments("empty password"));
    }
    let second = prompt::secret(&format!("Type password of {user} again for confirmation: "))?;
    if first == second { Ok(first) } else { Err(Failure::arguments("given passwords are different")) }
}

async fn add(session: &Session, line: &Line) -> Result<(), Failure> {
    let [given] = line.words_of("user add command requires user name as its argument")?;
    let no_password = line.has("no-password");
    let (name, password) = match (given.split_once(':'), line.given("new-user-password")) {
        _ if no_password => (given, ""),
        (_, Some(password)) if !password.is_empty() => (given, password),
        (Some(("", _)), _) => return Err(Failure::arguments("empty user name is not allowed")),
        (Some((name, password)), _) => (name, password),
        (None, _) => (given, &*password(line, given)?),
    };
    let request = AuthUserAddRequest {
        name: name.to_owned(),
        password: password.to_owned(),
        options: Some(UserAddOptions { no_password }),
        hashed_password: String::new(),
    };
    let mut client = session.client.auth.clone();
    let asked = client.user_add(session.ask(request));
    session
        .say("AuthUserAddResponse", asked, |answer| answer.header, |_| format!("User {name} created"))
        .await
}

async fn delete(session: &Session, line: &Line) -> Result<(), Failure> {
    let [name] = line.words_of("user delete command requires user name as its argument")?;
    let mut client = session.client.auth.clone();
    let asked = client.user_delete(session.ask(AuthUserDeleteRequest { name: name.to_owned() }));
    session
        .say("AuthUserDeleteResponse", asked, |answer| answer.header, |_| format!("User {name} deleted"))
        .await
}

async fn change_password(session: &Session, line: &Line) -> Result<(), Failure> {
    let [name] = line.words_of("user passwd command requires user name as its argument")?;
    let request = AuthUserChangePasswordRequest {
        password: password(line, name)?,
        name: name.to_owned(),
        hashed_password: String::new(),
    };
    let mut client = session.client.auth.clone();
    let asked = client.user_change_password(session.ask(request));
    let said = |_| "Password updated".to_owned();
    session.say("AuthUserChangePasswordResponse", asked, |answer| answer.header, said).await
}

async fn grant_role(session: &Session, line: &Line) -> Result<(), Failure> {
    let [user, role] =
        line.words_of("user grant command requires user name and role name as its argument")?;
    let request = AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
    let mut client = session.client.auth.clone();
    let asked = client.user_grant_role(session.ask(request));
    let said = |_| format!("Role {role} is granted to user {user}");
    session.say("AuthUserGrantRoleResponse", asked, |answer| answer.header, said).await
}

async fn revoke_role(session: &Session, line: &Line) -> Result<(), Failure> {
    let [name, role] = line.words_of("user revoke-role requires user name and role name as its argument")?;
    let request = AuthUserRevokeRoleRequest { name: name.to_owned(), role: role.to_owned() };
    let mut client = session.client.auth.clone();
    let asked = client.user_revoke_role(session.ask(request));
    let said = |_| format!("Role {role} is revoked from user {name}");
    session.say("AuthUserRevokeRoleResponse", asked, |answer| answer.header, said).await
}

async fn list(session: &Session, line: &Line) -> Result<(), Failure> {
    let [] = line.words_of("user list command requires no arguments")?;
    let mut client = session.client.auth.clone();
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

async fn get(session: &Session, line: &Line) -> Result<(), Failure> {
    let [name] = line.words_of("user get command requires user name as its argument")?;
    let mut client = session.client.auth.clone();
    let request = AuthUserGetRequest { name: name.to_owned() };
    let answer = session.call(client.user_get(session.ask(request))).await?;
    if line.has("detail") {
        output::line(format!("User: {name}"));
        for role in &answer.roles {
            output::line("");
            let request = AuthRoleGetRequest { role: role.clone() };
            show_role(session, role, &session.call(client.role_get(session.ask(request))).await?)?;
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
