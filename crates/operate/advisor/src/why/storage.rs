//! Volume claims that are not bound.

use serde_json::Value;

use super::explanation::{Cause, Finding, namespace_option};
use crate::facts::{Facts, ObjectName, list, text};

const DEFAULT_CLASS: &str = "/metadata/annotations/storageclass.kubernetes.io~1is-default-class";

/// What is wrong with the claims that a pod uses.
pub(crate) fn claims_of(pod: &Value, facts: &Facts) -> Vec<Finding> {
    let namespace = text(pod, "/metadata/namespace");
    let names = list(pod, "/spec/volumes").map(|volume| text(volume, "/persistentVolumeClaim/claimName"));
    names
        .filter(|name| !name.is_empty())
        .map(|name| ObjectName::new("PersistentVolumeClaim", namespace, name))
        .flat_map(|name| match facts.get(&name) {
            Some(object) => claim(&name, object, facts),
            None => vec![
                Finding::new(&name, Cause::ClaimMissing, "there is no such volume claim")
                    .next(format!("kubectl get pvc{}", namespace_option(&name))),
            ],
        })
        .collect()
}

pub(crate) fn claim(subject: &ObjectName, object: &Value, facts: &Facts) -> Vec<Finding> {
    match text(object, "/status/phase") {
        "Bound" => return Vec::new(),
        "Lost" => {
            return vec![Finding::new(
                subject,
                Cause::VolumeLost,
                format!("its volume {} is gone, and its data with it", text(object, "/spec/volumeName")),
            )];
        }
        _ => {}
    }
    let event =
        facts.event(subject, &["ProvisioningFailed", "FailedBinding", "WaitForFirstConsumer", "ExternalProvisioning"]);
    if event.is_some_and(|event| text(event, "/reason") == "WaitForFirstConsumer") {
        return vec![
            Finding::new(subject, Cause::WaitsForConsumer, "it gets its volume when the first pod uses it")
                .event(event),
        ];
    }
    let class = object["spec"]["storageClassName"].as_str();
    let found = match class {
        None if !facts.list("StorageClass", "").any(|class| text(class, DEFAULT_CLASS) == "true") => Finding::new(
            subject,
            Cause::NoDefaultStorageClass,
            "it names no storage class, and the cluster has no default one",
        )
        .next("kubectl get storageclass"),
        Some(class) if !class.is_empty() && facts.get(&ObjectName::new("StorageClass", "", class)).is_none() => {
            Finding::new(subject, Cause::StorageClassMissing, format!("its storage class {class:?} does not exist"))
                .next("kubectl get storageclass")
        }
        _ if event.is_some_and(|event| text(event, "/reason") == "ProvisioningFailed") => {
            Finding::new(subject, Cause::ProvisioningFailed, "its volume could not be made")
        }
        _ => Finding::new(subject, Cause::NoVolumeFits, "no volume that is free fits it")
            .seen(
                "spec",
                format!("it wants {} as {}", object["spec"]["resources"]["requests"], object["spec"]["accessModes"]),
            )
            .next("kubectl get pv"),
    };
    vec![found.event(event)]
}
