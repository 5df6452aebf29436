//! The built binary as a person meets it: bad input is one clear line and a non-zero exit, never a panic.

use std::process::Command;

#[expect(clippy::unwrap_used, reason = "the binary was just built")]
fn run(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_binnacle")).args(arguments).output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

#[test]
fn a_wrong_flag_is_named() {
    for part in
        [&["up", "--nodez", "3"][..], &["store", "--no-such-flag"], &["local-cluster", "--members", "2"]]
    {
        let (success, text) = run(part);
        assert!(!success && !text.contains("panicked"), "{part:?}: {text}");
        assert!(
            text.contains("nodez") || text.contains("no-such-flag") || text.contains("must be 1, 3"),
            "{text}"
        );
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let (success, text) = run(&["up", "--dir", &dir.to_string_lossy(), "--api", &address]);
    assert!(!success, "{text}");
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("binnacle: ")).count(), 1, "{text}");
}

#[test]
fn a_broken_ca_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("pki")).unwrap();
    std::fs::write(dir.path().join("pki/ca.crt"), "junk").unwrap();
    std::fs::write(dir.path().join("pki/ca.key"), "junk").unwrap();
    let (success, text) = run(&["up", "--dir", &dir.path().to_string_lossy(), "--api", "127.0.0.1:0"]);
    assert!(!success && text.contains("ca.key is not a private key"), "{text}");
}

#[test]
fn the_store_tells_its_version_as_etcd_does() {
    let (success, text) = run(&["store", "--version"]);
    assert!(success && text.starts_with("etcd Version: 3.6."), "{text}");
}

#[test]
fn a_kubeconfig_that_cannot_be_read_is_named() {
    for part in [
        &["explain", "pod", "x", "--kubeconfig", "/no/such/file"][..],
        &["scheduler", "--kubeconfig", "/no/such/file"],
    ] {
        let (success, text) = run(part);
        assert!(!success && text.contains("/no/such/file"), "{part:?}: {text}");
    }
}
