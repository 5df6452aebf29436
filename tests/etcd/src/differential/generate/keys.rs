//! Calls on keys and leases.

use super::*;

impl Generator<'_> {
    pub(super) fn keys(&mut self) {
        match self.random.random_range(0..100) {
            0..30 => {
                let put = self.put();
                self.revision += 1;
                self.call("KV/Put", &put);
            }
            30..55 => {
                let range = self.range();
                self.call("KV/Range", &range);
            }
            55..67 => {
                let delete = self.delete();
                self.revision += 1;
                self.call("KV/DeleteRange", &delete);
            }
            67..93 => {
                let txn = self.txn(0);
                self.revision += 1;
                self.call("KV/Txn", &txn);
            }
            93..96 => self.oversized(),
            _ => {
                let mut compact = json!({ "revision": self.at_revision() });
                if self.one_in(2) {
                    compact["physical"] = json!(true);
                }
                self.call("KV/Compact", &compact);
            }
        }
    }

    fn put(&mut self) -> Value {
        let mut put = json!({ "key": self.key() });
        if !self.one_in(6) {
            put["value"] = json!(self.pick(VALUES));
        }
        if self.one_in(4) {
            put["lease"] = json!(self.pick(LEASES));
        }
        for (field, odds) in [("prev_kv", 3), ("ignore_value", 10), ("ignore_lease", 10)] {
            if self.one_in(odds) {
                put[field] = json!(true);
                // Mostly in a form that is allowed.
                if field == "ignore_value" && !self.one_in(4) {
                    put["value"] = json!("");
                }
                if field == "ignore_lease" && !self.one_in(4) {
                    put["lease"] = json!(0);
                }
            }
        }
        put
    }

    fn range(&mut self) -> Value {
        let mut range = json!({ "key": self.key() });
        let end = self.pick(ENDS);
        if !end.is_empty() {
            range["range_end"] = json!(end);
        }
        if self.one_in(4) {
            range["limit"] = json!(self.pick(&[0, 1, 1, 2, 2, 3, -1, i64::MAX]));
        }
        if self.one_in(4) {
            range["revision"] = self.at_revision();
        }
        if self.one_in(3) {
            range["sort_order"] = json!(self.pick(&[0, 1, 2, 1, 2, 2, 1, 7, -1]));
        }
        if self.one_in(3) {
            range["sort_target"] = json!(self.pick(&[0, 1, 2, 3, 4, 4, 3, 2, 9]));
        }
        for flag in ["serializable", "keys_only", "count_only"] {
            if self.one_in(7) {
                range[flag] = json!(true);
            }
        }
        for bound in ["min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"] {
            if self.one_in(12) {
                range[bound] = self.at_revision();
            }
        }
        range
    }

    fn delete(&mut self) -> Value {
        let mut delete = json!({ "key": self.key() });
        if self.one_in(3) {
            delete["range_end"] = json!(self.pick(ENDS));
        }
        if self.one_in(2) {
            delete["prev_kv"] = json!(true);
        }
        delete
    }

    fn compare(&mut self) -> Value {
        let target = self.pick(&["VERSION", "CREATE", "MOD", "VALUE", "LEASE"]);
        let mut compare = json!({ "key": self.key() });
        if target != "VERSION" {
            compare["target"] = json!(target);
        }
        if self.one_in(2) {
            compare["result"] = json!(self.pick(&["GREATER", "LESS", "NOT_EQUAL"]));
        }
        let mut given = target;
        if self.one_in(40) {
            // Another one than the target says.
            given = self.pick(&["VERSION", "CREATE", "MOD", "VALUE", "LEASE"]);
        }
        match given {
            "VERSION" => compare["version"] = json!(self.random.random_range(-1..4)),
            "CREATE" => compare["create_revision"] = self.at_revision(),
            "MOD" => compare["mod_revision"] = self.at_revision(),
            "VALUE" => compare["value"] = json!(self.pick(VALUES)),
            _ => compare["lease"] = json!(self.pick(&[0, 1, 2, 3])),
        }
        if self.one_in(30)
            && let Some(fields) = compare.as_object_mut()
        {
            fields.retain(|name, _| ["key", "target", "result"].contains(&name.as_str()));
        }
        if self.one_in(5) {
            compare["range_end"] = json!(self.pick(ENDS));
        }
        compare
    }

    fn operation(&mut self, depth: usize) -> Value {
        match self.random.random_range(0..100) {
            0..40 => json!({ "request_put": self.put() }),
            40..65 => json!({ "request_range": self.range() }),
            65..82 => json!({ "request_delete_range": self.delete() }),
            82..98 if depth < 3 => json!({ "request_txn": self.txn(depth + 1) }),
            _ => json!({}),
        }
    }

    fn txn(&mut self, depth: usize) -> Value {
        let mut txn = json!({});
        let compares = self.pick(&[0, 0, 1, 1, 2]);
        if compares > 0 {
            txn["compare"] = (0..compares).map(|_| self.compare()).collect();
        }
        for branch in ["success", "failure"] {
            let most = if depth == 0 { 4 } else { 3 };
            let count = self.random.random_range(0..most);
            if count > 0 {
                txn[branch] = (0..count).map(|_| self.operation(depth)).collect();
            }
        }
        txn
    }

    fn oversized(&mut self) {
        let key = self.pick(KEYS);
        // As near to the limit as the numbers of members and the names of users let: both are in etcd's entry.
        let size = self.pick(&[1_572_800, 1_572_860, 2_200_000]);
        let count = self.pick(&[127, 128, 129, 200]);
        match self.random.random_range(0..6) {
            0 => {
                let value = json!({ "*": size, "of": "x" });
                self.call("KV/Put", &json!({ "key": key, "value": value }));
                self.call("KV/DeleteRange", &json!({ "key": key }));
            }
            1 => {
                let same = json!({ "request_range": { "key": key } });
                self.call("KV/Txn", &json!({ "success": [{ "*": count, "of": same }] }));
            }
            2 => {
                let same = json!({ "key": key, "target": "VERSION", "version": 0 });
                self.call("KV/Txn", &json!({ "compare": [{ "*": count, "of": same }] }));
            }
            3 => {
                let same = json!({ "request_delete_range": { "key": key } });
                let inner = json!({ "request_txn": { "failure": [{ "*": count - 3, "of": same }] } });
                let outer = json!({ "success": [inner, { "request_put": { "key": "b" } }, same] });
                self.call("KV/Txn", &outer);
            }
            4 => {
                let same = json!({ "request_put": { "key": key } });
                self.call("KV/Txn", &json!({ "failure": [{ "*": count, "of": same }] }));
            }
            _ => {
                let name = json!({ "*": 70_000, "of": "k" });
                self.call("KV/Put", &json!({ "key": name, "value": "1", "prev_kv": true }));
                self.call("KV/Range", &json!({ "key": "k", "range_end": "l", "count_only": true }));
                self.call("KV/DeleteRange", &json!({ "key": "k", "range_end": "l" }));
            }
        }
    }

    pub(super) fn leases(&mut self) {
        let id = self.pick(LEASES);
        match self.random.random_range(0..100) {
            0..40 => {
                let ttl = self.pick(&[600, 700, 800, 9_000_000_000, 9_000_000_001, i64::MAX, 600, 600, 700]);
                self.call("Lease/LeaseGrant", &json!({ "ID": id, "TTL": ttl }));
            }
            40..58 => {
                self.holders.retain(|_, holder| *holder != id);
                self.revision += 1;
                self.call("Lease/LeaseRevoke", &json!({ "ID": id }));
            }
            58..82 => {
                let keys = self.one_in(2);
                self.call("Lease/LeaseTimeToLive", &json!({ "ID": id, "keys": keys }));
            }
            82..90 => self.call("Lease/LeaseLeases", &json!({})),
            _ => self.call("Lease/LeaseKeepAlive", &json!({ "ID": id })),
        }
    }
}
