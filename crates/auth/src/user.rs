//! An authenticated identity (upstream's `user.Info`), and the well-known names. Made by the API server's authenticators.

use std::collections::BTreeMap;

pub const SYSTEM_MASTERS: &str = "system:masters";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const NODES: &str = "system:nodes";
pub const ANONYMOUS: &str = "system:anonymous";
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// An identity in `groups` and, as every authenticated one, in `system:authenticated`.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        if !groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    pub fn anonymous() -> Self {
        Self::new(ANONYMOUS, &[UNAUTHENTICATED])
    }

    /// The API server acting for itself.
    pub fn apiserver() -> Self {
        Self::new("system:apiserver", &[SYSTEM_MASTERS])
    }

    pub fn service_account(namespace: &str, name: &str) -> Self {
        let all = format!("{SERVICE_ACCOUNTS}:{namespace}");
        Self::new(format!("system:serviceaccount:{namespace}:{name}"), &[SERVICE_ACCOUNTS, &all])
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The namespace and name of a ServiceAccount's user name.
    pub fn as_service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
    }

    /// The node this identity is the kubelet of.
    pub fn as_node(&self) -> Option<&str> {
        let name = self.name.strip_prefix("system:node:")?;
        (!name.is_empty() && self.in_group(NODES)).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_back_from_their_names() {
        assert_eq!(User::service_account("a", "b").as_service_account().unwrap(), ("a", "b"));
        assert_eq!(User::new("system:serviceaccount:a:b:c", &[]).as_service_account(), None);
        assert_eq!(User::new("system:node:n1", &[NODES]).as_node().unwrap(), "n1");
        assert_eq!(User::new("system:node:n1", &[]).as_node(), None, "the group is needed too");
    }
}
