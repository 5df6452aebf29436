//! The `fields` format: one `"Name" : value` a line, bytes and strings quoted as by Go's `%q`.

use wire::{
    etcdserverpb::{
        DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader, TxnResponse, response_op::Response,
    },
    mvccpb::KeyValue,
};

use crate::text::quote;

/// Lines being collected.
#[derive(Default)]
pub(crate) struct Fields {
    pub(crate) text: String,
}

impl Fields {
    pub(crate) fn header(&mut self, header: Option<&ResponseHeader>) {
        let header = header.cloned().unwrap_or_default();
        self.value("ClusterID", header.cluster_id);
        self.value("MemberID", header.member_id);
        self.value("Revision", header.revision);
        self.value("RaftTerm", header.raft_term);
    }

    pub(crate) fn value(&mut self, name: &str, value: impl std::fmt::Display) {
        self.text.push_str(&format!("\"{name}\" : {value}\n"));
    }

    pub(crate) fn quoted(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.value(name, quote(value.as_ref()));
    }

    pub(crate) fn key_value(&mut self, prefix: &str, kv: &KeyValue) {
        self.quoted(&format!("{prefix}Key"), &kv.key);
        self.value(&format!("{prefix}CreateRevision"), kv.create_revision);
        self.value(&format!("{prefix}ModRevision"), kv.mod_revision);
        self.value(&format!("{prefix}Version"), kv.version);
        self.quoted(&format!("{prefix}Value"), &kv.value);
        self.value(&format!("{prefix}Lease"), kv.lease);
    }

    pub(crate) fn range(&mut self, answer: &RangeResponse) {
        self.header(answer.header.as_ref());
        for kv in &answer.kvs {
            self.key_value("", kv);
        }
        self.value("More", answer.more);
        self.value("Count", answer.count);
    }

    pub(crate) fn put(&mut self, answer: &PutResponse) {
        self.header(answer.header.as_ref());
        if let Some(kv) = &answer.prev_kv {
            self.key_value("Prev", kv);
        }
    }

    pub(crate) fn delete(&mut self, answer: &DeleteRangeResponse) {
        self.header(answer.header.as_ref());
        self.value("Deleted", answer.deleted);
        for kv in &answer.prev_kvs {
            self.key_value("Prev", kv);
        }
    }

    pub(crate) fn txn(&mut self, answer: &TxnResponse) {
        self.header(answer.header.as_ref());
        self.value("Succeeded", answer.succeeded);
        for operation in &answer.responses {
            match &operation.response {
                Some(Response::ResponseRange(answer)) => self.range(answer),
                Some(Response::ResponsePut(answer)) => self.put(answer),
                Some(Response::ResponseDeleteRange(answer)) => self.delete(answer),
                Some(Response::ResponseTxn(answer)) => self.txn(answer),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_quoted_and_numbers_are_not() {
        let mut fields = super::Fields::default();
        fields.quoted("Key", b"a\n");
        fields.value("Lease", 7);
        assert_eq!(fields.text, "\"Key\" : \"a\\n\"\n\"Lease\" : 7\n");
    }
}
