//! Logins: how far a token reaches and how long it lives.

use std::time::Duration;

use futures_util::future::join_all;
use tonic::{Code, Status};
use wire::etcdserverpb as pb;

use crate::{
    cluster::three,
    one::{Member, with_token},
};
use wire::{authpb, prefix_end, v3lockpb as lock};

/// Adds root and ana, who may do nothing, and switches access rules on.
pub(crate) async fn with_users(member: &Member) {
    let mut auth = member.client.auth.clone();
    for user in ["root", "ana"] {
        let add = pb::AuthUserAddRequest { name: user.into(), password: "pw".into(), ..Default::default() };
        auth.user_add(add).await.unwrap();
    }
    auth.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await.unwrap();
    let grant = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    auth.user_grant_role(grant).await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
}

pub(crate) async fn log_in(member: &Member, name: &str, password: &str) -> Result<String, Status> {
    let login = pb::AuthenticateRequest { name: name.into(), password: password.into() };
    Ok(member.client.auth.clone().authenticate(login).await?.into_inner().token)
}

/// What somebody with this token is told who asks for the members.
pub(crate) async fn ask(member: &Member, token: &str) -> (Code, String) {
    let list = pb::MemberListRequest { linearizable: false };
    match member.client.cluster.clone().member_list(with_token(list, token)).await {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

pub(crate) fn taken() -> (Code, String) {
    (Code::Ok, String::new())
}

fn refused() -> (Code, String) {
    (Code::Unauthenticated, "etcdserver: invalid auth token".to_owned())
}

#[tokio::test]
async fn a_token_of_one_member_is_taken_by_every_other_at_once() {
    let members = three(|config| config.bcrypt_cost = 4).await;
    with_users(&members[0]).await;
    for round in 0..10 {
        let token = log_in(&members[round % 3], "ana", "pw").await.unwrap();
        let (letters, index) = token.split_once('.').unwrap();
        assert!(letters.bytes().all(|letter| letter.is_ascii_alphabetic()) && index.parse::<u64>().is_ok());
        for member in &members {
            assert_eq!(ask(member, &token).await, taken());
        }
        let guess = token.replace(&letters[..1], if letters.starts_with('a') { "b" } else { "a" });
        assert_eq!(ask(&members[0], &guess).await, refused());
    }
    join_all(members.into_iter().map(Member::stop)).await;
}

#[tokio::test]
async fn a_token_ends_with_password_user_rules_and_restart() {
    let mut member = Member::start_with(|config| config.bcrypt_cost = 4).await;
    let nobody = log_in(&member, "ana", "pw").await.unwrap_err();
    assert_eq!(nobody.message(), "etcdserver: authentication is not enabled");
    with_users(&member).await;
    let root = log_in(&member, "root", "pw").await.unwrap();
    let mut auth = member.client.auth.clone();

    let ana = log_in(&member, "ana", "pw").await.unwrap();
    assert_eq!(ask(&member, &ana).await, taken());
    let change = pb::AuthUserChangePasswordRequest {
        name: "ana".into(),
        password: "new".into(),
        ..Default::default()
    };
    auth.user_change_password(with_token(change, &root)).await.unwrap();
    assert_eq!(ask(&member, &ana).await, refused());
    log_in(&member, "ana", "pw").await.unwrap_err();

    let ana = log_in(&member, "ana", "new").await.unwrap();
    let delete = pb::AuthUserDeleteRequest { name: "ana".into() };
    auth.user_delete(with_token(delete, &root)).await.unwrap();
    assert_eq!(ask(&member, &ana).await, refused());
    assert_eq!(ask(&member, &root).await, taken());

    member.store().handle().flush().await.unwrap();
    member = member.restart().await;
    assert_eq!(ask(&member, &root).await, refused(), "nothing of it is on disk");
    let root = log_in(&member, "root", "pw").await.unwrap();
    let mut auth = member.client.auth.clone();
    auth.auth_disable(with_token(pb::AuthDisableRequest {}, &root)).await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    assert_eq!(ask(&member, &root).await, refused());
    member.stop().await;
}

#[tokio::test]
async fn an_unused_token_ends_and_a_used_one_goes_on() {
    let life = Duration::from_secs(3);
    let member = Member::start_with(|config| {
        config.bcrypt_cost = 4;
        config.auth_token_ttl = life;
    })
    .await;
    with_users(&member).await;
    let unused = log_in(&member, "ana", "pw").await.unwrap();
    let mut used = log_in(&member, "ana", "pw").await.unwrap();
    let begin = tokio::time::Instant::now();
    // On a slow machine the used one may end too; then it is the next one that must outlive its time.
    let mut since = begin;
    while begin.elapsed() < life * 10 && since.elapsed() < life * 2 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if ask(&member, &used).await != taken() {
            used = log_in(&member, "ana", "pw").await.unwrap();
            since = tokio::time::Instant::now();
        }
    }
    assert!(since.elapsed() >= life * 2, "no token lived twice its time");
    assert_eq!(ask(&member, &unused).await, refused());
    member.stop().await;
}

/// What somebody may do with the keys of the lock `l`.
fn permission(kind: authpb::permission::Type) -> authpb::Permission {
    authpb::Permission { perm_type: kind.into(), key: "l/".into(), range_end: prefix_end(b"l/") }
}

#[tokio::test]
async fn whoever_waits_for_a_lock_is_judged_when_it_is_free_and_leaves_if_refused() {
    use authpb::permission::Type;
    let member = Member::start_with(|config| config.bcrypt_cost = 4).await;
    with_users(&member).await;
    let root = log_in(&member, "root", "pw").await.unwrap();
    let mut auth = member.client.auth.clone();
    auth.role_add(with_token(pb::AuthRoleAddRequest { name: "r".into() }, &root)).await.unwrap();
    for kind in [Type::Read, Type::Write] {
        let role = format!("{kind:?}");
        auth.role_add(with_token(pb::AuthRoleAddRequest { name: role.clone() }, &root)).await.unwrap();
        let grant = pb::AuthRoleGrantPermissionRequest { name: role.clone(), perm: Some(permission(kind)) };
        auth.role_grant_permission(with_token(grant, &root)).await.unwrap();
        let grant = pb::AuthUserGrantRoleRequest { user: "ana".into(), role };
        auth.user_grant_role(with_token(grant, &root)).await.unwrap();
    }
    let ana = log_in(&member, "ana", "pw").await.unwrap();
    let lock_as = |token: &str, lease| {
        let (mut client, token) = (member.client.lock.clone(), token.to_owned());
        async move { client.lock(with_token(lock::LockRequest { name: "l".into(), lease }, &token)).await }
    };
    let keys = async || {
        let all = pb::RangeRequest { key: "l/".into(), range_end: prefix_end(b"l/"), ..Default::default() };
        let range = member.client.kv.clone().range(with_token(all, &root)).await.unwrap().into_inner();
        range.kvs.into_iter().map(|kv| kv.key).collect::<Vec<_>>()
    };
    for id in [1, 2] {
        let grant = pb::LeaseGrantRequest { ttl: 600, id };
        member.client.lease.clone().lease_grant(with_token(grant, &root)).await.unwrap();
    }
    for is_refused in [false, true] {
        let held = lock_as(&root, 1).await.unwrap().into_inner().key;
        let waiter = tokio::spawn(lock_as(&ana, 2));
        while keys().await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Any change of users makes what was known of a caller old.
        let role = pb::AuthRoleAddRequest { name: format!("later {is_refused}") };
        auth.role_add(with_token(role, &root)).await.unwrap();
        if is_refused {
            let revoke = pb::AuthUserRevokeRoleRequest { name: "ana".into(), role: "Read".into() };
            auth.user_revoke_role(with_token(revoke, &root)).await.unwrap();
        }
        let unlock = lock::UnlockRequest { key: held };
        member.client.lock.clone().unlock(with_token(unlock, &root)).await.unwrap();
        match waiter.await.unwrap() {
            Ok(locked) => {
                assert!(!is_refused);
                let unlock = lock::UnlockRequest { key: locked.into_inner().key };
                member.client.lock.clone().unlock(with_token(unlock, &ana)).await.unwrap();
            }
            Err(status) => {
                assert!(is_refused && status.message() == "etcdserver: permission denied", "{status:?}")
            }
        }
        let begin = tokio::time::Instant::now();
        while !keys().await.is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(30), "a refused waiter still has its place");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    member.stop().await;
}

#[tokio::test]
async fn a_fresh_read_knows_its_caller_as_freshly() {
    let members = three(|config| config.bcrypt_cost = 4).await;
    with_users(&members[0]).await;
    let root = log_in(&members[0], "root", "pw").await.unwrap();
    for round in 0..40 {
        let add = pb::AuthRoleAddRequest { name: format!("r{round}") };
        members[round % 3].client.auth.clone().role_add(with_token(add, &root)).await.unwrap();
        for member in &members {
            let get = pb::RangeRequest { key: "k".into(), ..Default::default() };
            member.client.kv.clone().range(with_token(get, &root)).await.unwrap();
            let list = pb::AuthRoleListRequest {};
            member.client.auth.clone().role_list(with_token(list, &root)).await.unwrap();
        }
    }
    join_all(members.into_iter().map(Member::stop)).await;
}

#[tokio::test]
async fn without_authentication_nobody_waits_for_a_token_to_become_known() {
    let member = Member::start().await;
    let reads = async {
        for _ in 0..60 {
            let get = pb::RangeRequest { key: "k".into(), ..Default::default() };
            member.client.kv.clone().range(with_token(get, "invented.999999999")).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(50), reads).await.expect("a second for each of them");
    member.stop().await;
}
