//! Containers: CRI's words ↔ the engine's.
//!
//! Invariant: CRI sees only containers that live in a sandbox; what CRI sent comes back unchanged. What the
//! engine's record has no place for (metadata, the image as the user named it) rides in annotations of ours.

use std::collections::{BTreeMap, HashMap};

use engine::{
    Container, CreateContainer, InSandbox, Phase,
    config::{BindOptions, Config, Device, HostConfig, Mount, Resources},
};

use super::{EngineCri, matches_labels, nanos};
use crate::{CriError, Result, v1};

const NAME: &str = "gantry.dev/cri-name";
const ATTEMPT: &str = "gantry.dev/cri-attempt";
const USER_IMAGE: &str = "gantry.dev/cri-image";
/// The exit code of a container that could not be started, whatever the reason, as containerd has it.
const START_ERROR: i32 = 128;

impl EngineCri {
    pub(super) async fn make_container(&self, sandbox_id: &str, config: v1::ContainerConfig) -> Result<String> {
        let sandbox = self.engine.sandbox(sandbox_id)?;
        let metadata = config
            .metadata
            .clone()
            .ok_or_else(|| CriError::InvalidArgument("container metadata is missing".to_owned()))?;
        let pod = &sandbox.spec;
        // Kubelet's own pattern, so that `docker ps` users recognise them.
        let name = format!("k8s_{}_{}_{}_{}_{}", metadata.name, pod.name, pod.namespace, pod.uid, metadata.attempt);
        // The path is the caller's, but it stays in the folder that the sandbox named.
        let plain = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
        if !std::path::Path::new(&config.log_path).components().all(plain) {
            return Err(CriError::InvalidArgument(format!("log path {:?} leaves its folder", config.log_path)));
        }
        let log_path = (!config.log_path.is_empty() && !pod.log_directory.as_os_str().is_empty())
            .then(|| pod.log_directory.join(&config.log_path));
        let host = host_config(&config, &metadata)?;
        let request = CreateContainer {
            name: Some(name),
            host,
            config: process_config(config, &hostname(pod)),
            networks: BTreeMap::new(),
            pod: Some(InSandbox { sandbox: sandbox.id, log_path }),
        };
        Ok(self.engine.create_container(request).await?.id)
    }

    /// A container that belongs to a sandbox.
    pub(super) fn pod_container(&self, id: &str) -> Result<Container> {
        let found = self.engine.container(id)?;
        if found.record.pod.is_none() {
            return Err(CriError::NotFound(format!("container {id} is not a pod's")));
        }
        Ok(found)
    }

    pub(super) fn containers_matching(&self, filter: &v1::ContainerFilter) -> Vec<v1::Container> {
        let wanted = filter.state.map(|state| state.state);
        self.engine
            .containers()
            .into_iter()
            .filter(|one| one.record.id.starts_with(&filter.id))
            .filter(|one| matches_labels(&filter.label_selector, |key| one.record.config.labels.get(key)))
            .filter(|one| wanted.is_none_or(|wanted| wanted == state(one)))
            .filter_map(|one| listed(one, &filter.pod_sandbox_id))
            .collect()
    }
}

/// The pod's own host name; on the node's network, the node's.
fn hostname(pod: &engine::SandboxSpec) -> String {
    if !pod.host_network && !pod.hostname.is_empty() {
        return pod.hostname.clone();
    }
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

fn process_config(config: v1::ContainerConfig, hostname: &str) -> Config {
    let security = config.linux.and_then(|linux| linux.security_context).unwrap_or_default();
    let user = match (&security.run_as_user, &security.run_as_group) {
        (Some(user), Some(group)) => format!("{}:{}", user.value, group.value),
        (Some(user), None) => user.value.to_string(),
        (None, Some(group)) if security.run_as_username.is_empty() => format!("0:{}", group.value),
        (None, Some(group)) => format!("{}:{}", security.run_as_username, group.value),
        (None, None) => security.run_as_username.clone(),
    };
    let given = |list: Vec<String>| (!list.is_empty()).then_some(list);
    Config {
        image: config.image.map(|spec| spec.image).unwrap_or_default(),
        entrypoint: given(config.command),
        cmd: given(config.args),
        working_dir: config.working_dir,
        env: std::iter::once(format!("HOSTNAME={hostname}"))
            .chain(config.envs.into_iter().map(|one| format!("{}={}", one.key, one.value)))
            .collect(),
        labels: config.labels.into_iter().collect(),
        open_stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        user,
        ..Config::default()
    }
}

fn host_config(config: &v1::ContainerConfig, metadata: &v1::ContainerMetadata) -> Result<HostConfig> {
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let namespaces = security.namespace_options.clone().unwrap_or_default();
    let capabilities = security.capabilities.clone().unwrap_or_default();
    let limits = linux.resources.unwrap_or_default();
    let mut resources = self::limits(&limits);
    resources.devices = Some(config.devices.iter().map(device).collect());
    let mut annotations: BTreeMap<String, String> = config.annotations.clone().into_iter().collect();
    annotations.insert(NAME.to_owned(), metadata.name.clone());
    annotations.insert(ATTEMPT.to_owned(), metadata.attempt.to_string());
    if let Some(image) = &config.image {
        annotations.insert(USER_IMAGE.to_owned(), image.user_specified_image.clone());
    }
    Ok(HostConfig {
        annotations: Some(annotations),
        cap_add: Some(capabilities.add_capabilities),
        cap_drop: Some(capabilities.drop_capabilities),
        group_add: Some(security.supplemental_groups.iter().map(i64::to_string).collect()),
        masked_paths: Some(security.masked_paths.clone()),
        readonly_paths: Some(security.readonly_paths.clone()),
        mounts: config.mounts.iter().map(mount).collect::<Result<_>>()?,
        oom_score_adj: limits.oom_score_adj,
        pid_mode: match namespaces.pid() {
            v1::NamespaceMode::Node => "host".to_owned(),
            v1::NamespaceMode::Target => format!("container:{}", namespaces.target_id),
            v1::NamespaceMode::Pod | v1::NamespaceMode::Container => String::new(),
        },
        privileged: security.privileged,
        readonly_rootfs: security.readonly_rootfs,
        security_opt: Some(security_options(&security)?),
        resources,
        ..HostConfig::default()
    })
}

fn security_options(security: &v1::LinuxContainerSecurityContext) -> Result<Vec<String>> {
    use v1::security_profile::ProfileType;
    let mut out = Vec::new();
    if security.no_new_privs {
        out.push("no-new-privileges".to_owned());
    }
    if let Some(profile) = &security.seccomp {
        out.push(match profile.profile_type() {
            ProfileType::RuntimeDefault => "seccomp=builtin".to_owned(),
            ProfileType::Unconfined => "seccomp=unconfined".to_owned(),
            ProfileType::Localhost => {
                let path = profile.localhost_ref.trim_start_matches("localhost/");
                let text = std::fs::read_to_string(path)
                    .map_err(|error| CriError::InvalidArgument(format!("seccomp profile {path}: {error}")))?;
                format!("seccomp={text}")
            }
        });
    }
    Ok(out)
}

fn mount(mount: &v1::Mount) -> Result<Mount> {
    if mount.image.is_some() {
        return Err(CriError::InvalidArgument("image volumes are not offered".to_owned()));
    }
    let propagation = match mount.propagation() {
        v1::MountPropagation::PropagationPrivate => "rprivate",
        v1::MountPropagation::PropagationHostToContainer => "rslave",
        v1::MountPropagation::PropagationBidirectional => "rshared",
    };
    Ok(Mount {
        r#type: "bind".to_owned(),
        source: mount.host_path.clone(),
        target: mount.container_path.clone(),
        read_only: mount.readonly,
        bind_options: Some(BindOptions { propagation: propagation.to_owned(), ..BindOptions::default() }),
        ..Mount::default()
    })
}

fn device(device: &v1::Device) -> Device {
    Device {
        path_on_host: device.host_path.clone(),
        path_in_container: device.container_path.clone(),
        cgroup_permissions: device.permissions.clone(),
    }
}

pub(super) fn limits(resources: &v1::LinuxContainerResources) -> Resources {
    Resources {
        cpu_shares: resources.cpu_shares,
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        memory: resources.memory_limit_in_bytes,
        // Without a swap limit of its own a pod's container gets no swap beyond its memory.
        memory_swap: match resources.memory_swap_limit_in_bytes {
            0 => resources.memory_limit_in_bytes,
            limit => limit,
        },
        ..Resources::default()
    }
}

/// A container whose start failed has had its run: as with containerd it counts as ended, not as waiting for a start.
fn state(container: &Container) -> i32 {
    match &container.phase {
        Phase::Created if container.record.start_failure.is_some() => v1::ContainerState::ContainerExited,
        Phase::Created => v1::ContainerState::ContainerCreated,
        Phase::Running(_) => v1::ContainerState::ContainerRunning,
        Phase::Exited(_) | Phase::Restarting(_) => v1::ContainerState::ContainerExited,
        Phase::Removing | Phase::Dead => v1::ContainerState::ContainerUnknown,
    }
    .into()
}

/// A container on its way out is not there any more.
fn listed(container: Container, sandbox: &str) -> Option<v1::Container> {
    let pod = container.record.pod.as_ref()?;
    if matches!(container.phase, Phase::Removing | Phase::Dead) || !pod.sandbox.starts_with(sandbox) {
        return None;
    }
    Some(v1::Container {
        pod_sandbox_id: pod.sandbox.clone(),
        metadata: Some(metadata(&container)),
        image: Some(image(&container)),
        image_ref: container.record.image_id.clone(),
        image_id: container.record.image_id.clone(),
        state: state(&container),
        created_at: nanos(container.record.created),
        labels: container.record.config.labels.clone().into_iter().collect(),
        annotations: annotations(&container),
        id: container.record.id,
    })
}

fn ours<'a>(container: &'a Container, key: &str) -> Option<&'a String> {
    container.record.host.annotations.as_ref()?.get(key)
}

pub(super) fn metadata(container: &Container) -> v1::ContainerMetadata {
    v1::ContainerMetadata {
        name: ours(container, NAME).cloned().unwrap_or_default(),
        attempt: ours(container, ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(0),
    }
}

fn image(container: &Container) -> v1::ImageSpec {
    let asked = ours(container, USER_IMAGE).filter(|name| !name.is_empty());
    v1::ImageSpec { image: asked.unwrap_or(&container.record.config.image).clone(), ..Default::default() }
}

pub(super) fn annotations(container: &Container) -> HashMap<String, String> {
    let mut all: HashMap<_, _> = container.record.host.annotations.clone().unwrap_or_default().into_iter().collect();
    for key in [NAME, ATTEMPT, USER_IMAGE] {
        all.remove(key);
    }
    all
}

pub(super) fn status(container: Container) -> v1::ContainerStatus {
    let mut out = v1::ContainerStatus {
        metadata: Some(metadata(&container)),
        state: state(&container),
        created_at: nanos(container.record.created),
        image: Some(image(&container)),
        image_ref: container.record.image_id.clone(),
        image_id: container.record.image_id.clone(),
        labels: container.record.config.labels.clone().into_iter().collect(),
        annotations: annotations(&container),
        log_path: container.log_path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        id: container.record.id,
        ..Default::default()
    };
    match container.phase {
        Phase::Created => {
            if let Some((_, message)) = container.record.start_failure {
                out.finished_at = nanos(container.record.created);
                out.exit_code = START_ERROR;
                out.reason = "StartError".to_owned();
                out.message = message;
            }
        }
        Phase::Removing | Phase::Dead => {}
        Phase::Running(running) => out.started_at = nanos(running.started_at),
        Phase::Exited(exited) | Phase::Restarting(exited) => {
            out.started_at = nanos(exited.started_at);
            out.finished_at = nanos(exited.finished_at);
            out.exit_code = exited.code;
            out.reason = match (exited.oom_killed, exited.code) {
                (true, _) => "OOMKilled",
                (false, 0) => "Completed",
                (false, _) => "Error",
            }
            .to_owned();
            out.message = exited.error;
        }
    }
    out
}
