//! One moment of the state as an etcd database.
//!
//! Not here: bytes of keys and values (rows.rs), pages (crate `bolt`).

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write as _},
};

use bolt::{WriteError, Writer};
use mvcc::{DecodeError, MemberAttributes, RecordsError, Revision, Saved, SavedRecord};
use replica::{Frozen, Member};
use serde_json::json;

use super::rows;

const BUFFER_SIZE_BYTES: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error("create a file: {0}")]
    Create(#[source] std::io::Error),
    #[error("write: {0}")]
    Write(#[from] WriteError),
    #[error("read the state: {0}")]
    State(#[from] replica::StateFileError),
    #[error("read the state: {0}")]
    Record(#[from] RecordsError),
    #[error("read the state: {0}")]
    Meta(#[from] DecodeError),
}

/// The small state, sorted into buckets.
#[derive(Default)]
struct Small {
    entries: BTreeMap<&'static [u8], BTreeMap<Vec<u8>, Vec<u8>>>,
    attributes: BTreeMap<u64, MemberAttributes>,
    revision: i64,
    scheduled: i64,
}

/// Fills an empty file; answers it with its size.
pub(crate) fn export(frozen: &Frozen, file: File) -> Result<(File, u64), ExportError> {
    let mut small = Small::default();
    for bucket in [
        rows::META,
        rows::LEASE,
        rows::ALARM,
        rows::CLUSTER,
        rows::MEMBERS,
        rows::MEMBERS_REMOVED,
        rows::AUTH,
        rows::AUTH_USERS,
        rows::AUTH_ROLES,
    ] {
        small.entries.insert(bucket, BTreeMap::new());
    }
    small.put(rows::AUTH, rows::AUTH_ENABLED, vec![0]);
    small.put(rows::AUTH, rows::AUTH_REVISION, 1_u64.to_be_bytes().to_vec());
    for (key, value) in frozen.meta()? {
        small.add(Saved::from_row(&key, value)?);
    }
    small.members(frozen);

    let mut writer = Writer::new(BufWriter::with_capacity(BUFFER_SIZE_BYTES, file))?;
    for (bucket, entries) in &small.entries {
        writer.bucket(bucket)?;
        for (key, value) in entries {
            writer.put(key, value)?;
        }
    }
    writer.bucket(rows::KEY)?;
    let mut last = small.scheduled;
    for record in frozen.records()? {
        let (revision, bytes) = record?;
        let record = SavedRecord::from_bytes(revision, &bytes)?;
        writer.put(&rows::revision_key(revision, record.is_delete), &rows::key_value(&record))?;
        last = last.max(revision.main);
    }
    if small.revision > last.max(1) {
        // No record is left of the newest revision. etcdutl writes an empty pair to raise the revision.
        writer.put(&rows::revision_key(Revision::new(small.revision, 0), false), &[])?;
    }
    let (buffer, size_bytes) = writer.finish()?;
    let mut file = buffer.into_inner().map_err(|error| WriteError::Io(error.into_error()))?;
    file.flush().map_err(WriteError::Io)?;
    Ok((file, size_bytes))
}

impl Small {
    fn put(&mut self, bucket: &'static [u8], key: &[u8], value: Vec<u8>) {
        self.entries.entry(bucket).or_default().insert(key.to_vec(), value);
    }

    fn add(&mut self, row: Saved) {
        let at = |revision| rows::revision_key(Revision::new(revision, 0), false);
        match row {
            Saved::Revision(revision) => self.revision = revision,
            // Whoever restores the backup notes its own.
            Saved::Restored(_) => {}
            Saved::CompactScheduled(revision) => {
                self.scheduled = revision;
                self.put(rows::META, rows::SCHEDULED_COMPACTION, at(revision));
            }
            Saved::CompactFinished(revision) => {
                self.put(rows::META, rows::FINISHED_COMPACTION, at(revision));
            }
            Saved::Lease(lease) => {
                let (key, value) = rows::lease_entry(&lease);
                self.put(rows::LEASE, &key, value);
            }
            Saved::Alarm(alarm) => self.put(rows::ALARM, &rows::alarm_key(alarm), Vec::new()),
            Saved::Auth { enabled, revision } => {
                self.put(rows::AUTH, rows::AUTH_ENABLED, vec![u8::from(enabled)]);
                self.put(rows::AUTH, rows::AUTH_REVISION, revision.to_be_bytes().to_vec());
            }
            Saved::User(user) => self.put(rows::AUTH_USERS, user.name.as_bytes(), rows::user_value(&user)),
            Saved::Role(role) => self.put(rows::AUTH_ROLES, role.name.as_bytes(), rows::role_value(&role)),
            Saved::Member(attributes) => {
                self.attributes.insert(attributes.member, attributes);
            }
            Saved::ClusterVersion(version) => {
                self.put(rows::CLUSTER, b"clusterVersion", version.into_bytes());
            }
        }
    }

    fn members(&mut self, frozen: &Frozen) {
        let members = frozen.members();
        for Member { id, name, peer_urls, is_learner, .. } in &members {
            let published = self.attributes.get(id);
            let mut member = json!({ "id": id, "peerURLs": peer_urls });
            if *is_learner {
                member["isLearner"] = json!(true);
            }
            member["name"] = json!(published.map_or(name, |published| &published.name));
            if let Some(published) = published.filter(|published| !published.client_urls.is_empty()) {
                member["clientURLs"] = json!(published.client_urls);
            }
            self.put(rows::MEMBERS, format!("{id:x}").as_bytes(), member.to_string().into_bytes());
        }
        for id in frozen.removed_members() {
            self.put(rows::MEMBERS_REMOVED, format!("{id:x}").as_bytes(), b"removed".to_vec());
        }
        let ids = |learner| -> Vec<u64> {
            members.iter().filter(|member| member.is_learner == learner).map(|member| member.id).collect()
        };
        let mut configuration = json!({ "voters": ids(false) });
        if !ids(true).is_empty() {
            configuration["learners"] = json!(ids(true));
        }
        configuration["auto_leave"] = json!(false);
        self.put(rows::META, b"confState", configuration.to_string().into_bytes());
        self.put(rows::META, b"consistent_index", frozen.applied_index().to_be_bytes().to_vec());
        self.put(rows::META, b"term", frozen.applied_term().to_be_bytes().to_vec());
        self.put(rows::META, b"storageVersion", crate::STORAGE_VERSION.as_bytes().to_vec());
        if !self
            .entries
            .get(rows::CLUSTER)
            .is_some_and(|cluster| cluster.contains_key(&b"clusterVersion"[..]))
        {
            self.put(rows::CLUSTER, b"clusterVersion", crate::CLUSTER_VERSION.as_bytes().to_vec());
        }
    }
}
