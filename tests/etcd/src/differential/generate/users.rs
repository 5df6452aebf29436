//! Users, roles, and who is logged in.

use super::*;

impl Generator<'_> {
    pub(super) fn users_to_begin_with(&mut self) {
        for user in ["root", "ana", "ben"] {
            self.call("Auth/UserAdd", &json!({ "name": user, "password": user }));
        }
        for role in ["root", "r1", "r2"] {
            self.call("Auth/RoleAdd", &json!({ "name": role }));
        }
        for (user, role) in [("root", "root"), ("ana", "r1"), ("ben", "r2")] {
            self.call("Auth/UserGrantRole", &json!({ "user": user, "role": role }));
        }
        for role in ["r1", "r2", "r1"] {
            let perm = self.permission();
            self.call("Auth/RoleGrantPermission", &json!({ "name": role, "perm": perm }));
        }
        self.call("Auth/AuthEnable", &json!({}));
        self.lines.push("as root".to_owned());
    }

    fn permission(&mut self) -> Value {
        let mut perm = json!({ "permType": self.pick(&["READ", "WRITE", "READWRITE"]), "key": self.key() });
        if self.one_in(2) {
            perm["range_end"] = json!(self.pick(ENDS));
        }
        perm
    }

    pub(super) fn log_in(&mut self) {
        match self.random.random_range(0..12) {
            0 => self.lines.push("as nobody".to_owned()),
            1 => self.lines.push("with token junk".to_owned()),
            2 => {
                let request = json!({ "name": self.pick(USERS), "password": self.pick(&["wrong", ""]) });
                self.call("Auth/Authenticate", &request);
            }
            3..7 => self.lines.push("as root".to_owned()),
            _ => {
                let user = self.pick(USERS);
                self.lines.push(format!("as {user}"));
            }
        }
    }

    pub(super) fn authentication(&mut self) {
        let (user, role) = (self.pick(USERS), self.pick(ROLES));
        let empty = self.one_in(30);
        let (user, role) = if empty { ("", "") } else { (user, role) };
        match self.random.random_range(0..100) {
            0..10 => {
                let mut request = json!({ "name": user, "password": user });
                match self.random.random_range(0..12) {
                    0 => request["options"] = json!({ "no_password": true }),
                    1 => request = json!({ "name": user, "options": { "no_password": true } }),
                    2 => request = json!({ "name": user }),
                    3 => request = json!({ "name": user, "hashedPassword": "junk" }),
                    _ => {}
                }
                self.call("Auth/UserAdd", &request);
            }
            10..16 => self.call("Auth/UserGet", &json!({ "name": user })),
            16..20 => self.call("Auth/UserList", &json!({})),
            20..26 => self.call("Auth/UserDelete", &json!({ "name": user })),
            26..31 => {
                // The same as before, which still ends what was said under the old one.
                let password = if user != "root" && self.one_in(4) { "" } else { user };
                self.call("Auth/UserChangePassword", &json!({ "name": user, "password": password }));
            }
            31..40 => self.call("Auth/UserGrantRole", &json!({ "user": user, "role": role })),
            40..46 => self.call("Auth/UserRevokeRole", &json!({ "name": user, "role": role })),
            46..52 => self.call("Auth/RoleAdd", &json!({ "name": role })),
            52..60 => self.call("Auth/RoleGet", &json!({ "role": role })),
            60..64 => self.call("Auth/RoleList", &json!({})),
            64..68 => self.call("Auth/RoleDelete", &json!({ "role": role })),
            68..85 => {
                let mut request = json!({ "name": role, "perm": self.permission() });
                if self.one_in(25) {
                    request = json!({ "name": role });
                }
                self.call("Auth/RoleGrantPermission", &request);
            }
            85..91 => {
                let mut request = json!({ "role": role, "key": self.key() });
                if self.one_in(2) {
                    request["range_end"] = json!(self.pick(ENDS));
                }
                self.call("Auth/RoleRevokePermission", &request);
            }
            91..95 => self.call("Auth/AuthEnable", &json!({})),
            95..97 => self.call("Auth/AuthDisable", &json!({})),
            _ => self.call("Auth/AuthStatus", &json!({})),
        }
    }
}
