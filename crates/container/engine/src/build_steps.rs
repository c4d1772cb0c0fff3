//! RUN steps of a build, and base images: what the builder borrows from the engine.
//!
//! A step is not a container of the table: it has no record, no name and no log. Its directory stands below
//! `steps/` while it runs; `open` sweeps what a crash left there.

use std::{collections::BTreeMap, fs, future::Future, path::PathBuf, pin::Pin, sync::Arc};

use build::{BuildError, BuildEvent, Client, Events, ImageSource, OutputStream, RunStep, StepRunner, StepSource};
use bundle::{BindMount, ContainerConfig, MountKind, MountSpec, NamespaceMode, Propagation, SeccompMode, Tmpfs};
use content::{Image, Origin};
use futures_util::StreamExt;
use monitor::{Launch, LogPolicy};
use networking::{DEFAULT_NETWORK, EndpointSpec, files::ResolvConfInput};
use oci::Reference;

use crate::{
    Engine, blocking,
    containers::{attach_streams, network_error, overlay, resolve_user, start_error},
    disk::{self, Durability},
    error::{Error, Result},
    exec::Channel,
};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl StepRunner for Engine {
    fn run<'a>(&'a self, step: RunStep, events: &'a Events) -> BoxFuture<'a, Result<i32, BuildError>> {
        Box::pin(async move {
            // Dropped with the future: takes the process and all that was made for it away.
            let step_guard = StepGuard { engine: self.clone(), id: step.id.clone() };
            let outcome = self.run_step(&step, events).await;
            step_guard.finish().await;
            outcome.map_err(|error| match error {
                // The builder words the exit code: a program that is not there counts as one.
                Error::StartFailed { message, .. } => BuildError::step(message),
                other => BuildError::step(other.to_string()),
            })
        })
    }
}

impl ImageSource for Engine {
    fn image<'a>(
        &'a self,
        reference: &'a str,
        pull: bool,
        client: &'a dyn Client,
        events: &'a Events,
    ) -> BoxFuture<'a, Result<Image, BuildError>> {
        Box::pin(async move {
            let here = self.content().images().resolve(reference).ok();
            if let Some(image) = here.filter(|image| !pull || image.origin == Origin::Local) {
                return Ok(image);
            }
            let name =
                Reference::parse(reference).map_err(|_| BuildError::Reference { reference: reference.to_owned() })?;
            let progress = events.clone();
            let sink: distribution::client::Sink = Arc::new(move |progress_event| {
                // A reader that is behind misses a progress line, never a result.
                progress.hint(BuildEvent::Progress { json: crate::progress::line(&progress_event) });
            });
            let credentials = client.credentials(name.domain()).await;
            let auth = credentials.map(|known| distribution::client::Auth {
                username: known.username,
                password: known.secret,
                ..distribution::client::Auth::default()
            });
            self.pull_image(&name, auth.as_ref(), sink).await.map_err(|error| BuildError::step(error.to_string()))
        })
    }
}

impl Engine {
    fn step_dir(&self, id: &str) -> PathBuf {
        self.0.parts.root.join("steps").join(id)
    }

    fn step_cgroup(&self, id: &str) -> String {
        format!("/{}/{id}", self.0.parts.cgroup_parent)
    }

    async fn run_step(&self, step: &RunStep, events: &Events) -> Result<i32> {
        let dir = self.step_dir(&step.id);
        disk::make_dir(&dir)?;
        let (network, gateway) = self.step_network(step).await?;
        let config = self.step_config(step, network, gateway)?;
        let launch = Launch {
            id: step.id.clone(),
            dir,
            spec: bundle::spec(&config).map_err(|e| Error::Invalid(e.to_string()))?,
            rootfs: overlay(step.root.clone())?,
            cgroup: self.step_cgroup(&step.id),
            terminal: false,
            open_stdin: false,
            stdin_once: false,
            init: false,
            log: LogPolicy::none(),
        };
        let created = self.0.parts.zygote.create(&launch).await.map_err(start_error)?;
        let wanted = monitor::AttachOptions { stdin: false, stdout: true, stderr: true };
        let attached = created.handle.attach(wanted).await.map_err(|e| Error::system("attach to build step", e))?;
        created.handle.start().await.map_err(start_error)?;
        let mut output = attach_streams(attached).output;
        while let Some(frame) = output.next().await {
            let stream = match frame.channel {
                Channel::Stdout => OutputStream::Stdout,
                Channel::Stderr => OutputStream::Stderr,
            };
            // The client is gone: the builder drops this future in a moment.
            let _ = events.tell(BuildEvent::Output { stream, bytes: frame.data.to_vec() }).await;
        }
        let status = created.handle.wait().await.map_err(|e| Error::system("wait for build step", e))?;
        Ok(status.code)
    }

    async fn step_network(&self, step: &RunStep) -> Result<(NamespaceMode, Option<std::net::Ipv4Addr>)> {
        let networking = &self.0.parts.networking;
        if step.network == "host" {
            return Ok((NamespaceMode::Host, None));
        }
        let path = networking.create_namespace(&step.id).await.map_err(network_error)?;
        let network = match step.network.as_str() {
            "none" => return Ok((NamespaceMode::Path(path), None)),
            "" | "default" => DEFAULT_NETWORK,
            name => name,
        };
        let spec = EndpointSpec { name: step.id[..12.min(step.id.len())].to_owned(), ..EndpointSpec::default() };
        let endpoint = networking.connect(&step.id, network, spec).await.map_err(network_error)?;
        Ok((NamespaceMode::Path(path), endpoint.gateway))
    }

    fn step_config(
        &self,
        step: &RunStep,
        network: NamespaceMode,
        gateway: Option<std::net::Ipv4Addr>,
    ) -> Result<ContainerConfig> {
        let limits = &step.limits;
        let asked = |n: i64| Some(n).filter(|n| *n != 0);
        let host_network = network == NamespaceMode::Host;
        Ok(ContainerConfig {
            rootfs: "rootfs".into(),
            args: step.args.clone(),
            env: last_wins(&step.env),
            cwd: if step.working_dir.is_empty() { "/".to_owned() } else { step.working_dir.clone() },
            user: resolve_user(&step.root, &step.user, &[])?,
            hostname: step.id.chars().take(12).collect(),
            mounts: self.step_files(step, host_network, gateway)?,
            network,
            resources: bundle::Resources {
                memory_bytes: asked(limits.memory_bytes),
                memory_swap_bytes: asked(limits.memory_swap_bytes),
                cpu_shares: Some(limits.cpu_shares).filter(|n| *n > 0),
                cpu_quota_us: asked(limits.cpu_quota_us),
                cpu_period_us: Some(limits.cpu_period_us).filter(|n| *n > 0),
                cpuset_cpus: Some(limits.cpuset_cpus.clone()).filter(|s| !s.is_empty()),
                ..bundle::Resources::default()
            },
            shm_size_bytes: Some(limits.shm_size_bytes).filter(|n| *n > 0),
            cgroup_path: self.step_cgroup(&step.id),
            privileged: step.insecure,
            seccomp: if step.insecure { SeccompMode::Unconfined } else { SeccompMode::Default },
            ..ContainerConfig::default()
        })
    }

    fn step_files(
        &self,
        step: &RunStep,
        host_network: bool,
        gateway: Option<std::net::Ipv4Addr>,
    ) -> Result<Vec<MountSpec>> {
        let node = fs::read_to_string(&self.0.parts.host_resolv_conf).unwrap_or_default();
        let resolv_conf = networking::files::resolv_conf(&ResolvConfInput {
            host: &node,
            host_network,
            ..ResolvConfInput::default()
        });
        let extra =
            crate::containers::extra_hosts(&step.extra_hosts, gateway.map_or([127, 0, 0, 1].into(), Into::into))?;
        let hosts = networking::files::hosts("", "", &[], &extra);
        let dir = self.step_dir(&step.id);
        let mut mounts = Vec::new();
        for (name, text) in [("resolv.conf", resolv_conf), ("hosts", hosts)] {
            let source = dir.join(name);
            disk::write(&source, text.as_bytes(), 0o644, Durability::Cached)?;
            let propagation = Some(Propagation::Rprivate);
            let kind = MountKind::Bind(BindMount { source, propagation, ..BindMount::default() });
            mounts.push(MountSpec { destination: format!("/etc/{name}"), read_only: false, kind });
        }
        mounts.extend(step.mounts.iter().map(step_mount));
        Ok(mounts)
    }

    async fn clean_step(&self, id: &str) {
        let (dir, cgroup) = (self.step_dir(id), self.step_cgroup(id));
        let swept = blocking(move || {
            if let Err(errors) = monitor::delete(&dir, &cgroup) {
                errors.iter().for_each(|error| tracing::warn!(%error, "leftover of a build step"));
            }
            crate::disk::remove_dir(&dir).map_err(|e| Error::file("remove", &dir, e))
        });
        if let Err(error) = swept.await {
            tracing::warn!(step = id, %error, "leftover of a build step");
        }
        if let Err(errors) = self.0.parts.networking.remove_namespace(id).await {
            errors.iter().for_each(|error| tracing::warn!(step = id, %error, "network leftover of a build step"));
        }
    }

    /// Takes away steps that a crash interrupted.
    pub(crate) async fn sweep_steps(&self) {
        let Ok(entries) = fs::read_dir(self.0.parts.root.join("steps")) else { return };
        for entry in entries.flatten() {
            if let Some(id) = entry.file_name().to_str() {
                self.clean_step(id).await;
            }
        }
    }
}

/// A `--mount`, as the bundle wants it. The builder has confined its source already.
fn step_mount(mount: &build::StepMount) -> MountSpec {
    let kind = match &mount.source {
        StepSource::Path(source) => {
            let propagation = Some(Propagation::Rprivate);
            MountKind::Bind(BindMount { source: source.clone(), propagation, ..BindMount::default() })
        }
        StepSource::Tmpfs { size_bytes } => {
            let options = ["nosuid", "nodev"].map(str::to_owned).to_vec();
            MountKind::Tmpfs(Tmpfs { size_bytes: *size_bytes, options, ..Tmpfs::default() })
        }
    };
    MountSpec { destination: mount.target.clone(), read_only: mount.read_only, kind }
}

/// A variable that is set twice has its last value, at its first place.
fn last_wins(env: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
    let last: BTreeMap<String, &String> = env.iter().map(|entry| (name(entry), entry)).collect();
    let mut seen = std::collections::BTreeSet::new();
    env.iter().filter(|entry| seen.insert(name(entry))).map(|entry| last[&name(entry)].clone()).collect()
}

/// Cleans a step up, also when the build was dropped in the middle.
struct StepGuard {
    engine: Engine,
    id: String,
}

impl StepGuard {
    async fn finish(mut self) {
        let id = std::mem::take(&mut self.id);
        self.engine.clean_step(&id).await;
    }
}

impl Drop for StepGuard {
    fn drop(&mut self) {
        if self.id.is_empty() {
            return;
        }
        let (engine, id) = (self.engine.clone(), std::mem::take(&mut self.id));
        tokio::spawn(async move { engine.clean_step(&id).await });
    }
}

#[cfg(test)]
mod tests {
    use super::last_wins;

    #[test]
    fn a_variable_set_twice_has_its_last_value() {
        let env = ["A=1", "B=2", "A=3"].map(str::to_owned);
        assert_eq!(last_wins(&env), ["A=3", "B=2"]);
    }
}
