//! Applies one action and tells what came of it.
//!
//! The worker runs each action as a task of its own. Invariant: an action decides nothing that `decide`
//! should; it builds configs, calls CRI and reports.

use std::{sync::Arc, time::Duration};

use cri::v1;
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Container, Pod, Service},
    node::v1::RuntimeClass,
};
use kube_client::DeleteOptions;
use pod_plan::{Action, ImageChoice, Outcome, ProbeKind, StartFailure};

use crate::{
    agent::Shared,
    container_config,
    drain::DRAIN_LIMIT,
    env,
    error::{AgentError, AtPath},
    fields::Place,
    hooks, hosts,
    layout::PodPaths,
    probes, pull,
    references::Held,
    resources, sandbox_config,
    security::ImageUser,
    volumes,
};

/// One pod at the time of an action.
pub(crate) struct Scene {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) paths: PodPaths,
    pub(crate) held: Arc<Held>,
    pub(crate) tokens: Arc<volumes::Tokens>,
    pub(crate) pod_ips: Vec<String>,
    /// CRI ids of the running containers by name, for ephemeral containers' targets.
    pub(crate) running: Vec<(String, String)>,
}

impl Scene {
    pub(crate) fn place(&self) -> Place {
        let node = &self.shared.node;
        Place {
            node_name: node.facts.name.clone(),
            host_ips: node.facts.host_ips.clone(),
            pod_ips: self.pod_ips.clone(),
            allocatable_millicpu: node.machine.millicpu,
            allocatable_memory_bytes: crate::node::allocatable(&self.shared).1,
        }
    }

    fn container(&self, name: &str) -> Option<Container> {
        let all = pod_plan::pod_containers(&self.pod);
        all.into_iter().find(|one| one.spec.name == name).map(|one| one.spec.into_owned())
    }

    /// Where probes and hooks find the pod.
    fn address(&self) -> &str {
        self.pod_ips.first().map_or("127.0.0.1", String::as_str)
    }

    fn sandbox_config(&self, attempt: u32) -> v1::PodSandboxConfig {
        let resolv = std::fs::read_to_string(&self.shared.config.host_resolv_conf).unwrap_or_default();
        sandbox_config::build(
            &self.pod,
            attempt,
            &self.shared.config.cgroup_parent,
            &self.paths.logs.to_string_lossy(),
            &self.shared.dns,
            &resolv,
        )
    }
}

fn settled(answer: Result<(), impl std::fmt::Display>) -> Outcome {
    match answer {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Failed { message: error.to_string() },
    }
}

pub(crate) async fn apply(scene: &Scene, action: &Action) -> Outcome {
    let cri = &scene.shared.config.cri;
    match action {
        Action::PrepareVolumes => settled(prepare_volumes(scene).await),
        Action::CreateSandbox { attempt } => settled(create_sandbox(scene, *attempt).await),
        Action::EnsureImage { container, .. } => ensure_image(scene, container).await,
        Action::StartContainer { container, attempt, sandbox_id, image_ref } => {
            start(scene, container, *attempt, sandbox_id, image_ref).await
        }
        Action::StopContainer { container, id, grace_seconds, .. } => {
            settled(stop(scene, container, id, *grace_seconds).await)
        }
        Action::ResizeContainer { container, id } => settled(resize(scene, container, id).await),
        Action::RemoveContainer { id } => settled(cri.remove_container(id).await),
        Action::Probe { container, id, kind } => probe(scene, container, id, *kind).await,
        Action::StopSandbox { id } => settled(cri.stop_pod_sandbox(id).await),
        Action::RemoveSandbox { id } => settled(cri.remove_pod_sandbox(id).await),
        Action::RemoveVolumes => {
            let paths = scene.paths.clone();
            match tokio::task::spawn_blocking(move || volumes::remove(&paths)).await {
                Ok(answer) => settled(answer),
                Err(error) => Outcome::Failed { message: error.to_string() },
            }
        }
        Action::FinishDelete => settled(finish_delete(scene).await),
    }
}

async fn prepare_volumes(scene: &Scene) -> Result<(), AgentError> {
    for dir in [&scene.paths.dir, &scene.paths.logs] {
        std::fs::create_dir_all(dir).at("create", dir)?;
    }
    let place = scene.place();
    let sources = volumes::Sources {
        client: &scene.shared.config.client,
        held: &scene.held,
        place: &place,
        tokens: &scene.tokens,
        root: &scene.shared.config.root,
    };
    volumes::prepare(&scene.pod, &scene.paths, &sources).await.map(drop)
}

async fn create_sandbox(scene: &Scene, attempt: u32) -> Result<(), AgentError> {
    std::fs::create_dir_all(&scene.paths.logs).at("create", &scene.paths.logs)?;
    let handler = runtime_handler(scene).await?;
    scene.shared.config.cri.run_pod_sandbox(scene.sandbox_config(attempt), &handler).await?;
    Ok(())
}

/// The handler that the pod's RuntimeClass names; the default one without a class.
async fn runtime_handler(scene: &Scene) -> Result<String, AgentError> {
    let spec = scene.pod.spec.as_ref();
    let class = spec.and_then(|spec| spec.runtime_class_name.as_ref()).filter(|name| !name.is_empty());
    let Some(class) = class else { return Ok(String::new()) };
    let found = scene.shared.config.client.api::<RuntimeClass>().get_opt(class).await?;
    let missing = || AgentError::Config(format!("failed to get sandbox runtime: RuntimeClass \"{class}\" not found"));
    Ok(found.ok_or_else(missing)?.handler)
}

async fn resize(scene: &Scene, name: &str, id: &str) -> Result<(), AgentError> {
    let Some(container) = scene.container(name) else {
        return Err(AgentError::Config(format!("container {name} is not in the pod")));
    };
    let linux = resources::linux(&scene.pod, &container, scene.shared.node.machine.memory_bytes);
    Ok(scene.shared.config.cri.update_container_resources(id, linux).await?)
}

async fn ensure_image(scene: &Scene, name: &str) -> Outcome {
    let Some(container) = scene.container(name) else {
        return Outcome::Failed { message: format!("container {name} is not in the pod") };
    };
    let image = container.image.clone().unwrap_or_default();
    let spec = v1::ImageSpec { image: image.clone(), ..Default::default() };
    let refused = |reason: &str, message: String| Outcome::ImageFailed { reason: reason.to_owned(), message };
    let present = match scene.shared.config.cri.image_status(&spec).await {
        Ok(present) => present,
        Err(cri::CriError::InvalidArgument(text)) => {
            let text = format!("Failed to apply default image tag \"{image}\": {text}");
            return refused("InvalidImageName", text);
        }
        Err(error) => return refused("ErrImagePull", error.to_string()),
    };
    let policy = pod_plan::effective_pull_policy(&container);
    let local = present.as_ref().is_some_and(pull::is_local);
    match (pod_plan::choose_image(policy, present.is_some(), local), present) {
        (ImageChoice::UsePresent, Some(found)) => Outcome::ImageReady {
            image_ref: found.id,
            message: format!("Container image \"{image}\" already present on machine"),
        },
        (ImageChoice::Refuse, _) => refused(
            "ErrImageNeverPull",
            format!("Container image \"{image}\" is not present with pull policy of Never"),
        ),
        (ImageChoice::Pull | ImageChoice::UsePresent, _) => pull::pull(scene, &container, spec).await,
    }
}

async fn start(scene: &Scene, name: &str, attempt: u32, sandbox_id: &str, image_ref: &str) -> Outcome {
    let cri = &scene.shared.config.cri;
    let failed = |failure, id, message: String| Outcome::StartFailed { failure, id, message };
    let Some(container) = scene.container(name) else {
        let text = format!("container {name} is not in the pod");
        return failed(StartFailure::CreateContainerConfigError, None, text);
    };
    let config = match build_config(scene, &container, attempt, image_ref).await {
        Ok(config) => config,
        Err(error) => {
            return failed(StartFailure::CreateContainerConfigError, None, error.to_string());
        }
    };
    let sandbox = scene.sandbox_config(0);
    let id = match cri.create_container(sandbox_id, config, sandbox).await {
        Ok(id) => id,
        Err(error) => return failed(StartFailure::CreateContainerError, None, error.to_string()),
    };
    if let Err(error) = cri.start_container(&id).await {
        // The runtime keeps it as ended with `StartError`; the restart policy has its say as after any other end.
        return failed(StartFailure::RunContainerError, Some(id), error.to_string());
    }
    let hook = container.lifecycle.as_ref().and_then(|hooks| hooks.post_start.as_ref());
    if let Some(hook) = hook
        && let Err(text) = hooks::run(cri.as_ref(), &id, &container, hook, scene.address()).await
    {
        let text = format!("PostStartHook failed: {text}");
        return failed(StartFailure::PostStartHookError, Some(id), text);
    }
    Outcome::Started { id }
}

async fn build_config(
    scene: &Scene,
    container: &Container,
    attempt: u32,
    image_ref: &str,
) -> Result<v1::ContainerConfig, AgentError> {
    let place = scene.place();
    let services = service_env(scene);
    let spec = v1::ImageSpec { image: image_ref.to_owned(), ..Default::default() };
    let image = scene.shared.config.cri.image_status(&spec).await?;
    let image = image.map(|one| ImageUser { uid: one.uid.map(|uid| uid.value), name: one.username });
    let seccomp_root = scene.shared.config.root.join("seccomp");
    let parts = container_config::Parts {
        seccomp_root: &seccomp_root,
        pod: &scene.pod,
        paths: &scene.paths,
        place: &place,
        held: &scene.held,
        services: &services,
        image: image.unwrap_or_default(),
        image_ref,
        attempt,
        hosts: hosts_file(scene),
        target_id: target(scene, &container.name),
    };
    container_config::build(container, &parts).await
}

fn hosts_file(scene: &Scene) -> Option<String> {
    let spec = scene.pod.spec.as_ref()?;
    let on_host = spec.host_network == Some(true);
    if on_host && spec.host_aliases.as_ref().is_none_or(Vec::is_empty) {
        return None;
    }
    let host = if on_host { std::fs::read_to_string("/etc/hosts").unwrap_or_default() } else { String::new() };
    Some(hosts::render(&scene.pod, &scene.pod_ips, &scene.shared.dns.domain, &host))
}

/// The container whose processes an ephemeral container wants to see.
fn target(scene: &Scene, name: &str) -> Option<String> {
    let spec = scene.pod.spec.as_ref()?;
    let ephemeral = spec.ephemeral_containers.iter().flatten().find(|one| one.name == name)?;
    let wanted = ephemeral.target_container_name.as_ref()?;
    scene.running.iter().find(|(name, _)| name == wanted).map(|(_, id)| id.clone())
}

/// The services of the pod's namespace, and the API server's of `default`.
fn service_env(scene: &Scene) -> Vec<(String, String)> {
    let namespace = scene.pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = scene.pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
    let cache = &scene.shared.services;
    let mut services: Vec<Arc<Service>> = cache.get("default", "kubernetes").into_iter().collect();
    if links {
        let mut own = cache.list_namespace(namespace);
        own.retain(|one| namespace != "default" || one.metadata.name.as_deref() != Some("kubernetes"));
        services.extend(own);
    }
    let services: Vec<&Service> = services.iter().map(Arc::as_ref).collect();
    env::service_variables(&services)
}

async fn stop(scene: &Scene, name: &str, id: &str, grace_seconds: i64) -> Result<(), cri::CriError> {
    let cri = &scene.shared.config.cri;
    let grace = Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
    let began = tokio::time::Instant::now();
    // A grace of a second or less is a kill: nobody is waited for.
    if grace > Duration::from_secs(1) {
        let container = scene.container(name);
        let hook = container.as_ref().and_then(|one| one.lifecycle.as_ref()?.pre_stop.as_ref());
        let pre_stop = async {
            if let (Some(container), Some(hook)) = (&container, hook) {
                let ran = hooks::run(cri.as_ref(), id, container, hook, scene.address());
                match tokio::time::timeout(grace, ran).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => scene.shared.pre_stop_failed(&scene.pod, name, &error),
                    Err(_) => scene.shared.pre_stop_failed(&scene.pod, name, "grace period exceeded"),
                }
            }
        };
        let leaving = scene.pod.metadata.deletion_timestamp.is_some();
        let drained = async {
            if leaving {
                let wait = scene.shared.config.drain.drained(&scene.pod_ips);
                // Out of time is as good as drained: the grace period is the pod's, not the proxy's.
                let _ = tokio::time::timeout(DRAIN_LIMIT.min(grace / 2), wait).await;
            }
        };
        tokio::join!(pre_stop, drained);
    }
    let left = grace.saturating_sub(began.elapsed()).as_secs_f64().ceil();
    // A hook that used up the grace period still leaves the process two seconds, as in Kubernetes.
    let floor = if grace > Duration::from_secs(1) { 2.0 } else { 0.0 };
    cri.stop_container(id, left.max(floor) as i64).await
}

async fn probe(scene: &Scene, name: &str, id: &str, kind: ProbeKind) -> Outcome {
    let began_at = Timestamp::now();
    let containers = pod_plan::pod_containers(&scene.pod);
    let found = containers.iter().find(|one| one.spec.name == name);
    let result = match found.and_then(|one| Some((one, one.probe(kind)?))) {
        Some((one, probe)) => {
            let cri = scene.shared.config.cri.as_ref();
            probes::run(cri, id, &one.spec, probe, scene.address()).await
        }
        None => pod_plan::ProbeOutcome::Unknown("the probe is gone".to_owned()),
    };
    Outcome::Probed { result, began_at }
}

async fn finish_delete(scene: &Scene) -> Result<(), AgentError> {
    let metadata = &scene.pod.metadata;
    let api = scene.shared.config.client.api::<Pod>().namespace(metadata.namespace.clone().unwrap_or_default());
    let options = DeleteOptions { uid: metadata.uid.clone(), grace_seconds: Some(0), ..DeleteOptions::default() };
    match api.delete(metadata.name.as_deref().unwrap_or_default(), &options).await {
        Ok(_) => Ok(()),
        // Gone, or another pod of that name by now: either way this one is finished.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
