//! What identifies a pod of a StatefulSet: its number, in name, labels, host name and volumes.

use super::{Pass, claims};
use crate::owners;
use crate::revisions::HASH_LABEL;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodSpec, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

pub(super) fn pod_name(set: &StatefulSet, number: i32) -> String {
    format!("{}-{number}", set.metadata.name.as_deref().unwrap_or_default())
}

/// The number in the pod's name, if it is a name that the set would give.
pub fn ordinal_of(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let (parent, number) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
    let number = number.parse().ok().filter(|n: &i32| *n >= 0)?;
    let same = set.metadata.name.as_deref() == Some(parent);
    (same && pod.metadata.name.as_deref() == Some(&*pod_name(set, number))).then_some(number)
}

pub(super) fn revision_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(HASH_LABEL).map(String::as_str)
}

pub(super) fn pod(pass: &Pass<'_>, number: i32, template: &PodTemplateSpec, revision: &str) -> Pod {
    let set = pass.view.set;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut pod = Pod {
        metadata: ObjectMeta {
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owners::reference::<StatefulSet>(&set.metadata)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    };
    identify(pass, number, &mut pod);
    pod.metadata.labels.get_or_insert_default().insert(HASH_LABEL.into(), revision.to_owned());
    if let Some(spec) = &mut pod.spec {
        spec.hostname = pod.metadata.name.clone();
        spec.subdomain = pass.spec.service_name.clone().filter(|s| !s.is_empty());
        volumes(pass, number, spec);
    }
    pod
}

fn identify(pass: &Pass<'_>, number: i32, pod: &mut Pod) {
    let name = pod_name(pass.view.set, number);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(NAME_LABEL.into(), name.clone());
    labels.insert(INDEX_LABEL.into(), number.to_string());
    pod.metadata.name = Some(name);
}

/// A claim template takes the place of a volume of the same name.
fn volumes(pass: &Pass<'_>, number: i32, spec: &mut PodSpec) {
    let templates = pass.spec.volume_claim_templates.iter().flatten();
    for template in templates {
        let name = template.metadata.name.clone().unwrap_or_default();
        let claim = PersistentVolumeClaimVolumeSource {
            claim_name: claims::name(pass.view.set, &name, number),
            read_only: None,
        };
        let volume = Volume { name: name.clone(), persistent_volume_claim: Some(claim), ..Volume::default() };
        let all = spec.volumes.get_or_insert_default();
        all.retain(|v| v.name != name);
        all.push(volume);
    }
}

/// The pod with the labels that it lost, if it lost any.
pub(super) fn restored(pass: &Pass<'_>, number: i32, pod: &Pod) -> Option<Pod> {
    let mut changed = pod.clone();
    identify(pass, number, &mut changed);
    (changed.metadata.labels != pod.metadata.labels).then_some(changed)
}
