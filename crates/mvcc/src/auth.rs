//! Users, roles and permissions as the log made them.
//!
//! Invariants: the auth revision starts at 1 and grows with every change except enabling; what a user may touch is
//! kept merged and follows each change at once; names and lists are sorted. Password hashes are kept as given and
//! never logged. A login lives no longer than the password that it was made with, the user, or the access rules.
//! Not here: who may do what (authorize.rs), comparing passwords.

use crate::command::{Access, AuthCommand, Permission};
use crate::keys::KeyRange;
use crate::permissions::KeySet;
use crate::reply::AuthError;
use crate::tokens::{TokenDigest, Tokens};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The user that must exist before access rules can be switched on, and the role that permits everything.
pub(crate) const ROOT: &str = "root";

pub(crate) struct Auth {
    pub(crate) enabled: bool,
    pub(crate) revision: u64,
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) roles: BTreeMap<String, Role>,
    /// Follows `users` and `roles`.
    rights: BTreeMap<String, Rights>,
    /// What the state file does not have yet.
    pub(crate) changed: Changed,
    /// Of this life of the store; no part of the state.
    pub(crate) tokens: Tokens,
}

#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) password_hash: Bytes,
    pub(crate) no_password: bool,
    pub(crate) roles: BTreeSet<String>,
}

impl fmt::Debug for User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("User").field("roles", &self.roles).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Role {
    /// Sorted by range; one permission for each range.
    pub(crate) permissions: Vec<Permission>,
}

#[derive(Default)]
pub(crate) struct Changed {
    pub(crate) users: BTreeSet<String>,
    pub(crate) roles: BTreeSet<String>,
}

/// What a user may touch by all roles together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) is_root: bool,
    pub(crate) read: KeySet,
    pub(crate) write: KeySet,
}

/// A user without secrets beyond the hash that login compares with.
#[derive(Clone, PartialEq, Eq)]
pub struct UserView {
    pub name: String,
    pub password_hash: Bytes,
    /// Can only come in by certificate.
    pub no_password: bool,
    /// Sorted.
    pub roles: Vec<String>,
}

impl fmt::Debug for UserView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut view = formatter.debug_struct("UserView");
        view.field("name", &self.name).field("roles", &self.roles).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleView {
    pub name: String,
    /// Sorted by key.
    pub permissions: Vec<Permission>,
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            rights: BTreeMap::new(),
            changed: Changed::default(),
            tokens: Tokens::default(),
        }
    }
}

impl Auth {
    pub(crate) fn apply(&mut self, command: &AuthCommand) -> Result<(), AuthError> {
        match command {
            AuthCommand::Enable => self.enable(),
            AuthCommand::Disable => {
                if self.enabled {
                    self.enabled = false;
                    self.revision += 1;
                    self.tokens.clear();
                }
                Ok(())
            }
            AuthCommand::UserAdd { name, password_hash, no_password } => {
                self.add_user(name, password_hash, *no_password)
            }
            AuthCommand::UserDelete { name } => self.delete_user(name),
            AuthCommand::UserChangePassword { name, password_hash } => {
                let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
                if !user.no_password {
                    user.password_hash = password_hash.clone();
                }
                self.tokens.remove_user(name);
                self.changed_user(name);
                Ok(())
            }
            AuthCommand::UserGrantRole { user, role } => self.grant_role(user, role),
            AuthCommand::UserRevokeRole { user, role } => self.revoke_role(user, role),
            AuthCommand::RoleAdd { name } => self.add_role(name),
            AuthCommand::RoleDelete { name } => self.delete_role(name),
            AuthCommand::RoleGrantPermission { role, permission } => self.grant_permission(role, permission),
            AuthCommand::RoleRevokePermission { role, range } => self.revoke_permission(role, range),
            AuthCommand::Token { name, digest, auth_revision } => self.log_in(name, digest, *auth_revision),
        }
    }

    fn enable(&mut self) -> Result<(), AuthError> {
        if self.enabled {
            return Ok(());
        }
        let root = self.users.get(ROOT).ok_or(AuthError::RootUserNotExist)?;
        if !root.roles.contains(ROOT) {
            return Err(AuthError::RootRoleNotExist);
        }
        self.enabled = true;
        Ok(())
    }

    fn add_user(&mut self, name: &str, password_hash: &Bytes, no_password: bool) -> Result<(), AuthError> {
        if name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.users.contains_key(name) {
            return Err(AuthError::UserAlreadyExist);
        }
        let password_hash = if no_password { Bytes::new() } else { password_hash.clone() };
        self.users.insert(name.to_owned(), User { password_hash, no_password, roles: BTreeSet::new() });
        self.changed_user(name);
        Ok(())
    }

    fn delete_user(&mut self, name: &str) -> Result<(), AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.users.remove(name).ok_or(AuthError::UserNotFound)?;
        self.tokens.remove_user(name);
        self.changed_user(name);
        Ok(())
    }

    /// `OldRevision`: something changed since the password was compared; it must be compared again.
    fn log_in(&mut self, name: &str, digest: &TokenDigest, auth_revision: u64) -> Result<(), AuthError> {
        if !self.enabled {
            return Err(AuthError::NotEnabled);
        }
        if auth_revision != self.revision {
            return Err(AuthError::OldRevision);
        }
        if !self.users.contains_key(name) {
            return Err(AuthError::UserNotFound);
        }
        self.tokens.insert(name, *digest);
        Ok(())
    }

    fn grant_role(&mut self, name: &str, role: &str) -> Result<(), AuthError> {
        let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        // The role root permits everything by its name alone.
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(AuthError::RoleNotFound);
        }
        if user.roles.insert(role.to_owned()) {
            self.changed_user(name);
        }
        Ok(())
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<(), AuthError> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        if !user.roles.remove(role) {
            return Err(AuthError::RoleNotGranted);
        }
        self.changed_user(name);
        Ok(())
    }

    fn add_role(&mut self, name: &str) -> Result<(), AuthError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(AuthError::RoleAlreadyExist);
        }
        self.roles.insert(name.to_owned(), Role::default());
        self.changed_role(name);
        Ok(())
    }

    fn delete_role(&mut self, name: &str) -> Result<(), AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
        let holders =
            self.users.iter_mut().filter_map(|(user, entry)| entry.roles.remove(name).then_some(user));
        let holders: Vec<String> = holders.cloned().collect();
        for user in holders {
            self.refresh(&user);
            self.changed.users.insert(user);
        }
        self.changed_role(name);
        Ok(())
    }

    fn grant_permission(&mut self, name: &str, permission: &Permission) -> Result<(), AuthError> {
        if permission.range.start().is_empty() || permission.range.is_empty() {
            return Err(AuthError::InvalidManagement);
        }
        let role = self.roles.get_mut(name).ok_or(AuthError::RoleNotFound)?;
        let wire = permission.range.to_wire();
        match role.permissions.binary_search_by(|own| own.range.to_wire().cmp(&wire)) {
            Ok(at) => {
                if let Some(own) = role.permissions.get_mut(at) {
                    own.access = permission.access;
                }
            }
            Err(at) => role.permissions.insert(at, permission.clone()),
        }
        self.changed_role(name);
        Ok(())
    }

    fn revoke_permission(&mut self, name: &str, range: &KeyRange) -> Result<(), AuthError> {
        let role = self.roles.get_mut(name).ok_or(AuthError::RoleNotFound)?;
        let before = role.permissions.len();
        role.permissions.retain(|own| own.range != *range);
        if role.permissions.len() == before {
            return Err(AuthError::PermissionNotGranted);
        }
        self.changed_role(name);
        Ok(())
    }

    fn changed_user(&mut self, name: &str) {
        self.revision += 1;
        self.refresh(name);
        self.changed.users.insert(name.to_owned());
    }

    fn changed_role(&mut self, name: &str) {
        self.revision += 1;
        let holders = self.users.iter().filter(|(_, user)| user.roles.contains(name));
        let holders: Vec<String> = holders.map(|(user, _)| user.clone()).collect();
        holders.iter().for_each(|user| self.refresh(user));
        self.changed.roles.insert(name.to_owned());
    }

    /// Merges what the user's roles permit.
    fn refresh(&mut self, name: &str) {
        let Some(user) = self.users.get(name) else {
            self.rights.remove(name);
            return;
        };
        let permissions =
            || user.roles.iter().filter_map(|role| self.roles.get(role)).flat_map(|role| &role.permissions);
        let granting = |other: Access| {
            permissions().filter(move |own| own.access != other).map(|permission| &permission.range)
        };
        let rights = Rights {
            is_root: user.roles.contains(ROOT),
            read: KeySet::union(granting(Access::Write)),
            write: KeySet::union(granting(Access::Read)),
        };
        self.rights.insert(name.to_owned(), rights);
    }

    /// After users and roles were loaded from the state file.
    pub(crate) fn refresh_all(&mut self) {
        let names: Vec<String> = self.users.keys().cloned().collect();
        names.iter().for_each(|name| self.refresh(name));
    }

    /// `None` if there is no such user.
    pub(crate) fn rights(&self, user: &str) -> Option<&Rights> {
        self.rights.get(user)
    }

    pub(crate) fn user_view(&self, name: &str) -> Option<UserView> {
        self.users.get(name).map(|user| UserView {
            name: name.to_owned(),
            password_hash: user.password_hash.clone(),
            no_password: user.no_password,
            roles: user.roles.iter().cloned().collect(),
        })
    }

    pub(crate) fn role_view(&self, name: &str) -> Option<RoleView> {
        let role = self.roles.get(name)?;
        Some(RoleView { name: name.to_owned(), permissions: role.permissions.clone() })
    }
}
