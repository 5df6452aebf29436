//! Random commands on the real store and on the naive one, with flushes, compaction steps and restarts in between.

use crate::model::Model;
use bytes::Bytes;
use mvcc::*;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Action {
    Apply(Command),
    Read(RangeQuery),
    /// Events from this revision, told in portions.
    Watch(i64, usize),
    TakeRows,
    Flushed,
    Step(usize),
    Restart,
}

/// A store with its disk, and how far the disk is.
struct Member {
    store: Store,
    disk: MemoryRecords,
    taken: Option<Revision>,
    limits: Limits,
}

impl Member {
    fn new(event_log_revisions: usize) -> Member {
        let limits = Limits { event_log_revisions, ..Limits::default() };
        Member { store: Store::new(limits.clone()), disk: MemoryRecords::default(), taken: None, limits }
    }

    fn apply(&mut self, command: &Command) -> Applied {
        let proposal = Proposal { id: 1, member: 1, caller: Caller::System, command: command.clone() };
        self.store.apply(&self.disk, 1, &proposal)
    }

    fn take_rows(&mut self) {
        if let Some(last) = self.disk.write(self.store.take_rows()) {
            self.taken = Some(last);
        }
    }

    fn flushed(&mut self) {
        if let Some(upto) = self.taken.take() {
            self.store.flushed(upto);
        }
    }

    fn restart(&mut self) {
        self.take_rows();
        self.taken = None;
        let meta = self.disk.meta.clone().into_iter().map(Ok);
        let records = self.disk.records.clone().into_iter().map(Ok);
        self.store = Store::restore(self.limits.clone(), meta, records).unwrap();
    }

    fn schedule(&mut self, action: &Action) {
        match action {
            Action::TakeRows => self.take_rows(),
            Action::Flushed => self.flushed(),
            Action::Step(keys_max) => {
                self.store.compact_step(*keys_max);
            }
            Action::Restart => self.restart(),
            Action::Apply(_) | Action::Read(_) | Action::Watch(..) => {}
        }
    }
}

fn any_key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "aa", "b", "c", "d", "e"])
        .prop_map(|key| Bytes::from_static(key.as_bytes()))
}

fn any_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        3 => any_key().prop_map(KeyRange::Key),
        2 => (any_key(), any_key()).prop_map(|(start, end)| KeyRange::Span { start, end }),
        1 => any_key().prop_map(KeyRange::From),
    ]
}

fn any_value() -> impl Strategy<Value = Bytes> {
    vec(b'x'..=b'z', 0..3).prop_map(Bytes::from)
}

fn any_put() -> impl Strategy<Value = Put> {
    let lease = prop_oneof![4 => Just(0i64), 2 => 1..4i64];
    (any_key(), any_value(), lease, any::<bool>(), 0..8u8).prop_map(|(key, value, lease, prev_kv, keep)| {
        let (ignore_value, ignore_lease) = (keep == 1, keep == 2);
        let value = if ignore_value { Bytes::new() } else { value };
        Put { key, value, lease: if ignore_lease { 0 } else { lease }, prev_kv, ignore_value, ignore_lease }
    })
}

/// Revisions near those that exist: most runs end around 30.
fn any_revision() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0i64), 1 => Just(-1i64), 4 => 1..40i64]
}

fn any_query() -> impl Strategy<Value = RangeQuery> {
    let target = prop::sample::select(vec![
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ]);
    let order = prop::sample::select(vec![SortOrder::Ascend, SortOrder::Descend]);
    let bound = || prop_oneof![4 => Just(0i64), 1 => 1..30i64];
    let bounds = (bound(), bound(), bound(), bound());
    let options = (prop::option::of((target, order)), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (any_range(), -1..5i64, any_revision(), options, bounds).prop_map(
        |(range, limit, revision, options, bounds)| RangeQuery {
            range,
            limit,
            revision,
            sort: options.0,
            keys_only: options.1,
            count_only: options.2,
            min_mod_revision: bounds.0,
            max_mod_revision: bounds.1,
            min_create_revision: bounds.2,
            max_create_revision: bounds.3,
        },
    )
}

fn any_compare() -> impl Strategy<Value = Compare> {
    let result = prop::sample::select(vec![
        CompareResult::Equal,
        CompareResult::Greater,
        CompareResult::Less,
        CompareResult::NotEqual,
    ]);
    let target = prop_oneof![
        (0..4i64).prop_map(CompareTarget::Version),
        (0..20i64).prop_map(CompareTarget::CreateRevision),
        (0..20i64).prop_map(CompareTarget::ModRevision),
        any_value().prop_map(CompareTarget::Value),
        (0..4i64).prop_map(CompareTarget::Lease),
    ];
    (any_range(), result, target).prop_map(|(range, result, target)| Compare { range, result, target })
}

fn any_delete() -> impl Strategy<Value = DeleteRange> {
    (any_range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRange { range, prev_kv })
}

fn any_txn() -> impl Strategy<Value = Txn> {
    let op = prop_oneof![
        any_query().prop_map(Op::Range),
        any_put().prop_map(Op::Put),
        any_delete().prop_map(Op::DeleteRange),
    ];
    let op = op.prop_recursive(2, 8, 3, |inner| {
        (vec(any_compare(), 0..2), vec(inner.clone(), 0..3), vec(inner, 0..3))
            .prop_map(|(compare, success, failure)| Op::Txn(Txn { compare, success, failure }))
    });
    (vec(any_compare(), 0..3), vec(op.clone(), 0..4), vec(op, 0..4))
        .prop_map(|(compare, success, failure)| Txn { compare, success, failure })
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => any_put().prop_map(Command::Put),
        3 => any_delete().prop_map(Command::DeleteRange),
        4 => any_txn().prop_map(Command::Txn),
        2 => (0..40i64).prop_map(|revision| Command::Compact(Compact { revision })),
        2 => (1..4i64).prop_map(|id| Command::LeaseGrant(LeaseGrant { id, ttl_s: 60 })),
        1 => (1..4i64).prop_map(|id| Command::LeaseRevoke(LeaseRevoke { id })),
    ]
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => any_command().prop_map(Action::Apply),
        4 => any_query().prop_map(Action::Read),
        2 => (0..40i64, 1..4usize).prop_map(|(from, portion)| Action::Watch(from, portion)),
        2 => Just(Action::TakeRows),
        2 => Just(Action::Flushed),
        2 => (1..6usize).prop_map(Action::Step),
        1 => Just(Action::Restart),
    ]
}

/// All events from a revision on, in portions.
fn watch(member: &Member, from: i64, portion: usize) -> Result<Vec<(i64, Vec<KeyValue>)>, EventsError> {
    let bound = EventsBound { revisions_max: portion, size_bytes_max: 1 << 20 };
    let (mut told, mut next) = (Vec::new(), from);
    loop {
        let batches = member.store.events(&member.disk, next, bound)?;
        let Some(last) = batches.last() else { return Ok(told) };
        next = last.revision + 1;
        for batch in batches {
            let kvs = batch.events.iter().map(|event| {
                assert_eq!(event.kind == EventKind::Delete, event.kv.version == 0);
                event.kv.clone()
            });
            told.push((batch.revision, kvs.collect()));
        }
    }
}

fn check_watch(member: &Member, model: &Model, from: i64, portion: usize) -> Result<(), TestCaseError> {
    let first = from.max(2);
    let expected: Vec<(i64, Vec<KeyValue>)> =
        (first..=model.revision()).map(|main| (main, model.changes[main as usize].clone())).collect();
    match watch(member, from, portion) {
        Ok(told) => prop_assert_eq!(told, expected),
        Err(error) => {
            prop_assert_eq!(error, EventsError::Compacted { compact_revision: model.compacted });
            prop_assert!(from < model.compacted);
        }
    }
    let bound = EventsBound { revisions_max: 100, size_bytes_max: 1 << 20 };
    for batch in member.store.events(&member.disk, first.max(model.compacted), bound).unwrap() {
        for event in &batch.events {
            // A put behind a deletion in the same transaction creates the key: etcd tells no value before it.
            let is_creation = event.kind == EventKind::Put && event.kv.version == 1;
            let before =
                model.states[batch.revision as usize - 1].get(&event.kv.key).filter(|_| !is_creation);
            let told = member.store.previous(&member.disk, event).unwrap();
            // What compaction took may be missing, but is never wrong.
            if batch.revision > model.compacted || told.is_some() {
                prop_assert_eq!(told.as_ref(), before);
            }
        }
    }
    Ok(())
}

fn check_read(member: &Member, model: &Model, query: &RangeQuery) -> Result<(), TestCaseError> {
    let whole = member.store.range(&member.disk, query);
    prop_assert_eq!(&whole, &model.range(query));
    let Ok(whole) = whole else { return Ok(()) };
    let (mut cursor, mut kvs) = (RangeCursor::new(query.clone()), Vec::new());
    while !cursor.is_done() {
        kvs.extend(member.store.range_chunk(&member.disk, &mut cursor, 2, 1000).unwrap());
    }
    let (more, count) = (cursor.more(), cursor.count());
    prop_assert_eq!(RangeReply { kvs, more, count, revision: whole.revision }, whole);
    Ok(())
}

fn check_whole(member: &Member, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(member.store.revision(), model.revision());
    prop_assert_eq!(member.store.compact_revision(), model.compacted);
    prop_assert_eq!(member.store.key_count(), model.now().len());
    if !model.took_back_a_deletion() {
        prop_assert_eq!(member.store.size_bytes_in_use(), model.live_bytes());
    }
    prop_assert!(member.store.size_bytes_allocated() >= member.store.size_bytes_in_use());
    let leases: Vec<i64> = member.store.leases().map(|lease| lease.id).collect();
    prop_assert_eq!(&leases, &model.leases.keys().copied().collect::<Vec<_>>());
    for id in leases {
        prop_assert_eq!(member.store.lease(id).unwrap().keys, model.keys_of_lease(id));
    }
    Ok(())
}

/// Whether the edge would have let the command through.
fn is_valid(command: &Command) -> bool {
    match command {
        Command::Txn(txn) => check_txn(txn, 128).is_ok(),
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_naive_one_does(
        actions in vec(any_action(), 1..80),
        event_log_revisions in prop::sample::select(vec![0usize, 3, 1000]),
    ) {
        let mut member = Member::new(event_log_revisions);
        let mut model = Model::new();
        for action in &actions {
            match action {
                Action::Apply(command) if is_valid(command) => {
                    prop_assert_eq!(member.apply(command), model.apply(command), "{:?}", command);
                    check_whole(&member, &model)?;
                }
                Action::Apply(_) => {}
                Action::Read(query) => check_read(&member, &model, query)?,
                Action::Watch(from, portion) => check_watch(&member, &model, *from, *portion)?,
                Action::TakeRows | Action::Flushed | Action::Step(_) | Action::Restart => {
                    let hash = member.store.state_hash();
                    member.schedule(action);
                    prop_assert_eq!(member.store.state_hash(), hash);
                    check_whole(&member, &model)?;
                }
            }
        }
        while member.store.compact_step(3) {}
        prop_assert_eq!(member.store.size_bytes_allocated(), model.live_bytes());
        check_watch(&member, &model, 0, 2)?;
    }

    /// Also for commands that the edge would have refused: a member must not fall over what a log contains.
    #[test]
    fn members_agree_whatever_their_schedules(
        actions in vec(any_action(), 1..80),
        other_schedule in vec(any_action(), 80),
    ) {
        let (mut left, mut right) = (Member::new(2), Member::new(1000));
        for (action, other) in actions.iter().zip(&other_schedule) {
            left.schedule(action);
            right.schedule(other);
            if let Action::Apply(command) = action {
                prop_assert_eq!(left.apply(command), right.apply(command), "{:?}", command);
                prop_assert_eq!(left.store.state_hash(), right.store.state_hash());
            }
        }
        let hashes = [&left, &right].map(|member| member.store.hash_kv(&member.disk, 0));
        prop_assert_eq!(&hashes[0], &hashes[1]);
        prop_assert!(hashes[0].is_ok());
        for member in [&mut left, &mut right] {
            while member.store.compact_step(2) {}
            member.take_rows();
        }
        prop_assert_eq!(&left.disk.records, &right.disk.records);
        prop_assert_eq!(&left.disk.meta, &right.disk.meta);
    }
}
