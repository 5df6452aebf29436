//! kubeconfig files as people have them.

use super::*;

fn two_members() -> KubeConfig {
    let mut config = KubeConfig::default();
    let user = Credentials::certificate(b"CHAIN", b"KEY");
    config.add_context_for("one", Cluster::embedded("https://127.0.0.1:6443", b"CA"), "admin", user.clone());
    config.add_context_for("two", Cluster::embedded("https://127.0.0.1:6444", b"CA"), "admin", user);
    config
}

#[test]
fn what_is_saved_can_be_loaded() {
    let dir = std::env::temp_dir().join(format!("kubeconfig-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("admin.kubeconfig");
    two_members().save(&path).unwrap();
    let loaded = KubeConfig::load(&path).unwrap();
    assert_eq!(loaded.current_context, "one");
    let endpoint = loaded.endpoint(Some("two")).unwrap();
    assert_eq!(endpoint.servers, ["https://127.0.0.1:6444"]);
    assert_eq!(endpoint.ca_pem.as_deref(), Some(b"CA".as_slice()));
    assert_eq!(endpoint.client_identity_pem, Some((b"CHAIN".to_vec(), b"KEY".to_vec())));
    assert_eq!(loaded.endpoint_all().unwrap().servers, ["https://127.0.0.1:6443", "https://127.0.0.1:6444"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn files_are_relative_to_the_kubeconfig() {
    let dir = std::env::temp_dir().join(format!("kubeconfig-files-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("ca.crt"), "CA").unwrap();
    fs::write(dir.join("token"), "secret\n").unwrap();
    let text = "
apiVersion: v1
kind: Config
preferences: {}
current-context: c
clusters: [{name: k, cluster: {server: 'https://h', certificate-authority: ca.crt, tls-server-name: api}}]
contexts: [{name: c, context: {cluster: k, user: u, namespace: n}}]
users: [{name: u, user: {tokenFile: token}}]
";
    let config = KubeConfig::parse(text, &dir).unwrap();
    let endpoint = config.endpoint(None).unwrap();
    assert_eq!(endpoint.ca_pem.as_deref(), Some(b"CA".as_slice()));
    assert_eq!(
        (endpoint.bearer_token.as_deref(), endpoint.tls_server_name.as_deref()),
        (Some("secret"), Some("api"))
    );
    assert_eq!(config.context(None).unwrap().namespace.as_deref(), Some("n"));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn what_cannot_be_used_says_why() {
    let base = Path::new("");
    let config = |cluster: &str, user: &str| {
        format!(
            "kind: Config\ncurrent-context: c\nclusters: [{{name: k, cluster: {{server: 'https://h', {cluster}}}}}]\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
        )
    };
    let table = [
        (
            config("insecure-skip-tls-verify: true", ""),
            "kubeconfig uses insecure-skip-tls-verify, which is not supported",
        ),
        (
            config("", "exec: {command: x}"),
            "kubeconfig uses an exec credential plugin, which is not supported",
        ),
        (config("certificate-authority-data: '!'", ""), "certificate-authority-data of \"k\" is not base64"),
        (
            config("", "client-certificate: missing.crt"),
            "cannot read missing.crt: No such file or directory (os error 2)",
        ),
        (
            "kind: Config\ncontexts: [{name: a}, {name: b}]".to_owned(),
            "kubeconfig has no current context; name one of: a, b",
        ),
        ("kind: Config\ncurrent-context: x".to_owned(), "kubeconfig has no context named \"x\""),
    ];
    for (text, message) in table {
        let error = KubeConfig::parse(&text, base).and_then(|config| config.endpoint(None)).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    assert!(KubeConfig::parse("kind: Pod", base).is_err());
    assert!(KubeConfig::parse("{", base).is_err());
}

#[test]
fn secrets_stay_out_of_debug() {
    let mut config = KubeConfig::default();
    config.add_context(
        "c",
        Cluster::default(),
        Credentials { password: Some("hunter2".to_owned()), ..Credentials::bearer("hunter2") },
    );
    assert!(!format!("{config:?}").contains("hunter2"));
    let endpoint = config.endpoint(None).unwrap();
    assert!(!format!("{endpoint:?}").contains("hunter2"));
}
