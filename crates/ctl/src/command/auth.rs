//! `auth enable`, `disable` and `status`.
//!
//! Not here: users (user.rs) and roles (role.rs).

use wire::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthStatusRequest, AuthUserGrantRoleRequest,
};

use crate::{
    catalog::{Command, Run},
    failure::Failure,
    flags::Line,
    output,
    session::Session,
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "auth enable",
        takes: "",
        about: "Enables authentication",
        detail: "Needs the user root; the role root is made and granted to it if need be.",
        example: "auth enable",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(enable(session, line))),
    },
    Command {
        name: "auth disable",
        takes: "",
        about: "Disables authentication",
        detail: "",
        example: "auth disable --user root:secret",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(disable(session, line))),
    },
    Command {
        name: "auth status",
        takes: "",
        about: "Returns authentication status",
        detail: "",
        example: "auth status",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(status(session, line))),
    },
];

fn no_words(line: &Line, name: &str) -> Result<(), Failure> {
    if line.words.is_empty() {
        return Ok(());
    }
    Err(Failure::arguments(format!("auth {name} command does not accept any arguments")))
}

async fn enable(session: &Session, line: &Line) -> Result<(), Failure> {
    no_words(line, "enable")?;
    let mut client = session.client.auth.clone();
    let mut enabled = session.call(client.auth_enable(session.ask(AuthEnableRequest {}))).await;
    if matches!(&enabled, Err(failure) if failure.text == "etcdserver: root user does not have root role") {
        let root = || "root".to_owned();
        session.call(client.role_add(session.ask(AuthRoleAddRequest { name: root() }))).await?;
        let grant = AuthUserGrantRoleRequest { user: root(), role: root() };
        session.call(client.user_grant_role(session.ask(grant))).await?;
        enabled = session.call(client.auth_enable(session.ask(AuthEnableRequest {}))).await;
    }
    enabled?;
    output::line("Authentication Enabled");
    Ok(())
}

async fn disable(session: &Session, line: &Line) -> Result<(), Failure> {
    no_words(line, "disable")?;
    let mut client = session.client.auth.clone();
    session.call(client.auth_disable(session.ask(AuthDisableRequest {}))).await?;
    output::line("Authentication Disabled");
    Ok(())
}

async fn status(session: &Session, line: &Line) -> Result<(), Failure> {
    no_words(line, "status")?;
    let mut client = session.client.auth.clone();
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
