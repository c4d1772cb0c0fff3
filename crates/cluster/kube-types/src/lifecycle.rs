//! What the server does to an object before it is stored: drop what the client may not set, keep what this write may not
//! change, count generations.
//!
//! Called by the API server between admission and validation, when name, uid and creation time are set. The rules are those of
//! each kind's registry strategy in Kubernetes. It allocates nothing: addresses and ports of services are the caller's.

use crate::defaults::qos_class;
use crate::meta;
use crate::registry::Resource;
use crate::schema::ResourceSchema;
use serde_json::{Map, Value, json};

/// Which part of an object a request writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource<'a> {
    /// The object itself, everything but status.
    Main,
    /// `…/status`: only status (and metadata that the status writer may touch).
    Status,
    /// Any other: `scale`, `resize`, `ephemeralcontainers`, `approval`, `finalize`, …
    Named(&'a str),
}

impl<'a> Subresource<'a> {
    /// From the path segment; empty means the object itself.
    pub fn from_path(segment: &'a str) -> Self {
        match segment {
            "" => Self::Main,
            "status" => Self::Status,
            other => Self::Named(other),
        }
    }

    pub fn as_str(self) -> &'a str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Named(name) => name,
        }
    }
}

impl Resource {
    /// Drops what a client may not set on create (status), sets generation 1 where the kind counts generations.
    pub fn prepare_create(&self, object: &mut Value) {
        // A node registers itself together with its status.
        if self.keeps_status_apart() && self.group_kind() != ("", "Node") {
            drop_field(object, "status");
        }
        meta::set(object, "generation", self.counts_generations().then(|| 1.into()));
        let status = match self.group_kind() {
            ("", "Pod") => json!({"phase": "Pending", "qosClass": qos_class(object)}),
            ("", "Namespace") => {
                set_field(object, "spec", json!({"finalizers": ["kubernetes"]}));
                json!({"phase": "Active"})
            }
            ("", "PersistentVolume" | "PersistentVolumeClaim") => json!({"phase": "Pending"}),
            ("", "Service") | ("networking.k8s.io", "Ingress") => json!({"loadBalancer": {}}),
            ("batch", "Job") => {
                job_identity(object);
                json!({})
            }
            // A node brings its own, and what has none gets none.
            ("", "Node") => return,
            kind if self.is_builtin() && self.keeps_status_apart() => initial_status(kind),
            _ => return,
        };
        set_field(object, "status", status);
    }

    /// Keeps the parts of `old` that a write to this subresource may not change, and bumps the generation when the spec changed.
    pub fn prepare_update(&self, old: &Value, new: &mut Value, subresource: Subresource<'_>) {
        keep_system_metadata(old, new);
        match subresource {
            Subresource::Main => {
                if self.keeps_status_apart() {
                    keep(old, new, "status");
                }
                if self.group_kind() == ("", "Namespace") {
                    keep(old, new, "spec"); // finalizers go through /finalize
                }
            }
            Subresource::Status => self.keep_all_but_status(old, new),
            Subresource::Named("finalize") => keep(old, new, "status"),
            Subresource::Named("approval") => keep(old, new, "spec"),
            // Binding writes the node's name and the condition that says so, both made by the server.
            Subresource::Named("binding") => {}
            Subresource::Named(_) => keep(old, new, "status"),
        }
        if self.counts_generations() {
            let generation = meta::generation(old) + i64::from(self.desire_changed(old, new));
            meta::set_generation(new, generation);
        } else {
            let generation = meta::generation(old);
            meta::set(new, "generation", (generation > 0).then(|| generation.into()));
        }
    }

    /// Status is written through its own subresource only.
    fn keeps_status_apart(&self) -> bool {
        self.has_subresource("status")
    }

    fn keep_all_but_status(&self, old: &Value, new: &mut Value) {
        let Value::Object(fields) = new else { return };
        let mut kept = old.as_object().cloned().unwrap_or_default();
        // A status writer may change labels, annotations and finalizers, as in Kubernetes, but not owners.
        for field in ["metadata", "status", "apiVersion", "kind"] {
            match fields.remove(field) {
                Some(value) => kept.insert(field.to_owned(), value),
                None => kept.remove(field),
            };
        }
        if !self.is_builtin() {
            // Nothing but status, in a custom resource.
            let managed = kept.get("metadata").and_then(|m| m.get("managedFields")).cloned();
            let metadata = old.get("metadata").cloned().unwrap_or_default();
            kept.insert("metadata".to_owned(), metadata);
            *new = Value::Object(kept);
            meta::set(new, "managedFields", managed);
            return;
        }
        *new = Value::Object(kept);
        let owners = old.get("metadata").and_then(|m| m.get("ownerReferences"));
        meta::set(new, "ownerReferences", owners.cloned());
    }

    fn is_builtin(&self) -> bool {
        matches!(self.schema, ResourceSchema::Builtin(_))
    }

    /// Kinds whose strategy sets metadata.generation; every custom resource does.
    fn counts_generations(&self) -> bool {
        !self.is_builtin()
            || matches!(
                self.group_kind(),
                ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
                    | ("batch", "Job" | "CronJob")
                    | ("", "Pod" | "ReplicationController")
                    | ("networking.k8s.io", "Ingress" | "NetworkPolicy" | "IngressClass")
                    | ("policy", "PodDisruptionBudget")
                    | ("discovery.k8s.io", "EndpointSlice")
                    | ("admissionregistration.k8s.io", _)
                    | ("apiextensions.k8s.io", "CustomResourceDefinition")
                    | ("flowcontrol.apiserver.k8s.io", _)
                    | ("scheduling.k8s.io", "PriorityClass")
                    | ("storage.k8s.io", "CSIDriver")
                    | ("resource.k8s.io", "ResourceSlice" | "DeviceClass")
            )
    }

    /// Anything but metadata and status differs.
    fn desire_changed(&self, old: &Value, new: &Value) -> bool {
        let status_counts = !self.is_builtin() && !self.keeps_status_apart();
        let desire = |object: &'_ Value| -> Map<String, Value> {
            let fields = object.as_object().into_iter().flatten();
            let fields = fields.filter(|(key, value)| match key.as_str() {
                "metadata" | "apiVersion" | "kind" => false,
                "status" => status_counts,
                _ => !value.is_null(),
            });
            fields.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let newly_deleted = meta::is_being_deleted(new) && !meta::is_being_deleted(old);
        newly_deleted || desire(old) != desire(new)
    }
}

/// Some kinds show a status from the start, with the counts that Go never omits.
fn initial_status(kind: (&str, &str)) -> Value {
    match kind {
        ("apps", "ReplicaSet") | ("", "ReplicationController") => json!({"replicas": 0}),
        ("apps", "StatefulSet") => json!({"replicas": 0, "availableReplicas": 0}),
        ("apps", "DaemonSet") => {
            json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0})
        }
        ("autoscaling", _) => {
            json!({"currentReplicas": 0, "desiredReplicas": 0})
        }
        ("policy", "PodDisruptionBudget") => {
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
        }
        _ => json!({}),
    }
}

/// A job's pods are found by its uid, unless it says otherwise.
fn job_identity(job: &mut Value) {
    let (uid, name) = (meta::uid(job).to_owned(), meta::name(job).to_owned());
    if job["spec"]["manualSelector"] == true || uid.is_empty() {
        return;
    }
    let spec = meta::child_mut(job, "spec");
    spec.insert("selector".to_owned(), json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
    let template = spec.entry("template").or_insert_with(|| json!({}));
    meta::metadata_mut(template);
    let Some(metadata) = template.get_mut("metadata") else {
        return;
    };
    let labels = meta::child_mut(metadata, "labels");
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("job-name", &name),
    ] {
        labels.insert(key.to_owned(), value.clone().into());
    }
}

/// What only the server sets.
fn keep_system_metadata(old: &Value, new: &mut Value) {
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generateName"] {
        let value = old.get("metadata").and_then(|m| m.get(field)).cloned();
        meta::set(new, field, value);
    }
    // An update may leave these out; another value is refused by validation.
    for field in ["name", "namespace", "uid"] {
        let given =
            new.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).is_some_and(|t| !t.is_empty());
        if !given {
            let value = old.get("metadata").and_then(|m| m.get(field)).cloned();
            meta::set(new, field, value);
        }
    }
}

fn keep(old: &Value, new: &mut Value, field: &str) {
    match old.get(field) {
        Some(value) => set_field(new, field, value.clone()),
        None => drop_field(new, field),
    }
}

fn set_field(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

fn drop_field(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::find_by_gvr;

    #[test]
    fn a_new_object_starts_without_the_clients_status() {
        let deployments = find_by_gvr("apps", "v1", "deployments").unwrap();
        let mut object = json!({"metadata": {"name": "a", "generation": 7}, "spec": {}, "status": {"replicas": 9}});
        deployments.prepare_create(&mut object);
        assert_eq!(object["status"], json!({}));
        assert_eq!(object["metadata"]["generation"], 1);
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"containers": []}});
        find_by_gvr("", "v1", "pods").unwrap().prepare_create(&mut pod);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    }

    #[test]
    fn spec_and_status_are_written_apart() {
        let deployments = find_by_gvr("apps", "v1", "deployments").unwrap();
        let old = json!({"metadata": {"name": "a", "generation": 1, "uid": "u"}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        let both = json!({"metadata": {"name": "a"}, "spec": {"replicas": 2}, "status": {"replicas": 2}});
        let mut main = both.clone();
        deployments.prepare_update(&old, &mut main, Subresource::Main);
        assert_eq!((&main["spec"]["replicas"], &main["status"]["replicas"]), (&json!(2), &json!(1)));
        assert_eq!((&main["metadata"]["generation"], &main["metadata"]["uid"]), (&json!(2), &json!("u")));
        let mut status = both;
        deployments.prepare_update(&old, &mut status, Subresource::Status);
        assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(1), &json!(2)));
        assert_eq!(status["metadata"]["generation"], 1);
    }

    #[test]
    fn a_changed_label_is_no_new_generation() {
        let deployments = find_by_gvr("apps", "v1", "deployments").unwrap();
        let old = json!({"metadata": {"name": "a", "generation": 4}, "spec": {"replicas": 1}});
        let mut new = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"replicas": 1}});
        deployments.prepare_update(&old, &mut new, Subresource::Main);
        assert_eq!(new["metadata"]["generation"], 4);
    }

    #[test]
    fn a_jobs_pods_are_found_by_its_uid() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u1"}, "spec": {"template": {"spec": {}}}});
        find_by_gvr("batch", "v1", "jobs").unwrap().prepare_create(&mut job);
        assert_eq!(job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], "u1");
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
    }
}
