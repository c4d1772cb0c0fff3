//! Image answers.

use content::{Deleted, Image};
use serde_json::{Value, json};

use crate::Backend;

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

/// An image's manifest as the descriptor and manifests views show it.
pub(crate) struct ManifestView {
    descriptor: oci::Descriptor,
    content: u64,
    unpacked: u64,
    containers: Vec<String>,
    platform: oci::Platform,
}

impl ManifestView {
    pub(crate) fn of(backend: &Backend, image: &Image) -> Result<Self, distribution::Error> {
        let store = backend.engine.content();
        let (descriptor, bytes) = distribution::archive::manifest_of(store, image)?;
        let blobs = image.layers.iter().map(|l| l.size).sum::<u64>() + store.size(&image.id.0).unwrap_or(0);
        Ok(Self {
            descriptor,
            content: blobs + bytes.len() as u64,
            unpacked: backend.engine.snapshots().stack_size(image.config.chain_id().as_ref()),
            containers: backend.engine.image_users(&image.id),
            platform: image.config.platform(),
        })
    }

    pub(crate) fn descriptor(&self) -> Value {
        let oci::Descriptor { media_type, digest, size, .. } = &self.descriptor;
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": size})
    }

    /// One, since one platform of an image is kept here.
    pub(crate) fn manifests(&self) -> Value {
        json!([{
            "ID": self.descriptor.digest.to_string(),
            "Descriptor": self.descriptor(),
            "Available": true,
            "Size": {"Content": self.content, "Total": self.content + self.unpacked},
            "Kind": "image",
            "ImageData": {
                "Platform": self.platform,
                "Containers": self.containers,
                "Size": {"Unpacked": self.unpacked},
            },
        }])
    }
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
/// `sizes`: of the layers, lowest first.
pub(crate) fn history(image: &Image, mut sizes: impl Iterator<Item = u64>) -> Value {
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
        Deleted::Layer(chain) => json!({"Deleted": chain.0.to_string()}),
    };
    list.iter().map(one).collect()
}
