//! Who asks: the user behind a request, once authenticated. Made by `authn` for requests from outside and by the
//! wiring for Gantry's own parts; read by authorisation, admission and the review resources.
//!
//! Invariant: an `Identity` is a conclusion, never a claim: nothing in here still has to be verified.

use std::collections::BTreeMap;

pub(crate) const SYSTEM_MASTERS: &str = "system:masters";
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
pub(crate) const ANONYMOUS: &str = "system:anonymous";
pub(crate) const NODES: &str = "system:nodes";
pub(crate) const NODE_PREFIX: &str = "system:node:";
pub(crate) const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// An authenticated user, in the words of `authentication.k8s.io` `UserInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// A user with these groups; `system:authenticated` is added, as for everybody who proved a name.
    #[must_use]
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// One of Gantry's own parts running in this process (`system:kube-scheduler`, …), to whom RBAC does not apply.
    #[must_use]
    pub fn in_process(name: impl Into<String>) -> Self {
        Self::new(name, [SYSTEM_MASTERS])
    }

    /// The node agent of `node_name`, held to what the node authoriser lets a node do.
    #[must_use]
    pub fn node(node_name: &str) -> Self {
        Self::new(format!("{NODE_PREFIX}{node_name}"), [NODES])
    }

    /// A pod's service account.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let mut user = Self::new(
            format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"),
            ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")],
        );
        uid.clone_into(&mut user.uid);
        user
    }

    /// Nobody in particular.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    pub(crate) fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    pub(crate) fn is_master(&self) -> bool {
        self.in_group(SYSTEM_MASTERS)
    }

    /// The node's name, when this is a node's own identity.
    pub(crate) fn node_name(&self) -> Option<&str> {
        if self.in_group(NODES) { self.name.strip_prefix(NODE_PREFIX) } else { None }
    }
}
