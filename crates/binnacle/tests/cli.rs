//! The built binary as a person meets it: bad input is one clear line and a non-zero exit, never a panic.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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

/// It would wait for the two others for ever.
#[test]
fn a_member_without_a_quorum_ends_when_it_is_told_or_its_parent_ends() {
    let dir = tempfile::tempdir().unwrap();
    let ports: Vec<_> = (0..5).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<String> = ports.iter().map(|port| port.local_addr().unwrap().to_string()).collect();
    drop(ports);
    let cluster = format!("m1=http://{},m2=http://{},m3=http://{}", addresses[2], addresses[3], addresses[4]);
    for tells in [true, false] {
        let own = dir.path().join(format!("m{tells}"));
        let mut member = Command::new(env!("CARGO_BIN_EXE_binnacle"))
            .args(["member", "--name=m1", "--initial-cluster", &cluster])
            .args(["--dir", &own.to_string_lossy(), "--pki", &dir.path().join("pki").to_string_lossy()])
            .args(["--api", &addresses[0], "--store", &addresses[1], "--peer", &addresses[2]])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        within_30_s("it serves its peers", || std::net::TcpStream::connect(&addresses[2]).ok());
        if tells {
            let process = rustix::process::Pid::from_child(&member);
            rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        } else {
            drop(member.stdin.take());
        }
        let status = within_30_s("it ends", || member.try_wait().unwrap());
        assert_eq!(status.code(), Some(1), "{status}");
    }
}

#[expect(clippy::panic, reason = "a test that fails")]
fn within_30_s<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not in 30 s: {what}");
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
