//! Volume answers.

use serde_json::{Value, json};
use volumes::{Volume, Volumes};

/// A volume.
pub(crate) fn volume(volumes: &Volumes, volume: &Volume) -> Value {
    let map = |m: &std::collections::BTreeMap<String, String>| if m.is_empty() { Value::Null } else { json!(m) };
    json!({
        "CreatedAt": volume.created_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "Driver": "local",
        "Labels": map(&volume.labels),
        "Mountpoint": volumes.mountpoint(volume).display().to_string(),
        "Name": volume.name.as_str(),
        "Options": map(&volume.driver_opts),
        "Scope": "local",
    })
}
