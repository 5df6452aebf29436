//! Users, roles, and who may do what.

use crate::script::{Machine, check};

/// Root, and alice who reads and writes a..c, reads d, writes e.
const USERS: &str = "user-add root                    -> ok
                     user-grant root root             -> ok
                     user-add alice                   -> ok
                     role-add r                       -> ok
                     role-grant r readwrite a..c      -> ok
                     role-grant r read d              -> ok
                     role-grant r write e             -> ok
                     user-grant alice r               -> ok
                     user-add bob                     -> ok
                     enable                           -> ok";

fn check_with_users(script: &str) {
    check(&format!("{USERS}\n{script}"));
}

#[test]
fn enabling_needs_a_root_user_with_the_root_role() {
    check(
        "enable               -> error: root user does not exist
         user-add root        -> ok
         enable               -> error: root user does not have root role
         user-grant root root -> ok
         as nobody put a 1    -> revision 2
         enable               -> ok
         enable               -> ok
         as nobody put a 1    -> error: user name is empty
         as root put a 1      -> revision 3
         disable              -> ok
         as nobody put a 1    -> revision 4",
    );
}

#[test]
fn every_change_but_enabling_raises_the_auth_revision() {
    check(
        "auth-revision            -> 1
         user-add root            -> ok
         auth-revision            -> 2
         user-grant root root     -> ok
         auth-revision            -> 3
         user-grant root root     -> ok
         auth-revision            -> 3
         role-add r               -> ok
         role-grant r read a      -> ok
         role-grant r write a     -> ok
         auth-revision            -> 6
         user-password root x     -> ok
         auth-revision            -> 7
         enable                   -> ok
         auth-revision            -> 7
         disable                  -> ok
         auth-revision            -> 8
         disable                  -> ok
         auth-revision            -> 8
         role-revoke r a          -> ok
         role-delete r            -> ok
         user-revoke root root    -> ok
         user-delete root         -> ok
         auth-revision            -> 12
         revision                 -> 1
         restart                  -> ok
         auth-revision            -> 12",
    );
}

#[test]
fn users_and_roles_are_managed_with_etcds_refusals() {
    check(
        r#"user-add ""             -> error: user name is empty
           role-add ""             -> error: role name is empty
           user-add alice          -> ok
           user-add alice          -> error: user name already exists
           user-delete bob         -> error: user name not found
           user-password bob x     -> error: user name not found
           user-grant bob r        -> error: user name not found
           user-grant alice r      -> error: role name not found
           user-revoke bob r       -> error: user name not found
           user-revoke alice r     -> error: role is not granted to the user
           role-add r              -> ok
           role-add r              -> error: role name already exists
           role-delete x           -> error: role name not found
           role-grant x read a     -> error: role name not found
           role-grant r read b..a  -> error: invalid auth management
           role-grant r read ""    -> error: invalid auth management
           role-revoke x a         -> error: role name not found
           role-revoke r a         -> error: permission is not granted to the role
           role-grant r read a..c  -> ok
           role-grant r write a    -> ok
           role-grant r readwrite a -> ok
           role-grant r read x..   -> ok
           role-get r              -> ReadWrite a.."", Read a..c, Read x..\0
           role-revoke r a..b      -> error: permission is not granted to the role
           role-revoke r a..c      -> ok
           role-get r              -> ReadWrite a.."", Read x..\0
           user-grant alice r      -> ok
           user-grant alice root   -> ok
           users                   -> alice(r root)
           role-delete r           -> ok
           users                   -> alice(root)
           restart                 -> ok
           users                   -> alice(root)
           role-get r              -> none"#,
    );
}

#[test]
fn root_cannot_be_unmade_while_access_rules_are_on() {
    check_with_users(
        "role-add root                     -> ok
         as root user-delete root          -> error: invalid auth management
         as root user-revoke root root     -> error: invalid auth management
         as root role-delete root          -> error: invalid auth management
         as root disable                   -> ok
         role-delete root                  -> ok",
    );
}

#[test]
fn reading_and_writing_follow_the_permissions() {
    check_with_users(
        "as root put a 1                   -> revision 2
         as root put x 1                   -> revision 3
         as alice get a                    -> 1
         as alice put a 2                  -> revision 4
         as alice range a..c               -> a=2 count 1
         as alice range a..d               -> error: permission denied
         as alice range a..                -> error: permission denied
         as alice get x                    -> error: permission denied
         as alice put x 1                  -> error: permission denied
         as alice delete x                 -> error: permission denied
         as alice delete a..c              -> deleted 1, revision 5
         as alice delete a..d              -> error: permission denied
         as alice get d                    -> none
         as alice put d 1                  -> error: permission denied
         as alice put e 1                  -> revision 6
         as alice get e                    -> error: permission denied
         as alice put e 1 prev             -> error: permission denied
         as alice delete e prev            -> error: permission denied
         as alice delete e                 -> deleted 1, revision 7
         as bob get a                      -> error: permission denied
         as carol get a                    -> error: permission denied
         as nobody get a                   -> error: user name is empty
         as alice may watch a..c           -> yes
         as alice may watch a..d           -> error: permission denied
         as bob may watch a                -> error: permission denied
         as nobody may watch a             -> error: user name is empty",
    );
}

#[test]
fn ranges_that_touch_permit_what_they_cover_together() {
    check_with_users(
        "role-add s                 -> ok
         user-grant bob s           -> ok
         role-grant s read a..c     -> ok
         role-add t                 -> ok
         user-grant bob t           -> ok
         as bob range a..f          -> error: permission denied
         role-grant t read c..f     -> ok
         as bob range a..f          -> count 0
         role-revoke t c..f         -> ok
         as bob range a..f          -> error: permission denied
         role-grant t read c..      -> ok
         as bob range b..           -> count 0
         role-delete t              -> ok
         as bob range b..           -> error: permission denied",
    );
}

#[test]
fn a_transaction_is_judged_in_every_branch_and_nesting() {
    check_with_users(
        "as alice txn if version(a)=0 then { put a 1 ; get d } else { put e 1 }     -> then: put at 2 ; count 0 at 2, revision 2
         as alice txn if version(x)=0 then { get a }                                -> error: permission denied
         as alice txn if version(a..x)=0 then { get a }                             -> error: permission denied
         as alice txn then { get x }                                                -> error: permission denied
         as alice txn then { put x 1 }                                              -> error: permission denied
         as alice txn then { delete x }                                             -> error: permission denied
         as alice txn else { put x 1 }                                              -> error: permission denied
         as alice txn then { put e 1 prev }                                         -> error: permission denied
         as alice txn then { delete e prev }                                        -> error: permission denied
         as alice txn then { txn else { get x } }                                   -> error: permission denied
         as alice txn then { txn if version(x)=0 }                                  -> error: permission denied
         as alice txn then { txn then { txn else { put x 1 } } }                    -> error: permission denied
         as alice txn else { txn then { txn then { delete e prev } } }              -> error: permission denied
         as alice txn then { txn then { txn else { put e 1 ; get d } } }            -> then: (then: (then:)), revision 2
         as nobody txn                                                              -> error: user name is empty",
    );
}

#[test]
fn a_lease_belongs_to_those_who_may_write_its_keys() {
    check_with_users(
        "as nobody grant 7 ttl=60             -> error: user name is empty
         as carol grant 7 ttl=60              -> error: permission denied
         as bob grant 7 ttl=60                -> lease 7 ttl 60
         as alice put a 1 lease=7             -> revision 2
         as alice may keep-alive 7            -> yes
         as bob may keep-alive 7              -> error: permission denied
         as alice may time-to-live-keys 7     -> yes
         as bob may time-to-live-keys 7       -> error: permission denied
         as bob may time-to-live 7            -> yes
         as alice may leases                  -> yes
         as bob may leases                    -> error: permission denied
         as bob revoke 7                      -> error: permission denied
         as root put x 1 lease=7              -> revision 3
         as alice put b 1 lease=7             -> error: permission denied
         as alice txn then { txn then { put b 1 lease=7 } } -> error: permission denied
         as alice revoke 7                    -> error: permission denied
         as alice may keep-alive 7            -> error: permission denied
         as alice may time-to-live-keys 7     -> error: permission denied
         as alice may leases                  -> error: permission denied
         as root may leases                   -> yes
         as root revoke 7                     -> revision 4
         as nobody may keep-alive 7           -> error: user name is empty",
    );
}

#[test]
fn the_rest_is_for_root_or_for_any_user() {
    let for_root = ["member-change", "user-list", "role-list", "maintenance", "user-get alice", "role-get r"];
    let for_users = ["alarm-list", "status", "member-list", "time-to-live 7"];
    let mut lines = Vec::new();
    for what in for_root {
        lines.push(format!("as root may {what} -> yes"));
        lines.push(format!("as bob may {what} -> error: permission denied"));
        lines.push(format!("as nobody may {what} -> error: user name is empty"));
    }
    for what in for_users {
        lines.push(format!("as root may {what} -> yes"));
        lines.push(format!("as bob may {what} -> yes"));
        lines.push(format!("as carol may {what} -> error: permission denied"));
        lines.push(format!("as nobody may {what} -> error: user name is empty"));
    }
    for command in ["compact 1", "alarm on nospace 1", "user-add x", "role-add x", "disable", "enable"] {
        lines.push(format!("as alice {command} -> error: permission denied"));
        lines.push(format!("as nobody {command} -> error: user name is empty"));
    }
    for command in ["expire term=5 7", "checkpoint 7 remaining=1", "member 1 m", "cluster-version 3.6.0"] {
        lines.push(format!("as root {command} -> error: permission denied"));
        lines.push(format!("as nobody {command} -> error: user name is empty"));
    }
    lines.push("as alice may user-get alice -> yes".to_owned());
    lines.push("as alice may role-get r -> yes".to_owned());
    lines.push("as alice may role-get root -> error: permission denied".to_owned());
    lines.push("as nobody may auth-status -> yes".to_owned());
    lines.push("as root compact 1 -> ok".to_owned());
    check_with_users(&lines.join("\n"));
}

#[test]
fn rights_that_were_read_before_a_change_are_old() {
    check_with_users(
        "auth-revision                -> 10
         as alice@10 put a 1          -> revision 2
         as alice@9 put a 1           -> error: revision of auth store is old
         as alice@9 get a             -> error: revision of auth store is old
         as root@9 put a 1            -> error: revision of auth store is old
         as root@9 user-add carol     -> ok
         as alice@10 put a 1          -> error: revision of auth store is old
         as alice@11 put a 1          -> revision 3
         as root role-revoke r a..c   -> ok
         as alice@12 put a 1          -> error: permission denied
         as root user-delete alice    -> ok
         as alice get d               -> error: permission denied",
    );
}

#[test]
fn rules_and_rights_survive_a_restart() {
    check_with_users(
        "restart                   -> ok
         as alice put a 1          -> revision 2
         as alice put x 1          -> error: permission denied
         as nobody put a 1         -> error: user name is empty
         as root role-delete r     -> ok
         restart                   -> ok
         as alice put a 1          -> error: permission denied",
    );
}

#[test]
fn a_login_lives_as_long_as_password_user_rules_and_member() {
    let mut machine = Machine::quiet();
    machine.run(&format!("{USERS}\nauth-revision -> 10"));
    machine.run(
        "login alice a 9                -> error: revision of auth store is old
         login nobody a 10              -> error: user name not found
         as alice login alice a 10      -> error: permission denied
         as root login root a 10        -> error: permission denied
         as nobody login alice a 10     -> error: user name is empty
         token a                        -> none
         login alice a 10               -> ok
         login bob b 10                 -> ok
         login bob a 10                 -> ok   # an honest issuer offers no digest twice
         auth-revision                  -> 10
         revision                       -> 1
         token a                        -> alice
         user-password alice x          -> ok
         token a                        -> none
         token b                        -> bob
         user-delete bob                -> ok
         token b                        -> none
         user-add bob                   -> ok
         token b                        -> none
         login alice c 13               -> ok
         role-add s                     -> ok
         token c                        -> alice
         disable                        -> ok
         login alice d 15               -> error: authentication is not enabled
         enable                         -> ok
         token c                        -> none
         login alice e 15               -> ok
         token e                        -> alice
         restart                        -> ok   # with the same state hash
         token e                        -> none
         login alice e 15               -> ok
         token e                        -> alice",
    );
}
