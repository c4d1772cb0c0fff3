//! Defaults of pods and of pod templates. A template gets less: what depends on the pod itself waits until there is one.

use super::{Fields, child, each, ensure, is_unset, put, text};
use serde_json::{Value, json};

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

pub(super) fn pod(fields: &mut Fields) {
    let Some(spec) = ensure(fields, "spec") else {
        return;
    };
    pod_spec(spec);
    put(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in CONTAINER_LISTS {
        for container in each(spec, list) {
            requests_from_limits(container);
            if host_network {
                each(container, "ports").for_each(host_port);
            }
        }
    }
}

/// In the host's network a port is reachable under its own number.
fn host_port(port: &mut Fields) {
    if let Some(number) = port.get("containerPort").cloned() {
        put(port, "hostPort", number);
    }
}

/// A limit without a request asks for all of it.
fn requests_from_limits(container: &mut Fields) {
    let Some(resources) = child(container, "resources") else {
        return;
    };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let Some(requests) = ensure(resources, "requests") else {
        return;
    };
    for (name, limit) in limits {
        put(requests, &name, limit);
    }
}

/// The `template` of a workload, or a PodTemplate itself.
pub(super) fn template(owner: &mut Fields) {
    if let Some(template) = child(owner, "template")
        && let Some(spec) = ensure(template, "spec")
    {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Fields) {
    put(spec, "restartPolicy", "Always");
    put(spec, "dnsPolicy", "ClusterFirst");
    put(spec, "terminationGracePeriodSeconds", 30);
    put(spec, "schedulerName", "default-scheduler");
    put(spec, "securityContext", json!({}));
    mirror_service_account(spec);
    each(spec, "volumes").for_each(volume);
    for list in CONTAINER_LISTS {
        each(spec, list).for_each(container);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are served.
fn mirror_service_account(spec: &mut Fields) {
    let name = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount"),
        name => name,
    };
    if !name.is_empty() {
        let name = name.to_owned();
        spec.insert("serviceAccount".to_owned(), name.clone().into());
        spec.insert("serviceAccountName".to_owned(), name.into());
    }
}

fn container(container: &mut Fields) {
    let policy = if tag_of(text(container, "image")) == "latest" { "Always" } else { "IfNotPresent" };
    put(container, "imagePullPolicy", policy);
    put(container, "terminationMessagePath", "/dev/termination-log");
    put(container, "terminationMessagePolicy", "File");
    put(container, "resources", json!({}));
    for port in each(container, "ports") {
        put(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(reference) = child(variable, "valueFrom").and_then(|from| child(from, "fieldRef")) {
            put(reference, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = child(container, name) {
            probe(found);
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(get) = child(lifecycle, hook).and_then(|h| child(h, "httpGet")) {
                http_get(get);
            }
        }
    }
}

/// The tag that an image's name carries: `latest` when it has neither tag nor digest, empty when it has a digest alone.
fn tag_of(image: &str) -> &str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.split_once(':'), digest) {
        (Some((_, tag)), _) => tag,
        (None, Some(_)) => "",
        (None, None) => "latest",
    }
}

fn probe(probe: &mut Fields) {
    for (key, value) in [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        // Zero is Go's unset.
        if probe.get(key).and_then(Value::as_i64).unwrap_or(0) == 0 {
            probe.insert(key.to_owned(), value.into());
        }
    }
    if let Some(get) = child(probe, "httpGet") {
        http_get(get);
    }
    if let Some(grpc) = child(probe, "grpc")
        && grpc.get("service").is_none()
    {
        grpc.insert("service".to_owned(), "".into());
    }
}

fn http_get(get: &mut Fields) {
    put(get, "path", "/");
    put(get, "scheme", "HTTP");
}

fn volume(volume: &mut Fields) {
    let has_source = volume.iter().any(|(key, value)| key != "name" && !is_unset(Some(value)));
    if !has_source {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(found) = child(volume, source) {
            put(found, "defaultMode", 0o644);
        }
    }
    if let Some(downward) = child(volume, "downwardAPI") {
        downward_items(downward);
    }
    if let Some(projected) = child(volume, "projected") {
        each(projected, "sources").for_each(projection);
    }
    if let Some(host) = child(volume, "hostPath")
        && host.get("type").is_none()
    {
        host.insert("type".to_owned(), "".into());
    }
    if let Some(claim) =
        child(volume, "ephemeral").and_then(|e| child(e, "volumeClaimTemplate")).and_then(|t| child(t, "spec"))
    {
        put(claim, "volumeMode", "Filesystem");
    }
    network_volume(volume);
}

fn projection(source: &mut Fields) {
    if let Some(token) = child(source, "serviceAccountToken") {
        put(token, "expirationSeconds", 3600);
    }
    if let Some(downward) = child(source, "downwardAPI") {
        downward_items(downward);
    }
}

fn downward_items(source: &mut Fields) {
    for item in each(source, "items") {
        if let Some(reference) = child(item, "fieldRef") {
            put(reference, "apiVersion", "v1");
        }
    }
}

fn network_volume(volume: &mut Fields) {
    if let Some(iscsi) = child(volume, "iscsi") {
        put(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = child(volume, "rbd") {
        put(rbd, "pool", "rbd");
        put(rbd, "user", "admin");
        put(rbd, "keyring", "/etc/ceph/keyring");
    }
}

/// The pod's quality of service, by CPU and memory alone.
pub(crate) fn qos_class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    let lists = ["initContainers", "containers"].map(|list| spec[list].as_array());
    let containers = lists.into_iter().flatten().flatten();
    let (mut any, mut all_guaranteed) = (false, true);
    for container in containers {
        let resources = &container["resources"];
        for name in ["cpu", "memory"] {
            let amount = |kind: &str| {
                resources[kind][name].as_str().and_then(|t| crate::quantity::parse(t).ok()).filter(|q| !q.is_zero())
            };
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            all_guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, all_guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::tag_of;

    #[test]
    fn images_without_a_tag_mean_latest() {
        for (image, tag) in [
            ("nginx", "latest"),
            ("nginx:latest", "latest"),
            ("nginx:1.0", "1.0"),
            ("localhost:5000/app", "latest"),
            ("localhost:5000/app:2", "2"),
            ("nginx@sha256:abc", ""),
            ("nginx:1@sha256:abc", "1"),
        ] {
            assert_eq!(tag_of(image), tag, "{image}");
        }
    }
}
