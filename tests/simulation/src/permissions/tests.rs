//! Histories that the check of permissions must find, and one that it must not.
//!
//! One member; looks every 10 ms, the applied index is the time in milliseconds. Not here: runs of a cluster (tests/swarm.rs).

use super::*;

const KEY: Key = 7;
const MS: u64 = 1_000_000;

fn right(reads: bool, writes: bool) -> Right {
    Right { reads, writes }
}

fn permit(reads: bool, writes: bool) -> Change {
    Change::Permit {
        role: "r".to_owned(),
        range: (key_bytes(KEY), Bytes::new()),
        right: right(reads, writes),
    }
}

/// Users and authentication, then from 100 on reading, from 200 on writing too, from 300 on nothing.
fn changes() -> Vec<(u64, Change)> {
    let name = |name: &str| name.to_owned();
    vec![
        (10, Change::AddUser { name: name("root") }),
        (20, Change::GrantRole { user: name("root"), role: name("root") }),
        (30, Change::AddUser { name: name("u") }),
        (40, Change::AddRole { name: name("r") }),
        (50, Change::GrantRole { user: name("u"), role: name("r") }),
        (60, Change::Enable),
        (100, permit(true, false)),
        (200, permit(true, true)),
        (300, Change::RevokeRole { user: name("u"), role: name("r") }),
    ]
}

fn history(left_out: Option<usize>) -> (History, Vec<Asked>) {
    let (mut history, mut rules, mut asked) = (History::default(), Rules::default(), Vec::new());
    let changes = changes();
    for now in (0..400).step_by(10) {
        if let Some(position) = changes.iter().position(|(at, _)| *at == now) {
            let change = &changes[position].1;
            asked.push(Asked {
                change: change.clone(),
                call_ns: (now - 5) * MS,
                return_ns: (now + 5) * MS,
                done: Some(true),
            });
            if left_out != Some(position) {
                rules = rules.after(change).unwrap();
            }
        }
        history.look(now * MS, now, rules.clone());
    }
    (history, asked)
}

fn tried(user: Option<&str>, writes: bool, call_ms: u64, return_ms: u64, permitted: bool) -> Tried {
    let (call_ns, return_ns) = (call_ms * MS, return_ms * MS);
    Tried { user: user.map(ToOwned::to_owned), member: 0, key: KEY, writes, call_ns, return_ns, permitted }
}

#[test]
fn calls_are_judged_by_what_was_in_force_while_they_ran() {
    let (history, asked) = history(None);
    let user = Some("u");
    let right = [
        tried(None, true, 5, 8, true),
        tried(None, true, 75, 78, false),
        tried(user, false, 75, 78, false),
        tried(user, false, 115, 125, true),
        tried(user, true, 115, 125, false),
        // It began before the change and may be judged either way.
        tried(user, true, 195, 215, false),
        tried(user, true, 195, 215, true),
        tried(user, true, 225, 235, true),
        tried(user, false, 325, 335, false),
        tried(Some("root"), true, 325, 335, true),
    ];
    assert_eq!(history.check(&asked, &right), Ok(right.len()));
    let wrong = [
        ("without a name, though names were needed before", tried(None, true, 85, 88, true)),
        ("a right that nobody gave", tried(user, true, 125, 135, true)),
        ("a right that was given before", tried(user, true, 225, 235, false)),
        ("a right that was taken away before", tried(user, false, 325, 335, true)),
        ("a right of root", tried(Some("root"), false, 85, 88, false)),
        ("nobody", tried(Some("other"), false, 225, 235, true)),
    ];
    for (what, call) in wrong {
        let found = history.check(&asked, &[call]).unwrap_err();
        assert!(found.contains("cannot answer so"), "{what}: {found}");
    }
}

#[test]
fn a_change_that_was_acknowledged_and_is_not_there_is_found() {
    let (history, asked) = history(Some(7));
    let found = history.check(&asked, &[]).unwrap_err();
    assert!(found.contains("acknowledged"), "{found}");
}

#[test]
fn a_change_that_nobody_asked_for_is_found() {
    let (history, mut asked) = history(None);
    asked.remove(6);
    let found = history.check(&asked, &[]).unwrap_err();
    assert!(found.contains("nobody asked"), "{found}");
}
