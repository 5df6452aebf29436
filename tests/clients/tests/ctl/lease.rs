//! Leases that are renewed while the member is away.

use crate::rig::Rig;

#[test]
fn a_lease_is_renewed_over_a_lost_connection_until_it_is_revoked() {
    let mut rig = Rig::start(&[]);
    let lease = rig.run("lease grant 60");
    let lease = lease.split_whitespace().nth(1).unwrap().to_owned();
    let short = rig.run("lease grant 30");
    let short = short.split_whitespace().nth(1).unwrap();
    let mut renewal = rig.spawn(&format!("lease keep-alive {short}"));
    let mut long = rig.spawn(&format!("lease keep-alive {lease}"));
    renewal.wait_for("keepalived");
    long.wait_for("keepalived");
    let renewed = renewal.printed().lines().count();
    rig.restart();
    renewal.wait_for_lines(renewed + 2);
    assert!(long.is_running());
    rig.run(&format!("lease revoke {short}"));
    assert!(renewal.wait().success());
    assert!(renewal.printed().ends_with(" expired or revoked.\n"), "{}", renewal.printed());
}

#[test]
fn renewing_ends_when_the_lease_cannot_live_any_more() {
    let mut rig = Rig::start(&[]);
    let lease = rig.run("lease grant 3").split_whitespace().nth(1).unwrap().to_owned();
    let mut renewal = rig.spawn(&format!("lease keep-alive {lease}"));
    renewal.wait_for("keepalived");
    rig.cluster.kill(0).unwrap();
    assert!(renewal.wait().success());
    assert!(renewal.printed().ends_with(" expired or revoked.\n"), "{}", renewal.printed());
}
