//! What every namespace has (a default ServiceAccount, the cluster's CA), and how one goes away.
//!
//! Called by the controller manager's shell. Invariant: a namespace is finalized only after everything in it is gone.

use crate::selection::Labels;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub const FINALIZER: &str = "kubernetes";
pub const ROOT_CA: &str = "kube-root-ca.crt";
pub const DEFAULT_ACCOUNT: &str = "default";
const CA_KEY: &str = "ca.crt";

pub fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

/// The namespace without the hold that keeps it, or None when there is nothing to let go.
pub fn finalized(namespace: &Namespace) -> Option<Namespace> {
    let mut changed = namespace.clone();
    let finalizers = changed.spec.as_mut()?.finalizers.as_mut()?;
    let before = finalizers.len();
    finalizers.retain(|f| f != FINALIZER);
    (finalizers.len() != before).then_some(changed)
}

/// The ServiceAccount to make, if it is missing.
pub fn default_account(namespace: &Namespace, present: bool) -> Option<ServiceAccount> {
    if present || is_terminating(namespace) {
        return None;
    }
    let metadata = ObjectMeta {
        name: Some(DEFAULT_ACCOUNT.into()),
        namespace: namespace.metadata.name.clone(),
        ..ObjectMeta::default()
    };
    Some(ServiceAccount { metadata, ..ServiceAccount::default() })
}

#[derive(Clone, Debug, PartialEq)]
pub enum RootCa {
    Nothing,
    Create(Box<ConfigMap>),
    Update(Box<ConfigMap>),
}

/// What to do so that the namespace's pods can find the cluster's CA.
pub fn root_ca(namespace: &Namespace, present: Option<&ConfigMap>, pem: &str) -> RootCa {
    if is_terminating(namespace) {
        return RootCa::Nothing;
    }
    let data: Labels = [(CA_KEY.to_owned(), pem.to_owned())].into();
    match present {
        Some(map) if map.data.as_ref() == Some(&data) => RootCa::Nothing,
        Some(map) => RootCa::Update(Box::new(ConfigMap { data: Some(data), ..map.clone() })),
        None => {
            let description = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
                               internal endpoints such as the internal service IP or kubernetes.default.svc. \
                               No other usage is guaranteed across distributions of Kubernetes clusters.";
            let annotations = [("kubernetes.io/description".to_owned(), description.to_owned())].into();
            let metadata = ObjectMeta {
                name: Some(ROOT_CA.into()),
                namespace: namespace.metadata.name.clone(),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            };
            RootCa::Create(Box::new(ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(terminating: bool) -> Namespace {
        let mut value = serde_json::json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["other", "kubernetes"]}});
        if terminating {
            value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_live_namespace_gets_what_is_missing_and_a_terminating_one_nothing() {
        assert_eq!(default_account(&namespace(false), false).unwrap().metadata.namespace.unwrap(), "n");
        assert_eq!(default_account(&namespace(false), true), None);
        assert_eq!(default_account(&namespace(true), false), None);
        let RootCa::Create(map) = root_ca(&namespace(false), None, "PEM") else { panic!("no map") };
        assert_eq!(root_ca(&namespace(false), Some(&map), "PEM"), RootCa::Nothing);
        assert!(matches!(root_ca(&namespace(false), Some(&map), "NEW"), RootCa::Update(_)));
        assert_eq!(root_ca(&namespace(true), None, "PEM"), RootCa::Nothing);
    }

    #[test]
    fn finalizing_lets_go_of_our_own_hold_only() {
        let changed = finalized(&namespace(true)).unwrap();
        assert_eq!(changed.spec.as_ref().unwrap().finalizers.as_deref().unwrap(), ["other"]);
        assert_eq!(finalized(&changed), None);
    }
}
