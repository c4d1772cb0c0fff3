//! Pod spec → CRI container config: command, environment, mounts, limits, security.
//!
//! Called when a container is about to be made. Invariant: every host path that a container gets is one of its
//! own pod's, or one that a hostPath names.

use std::collections::HashMap;

use cri::v1;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use crate::{
    env::{self, Environment},
    error::{AgentError, AtPath, Result},
    fields::Place,
    labels,
    layout::PodPaths,
    references::Held,
    resources, sandbox_config,
    security::{self, ImageUser},
    volumes,
};

/// What a config is made from, besides the container's spec.
pub(crate) struct Parts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) paths: &'a PodPaths,
    pub(crate) place: &'a Place,
    pub(crate) held: &'a Held,
    pub(crate) services: &'a [(String, String)],
    pub(crate) image: ImageUser,
    pub(crate) image_ref: &'a str,
    pub(crate) attempt: u32,
    pub(crate) hosts: Option<String>,
    pub(crate) target_id: Option<String>,
    /// Where `localhostProfile` is looked for.
    pub(crate) seccomp_root: &'a std::path::Path,
}

pub(crate) async fn build(container: &Container, parts: &Parts<'_>) -> Result<v1::ContainerConfig> {
    let env = env::build(parts.pod, container, parts.services, parts.place, parts.held).await?;
    let mounts = mounts(container, parts, &env)?;
    let mut security = security::context(parts.pod, container, &parts.image, parts.seccomp_root)?;
    if let (Some(target), Some(options)) = (&parts.target_id, &mut security.namespace_options) {
        options.pid = v1::NamespaceMode::Target.into();
        options.target_id = target.clone();
    }
    let expand_all =
        |list: &Option<Vec<String>>| -> Vec<String> { list.iter().flatten().map(|one| env.expand(one)).collect() };
    let (command, args) = (expand_all(&container.command), expand_all(&container.args));
    let image = container.image.clone().unwrap_or_default();
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt: parts.attempt }),
        image: Some(v1::ImageSpec {
            image: parts.image_ref.to_owned(),
            user_specified_image: image,
            ..Default::default()
        }),
        command,
        args,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: env.into_pairs().into_iter().map(|(key, value)| v1::KeyValue { key, value }).collect(),
        mounts,
        labels: labels_of(parts.pod, container),
        annotations: annotations(container, parts.attempt),
        log_path: PodPaths::log_file(&container.name, parts.attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources::linux(parts.pod, container, parts.place.allocatable_memory_bytes)),
            security_context: Some(security),
        }),
        ..Default::default()
    })
}

fn labels_of(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let mut out = sandbox_config::labels_of(pod);
    out.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    out
}

fn annotations(container: &Container, attempt: u32) -> HashMap<String, String> {
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    [
        (labels::RESTART_COUNT, attempt.to_string()),
        (labels::TERMINATION_PATH, termination_path(container).to_owned()),
        (labels::TERMINATION_POLICY, policy.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn termination_path(container: &Container) -> &str {
    container.termination_message_path.as_deref().unwrap_or("/dev/termination-log")
}

fn mounts(container: &Container, parts: &Parts<'_>, env: &Environment) -> Result<Vec<v1::Mount>> {
    let mut out = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        out.push(volume_mount(container, index, mount, parts, env)?);
    }
    let taken = |path: &str, out: &[v1::Mount]| out.iter().any(|one| one.container_path == path);
    if let Some(text) = &parts.hosts
        && !taken("/etc/hosts", &out)
    {
        let path = parts.paths.etc_hosts();
        std::fs::create_dir_all(&parts.paths.dir).at("create", &parts.paths.dir)?;
        std::fs::write(&path, text).at("write", &path)?;
        out.push(bind(&path, "/etc/hosts", false));
    }
    // CRI leaves the log's folder to the caller; its file is the runtime's to make.
    if let Some(dir) = parts.paths.logs.join(PodPaths::log_file(&container.name, parts.attempt)).parent() {
        std::fs::create_dir_all(dir).at("create", dir)?;
    }
    let log = parts.paths.termination_log(&container.name, parts.attempt);
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir).at("create", dir)?;
    }
    // Every user of the container may write its last words.
    std::fs::write(&log, b"").at("write", &log)?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o666)).at("set mode of", &log)?;
    out.push(bind(&log, termination_path(container), false));
    Ok(out)
}

fn bind(host: &std::path::Path, container_path: &str, readonly: bool) -> v1::Mount {
    v1::Mount {
        container_path: container_path.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        readonly,
        ..Default::default()
    }
}

fn volume_mount(
    container: &Container,
    index: usize,
    mount: &VolumeMount,
    parts: &Parts<'_>,
    env: &Environment,
) -> Result<v1::Mount> {
    let spec = parts.pod.spec.as_ref();
    let volume = spec
        .and_then(|spec| spec.volumes.iter().flatten().find(|one| one.name == mount.name))
        .ok_or_else(|| AgentError::Config(format!("volume {} is not in the pod", mount.name)))?;
    let mut host = volumes::source(volume, parts.paths);
    let sub = match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => Some(path.clone()),
        (_, Some(expression)) if !expression.is_empty() => Some(env.expand(expression)),
        _ => None,
    };
    if let Some(sub) = sub {
        let path = std::path::Path::new(&sub);
        let inside = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !inside {
            return Err(AgentError::Config(format!("subPath {sub:?} must stay in its volume")));
        }
        let target = parts.paths.sub_path(&container.name, index);
        volumes::bind_sub_path(&host, path, &target)?;
        host = target;
    }
    let projected = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some();
    let claim_read_only = volume.persistent_volume_claim.as_ref().and_then(|claim| claim.read_only) == Some(true);
    let read_only = mount.read_only == Some(true) || projected || claim_read_only;
    let mut out = bind(&host, &mount.mount_path, read_only);
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
        Some(_) | None => v1::MountPropagation::PropagationPrivate,
    };
    out.propagation = propagation.into();
    Ok(out)
}
