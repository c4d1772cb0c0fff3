//! Kinds that a cluster is administered with: limits, certificates, runtime and ingress classes, drivers, addresses.

use super::Errors;
use super::look::{At, immutable};
use crate::field::FieldError;
use crate::{names, quantity};
use serde_json::Value;
use std::net::IpAddr;

pub(super) fn limit_range(spec: At<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for item in spec.child("limits").items() {
        let kind = item.child("type");
        if !matches!(kind.text(), "Pod" | "Container" | "PersistentVolumeClaim") && !kind.text().contains('/') {
            errors.push(kind.invalid("must be a standard limit type or fully qualified"));
        }
        if seen.contains(&kind.text()) {
            errors.push(FieldError::duplicate(&kind.path, kind.value.clone()));
        }
        seen.push(kind.text());
        if kind.text() == "Pod" {
            for field in ["default", "defaultRequest"] {
                if !item.child(field).is_empty() {
                    errors.push(FieldError::forbidden(item.child(field).path, "may not be specified when `type` is 'Pod'"));
                }
            }
        }
        if kind.text() == "PersistentVolumeClaim"
            && item.child("min").key("storage").is_empty()
            && item.child("max").key("storage").is_empty()
        {
            errors.push(FieldError::required(&item.path, "either minimum or maximum storage value is required, but neither was provided"));
        }
        order(&item, errors);
    }
}

/// min ≤ defaultRequest ≤ default ≤ max, of what is given.
fn order(item: &At<'_>, errors: &mut Errors) {
    for field in ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"] {
        for (_, amount) in item.child(field).entries() {
            amount.quantity(errors);
        }
    }
    for (low, high) in [
        ("min", "max"),
        ("min", "defaultRequest"),
        ("defaultRequest", "max"),
        ("defaultRequest", "default"),
        ("default", "max"),
        ("min", "default"),
    ] {
        for (name, amount) in item.child(low).entries() {
            let other = item.child(high).key(name);
            let (Ok(one), Ok(two)) = (quantity::parse(amount.text()), quantity::parse(other.text())) else { continue };
            if one > two {
                let word = |field: &str| match field {
                    "defaultRequest" => "default request",
                    "min" => "min",
                    "max" => "max",
                    _ => "default",
                };
                let detail =
                    format!("{} value {} is greater than {} value {}", word(low), amount.text(), word(high), other.text());
                errors.push(FieldError::invalid(format!("{}.{low}[{name}]", item.path), amount.text(), detail));
            }
        }
    }
    for (name, ratio) in item.child("maxLimitRequestRatio").entries() {
        if quantity::parse(ratio.text()).is_ok_and(|ratio| ratio.as_f64() < 1.0) {
            let detail = format!("ratio {} is less than 1", ratio.text());
            errors.push(FieldError::invalid(format!("{}.maxLimitRequestRatio[{name}]", item.path), ratio.text(), detail));
        }
    }
}

const USAGES: [&str; 23] = [
    "signing", "digital signature", "content commitment", "key encipherment", "key agreement", "data encipherment",
    "cert sign", "crl sign", "encipher only", "decipher only", "any", "server auth", "client auth", "code signing",
    "email protection", "s/mime", "ipsec end system", "ipsec tunnel", "ipsec user", "timestamping", "ocsp signing",
    "microsoft sgc", "netscape sgc",
];

pub(super) fn signing_request(object: &Value, errors: &mut Errors) {
    let spec = At::root(object).child("spec");
    let signer = spec.child("signerName");
    if signer.required(errors) {
        match signer.text().split_once('/') {
            Some((domain, path)) if !path.is_empty() && domain.contains('.') => {
                errors.extend(names::dns1123_subdomain(domain).into_iter().map(|problem| signer.invalid(problem)));
            }
            _ => errors.push(signer.invalid("must be a fully qualified domain and path of the form 'example.com/signer-name'")),
        }
        if signer.text() == "kubernetes.io/legacy-unknown" {
            errors.push(signer.invalid("the legacy signerName is not allowed via this API version"));
        }
    }
    spec.child("request").required(errors);
    let usages = spec.child("usages");
    if usages.is_empty() {
        errors.push(FieldError::required(&usages.path, "usages is required"));
    }
    let mut seen = Vec::new();
    for usage in usages.items() {
        usage.one_of(&USAGES, errors);
        super::look::unique(&mut seen, &usage, errors);
    }
    if spec.child("expirationSeconds").number().is_some_and(|seconds| seconds < 600) {
        errors.push(spec.child("expirationSeconds").invalid("may not specify a duration less than 600 seconds (10 minutes)"));
    }
    let conditions = At::root(object).down("status.conditions");
    let has = |kind: &str| conditions.items().any(|one| one.child("type").text() == kind);
    if has("Approved") && has("Denied") {
        errors.push(conditions.invalid("Approved and Denied conditions are mutually exclusive"));
    }
    for condition in conditions.items() {
        condition.child("type").required(errors);
        if matches!(condition.child("type").text(), "Approved" | "Denied" | "Failed") {
            condition.child("status").one_of(&["True"], errors);
        }
    }
}

pub(super) fn runtime_class(object: &Value, errors: &mut Errors) {
    let root = At::root(object);
    root.child("handler").check(names::dns1123_label, errors);
    for (_, amount) in root.down("overhead.podFixed").entries() {
        amount.quantity(errors);
    }
    for (key, value) in root.down("scheduling.nodeSelector").entries() {
        errors.extend(names::qualified_name(key).into_iter().map(|problem| FieldError::invalid(&value.path, key, problem)));
        value.check(names::label_value, errors);
    }
}

pub(super) fn ingress_class(spec: At<'_>, errors: &mut Errors) {
    let controller = spec.child("controller");
    if controller.text().len() > 250 {
        errors.push(FieldError::too_long(&controller.path, 250));
    }
    match controller.text().split_once('/') {
        _ if !controller.required(errors) => {}
        Some((domain, path)) if !path.is_empty() => {
            errors.extend(names::dns1123_subdomain(domain).into_iter().map(|problem| controller.invalid(problem)));
        }
        _ => errors.push(controller.invalid(
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        )),
    }
    let parameters = spec.child("parameters");
    if parameters.is_set() {
        parameters.child("kind").required(errors);
        parameters.child("name").required(errors);
        parameters.child("scope").one_of(&["Cluster", "Namespace"], errors);
        let namespace = parameters.child("namespace");
        match parameters.child("scope").text() {
            "Namespace" => {
                namespace.required(errors);
            }
            "Cluster" if !namespace.is_empty() => {
                errors.push(FieldError::forbidden(&namespace.path, "parameters.scope is set to 'Cluster'"));
            }
            _ => {}
        }
    }
}

pub(super) fn service_cidr(spec: At<'_>, errors: &mut Errors) {
    let ranges = spec.child("cidrs");
    let count = ranges.items().count();
    if count == 0 {
        errors.push(FieldError::required(&ranges.path, "at least one CIDR required"));
    }
    if count > 2 {
        errors.push(ranges.invalid("may only hold up to 2 values"));
    }
    for range in ranges.items() {
        let fine = range.text().split_once('/').is_some_and(|(address, bits)| {
            let longest = if address.contains(':') { 128 } else { 32 };
            address.parse::<IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= longest)
        });
        if !fine {
            errors.push(range.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"));
        }
    }
}

pub(super) fn address(object: &Value, errors: &mut Errors) {
    let name = At::root(object).down("metadata.name");
    if name.text().parse::<IpAddr>().map_or(true, |address| address.to_string() != name.text()) {
        errors.push(name.invalid("must be a valid IP address in canonical form"));
    }
    let parent = At::root(object).down("spec.parentRef");
    if parent.is_empty() {
        errors.push(FieldError::required(&parent.path, ""));
    } else {
        parent.child("resource").required(errors);
        parent.child("name").required(errors);
    }
}

pub(super) fn volume_attachment(spec: At<'_>, errors: &mut Errors) {
    spec.child("attacher").required(errors);
    spec.child("nodeName").required(errors);
    let source = spec.child("source");
    match (source.child("persistentVolumeName").is_empty(), source.child("inlineVolumeSpec").is_empty()) {
        (true, true) => errors.push(FieldError::required(&source.path, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")),
        (false, false) => errors.push(FieldError::forbidden(&source.path, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")),
        _ => {}
    }
}

pub(super) fn csi_driver(spec: At<'_>, errors: &mut Errors) {
    for mode in spec.child("volumeLifecycleModes").items() {
        mode.one_of(&["Persistent", "Ephemeral"], errors);
    }
    if spec.child("fsGroupPolicy").is_set() {
        spec.child("fsGroupPolicy").one_of(&["ReadWriteOnceWithFSType", "File", "None"], errors);
    }
}

pub(super) fn event(object: &Value, errors: &mut Errors) {
    let root = At::root(object);
    let involved = root.down("involvedObject.namespace");
    let own = root.down("metadata.namespace");
    let expected = if involved.is_empty() { "default" } else { involved.text() };
    if !own.is_empty() && own.text() != expected {
        errors.push(involved.invalid("does not match event.namespace"));
    }
}

pub(super) fn api_service(object: &Value, errors: &mut Errors) {
    let spec = At::root(object).child("spec");
    let name = At::root(object).down("metadata.name");
    let (version, group) = (spec.child("version").text(), spec.child("group").text());
    if name.text() != format!("{version}.{group}") {
        errors.push(name.invalid(format!("must be `spec.version+\".\"+spec.group`: {:?}", format!("{version}.{group}"))));
    }
    spec.child("version").check(names::dns1035_label, errors);
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = spec.child(field);
        if !priority.number().is_some_and(|n| (1..=most).contains(&n)) {
            errors.push(FieldError::invalid(&priority.path, priority.number().unwrap_or(0), format!("must be positive and less than {most}")));
        }
    }
    let service = spec.child("service");
    if service.is_set() {
        service.child("namespace").required(errors);
        service.child("name").required(errors);
        if spec.child("insecureSkipTLSVerify").value == true && !spec.child("caBundle").is_empty() {
            errors.push(FieldError::invalid(spec.child("insecureSkipTLSVerify").path, true, "may not be true if caBundle is present"));
        }
    }
}

/// Fields of these kinds that never change.
pub(super) fn change(kind: (&str, &str), new: &Value, old: &Value, errors: &mut Errors) {
    let fixed: &[&str] = match kind {
        ("", "ResourceQuota") => &["spec.scopes", "spec.scopeSelector"],
        ("apps", "ControllerRevision") => &["data"],
        ("networking.k8s.io", "IngressClass") => &["spec.controller"],
        ("networking.k8s.io", "IPAddress") => &["spec.parentRef"],
        ("networking.k8s.io", "ServiceCIDR") => &["spec.cidrs"],
        ("storage.k8s.io", "CSIDriver") => &["spec.attachRequired", "spec.fsGroupPolicy", "spec.volumeLifecycleModes"],
        ("storage.k8s.io", "VolumeAttachment" | "VolumeAttributesClass") => &["spec", "driverName", "parameters"],
        ("storage.k8s.io", "CSIStorageCapacity") => &["nodeTopology", "storageClassName"],
        ("resource.k8s.io", "ResourceClaim" | "ResourceClaimTemplate") => &["spec"],
        ("resource.k8s.io", "ResourceSlice") => &["spec.driver", "spec.nodeName", "spec.pool.name"],
        _ => &[],
    };
    for path in fixed {
        immutable(new, old, path, errors);
    }
}
