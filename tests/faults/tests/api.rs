//! The checkers of the API servers: they accept what correct servers could have said, and find each kind of lie.
//!
//! One correct run is written out by hand; each lie changes it in one place.

use faults::api::history::{
    Attempt, Change, Facts, Increment, Node, Object, Observed, Outcome, Stream, Toggle, Told,
};
use faults::api::informers::{self, Heard, Informed};
use faults::api::record::{About, Recording};
use faults::api::truth::Truth;
use faults::api::{counters, judge, placement, rights, truth};
use faults::history::Violation;

const SECOND: u64 = 1_000_000_000;

fn object(name: &str, version: u64, facts: Facts) -> Object {
    Object { name: name.to_owned(), uid: format!("uid-{name}"), version, digest: version + 1_000, facts }
}

fn counter(version: u64, count: u64, writer: u64) -> Object {
    object("counter", version, Facts::Counter { count, writer })
}

fn pod(name: &str, version: u64, node: Option<&str>, cpu_m: u64, disk: Option<&str>) -> Object {
    let (node, disk) = (node.map(str::to_owned), disk.map(str::to_owned));
    let facts = Facts::Pod { node, cpu_m, disk, phase: "Pending".to_owned(), deleting: false };
    object(name, version, facts)
}

fn event(change: Change, object: Object) -> Told {
    let at_ns = object.version * SECOND;
    Told::Event { change, object, at_ns }
}

fn stream(member: usize, plural: &str, told: Vec<Told>) -> Stream {
    Stream { member, plural: plural.to_owned(), told, resumed: 0 }
}

fn increment(writer: u64, read: (u64, u64), outcome: Outcome) -> Increment {
    let at = match outcome {
        Outcome::Done(version) => version,
        _ => read.0 + 1,
    };
    Increment {
        client: 0,
        member: 0,
        name: "counter".to_owned(),
        read_call_ns: at * SECOND - 3,
        read_version: read.0,
        read_count: read.1,
        writer,
        call_ns: at * SECOND - 2,
        return_ns: at * SECOND - 1,
        outcome,
    }
}

/// Versions: 10 counter made, 11 a, 12 b, 13 unknown and happened, 14 c; pods 20 to 27; bindings 30 given, 31 taken, 32
/// given again. Member 0 watches all the time, member 1 was restarted and lists again at 12, 22 and 30.
struct Run {
    configmaps: Vec<Stream>,
    increments: Vec<Increment>,
    pods: Vec<Stream>,
    nodes: Vec<Node>,
    bindings: Vec<Stream>,
    toggles: Vec<Toggle>,
    observed: Vec<Observed>,
    attempts: Vec<Attempt>,
}

fn streams(plural: &str, base: u64, events: &[(Change, Object)], again: u64) -> Vec<Stream> {
    let all = events.iter().map(|(change, object)| event(*change, object.clone()));
    let empty = || Told::List { version: base, at_ns: SECOND, objects: Vec::new() };
    let mut second = vec![empty(), event(events[0].0, events[0].1.clone())];
    let mut state: Vec<Object> = Vec::new();
    for (change, object) in events.iter().filter(|(_, object)| object.version <= again) {
        state.retain(|other| other.name != object.name);
        if *change != Change::Deleted {
            state.push(object.clone());
        }
    }
    second.push(Told::List { version: again, at_ns: again * SECOND, objects: state });
    second.push(Told::Bookmark { version: again });
    second.extend(
        all.clone().filter(|told| matches!(told, Told::Event { object, .. } if object.version > again)),
    );
    vec![stream(0, plural, std::iter::once(empty()).chain(all).collect()), stream(1, plural, second)]
}

fn correct() -> Run {
    use Change::{Added, Deleted, Modified};
    let counts = [
        (Added, counter(10, 0, 0)),
        (Modified, counter(11, 1, 1)),
        (Modified, counter(12, 2, 2)),
        (Modified, counter(13, 3, 3)),
        (Modified, counter(14, 4, 5)),
    ];
    let pods = [
        (Added, pod("a", 20, None, 600, None)),
        (Modified, pod("a", 21, Some("one"), 600, None)),
        (Added, pod("b", 22, None, 600, None)),
        (Added, pod("c", 23, None, 100, Some("ssd"))),
        (Modified, pod("c", 24, Some("two"), 100, Some("ssd"))),
        (Deleted, pod("a", 25, Some("one"), 600, None)),
        (Modified, pod("b", 26, Some("one"), 600, None)),
        (Modified, pod("b", 27, Some("one"), 600, None)),
    ];
    let bindings = [
        (Added, object("ana", 30, Facts::Binding { grant: 1 })),
        (Deleted, object("ana", 31, Facts::Binding { grant: 1 })),
        (Added, object("ana", 32, Facts::Binding { grant: 2 })),
    ];
    let node = |name: &str, cpu_m, pods, disk: Option<&str>, cordoned| Node {
        name: name.to_owned(),
        cpu_m,
        pods,
        disk: disk.map(str::to_owned),
        cordoned,
    };
    let toggle = |grant, gives, at_s| Toggle { grant, gives, call_ns: at_s * SECOND - SECOND / 2 };
    let attempt = |member, at_s: u64, allowed| Attempt {
        member,
        call_ns: at_s * SECOND + SECOND / 4,
        return_ns: at_s * SECOND + SECOND / 3,
        allowed,
    };
    Run {
        configmaps: streams("configmaps", 9, &counts, 12),
        increments: vec![
            increment(1, (10, 0), Outcome::Done(11)),
            increment(2, (11, 1), Outcome::Done(12)),
            increment(3, (12, 2), Outcome::Unknown("no answer".to_owned())),
            increment(4, (12, 2), Outcome::Refused("conflict".to_owned())),
            increment(5, (13, 3), Outcome::Done(14)),
            increment(6, (14, 4), Outcome::Unknown("no answer".to_owned())),
        ],
        pods: streams("pods", 19, &pods, 22),
        nodes: vec![
            node("one", 1_000, 2, None, false),
            node("two", 1_000, 2, Some("ssd"), false),
            node("three", 9_000, 9, Some("ssd"), true),
        ],
        bindings: streams("rolebindings", 29, &bindings, 30),
        toggles: vec![toggle(1, true, 30), toggle(1, false, 31), toggle(2, true, 32)],
        observed: vec![Observed { member: 0, version: 29, at_ns: 29 * SECOND }],
        attempts: vec![
            attempt(0, 29, false),
            attempt(0, 30, true),
            attempt(0, 31, false),
            attempt(1, 31, false),
            attempt(0, 32, true),
        ],
    }
}

fn decide(run: &Run) -> [Result<usize, String>; 4] {
    let sentence = |violation: Violation| violation.sentence;
    let checked = |streams: &[Stream], end| {
        let streams: Vec<&Stream> = streams.iter().collect();
        let truth = Truth::agreed(None, &streams)?;
        truth::check(&truth, &streams, end).map(|events| (truth, events)).map_err(sentence)
    };
    let all = |run: &Run| {
        let (_, one) = checked(&run.configmaps, 14)?;
        let (_, two) = checked(&run.pods, 27)?;
        let (_, three) = checked(&run.bindings, 32)?;
        Ok::<usize, String>(one + two + three)
    };
    let truth = |streams: &[Stream]| Truth::agreed(None, &streams.iter().collect::<Vec<_>>());
    let mut observed = rights::observed(&run.bindings.iter().collect::<Vec<_>>());
    observed.extend(&run.observed);
    [
        all(run),
        truth(&run.configmaps).and_then(|truth| counters::check(&truth, &run.increments).map_err(sentence)),
        truth(&run.pods).and_then(|truth| placement::check(&truth, &run.nodes)),
        truth(&run.bindings).and_then(|truth| {
            rights::check(&truth, &run.toggles, &observed, &run.attempts).map_err(sentence)
        }),
    ]
}

#[test]
fn what_correct_servers_say_is_accepted() {
    assert_eq!(decide(&correct()), [Ok(28), Ok(6), Ok(3), Ok(5)]);
}

/// Changes what both members told of a version, so that only the checker of that kind can find it.
fn in_both(streams: &mut [Stream], version: u64, change: impl Fn(&mut Object)) {
    for stream in streams {
        for told in &mut stream.told {
            match told {
                Told::Event { object, .. } if object.version == version => change(object),
                Told::List { objects, .. } => {
                    objects.iter_mut().filter(|object| object.version == version).for_each(&change);
                }
                _ => {}
            }
        }
    }
}

fn place(streams: &mut [Stream], version: u64, on: &str) {
    in_both(streams, version, |object| {
        if let Facts::Pod { node, .. } = &mut object.facts {
            *node = Some(on.to_owned());
        }
    });
}

type Lie = (&'static str, fn(&mut Run));

#[test]
fn every_lie_of_a_watch_is_found() {
    let lies: [Lie; 10] = [
        ("an event is left out", |run| drop(run.configmaps[0].told.remove(3))),
        ("the last event never comes", |run| drop(run.configmaps[0].told.pop())),
        ("an event comes twice", |run| {
            let told = run.configmaps[0].told[3].clone();
            run.configmaps[0].told.insert(4, told);
        }),
        ("two events change places", |run| run.configmaps[0].told.swap(3, 4)),
        ("one member tells another object", |run| {
            if let Told::Event { object, .. } = &mut run.configmaps[1].told[5] {
                object.digest += 1;
            }
        }),
        ("a list lacks an object", |run| {
            if let Told::List { objects, .. } = &mut run.pods[1].told[2] {
                drop(objects.pop());
            }
        }),
        ("a list shows an old object", |run| {
            if let Told::List { objects, .. } = &mut run.configmaps[1].told[2] {
                objects[0] = counter(11, 1, 1);
            }
        }),
        ("a restarted server lists what is older than what the last one told", |run| {
            if let Told::List { version, .. } = &mut run.bindings[1].told[2] {
                *version = 29;
            }
        }),
        ("a bookmark is ahead of the events", |run| {
            run.pods[0].told.insert(3, Told::Bookmark { version: 23 });
        }),
        ("an object that is there is added", |run| {
            for stream in &mut run.pods {
                for told in &mut stream.told {
                    if let Told::Event { change, object, .. } = told
                        && object.version == 26
                    {
                        *change = Change::Added;
                    }
                }
            }
        }),
    ];
    for (name, lie) in lies {
        let mut run = correct();
        lie(&mut run);
        assert!(decide(&run)[0].is_err(), "believed: {name}");
    }
}

#[test]
fn every_lost_update_is_found() {
    let lies: [Lie; 7] = [
        ("an update was made on what had been replaced", |run| {
            in_both(&mut run.configmaps, 14, |object| object.facts = Facts::Counter { count: 3, writer: 5 });
            run.increments[4].read_version = 12;
        }),
        ("an acknowledged update is nowhere", |run| {
            run.increments.push(increment(7, (14, 4), Outcome::Done(15)));
        }),
        ("a refused update happened", |run| {
            run.increments[2].outcome = Outcome::Refused("conflict".to_owned());
        }),
        ("an update was acknowledged at another version", |run| {
            run.increments[4].outcome = Outcome::Done(13);
        }),
        ("an update happened twice", |run| {
            in_both(&mut run.configmaps, 14, |object| object.facts = Facts::Counter { count: 4, writer: 3 });
        }),
        ("an update that nobody made", |run| {
            in_both(&mut run.configmaps, 14, |object| object.facts = Facts::Counter { count: 4, writer: 9 });
        }),
        ("a read shows what was before an acknowledged update", |run| {
            run.increments[5].read_version = 11;
        }),
    ];
    for (name, lie) in lies {
        let mut run = correct();
        lie(&mut run);
        assert!(decide(&run)[1].is_err(), "believed: {name}");
    }
}

#[test]
fn every_wrong_placement_is_found() {
    let lies: [Lie; 6] = [
        ("a pod moves", |run| place(&mut run.pods, 27, "two")),
        ("a pod gets a node that is full", |run| {
            // b is bound while a is still there.
            in_both(&mut run.pods, 22, |object| {
                object.facts = pod("b", 22, Some("one"), 600, None).facts;
            });
        }),
        ("a node gets more pods than it takes", |run| run.nodes[0].pods = 0),
        ("a pod gets a node without its disk", |run| place(&mut run.pods, 24, "one")),
        ("a pod gets a node that takes none", |run| place(&mut run.pods, 24, "three")),
        ("a pod gets a node that is not there", |run| place(&mut run.pods, 24, "four")),
    ];
    for (name, lie) in lies {
        let mut run = correct();
        lie(&mut run);
        assert!(decide(&run)[2].is_err(), "believed: {name}");
    }
}

#[test]
fn every_decision_on_an_old_state_is_found() {
    let lies: [Lie; 4] = [
        ("allowed after the member had told that the right was taken", |run| run.attempts[2].allowed = true),
        ("denied after the member had told that the right was given", |run| run.attempts[1].allowed = false),
        ("allowed before anybody asked for the right", |run| run.attempts[0].allowed = true),
        ("a right that nobody gave", |run| {
            in_both(&mut run.bindings, 32, |object| object.facts = Facts::Binding { grant: 7 });
        }),
    ];
    for (name, lie) in lies {
        let mut run = correct();
        lie(&mut run);
        assert!(decide(&run)[3].is_err(), "believed: {name}");
    }
}

/// What was taken may be allowed for a while through a member that has not told of it.
#[test]
fn a_member_that_has_not_heard_may_decide_on_what_it_knows() {
    let mut run = correct();
    run.attempts[3].allowed = true;
    run.bindings[1].told.truncate(4);
    let streams: Vec<&Stream> = run.bindings.iter().collect();
    let truth = Truth::agreed(None, &streams).unwrap();
    assert_eq!(rights::check(&truth, &run.toggles, &rights::observed(&streams), &run.attempts), Ok(5));
}

#[test]
fn what_the_store_never_held_is_found() {
    let run = correct();
    let mut store = run.configmaps[0].clone();
    let streams: Vec<&Stream> = run.configmaps.iter().collect();
    Truth::agreed(Some(&store), &streams).unwrap();
    store.told.pop();
    assert!(Truth::agreed(Some(&store), &streams).is_err());
}

/// Of pods: member 1 did not answer from version 22 to 25, so that what happened meanwhile is a difference.
fn informed() -> Vec<Informed> {
    let applied = |object: Object, old| Heard::Applied { object, old, at_ns: SECOND };
    let (a, b) = (
        |version, node| pod("a", version, node, 600, None),
        |version, node| pod("b", version, node, 600, None),
    );
    let c = |version, node| pod("c", version, node, 100, Some("ssd"));
    let one = Some("one");
    let informed = |member, heard| Informed { member, plural: "pods".to_owned(), heard };
    vec![
        informed(
            0,
            vec![
                Heard::Synced { at_ns: SECOND },
                applied(a(20, None), None),
                applied(a(21, one), Some(20)),
                applied(b(22, None), None),
                applied(c(23, None), None),
                applied(c(24, Some("two")), Some(23)),
                Heard::Deleted { object: a(25, one), at_ns: SECOND },
                applied(b(26, one), Some(22)),
                applied(b(27, one), Some(26)),
            ],
        ),
        informed(
            1,
            vec![
                applied(a(21, one), None),
                Heard::Synced { at_ns: SECOND },
                applied(c(24, Some("two")), None),
                applied(b(26, one), None),
                Heard::Deleted { object: a(21, one), at_ns: SECOND },
                applied(b(27, one), Some(26)),
            ],
        ),
    ]
}

fn believes(informers: &[Informed]) -> Result<usize, Violation> {
    let run = correct();
    let truth = Truth::agreed(None, &run.pods.iter().collect::<Vec<_>>())?;
    informers::check(&truth, &informers.iter().collect::<Vec<_>>(), 27)
}

#[test]
fn every_lie_of_an_informer_is_found() {
    assert_eq!(believes(&informed()), Ok(15));
    type Lie = (&'static str, fn(&mut Vec<Heard>, &mut Vec<Heard>));
    let lies: [Lie; 11] = [
        ("it goes back", |_, second| {
            second.push(Heard::Applied {
                object: pod("b", 26, Some("one"), 600, None),
                old: Some(27),
                at_ns: 0,
            });
        }),
        ("it delivers a state twice", |first, _| first.push(first[8].clone())),
        ("it misses the last state", |first, _| drop(first.pop())),
        ("it misses an object", |_, second| drop(second.remove(2))),
        ("it keeps what is gone", |_, second| drop(second.remove(4))),
        ("it leaves out a state and says that it did not", |first, _| drop(first.remove(7))),
        ("it deletes what is there", |_, second| {
            second.push(Heard::Deleted { object: pod("b", 27, Some("one"), 600, None), at_ns: 0 });
        }),
        ("it deletes what it never told of", |first, _| {
            first.push(Heard::Deleted { object: pod("d", 27, None, 600, None), at_ns: 0 });
        }),
        ("it delivers what never was", |first, _| {
            if let Heard::Applied { object, .. } = &mut first[3] {
                object.digest += 1;
            }
        }),
        ("it is never told that it has all", |first, _| drop(first.remove(0))),
        ("it brings back what was deleted", |_, second| {
            second.push(Heard::Applied { object: pod("a", 21, Some("one"), 600, None), old: None, at_ns: 0 });
        }),
    ];
    for (name, lie) in lies {
        let mut informers = informed();
        let [first, second] = &mut informers[..] else { unreachable!("there are two") };
        lie(&mut first.heard, &mut second.heard);
        assert!(believes(&informers).is_err(), "believed: {name}");
    }
}

#[test]
fn a_run_that_shows_nothing_is_invalid_and_what_is_read_back_is_what_was_written() {
    let run = correct();
    let recording = Recording {
        nodes: run.nodes,
        streams: [run.configmaps, run.pods, run.bindings].concat(),
        informers: informed(),
        increments: run.increments,
        toggles: run.toggles,
        observed: run.observed,
        attempts: run.attempts,
        about: About { complete: true, ..About::default() },
        ..Recording::default()
    };
    let dir = tempfile::tempdir().unwrap();
    recording.save(dir.path()).unwrap();
    let kept = Recording::load(dir.path()).unwrap();
    assert_eq!(kept, recording);
    let judgement = judge::judge(&kept);
    assert_eq!(judgement.invalid.as_deref(), Some("only 3 updates were acknowledged"));
}
