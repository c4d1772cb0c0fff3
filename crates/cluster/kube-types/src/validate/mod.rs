//! Validation: everything wrong with an object, in Kubernetes' words and with Kubernetes' paths.
//!
//! Called after defaulting, on create and on update. Complete for what users get wrong in the everyday kinds; of the others the
//! metadata alone is checked (their types were checked when they were decoded). It looks at one object only: what depends on
//! other objects is admission.

mod cluster;
mod config;
mod container;
mod look;
mod metadata;
mod network;
mod pod;
mod policy;
mod selectors;
mod storage;
mod workload;

use crate::field::FieldError;
use crate::lifecycle::Subresource;
use crate::registry::Resource;
use look::At;
use serde_json::Value;

type Errors = Vec<FieldError>;

impl Resource {
    /// Everything wrong with a defaulted new object; empty when it may be stored. The name must be there by now
    /// (see [`crate::names::generate`]).
    pub fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::check(self, object, &mut errors);
        if let Some(custom) = self.custom() {
            errors.extend(custom.validate(object, None));
        }
        self.validate_content(object, &mut errors);
        errors
    }

    /// Everything wrong with replacing `old` by `new`.
    pub fn validate_update(&self, new: &Value, old: &Value, subresource: Subresource<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::check_update(self, new, old, &mut errors);
        if let Some(custom) = self.custom() {
            errors.extend(custom.validate(new, Some(old)));
        }
        if subresource == Subresource::Status {
            return errors;
        }
        self.validate_content(new, &mut errors);
        self.validate_change(new, old, subresource, &mut errors);
        errors
    }

    fn validate_content(&self, object: &Value, errors: &mut Errors) {
        let spec = At::root(object).child("spec");
        match self.group_kind() {
            ("", "Pod") => pod::spec(spec, pod::Use::Pod, errors),
            ("", "PodTemplate") => pod::template(At::root(object).child("template"), errors),
            ("", "Service") => network::service(spec, errors),
            ("", "ConfigMap") => config::config_map(object, errors),
            ("", "Secret") => config::secret(object, errors),
            ("", "Endpoints") => network::endpoints(object, errors),
            ("", "Node") => config::node(spec, errors),
            ("", "PersistentVolume") => storage::volume(spec, errors),
            ("", "PersistentVolumeClaim") => storage::claim(spec, errors),
            ("", "ResourceQuota") => config::quota(spec, errors),
            ("", "ReplicationController") => workload::replication_controller(spec, errors),
            ("apps", "Deployment") => workload::deployment(spec, errors),
            ("apps", "ReplicaSet") => workload::replica_set(spec, errors),
            ("apps", "StatefulSet") => workload::stateful_set(spec, errors),
            ("apps", "DaemonSet") => workload::daemon_set(spec, errors),
            ("batch", "Job") => workload::job(spec, errors),
            ("batch", "CronJob") => workload::cron_job(object, errors),
            ("autoscaling", "HorizontalPodAutoscaler") => workload::autoscaler(spec, errors),
            ("policy", "PodDisruptionBudget") => workload::disruption_budget(spec, errors),
            ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(object, errors),
            ("networking.k8s.io", "Ingress") => network::ingress(spec, errors),
            ("networking.k8s.io", "NetworkPolicy") => network::network_policy(spec, errors),
            ("coordination.k8s.io", "Lease") => config::lease(spec, errors),
            ("rbac.authorization.k8s.io", kind) => policy::rbac(object, kind, errors),
            ("scheduling.k8s.io", "PriorityClass") => policy::priority_class(object, errors),
            ("storage.k8s.io", "StorageClass") => storage::class(object, errors),
            ("", "LimitRange") => cluster::limit_range(spec, errors),
            ("", "Event") => cluster::event(object, errors),
            ("certificates.k8s.io", "CertificateSigningRequest") => cluster::signing_request(object, errors),
            ("node.k8s.io", "RuntimeClass") => cluster::runtime_class(object, errors),
            ("networking.k8s.io", "IngressClass") => cluster::ingress_class(spec, errors),
            ("networking.k8s.io", "ServiceCIDR") => cluster::service_cidr(spec, errors),
            ("networking.k8s.io", "IPAddress") => cluster::address(object, errors),
            ("storage.k8s.io", "VolumeAttachment") => cluster::volume_attachment(spec, errors),
            ("storage.k8s.io", "CSIDriver") => cluster::csi_driver(spec, errors),
            ("apiregistration.k8s.io", "APIService") => cluster::api_service(object, errors),
            ("admissionregistration.k8s.io", kind) if kind.ends_with("WebhookConfiguration") => {
                policy::webhooks(object, errors)
            }
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                errors.extend(crate::custom::definition::validate(object));
            }
            _ => {}
        }
    }

    /// Fields that a kind does not let change.
    fn validate_change(&self, new: &Value, old: &Value, subresource: Subresource<'_>, errors: &mut Errors) {
        let mut fixed = |path: &str| look::immutable(new, old, path, errors);
        match self.group_kind() {
            ("", "Pod") if subresource == Subresource::Main => pod::change(new, old, errors),
            ("", "Service") => network::service_change(new, old, errors),
            ("", "Secret") => config::secret_change(new, old, errors),
            ("", "ConfigMap") => config::immutable_data(new, old, &["data", "binaryData"], errors),
            ("", "PersistentVolumeClaim") => storage::claim_change(new, old, errors),
            ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => fixed("spec.selector"),
            ("apps", "StatefulSet") => workload::stateful_set_change(new, old, errors),
            ("batch", "Job") => workload::job_change(new, old, errors),
            ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
                policy::role_ref_change(new, old, errors)
            }
            ("discovery.k8s.io", "EndpointSlice") => fixed("addressType"),
            ("storage.k8s.io", "StorageClass") => {
                for path in ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"] {
                    fixed(path);
                }
            }
            ("scheduling.k8s.io", "PriorityClass") => {
                for path in ["value", "preemptionPolicy"] {
                    fixed(path);
                }
            }
            ("node.k8s.io", "RuntimeClass") => fixed("handler"),
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                errors.extend(crate::custom::definition::validate_change(new, old));
            }
            kind => cluster::change(kind, new, old, errors),
        }
    }
}

#[cfg(test)]
mod tests;
