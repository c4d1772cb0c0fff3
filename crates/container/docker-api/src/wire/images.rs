//! Image answers.

use content::{Deleted, Image};
use serde_json::{Value, json};

/// One row of `GET /images/json`.
pub(crate) fn summary(image: &Image, containers: i64) -> Value {
    let familiar = |list: &[oci::Reference]| list.iter().map(oci::Reference::familiar).collect::<Vec<_>>();
    json!({
        "Id": image.id.to_string(),
        "ParentId": "",
        "RepoTags": familiar(&image.names),
        "RepoDigests": familiar(&image.repo_digests),
        "Created": image.created.unwrap_or(image.stored).as_second(),
        "Size": image.size,
        "SharedSize": -1,
        "Labels": if image.config.config.labels.is_empty() { Value::Null } else { json!(image.config.config.labels) },
        "Containers": containers,
    })
}

/// `GET /images/{name}/json`.
pub(crate) fn inspect(image: &Image) -> Value {
    let config = &image.config;
    let familiar = |list: &[oci::Reference]| list.iter().map(oci::Reference::familiar).collect::<Vec<_>>();
    json!({
        "Id": image.id.to_string(),
        "RepoTags": familiar(&image.names),
        "RepoDigests": familiar(&image.repo_digests),
        "Parent": "",
        "Comment": config.history.last().and_then(|h| h.comment.clone()).unwrap_or_default(),
        "Created": image.created.unwrap_or(image.stored).to_string(),
        "DockerVersion": "",
        "Author": config.author.clone().unwrap_or_default(),
        "Config": run_config(&config.config),
        "Architecture": config.architecture,
        "Variant": config.variant.clone().unwrap_or_default(),
        "Os": config.os,
        "Size": image.size,
        "GraphDriver": {"Data": {}, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": config.rootfs.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>()},
        "Metadata": {"LastTagTime": image.stored.to_string()},
    })
}

/// The configuration in the form of a container's, which is what Docker sends.
fn run_config(run: &oci::RunConfig) -> Value {
    let mut shown = json!({
        "Hostname": "", "Domainname": "", "User": run.user,
        "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
        "Tty": false, "OpenStdin": false, "StdinOnce": false,
        "Env": run.env,
        "Cmd": run.cmd,
        "Image": "",
        "Volumes": if run.volumes.is_empty() { Value::Null } else { json!(run.volumes) },
        "WorkingDir": run.working_dir,
        "Entrypoint": run.entrypoint,
        "OnBuild": if run.on_build.is_empty() { Value::Null } else { json!(run.on_build) },
        "Labels": if run.labels.is_empty() { Value::Null } else { json!(run.labels) },
    });
    if let Value::Object(map) = &mut shown {
        if !run.exposed_ports.is_empty() {
            map.insert("ExposedPorts".to_owned(), json!(run.exposed_ports));
        }
        for (key, value) in [
            ("StopSignal", json!(run.stop_signal)),
            ("Shell", json!(run.shell)),
            ("Healthcheck", json!(run.healthcheck)),
        ] {
            if !value.is_null() {
                map.insert(key.to_owned(), value);
            }
        }
    }
    shown
}

/// `GET /images/{name}/history`, newest first.
pub(crate) fn history(image: &Image) -> Value {
    let mut sizes = image.layers.iter().map(|layer| layer.size);
    let mut rows: Vec<Value> = Vec::new();
    for entry in &image.config.history {
        let size = if entry.empty_layer { 0 } else { sizes.next().unwrap_or(0) };
        rows.push(json!({
            "Id": "<missing>",
            "Created": entry.created.map_or(0, |time| time.as_second()),
            "CreatedBy": entry.created_by.clone().unwrap_or_default(),
            "Tags": null,
            "Size": size,
            "Comment": entry.comment.clone().unwrap_or_default(),
        }));
    }
    rows.reverse();
    if let Some(Value::Object(top)) = rows.first_mut() {
        top.insert("Id".to_owned(), image.id.to_string().into());
        if !image.names.is_empty() {
            top.insert("Tags".to_owned(), json!(image.names.iter().map(oci::Reference::familiar).collect::<Vec<_>>()));
        }
    }
    Value::Array(rows)
}

/// `[{"Untagged": …}, {"Deleted": …}]`.
pub(crate) fn deleted(list: &[Deleted]) -> Value {
    let one = |deleted: &Deleted| match deleted {
        Deleted::Untagged(name) => json!({"Untagged": name}),
        Deleted::Deleted(id) => json!({"Deleted": id.to_string()}),
    };
    list.iter().map(one).collect()
}
