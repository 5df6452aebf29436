//! Passwords and tokens that are known to the test, and all that a member writes or tells: none may be in it.

use std::path::Path;

use wire::etcdserverpb as pb;

use crate::garbage::throw;
use crate::rig::Victim;

/// Each in a place of its own, so that a hit tells where it leaked.
const PASSWORDS: [&str; 7] = [
    "canary-of-root-1",
    "canary-of-ana-2",
    "canary-changed-3",
    "canary-mistyped-4",
    "canary-in-broken-json-5",
    "canary-of-gateway-6",
    "canary-in-wrong-field-7",
];
/// What somebody may send who takes another's token for his.
const FOREIGN_TOKEN: &str = "CanaryCanaryCanaryCanary.999999";

fn posted(path: &str, body: &str, token: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn with_token<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("token", token.parse().unwrap());
    request
}

/// Everything below a folder, each file with its name.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() && !path.is_symlink() {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

#[tokio::test]
async fn no_password_and_no_token_is_in_anything_that_a_member_writes_or_tells() {
    let flags = ["--bcrypt-cost=4", "--log-level=debug", "--enable-pprof", "--metrics=extensive"];
    let mut victim = Victim::start(&flags).await;
    let mut auth = victim.client.auth.clone();
    let user = |name: &str, password: &str| pb::AuthUserAddRequest {
        name: name.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    };
    for (name, password) in [("root", PASSWORDS[0]), ("ana", PASSWORDS[1])] {
        auth.user_add(user(name, password)).await.unwrap();
        // Refused: it exists, or has no name.
        auth.user_add(user(name, password)).await.unwrap_err();
        auth.user_add(user("", password)).await.unwrap_err();
    }
    let changed = pb::AuthUserChangePasswordRequest {
        name: "ana".into(),
        password: PASSWORDS[2].into(),
        ..Default::default()
    };
    auth.user_change_password(changed).await.unwrap();
    let absent = pb::AuthUserChangePasswordRequest {
        name: "bo".into(),
        password: PASSWORDS[2].into(),
        ..Default::default()
    };
    auth.user_change_password(absent).await.unwrap_err();
    let root = || "root".to_owned();
    auth.role_add(pb::AuthRoleAddRequest { name: root() }).await.unwrap();
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: root(), role: root() }).await.unwrap();
    // The bystander goes on as somebody without a name, who may not write from here on: it is done with.
    victim.dismiss_bystander();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    let login = |name: &str, password: &str| pb::AuthenticateRequest {
        name: name.to_owned(),
        password: password.to_owned(),
    };
    let mut secrets: Vec<String> = PASSWORDS.iter().map(|password| (*password).to_owned()).collect();
    for (name, password) in [("root", PASSWORDS[0]), ("ana", PASSWORDS[2])] {
        secrets.push(auth.authenticate(login(name, password)).await.unwrap().into_inner().token);
    }
    for (name, password) in [("root", PASSWORDS[3]), ("absent", PASSWORDS[3]), (PASSWORDS[6], "x")] {
        auth.authenticate(login(name, password)).await.unwrap_err();
    }
    let token = secrets[PASSWORDS.len()].clone();
    let put = || crate::rig::put("kept", "what is written is found");
    victim.client.kv.clone().put(with_token(put(), &token)).await.unwrap();
    victim.client.kv.clone().put(with_token(put(), FOREIGN_TOKEN)).await.unwrap_err();
    let grpc_web = posted("/etcdserverpb.KV/Put", "", &token);
    let json = |name: &str, password: &str| format!(r#"{{"name":"{name}","password":"{password}"}}"#);
    let mut answers = Vec::new();
    for request in [
        // No HTTP: the member tells of it at the level of debugging.
        [b"\0\xff\0".to_vec(), format!("{} {token}", PASSWORDS[5]).into_bytes()].concat(),
        posted("/v3/auth/authenticate", &json("root", PASSWORDS[5]), ""),
        posted("/v3/auth/authenticate", &format!(r#"{{"name":"root","password":{}}}"#, PASSWORDS[4]), ""),
        posted("/v3/auth/authenticate", &format!(r#"{{"name":"root","password":"{}"#, PASSWORDS[4]), ""),
        posted("/v3/auth/user/add", &json("eve", PASSWORDS[5]), &token),
        posted("/v3/auth/user/changepw", &json("eve", PASSWORDS[5]), FOREIGN_TOKEN),
        posted("/v3/kv/put", r#"{"key":"a2VwdA=="}"#, &token),
        posted("/v3/kv/put", r#"{"key":"a2VwdA=="}"#, FOREIGN_TOKEN),
        posted(&format!("/v3/auth/authenticate?password={}", PASSWORDS[5]), "{}", ""),
        grpc_web,
        posted("/metrics", "", &token),
    ] {
        answers.extend(throw(&victim, &request, false).await);
    }
    for page in ["/metrics", "/debug/vars", "/health", "/readyz?verbose", "/version"] {
        let request = format!("GET {page} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        answers.extend(throw(&victim, request.as_bytes(), false).await);
    }
    // All of it is on the disk.
    victim.client.maintenance.clone().defragment(with_token(pb::DefragmentRequest {}, &token)).await.unwrap();
    let mut found = vec![("an answer".to_owned(), answers)];
    files(victim.cluster.dir.path(), &mut found);

    // What is looked through is what was written.
    let log = found.iter().find(|(name, _)| name.ends_with("m1.log")).unwrap();
    assert!(holds(&log.1, "\"level\":\"debug\""), "the log is not that of a talkative member");
    assert!(holds(&found[0].1, "etcd_server_has_leader"), "no metrics came");
    assert!(
        found.iter().any(|(name, bytes)| name.contains("/wal") && holds(bytes, "what is written is found"))
    );
    secrets.push(FOREIGN_TOKEN.to_owned());
    for (name, bytes) in &found {
        for secret in &secrets {
            // Behind the dot of a token is a place in the log, which is no secret.
            let secret = secret.split('.').next().unwrap();
            assert!(!holds(bytes, secret), "{secret} is in {name}");
        }
    }
}
