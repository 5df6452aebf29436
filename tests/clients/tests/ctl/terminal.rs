//! Passwords that are typed on a terminal, which `script` of util-linux makes.

use crate::rig::Rig;

#[test]
fn a_password_is_not_shown_and_the_terminal_shows_again_what_is_typed_afterwards() {
    let mut rig = Rig::start(&[]);
    // The second one is interrupted; the shell goes on.
    let mut terminal = rig.spawn_on_terminal(
        "trap : INT; $CTL user add ana; echo first $?; $CTL user add bo; echo second $?; \
         stty -a | tr -s '; ' '\\n\\n' | grep -x -e '-*echo' -e '-*isig' -e '-*icanon'; echo over; sleep 1000",
    );
    terminal.wait_for("Password of ana: ");
    terminal.type_in("hidden-word\n");
    terminal.wait_for("Type password of ana again for confirmation: ");
    terminal.type_in("hidden-wort\u{7f}d\n");
    terminal.wait_for("User ana created\r\nfirst 0\r\n");
    terminal.wait_for("Password of bo: ");
    terminal.type_in("hidden-again\u{3}");
    terminal.wait_for("over");
    let printed = terminal.printed();
    assert!(printed.contains("second 130\r\n"), "{printed}");
    assert!(!printed.contains("hidden"), "{printed}");
    for mode in ["isig", "icanon", "echo"] {
        assert!(printed.contains(&format!("\n{mode}\r\n")), "{mode} is off:\n{printed}");
    }
    assert_eq!(rig.run("user list"), "ana\n");
    rig.run("user add root:pass");
    rig.run("user grant-role root root");
    rig.run("auth enable");
    rig.options = vec!["--user=ana:hidden-word".to_owned()];
    rig.run("auth status");
}
