//! Who asks: the identity that authentication found, or that a caller may impersonate.
//!
//! Not here: how it was proved (`authn.rs`) and what it may do (`authz.rs`).

use std::collections::BTreeMap;

pub(crate) const ANONYMOUS: &str = "system:anonymous";
pub(crate) const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
pub(crate) const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// May do everything, whatever the authorization mode says.
pub(crate) const GROUP_MASTERS: &str = "system:masters";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// An identity as `kubectl auth whoami` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub fn new(name: impl Into<String>, groups: &[&str]) -> User {
        User {
            name: name.into(),
            groups: groups.iter().map(|group| (*group).to_string()).collect(),
            ..User::default()
        }
    }

    /// The server's own identity, for the objects that it makes at start.
    pub(crate) fn server() -> User {
        User::new("system:apiserver", &[GROUP_MASTERS, GROUP_AUTHENTICATED])
    }

    pub(crate) fn anonymous() -> User {
        User::new(ANONYMOUS, &[GROUP_UNAUTHENTICATED])
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// Namespace and name of a service account's user name.
pub(crate) fn split_service_account(user_name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user_name.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_name_has_exactly_a_namespace_and_a_name() {
        assert_eq!(split_service_account("system:serviceaccount:ns:sa"), Some(("ns", "sa")));
        for other in
            ["system:serviceaccount:ns", "system:serviceaccount::sa", "system:serviceaccount:a:b:c", "jiang"]
        {
            assert_eq!(split_service_account(other), None, "{other}");
        }
    }
}
