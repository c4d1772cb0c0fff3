//! Volumes, claims, classes and their drivers.

use super::look::{self, UNSET, items, or, str_of, strings};
use super::{Column, View, number, text, wide};
use jiff::Timestamp;
use serde_json::Value;

const fn flag(name: &'static str) -> Column {
    Column { name, kind: "boolean", wide: false }
}

static VOLUME: View = View {
    columns: &[
        text("Name"),
        text("Capacity"),
        text("Access Modes"),
        text("Reclaim Policy"),
        text("Status"),
        text("Claim"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        text("Reason"),
        text("Age"),
        wide("VolumeMode"),
    ],
    row: volume,
};
static CLAIM: View = View {
    columns: &[
        text("Name"),
        text("Status"),
        text("Volume"),
        text("Capacity"),
        text("Access Modes"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        text("Age"),
        wide("VolumeMode"),
    ],
    row: claim,
};
static CLASS: View = View {
    columns: &[
        text("Name"),
        text("Provisioner"),
        text("ReclaimPolicy"),
        text("VolumeBindingMode"),
        flag("AllowVolumeExpansion"),
        text("Age"),
    ],
    row: class,
};
static DRIVER: View = View {
    columns: &[
        text("Name"),
        flag("AttachRequired"),
        flag("PodInfoOnMount"),
        flag("StorageCapacity"),
        text("TokenRequests"),
        flag("RequiresRepublish"),
        text("Modes"),
        text("Age"),
    ],
    row: driver,
};
static CSI_NODE: View = View {
    columns: &[text("Name"), number("Drivers"), text("Age")],
    row: |object, now| vec![look::name(object), items(&object["spec"]["drivers"]).len().into(), look::age(object, now)],
};
static CAPACITY: View = View {
    columns: &[text("Name"), text("StorageClassName"), text("Capacity"), text("Age")],
    row: |object, now| {
        vec![
            look::name(object),
            object["storageClassName"].clone(),
            or(&object["capacity"], UNSET).into(),
            look::age(object, now),
        ]
    },
};
static ATTACHMENT: View = View {
    columns: &[text("Name"), text("Attacher"), text("PV"), text("Node"), flag("Attached"), text("Age")],
    row: |object, now| {
        let spec = &object["spec"];
        vec![
            look::name(object),
            spec["attacher"].clone(),
            str_of(&spec["source"]["persistentVolumeName"]).into(),
            spec["nodeName"].clone(),
            (object["status"]["attached"] == true).into(),
            look::age(object, now),
        ]
    },
};
static ATTRIBUTES_CLASS: View = View {
    columns: &[text("Name"), text("DriverName"), text("Age")],
    row: |object, now| vec![look::name(object), object["driverName"].clone(), look::age(object, now)],
};

pub(super) fn view(group: &str, kind: &str) -> Option<&'static View> {
    Some(match (group, kind) {
        ("", "PersistentVolume") => &VOLUME,
        ("", "PersistentVolumeClaim") => &CLAIM,
        ("storage.k8s.io", "StorageClass") => &CLASS,
        ("storage.k8s.io", "CSIDriver") => &DRIVER,
        ("storage.k8s.io", "CSINode") => &CSI_NODE,
        ("storage.k8s.io", "CSIStorageCapacity") => &CAPACITY,
        ("storage.k8s.io", "VolumeAttachment") => &ATTACHMENT,
        ("storage.k8s.io", "VolumeAttributesClass") => &ATTRIBUTES_CLASS,
        _ => return None,
    })
}

fn modes(list: &Value) -> String {
    let short = strings(list).map(|mode| match mode.as_str() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "?",
    });
    short.collect::<Vec<_>>().join(",")
}

/// The status word of something that may be going.
fn phase(object: &Value) -> &str {
    if crate::meta::is_being_deleted(object) { "Terminating" } else { str_of(&object["status"]["phase"]) }
}

fn volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, claim) = (&object["spec"], &object["spec"]["claimRef"]);
    let claimed = if claim.is_object() {
        format!("{}/{}", str_of(&claim["namespace"]), str_of(&claim["name"]))
    } else {
        String::new()
    };
    vec![
        look::name(object),
        str_of(&spec["capacity"]["storage"]).into(),
        modes(&spec["accessModes"]).into(),
        str_of(&spec["persistentVolumeReclaimPolicy"]).into(),
        phase(object).into(),
        claimed.into(),
        str_of(&spec["storageClassName"]).into(),
        or(&spec["volumeAttributesClassName"], UNSET).into(),
        str_of(&object["status"]["reason"]).into(),
        look::age(object, now),
        or(&spec["volumeMode"], UNSET).into(),
    ]
}

fn claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let bound = !str_of(&spec["volumeName"]).is_empty();
    let (capacity, access) = if bound {
        (str_of(&status["capacity"]["storage"]), modes(&status["accessModes"]))
    } else {
        ("", String::new())
    };
    vec![
        look::name(object),
        phase(object).into(),
        str_of(&spec["volumeName"]).into(),
        capacity.into(),
        access.into(),
        str_of(&spec["storageClassName"]).into(),
        or(&spec["volumeAttributesClassName"], UNSET).into(),
        look::age(object, now),
        or(&spec["volumeMode"], UNSET).into(),
    ]
}

fn class(object: &Value, now: Timestamp) -> Vec<Value> {
    let is_default = crate::meta::annotation(object, "storageclass.kubernetes.io/is-default-class") == Some("true");
    let name = crate::meta::name(object);
    vec![
        if is_default { format!("{name} (default)") } else { name.to_owned() }.into(),
        object["provisioner"].clone(),
        or(&object["reclaimPolicy"], "Delete").into(),
        or(&object["volumeBindingMode"], "Immediate").into(),
        (object["allowVolumeExpansion"] == true).into(),
        look::age(object, now),
    ]
}

fn driver(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let tokens =
        items(&spec["tokenRequests"]).iter().map(|t| str_of(&t["audience"]).to_owned()).collect::<Vec<_>>().join(",");
    let modes = strings(&spec["volumeLifecycleModes"]).collect::<Vec<_>>().join(",");
    vec![
        look::name(object),
        (spec["attachRequired"] != false).into(),
        (spec["podInfoOnMount"] == true).into(),
        (spec["storageCapacity"] == true).into(),
        if tokens.is_empty() { UNSET.to_owned() } else { tokens }.into(),
        (spec["requiresRepublish"] == true).into(),
        if modes.is_empty() { look::NONE.to_owned() } else { modes }.into(),
        look::age(object, now),
    ]
}
