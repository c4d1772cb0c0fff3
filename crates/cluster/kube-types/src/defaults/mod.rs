//! Defaulting: what the server fills in where the client said nothing.
//!
//! Called after decode and again after a patch or an admission change. Invariant: idempotent, and a field that the client set
//! (other than to the empty text, which counts as unset in Go) stays as it is. What depends on other objects (service
//! accounts, priorities, storage classes, addresses) is admission and stays with the API server.

mod network;
mod pod;
mod policy;
mod storage;
mod workload;

use crate::registry::Resource;
use serde_json::{Map, Value};

pub(crate) use pod::qos_class;

type Fields = Map<String, Value>;

impl Resource {
    /// Fills what the client left out, as Kubernetes does for this kind and version. Idempotent.
    pub fn default(&self, object: &mut Value) {
        if let Some(custom) = self.custom() {
            custom.default(object);
        }
        let Value::Object(fields) = object else {
            return;
        };
        put(fields, "apiVersion", self.api_version());
        put(fields, "kind", self.kind.as_ref());
        match self.group_kind() {
            ("", "Pod") => pod::pod(fields),
            ("", "PodTemplate") => pod::template(fields),
            ("", "ReplicationController") => workload::replication_controller(fields),
            ("", "Service") => network::service(fields),
            ("", "Endpoints") => network::endpoints(fields),
            ("", "Namespace") => namespace(fields),
            ("", "Secret") => secret(fields),
            ("", "LimitRange") => policy::limit_range(fields),
            ("", "PersistentVolume") => storage::volume(fields),
            ("", "PersistentVolumeClaim") => storage::claim(fields),
            ("apps", "Deployment") => workload::deployment(fields),
            ("apps", "ReplicaSet") => workload::replica_set(fields),
            ("apps", "StatefulSet") => workload::stateful_set(fields),
            ("apps", "DaemonSet") => workload::daemon_set(fields),
            ("batch", "Job") => workload::job(fields),
            ("batch", "CronJob") => workload::cron_job(fields),
            ("autoscaling", "HorizontalPodAutoscaler") => workload::autoscaler(fields, &self.version),
            ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(fields),
            ("networking.k8s.io", "NetworkPolicy") => network::network_policy(fields),
            ("networking.k8s.io", "IngressClass") => network::ingress_class(fields),
            ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => policy::role_binding(fields),
            ("scheduling.k8s.io", "PriorityClass") => {
                put(fields, "preemptionPolicy", "PreemptLowerPriority");
            }
            ("storage.k8s.io", "StorageClass") => storage::class(fields),
            ("storage.k8s.io", "CSIDriver") => storage::csi_driver(fields),
            ("admissionregistration.k8s.io", kind) => policy::admission(fields, kind),
            ("apiextensions.k8s.io", "CustomResourceDefinition") => policy::custom_resource_definition(fields),
            ("apiregistration.k8s.io", "APIService") => policy::api_service(fields),
            ("flowcontrol.apiserver.k8s.io", kind) => policy::flow_control(fields, kind),
            _ => {}
        }
    }
}

/// Nothing there, or Go's zero value of a text.
fn is_unset(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    }
}

/// Sets a field that is unset.
fn put(fields: &mut Fields, key: &str, value: impl Into<Value>) {
    if is_unset(fields.get(key)) {
        fields.insert(key.to_owned(), value.into());
    }
}

/// A child object that is there.
fn child<'f>(fields: &'f mut Fields, key: &str) -> Option<&'f mut Fields> {
    fields.get_mut(key)?.as_object_mut()
}

/// A child object, made when it is unset; `None` only if something else stands there, which decoding does not let through.
fn ensure<'f>(fields: &'f mut Fields, key: &str) -> Option<&'f mut Fields> {
    put(fields, key, Map::new());
    child(fields, key)
}

/// The objects of a list.
fn each<'f>(fields: &'f mut Fields, key: &str) -> impl Iterator<Item = &'f mut Fields> {
    let list = fields.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn text<'f>(fields: &'f Fields, key: &str) -> &'f str {
    fields.get(key).and_then(Value::as_str).unwrap_or("")
}

/// Every namespace carries its name as a label, so that selectors can choose it.
fn namespace(fields: &mut Fields) {
    let Some(metadata) = ensure(fields, "metadata") else {
        return;
    };
    let name = text(metadata, "name").to_owned();
    if name.is_empty() {
        return; // generateName: called again once the name is known
    }
    if let Some(labels) = ensure(metadata, "labels") {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
}

/// stringData is write-only: it overlays data and is never stored.
fn secret(fields: &mut Fields) {
    use base64::Engine as _;
    put(fields, "type", "Opaque");
    let Some(Value::Object(plain)) = fields.remove("stringData") else {
        return;
    };
    let Some(data) = ensure(fields, "data") else {
        return;
    };
    for (key, value) in plain {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or(""));
        data.insert(key, encoded.into());
    }
}

#[cfg(test)]
mod tests;
