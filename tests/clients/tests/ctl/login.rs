//! Commands that run for longer than their token lives.

use std::time::Duration;

use crate::rig::Rig;

/// Of leases here, in seconds: longer than a start of the member takes.
const TTL_S: u64 = 20;

#[test]
fn commands_that_wait_log_in_again_when_the_member_has_forgotten_their_token() {
    let mut rig = Rig::with_users(&[]);
    let url = rig.cluster.client_urls[0].clone();
    rig.run("put watched 1");
    rig.run("put from/a 1");
    let mut watch = rig.spawn("watch watched --rev=1");
    let mut typed = rig.spawn("watch -i");
    typed.type_in("watch typed\nwatch watched --rev=1\n");
    let mut holder = rig.spawn(&format!("lock one --ttl={TTL_S}"));
    holder.wait_for("one/");
    let mut waiter = rig.spawn(&format!("lock one --ttl={TTL_S}"));
    let mut leader = rig.spawn("elect chief first");
    let mut observer = rig.spawn("elect chief --listen");
    let lease = rig.run(&format!("lease grant {TTL_S}"));
    let lease = lease.split_whitespace().nth(1).unwrap().to_owned();
    let mut renewal = rig.spawn(&format!("lease keep-alive {lease}"));
    let mut mirror =
        rig.spawn(&format!("make-mirror --prefix from/ --dest-prefix to/ --dest-user root:pass {url}"));
    for (running, text) in [
        (&mut watch, "watched"),
        (&mut typed, "watched"),
        (&mut leader, "first"),
        (&mut observer, "first"),
        (&mut renewal, "keepalived"),
    ] {
        running.wait_for(text);
    }
    rig.wait_until("get to/a --print-value-only", "1\n");

    rig.restart();
    rig.run("put watched after");
    rig.run("put typed after-too");
    rig.run("put from/b 2");
    watch.wait_for("after");
    typed.wait_for("after-too");
    rig.wait_until("get to/b --print-value-only", "2\n");
    // A life of the leases later they are still there.
    let renewed = renewal.printed().lines().count();
    renewal.wait_for_lines(renewed + 4);
    assert!(holder.is_running() && waiter.is_running() && leader.is_running() && mirror.is_running());
    assert_eq!(waiter.printed(), "");
    // What they were let into they can also leave.
    assert!(leader.end().success());
    let _second = rig.spawn("elect chief second");
    observer.wait_for("second");
    assert!(holder.end().success());
    waiter.wait_for("one/");
}

#[test]
fn a_command_whose_token_has_run_out_while_it_was_typed_is_carried_out() {
    let mut rig = Rig::with_users(&["--auth-token-ttl=1"]);
    let mut txn = rig.spawn("txn --interactive");
    txn.wait_for("compares:");
    // Longer than the token lives; that it takes longer does no harm.
    std::thread::sleep(Duration::from_secs(4));
    txn.type_in("\nput a 1\n\n\n");
    assert!(txn.wait().success(), "{}", txn.printed());
    assert!(txn.printed().ends_with("SUCCESS\n\nOK\n"), "{}", txn.printed());
}

#[test]
fn who_may_not_log_in_again_is_told_so() {
    let mut rig = Rig::with_users(&[]);
    rig.run("user add ana:old");
    rig.run("role add all");
    rig.run("role grant-permission all readwrite a");
    rig.run("user grant-role ana all");
    rig.run("put a 1");
    let of_root = std::mem::replace(&mut rig.options, vec!["--user=ana:old".to_owned()]);
    let mut watch = rig.spawn("watch a --rev=1");
    watch.wait_for("a\n1\n");
    rig.options = of_root;
    rig.run("user delete ana");
    rig.run("user add ana:new");
    rig.restart();
    let status = watch.wait();
    assert!(!status.success());
    let refused = "etcdserver: authentication failed, invalid user ID or password";
    assert!(watch.printed().contains(refused), "{}", watch.printed());
}
