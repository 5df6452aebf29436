//! What a member does not start with, and the one line that it says then.

use std::{fs, net::TcpListener};

use store::{Config, TlsFiles};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::one::{self, Member};

async fn refusal(config: Config) -> String {
    match store::start(config, CancellationToken::new()).await {
        Ok(_) => panic!("the member started"),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains('\n'), "more than one line: {text}");
            text
        }
    }
}

#[tokio::test]
async fn ports_in_use_are_named() {
    let folder = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    let mut config = one::config("one", &folder);
    config.listen_client_urls = vec![url.parse().unwrap()];
    assert_eq!(refusal(config).await, format!("listen {url}: address already in use"));
    let mut config = one::config("one", &folder);
    config.listen_peer_urls = vec![url.parse().unwrap()];
    config.initial_advertise_peer_urls = config.listen_peer_urls.clone();
    let text = refusal(config).await;
    assert!(text.contains("in use") && text.contains(&url["http://".len()..]), "{text}");
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_named() {
    let folder = TempDir::new().unwrap();
    let mut config = one::config("one", &folder);
    let missing = folder.path().join("missing.crt");
    let files =
        |cert_file| Some(TlsFiles { cert_file, key_file: "missing.key".into(), ..Default::default() });
    config.client_tls = files(missing.clone());
    let text = refusal(config.clone()).await;
    assert!(text.starts_with(&format!("cannot read certificate file {}: ", missing.display())), "{text}");
    let junk = folder.path().join("junk.crt");
    fs::write(&junk, "junk").unwrap();
    config.client_tls = files(junk.clone());
    assert_eq!(
        refusal(config).await,
        format!("certificate file {} has no certificate in PEM form", junk.display())
    );
}

#[tokio::test]
async fn a_data_directory_of_another_cluster_is_left_alone() {
    let member = Member::start().await;
    member.put("k", "v").await;
    let (mut config, folder) = member.stop_and_keep().await;
    config.initial_cluster_token = "another".to_owned();
    let text = refusal(config.clone()).await;
    assert!(text.starts_with("data directory ") && text.contains("belongs to member"), "{text}");
    config.initial_cluster_token = "etcd-cluster".to_owned();
    let member = Member::run(config, folder, None).await;
    assert!(member.get("k").await.is_some());
    member.stop().await;
}

#[tokio::test]
async fn a_damaged_log_stops_the_member_with_file_and_offset() {
    let member = Member::start_with(|config| config.fsync = true).await;
    for number in 0..20 {
        member.put(&format!("needle-{number:02}"), "v").await;
    }
    let (config, _folder) = member.stop_and_keep().await;
    let mut damaged = 0;
    for entry in fs::read_dir(config.data_dir.join("member/wal")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(mut bytes) = fs::read(&path) else { continue };
        if let Some(place) = bytes.windows(9).position(|window| window == b"needle-03") {
            bytes[place] ^= 1;
            fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    let text = refusal(config).await;
    assert!(text.contains("member/wal/") && text.contains("offset"), "{text}");
}
