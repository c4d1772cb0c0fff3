//! Defaults of volumes, claims and storage classes.

use super::{Fields, child, ensure, put};
use serde_json::json;

pub(super) fn volume(fields: &mut Fields) {
    let Some(spec) = ensure(fields, "spec") else {
        return;
    };
    put(spec, "persistentVolumeReclaimPolicy", "Retain");
    put(spec, "volumeMode", "Filesystem");
    if let Some(host) = child(spec, "hostPath") {
        host.entry("type").or_insert_with(|| "".into());
    }
}

pub(super) fn claim(fields: &mut Fields) {
    if let Some(spec) = ensure(fields, "spec") {
        put(spec, "volumeMode", "Filesystem");
    }
}

pub(super) fn class(fields: &mut Fields) {
    put(fields, "reclaimPolicy", "Delete");
    put(fields, "volumeBindingMode", "Immediate");
}

pub(super) fn csi_driver(fields: &mut Fields) {
    let Some(spec) = ensure(fields, "spec") else {
        return;
    };
    put(spec, "attachRequired", true);
    for flag in ["podInfoOnMount", "requiresRepublish", "storageCapacity", "seLinuxMount"] {
        put(spec, flag, false);
    }
    put(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    put(spec, "volumeLifecycleModes", json!(["Persistent"]));
}
