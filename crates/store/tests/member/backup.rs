//! Snapshots that leave a member, and members that begin with one.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bolt::{Entry, Reader};
use sha2::{Digest as _, Sha256};
use store::backup::restore::{Options, RestoreError, restore};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;
use wire::etcdserverpb as pb;

use super::one::{Member, config, event_texts, prefix};

const PATIENCE: Duration = Duration::from_secs(30);

/// Keys with several versions, a transaction, a deletion, a compaction, leases, a user.
async fn filled() -> Member {
    let member = Member::start().await;
    let mut kv = member.client.kv.clone();
    for number in 0..300 {
        member.put(&format!("k{:03}", number % 100), &format!("value {number}")).await;
    }
    member.put("large", &"x".repeat(1 << 20)).await;
    let put = |key: &str| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
            key: key.to_owned().into(),
            value: "together".into(),
            ..Default::default()
        })),
    };
    let success = vec![put("t1"), put("t2"), put("t3")];
    kv.txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();
    let mut lease = member.client.lease.clone();
    lease.lease_grant(pb::LeaseGrantRequest { ttl: 600, id: 77 }).await.unwrap();
    kv.put(pb::PutRequest { key: "leased".into(), lease: 77, ..Default::default() }).await.unwrap();
    member.delete("k007").await;
    member.compact(250).await;
    let mut auth = member.client.auth.clone();
    auth.user_add(pb::AuthUserAddRequest {
        name: "ada".into(),
        password: "secret".into(),
        ..Default::default()
    })
    .await
    .unwrap();
    auth.role_add(pb::AuthRoleAddRequest { name: "reader".into() }).await.unwrap();
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: "ada".into(), role: "reader".into() })
        .await
        .unwrap();
    member
}

/// The bytes of a snapshot, after the rules of its stream were checked.
async fn snapshot(member: &Member) -> Vec<u8> {
    let mut stream =
        member.client.maintenance.clone().snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
    let mut blobs = Vec::new();
    while let Some(blob) = stream.next().await {
        blobs.push(blob.unwrap());
    }
    let hash = blobs.pop().unwrap();
    assert!(blobs.iter().all(|blob| blob.blob.len() <= 32 << 10 && blob.version == "3.6.0"));
    let mut left: usize = blobs.iter().map(|blob| blob.blob.len()).sum();
    for blob in &blobs {
        left -= blob.blob.len();
        assert_eq!(blob.remaining_bytes, left as u64);
    }
    let mut bytes: Vec<u8> = blobs.into_iter().flat_map(|blob| blob.blob).collect();
    assert_eq!(hash.blob[..], Sha256::digest(&bytes)[..]);
    bytes.extend_from_slice(&hash.blob);
    assert_eq!(bytes.len() % 512, 32);
    bytes
}

fn write(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("snapshot.db");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn options(snapshot: &Path, name: &str, data_dir: &Path, url: &str) -> Options {
    Options {
        snapshot: snapshot.to_owned(),
        name: name.into(),
        initial_cluster: format!("{name}={url}"),
        initial_cluster_token: "etcd-cluster".into(),
        initial_advertise_peer_urls: url.into(),
        data_dir: data_dir.to_owned(),
        ..Options::default()
    }
}

/// Everything a client can see of the keys: a range of all at several revisions, and both checksums.
async fn seen(member: &Member) -> Vec<String> {
    let mut seen = Vec::new();
    for revision in [0, 250, 270, 301] {
        let all = pb::RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            revision,
            ..Default::default()
        };
        let range = member.client.kv.clone().range(all).await.unwrap().into_inner();
        seen.push(format!("{} {:?}", range.header.unwrap().revision, range.kvs));
    }
    let request = pb::HashKvRequest { revision: 0 };
    let hash = member.client.maintenance.clone().hash_kv(request).await.unwrap().into_inner();
    seen.push(format!("{} {} {}", hash.hash, hash.compact_revision, hash.hash_revision));
    seen
}

#[tokio::test]
async fn a_member_that_begins_with_a_snapshot_has_what_the_other_had() {
    let member = filled().await;
    let before = seen(&member).await;
    let bytes = snapshot(&member).await;
    member.stop().await;

    let folder = TempDir::new().unwrap();
    let path = write(&folder, &bytes);
    let config = config("other", &folder);
    let url = config.initial_advertise_peer_urls[0].to_string();
    let restored = restore(&options(&path, "other", &config.data_dir, &url), &|_, _| true).unwrap();
    let again = restore(&options(&path, "other", &config.data_dir, &url), &|_, _| true).unwrap_err();
    assert!(matches!(again, RestoreError::DataDir(_)), "{again}");
    assert!(again.to_string().ends_with("not empty or could not be read"), "{again}");

    let member = Member::run(config, folder, None).await;
    assert_eq!(seen(&member).await, before);
    let old = pb::RangeRequest { key: "k001".into(), revision: 249, ..Default::default() };
    let refused = member.client.kv.clone().range(old).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: mvcc: required revision has been compacted");
    let lease = pb::LeaseTimeToLiveRequest { id: 77, keys: true };
    let lease = member.client.lease.clone().lease_time_to_live(lease).await.unwrap().into_inner();
    assert_eq!((lease.granted_ttl, lease.keys), (600, vec!["leased".into()]));
    let user = pb::AuthUserGetRequest { name: "ada".into() };
    assert_eq!(member.client.auth.clone().user_get(user).await.unwrap().into_inner().roles, ["reader"]);
    let members = pb::MemberListRequest::default();
    let members = member.client.cluster.clone().member_list(members).await.unwrap().into_inner().members;
    assert_eq!((members.len(), members[0].id), (1, restored.member_id));

    assert_eq!(member.put("after", "1").await, restored.revision + 1);
    let member = member.restart().await;
    assert_eq!(member.get("after").await.unwrap().mod_revision, restored.revision + 1);
    member.stop().await;
}

#[tokio::test]
async fn a_snapshot_has_etcds_buckets() {
    let member = filled().await;
    let bytes = snapshot(&member).await;
    let reader = Reader::open(bytes).unwrap();
    let mut buckets = Vec::new();
    for entry in reader.entries(&reader.root()).unwrap() {
        let Entry::Bucket { name, bucket } = entry.unwrap() else { panic!("a pair beside the buckets") };
        let entries = reader.entries(&bucket).unwrap().map(Result::unwrap).count();
        buckets.push(format!("{} {entries}", String::from_utf8(name.to_vec()).unwrap()));
    }
    assert_eq!(
        buckets.iter().map(|text| text.split(' ').next().unwrap()).collect::<Vec<_>>(),
        [
            "alarm",
            "auth",
            "authRoles",
            "authUsers",
            "cluster",
            "key",
            "lease",
            "members",
            "members_removed",
            "meta"
        ]
    );
    let size = |name: &str| buckets.iter().any(|text| text == name);
    assert!(size("authUsers 1") && size("lease 1") && size("members 1") && size("meta 6"), "{buckets:?}");
    member.stop().await;
}

#[tokio::test]
async fn three_members_that_begin_with_one_snapshot_are_a_cluster() {
    let member = filled().await;
    let before = seen(&member).await;
    let bytes = snapshot(&member).await;
    member.stop().await;
    let folder = TempDir::new().unwrap();
    let path = write(&folder, &bytes);
    let mut configs: Vec<_> = ["a", "b", "c"].iter().map(|name| config(name, &folder)).collect();
    let url = |config: &store::Config| config.initial_advertise_peer_urls[0].clone();
    let cluster: Vec<_> = configs.iter().map(|config| (config.name.clone(), url(config))).collect();
    let text: Vec<String> = cluster.iter().map(|(name, url)| format!("{name}={url}")).collect();
    for config in &mut configs {
        config.initial_cluster = cluster.clone();
        let mut options = options(&path, &config.name, &config.data_dir, &url(config).to_string());
        options.initial_cluster = text.join(",");
        restore(&options, &|_, _| true).unwrap();
    }
    let starts = configs.into_iter().map(|config| Member::run(config, TempDir::new().unwrap(), None));
    let members = futures_util::future::join_all(starts).await;
    for member in &members {
        assert_eq!(seen(member).await, before);
    }
    let revision = members[0].put("new", "1").await;
    for member in &members {
        assert_eq!(member.get("new").await.unwrap().mod_revision, revision);
    }
    for member in members {
        member.stop().await;
    }
}

#[tokio::test]
async fn damaged_snapshots_are_refused_and_revisions_can_be_raised() {
    let member = filled().await;
    let bytes = snapshot(&member).await;
    let revision = member.put("last", "1").await - 1;
    member.stop().await;
    let folder = TempDir::new().unwrap();
    let url = "http://127.0.0.1:2380";
    let attempt = |name: &str, bytes: &[u8], change: &dyn Fn(&mut Options)| {
        let path = write(&folder, bytes);
        let mut options = options(&path, name, &folder.path().join(name), url);
        change(&mut options);
        restore(&options, &|_, _| true)
    };
    let mut damaged = bytes.clone();
    damaged[20_000] ^= 1;
    let error = attempt("a", &damaged, &|_| {}).unwrap_err();
    assert!(error.to_string().starts_with("expected sha256 ["), "{error}");
    let plain = &bytes[..bytes.len() - 32];
    let error = attempt("b", plain, &|_| {}).unwrap_err();
    assert_eq!(error.to_string(), "snapshot missing hash but --skip-hash-check=false");
    let restored = attempt("c", plain, &|options| options.skip_hash_check = true).unwrap();
    assert_eq!(restored.revision, revision);
    let raised = attempt("d", &bytes, &|options| {
        options.bump_revision = 1_000_000;
        options.mark_compacted = true;
    });
    assert_eq!(raised.unwrap().revision, revision + 1_000_000);
    let error = attempt("e", &bytes, &|options| options.initial_cluster = "x=http://127.0.0.1:1".into());
    assert_eq!(
        error.unwrap_err().to_string(),
        "couldn't find local name \"e\" in the initial cluster configuration"
    );
    assert!(matches!(
        attempt("f", b"no database", &|options| options.skip_hash_check = true),
        Err(RestoreError::Database { .. })
    ));
    let torn = attempt("g", &bytes[..bytes.len() / 2], &|options| options.skip_hash_check = true);
    assert!(torn.is_err());
    let left: Vec<_> =
        ["a", "b", "e", "f", "g"].into_iter().filter(|name| folder.path().join(name).exists()).collect();
    assert!(left.is_empty(), "failed attempts left {left:?}");
}

/// The raised revisions changed nothing: who watches from one of them waits for what comes.
#[tokio::test]
async fn a_raised_restore_is_watched_from_any_revision() {
    let member = filled().await;
    let bytes = snapshot(&member).await;
    member.stop().await;
    for mark_compacted in [false, true] {
        let folder = TempDir::new().unwrap();
        let path = write(&folder, &bytes);
        let config = config("other", &folder);
        let url = config.initial_advertise_peer_urls[0].to_string();
        let options = Options {
            bump_revision: 1000,
            mark_compacted,
            ..options(&path, "other", &config.data_dir, &url)
        };
        let raised = restore(&options, &|_, _| true).unwrap().revision;
        let mut member = Member::run(config, folder, None).await;
        let revisions = match mark_compacted {
            true => vec![raised, raised + 1],
            false => vec![raised - 999, raised - 1, raised, raised + 1],
        };
        // Before and after what comes has left memory.
        for round in 0..2 {
            let mut watches = Vec::new();
            for start_revision in &revisions {
                let mut watch = member.watch().await;
                let start_revision = *start_revision;
                watch.create(pb::WatchCreateRequest { start_revision, ..prefix("after") }).await;
                watches.push(watch);
            }
            if round == 0 {
                assert_eq!(member.put("after", "1").await, raised + 1);
            }
            for mut watch in watches {
                let events = watch.events(1).await;
                assert_eq!(event_texts(&events), [format!("PUT after=1 @{}", raised + 1)]);
            }
            member = member.restart().await;
        }
        member.stop().await;
    }
}

#[test]
fn a_restore_that_is_stopped_leaves_an_empty_directory_empty() {
    let mut writer = bolt::Writer::new(std::io::Cursor::new(Vec::new())).unwrap();
    writer.bucket(b"key").unwrap();
    writer.put(b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0", b"").unwrap();
    let (file, _) = writer.finish().unwrap();
    let folder = TempDir::new().unwrap();
    let path = write(&folder, &file.into_inner());
    let data_dir = folder.path().join("data");
    std::fs::create_dir(&data_dir).unwrap();
    let mut options = options(&path, "a", &data_dir, "http://127.0.0.1:2380");
    options.skip_hash_check = true;
    assert!(matches!(restore(&options, &|_, _| false), Err(RestoreError::Interrupted)));
    assert_eq!(std::fs::read_dir(&data_dir).unwrap().count(), 0);
}

/// An etcd database without keys, with its hash.
fn tiny() -> Vec<u8> {
    let mut writer = bolt::Writer::new(std::io::Cursor::new(Vec::new())).unwrap();
    writer.bucket(b"key").unwrap();
    writer.put(b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0", b"").unwrap();
    let (file, _) = writer.finish().unwrap();
    let mut bytes = file.into_inner();
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

#[test]
fn a_failed_restore_leaves_a_directory_that_was_there_as_it_was() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let folder = TempDir::new().unwrap();
    let path = write(&folder, &tiny());
    let data_dir = folder.path().join("data");
    std::fs::create_dir(&data_dir).unwrap();
    std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o2750)).unwrap();
    let state = || {
        let found = std::fs::metadata(&data_dir).unwrap();
        (found.ino(), found.mode(), std::fs::read_dir(&data_dir).unwrap().count())
    };
    let before = state();
    let options = options(&path, "a", &data_dir, "http://127.0.0.1:2380");
    for steps in 0..2 {
        let left = std::cell::Cell::new(steps);
        let progress = |_, _| left.replace(left.get().max(1) - 1) > 0;
        assert!(matches!(restore(&options, &progress), Err(RestoreError::Interrupted)), "{steps} steps");
        assert_eq!(state(), before, "{steps} steps");
    }
    restore(&options, &|_, _| true).unwrap();
}

/// Somebody starts a member on the directory while the file is being checked.
#[test]
fn a_restore_takes_nothing_from_a_member_that_has_locked_the_directory() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, &tiny());
    let data_dir = folder.path().join("data");
    let identity = replica::Identity { cluster_id: 1, member_id: 2 };
    let holder = std::cell::RefCell::new(None);
    let progress = |_, _| {
        let make = || replica::NewState::create(&data_dir, identity, &[member_of(identity)]).unwrap();
        holder.borrow_mut().get_or_insert_with(make);
        true
    };
    let refused = restore(&options(&path, "a", &data_dir, "http://127.0.0.1:2380"), &progress);
    assert!(matches!(refused, Err(RestoreError::Write(replica::StartError::Locked { .. }))), "{refused:?}");
    let holder = holder.into_inner().expect("the directory was locked meanwhile");
    assert_eq!(holder.finish().unwrap(), 1, "nothing of it is gone");
    assert!(data_dir.join("member/identity").exists());
}

fn member_of(identity: replica::Identity) -> replica::Member {
    replica::Member {
        id: identity.member_id,
        name: "other".into(),
        peer_urls: vec!["http://127.0.0.1:1".into()],
        client_urls: Vec::new(),
        is_learner: false,
    }
}

#[tokio::test]
async fn clients_that_take_nothing_lose_their_snapshots_and_others_get_theirs() {
    let patience = Duration::from_secs(2);
    let member = Member::start_with(|config| config.snapshot_patience = patience).await;
    for number in 0..16 {
        member.put(&format!("large{number}"), &"x".repeat(1 << 20)).await;
    }
    let open = async || {
        let asked = member.client.maintenance.clone().snapshot(pb::SnapshotRequest {}).await;
        asked.unwrap().into_inner()
    };
    // Each takes one message and then no more.
    let mut stalled = Vec::new();
    for _ in 0..3 {
        let mut stream = tokio::time::timeout(PATIENCE, open()).await.expect("those before made room");
        stream.next().await.unwrap().unwrap();
        stalled.push(stream);
    }
    let whole = tokio::time::timeout(PATIENCE, snapshot(&member)).await.expect("those before made room");
    assert!(whole.len() > 16 << 20);
    // By then the last of them has been waited for for long enough, too.
    tokio::time::sleep(2 * patience).await;
    for mut stream in stalled {
        let end = loop {
            if let Err(status) = stream.next().await.expect("not the end of a whole snapshot") {
                break status;
            }
        };
        assert_eq!(end.message(), "etcdserver: snapshot: the client took nothing for 2s");
    }
    member.stop().await;
}

/// What --bump-revision and --mark-compacted are for: whoever watched before starts over.
#[tokio::test]
async fn a_raised_revision_is_served_and_older_watches_are_compacted() {
    let member = filled().await;
    let bytes = snapshot(&member).await;
    let before = member.get("k001").await.unwrap();
    member.stop().await;
    let folder = TempDir::new().unwrap();
    let path = write(&folder, &bytes);
    let config = config("raised", &folder);
    let url = config.initial_advertise_peer_urls[0].to_string();
    let mut options = options(&path, "raised", &config.data_dir, &url);
    (options.bump_revision, options.mark_compacted) = (1_000_000, true);
    let restored = restore(&options, &|_, _| true).unwrap();

    let member = Member::run(config, folder, None).await;
    assert_eq!(member.get("k001").await.unwrap(), before);
    assert_eq!(member.put("after", "1").await, restored.revision + 1);
    let mut watch = member.watch().await;
    let old = pb::WatchCreateRequest {
        key: "k001".into(),
        start_revision: before.mod_revision,
        ..Default::default()
    };
    watch.create(old).await;
    let canceled = loop {
        let answer = watch.next().await;
        if answer.canceled {
            break answer;
        }
    };
    assert_eq!(canceled.compact_revision, restored.revision);
    let new = pb::WatchCreateRequest {
        key: "after".into(),
        start_revision: restored.revision + 1,
        ..Default::default()
    };
    watch.create(new).await;
    let told = loop {
        let answer = watch.next().await;
        if !answer.events.is_empty() {
            break answer;
        }
    };
    assert_eq!(told.events[0].kv.as_ref().unwrap().mod_revision, restored.revision + 1);
    member.stop().await;
}
