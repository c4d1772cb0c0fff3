//! CRI over Gantry's own engine, in this process.
//!
//! The node agent gets it as `Arc<dyn Cri>` and `Arc<dyn Streaming>`; the gRPC server serves it. One module a
//! topic: sandboxes, containers, images, streams. Invariant: nothing is kept here; every answer is read from
//! the engine, so it is right after a restart too.

mod containers;
mod events;
mod images;
mod metrics;
mod sandboxes;
mod stats;
mod streams;

use std::time::Duration;

use async_trait::async_trait;
use engine::{Engine, Kind};

use crate::{Cri, CriError, EventStream, Result, v1};

/// See the file's header. Clones share the engine.
#[derive(Clone)]
pub struct EngineCri {
    engine: Engine,
}

impl EngineCri {
    /// CRI over this engine.
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }
}

impl From<engine::Error> for CriError {
    fn from(error: engine::Error) -> Self {
        let text = error.to_string();
        match error.kind() {
            Kind::NotFound => Self::NotFound(text),
            Kind::Invalid => Self::InvalidArgument(text),
            Kind::Conflict => Self::FailedPrecondition(text),
            Kind::Unsupported => Self::Unimplemented(text),
            Kind::NotModified | Kind::Forbidden | Kind::System => Self::Internal(text),
        }
    }
}

/// "Already so" and "not there" are success for what CRI wants idempotent.
fn idempotent<T>(answer: Result<T, engine::Error>) -> Result<()> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::NotModified) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// CRI times are nanoseconds since the epoch.
fn nanos(at: jiff::Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(0)
}

/// Whether all the wanted labels are there.
fn matches_labels<'a>(
    wanted: &std::collections::HashMap<String, String>,
    lookup: impl Fn(&str) -> Option<&'a String>,
) -> bool {
    wanted.iter().all(|(key, value)| lookup(key) == Some(value))
}

#[async_trait]
impl Cri for EngineCri {
    async fn version(&self) -> Result<v1::VersionResponse> {
        Ok(v1::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "gantry".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    async fn status(&self) -> Result<v1::StatusResponse> {
        let holds = |kind: &str| v1::RuntimeCondition { r#type: kind.to_owned(), status: true, ..Default::default() };
        let conditions = vec![holds("RuntimeReady"), holds("NetworkReady")];
        Ok(v1::StatusResponse { status: Some(v1::RuntimeStatus { conditions }), ..Default::default() })
    }

    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig, handler: &str) -> Result<String> {
        // `runc` is what RuntimeClasses of most clusters name; it means the ordinary kind of container.
        if !matches!(handler, "" | "gantry" | "runc") {
            return Err(CriError::InvalidArgument(format!("no runtime for \"{handler}\" is configured")));
        }
        self.make_sandbox(config).await
    }

    async fn stop_pod_sandbox(&self, sandbox_id: &str) -> Result<()> {
        idempotent(self.engine.stop_sandbox(sandbox_id).await)
    }

    async fn remove_pod_sandbox(&self, sandbox_id: &str) -> Result<()> {
        idempotent(self.engine.remove_sandbox(sandbox_id).await)
    }

    async fn pod_sandbox_status(&self, sandbox_id: &str) -> Result<v1::PodSandboxStatus> {
        Ok(sandboxes::status(self.engine.sandbox(sandbox_id)?))
    }

    async fn list_pod_sandbox(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>> {
        Ok(self.sandboxes_matching(filter.unwrap_or_default()))
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: v1::ContainerConfig,
        _sandbox: v1::PodSandboxConfig,
    ) -> Result<String> {
        self.make_container(sandbox_id, config).await
    }

    async fn start_container(&self, container_id: &str) -> Result<()> {
        match self.engine.start_container(container_id).await {
            Err(error) if error.kind() == Kind::NotModified => Ok(()),
            answer => answer.map_err(CriError::from),
        }
    }

    async fn stop_container(&self, container_id: &str, timeout_seconds: i64) -> Result<()> {
        let timeout = Duration::from_secs(u64::try_from(timeout_seconds).unwrap_or(0));
        idempotent(self.engine.stop_container(container_id, Some(timeout)).await)
    }

    async fn remove_container(&self, container_id: &str) -> Result<()> {
        let options = engine::RemoveOptions { force: true, volumes: true };
        idempotent(self.engine.remove_container(container_id, options).await)
    }

    async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>> {
        Ok(self.containers_matching(&filter.unwrap_or_default()))
    }

    async fn container_status(&self, container_id: &str) -> Result<v1::ContainerStatus> {
        Ok(containers::status(self.pod_container(container_id)?))
    }

    async fn update_container_resources(
        &self,
        container_id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<()> {
        let limits = containers::limits(&resources);
        Ok(self.engine.update_container(container_id, limits, None).await?)
    }

    async fn reopen_container_log(&self, container_id: &str) -> Result<()> {
        Ok(self.engine.reopen_log(container_id).await?)
    }

    async fn exec_sync(
        &self,
        container_id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse> {
        self.run_exec(container_id, command, timeout).await
    }

    async fn container_stats(&self, container_id: &str) -> Result<v1::ContainerStats> {
        self.stats_of(self.pod_container(container_id)?).await
    }

    async fn list_container_stats(&self, filter: Option<v1::ContainerStatsFilter>) -> Result<Vec<v1::ContainerStats>> {
        self.stats_matching(filter.unwrap_or_default()).await
    }

    async fn pod_sandbox_stats(&self, sandbox_id: &str) -> Result<v1::PodSandboxStats> {
        self.sandbox_stats(sandbox_id).await
    }

    async fn list_pod_sandbox_stats(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>> {
        self.sandboxes_stats(filter.unwrap_or_default()).await
    }

    async fn list_metric_descriptors(&self) -> Result<Vec<v1::MetricDescriptor>> {
        Ok(metrics::descriptors())
    }

    async fn list_pod_sandbox_metrics(&self) -> Result<Vec<v1::PodSandboxMetrics>> {
        let stats = self.sandboxes_stats(v1::PodSandboxStatsFilter::default()).await?;
        Ok(stats.iter().map(metrics::of_sandbox).collect())
    }

    async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse> {
        let linux = v1::LinuxRuntimeConfiguration { cgroup_driver: v1::CgroupDriver::Cgroupfs.into() };
        Ok(v1::RuntimeConfigResponse { linux: Some(linux) })
    }

    async fn events(&self) -> Result<EventStream> {
        Ok(self.event_stream())
    }

    async fn list_images(&self) -> Result<Vec<v1::Image>> {
        Ok(self.all_images())
    }

    async fn image_status(&self, image: &v1::ImageSpec) -> Result<Option<v1::Image>> {
        self.find_image(&image.image)
    }

    async fn pull_image(&self, image: v1::ImageSpec, auth: Option<v1::AuthConfig>) -> Result<String> {
        self.pull(&image.image, auth).await
    }

    async fn remove_image(&self, image: &v1::ImageSpec) -> Result<()> {
        idempotent(self.engine.remove_image(&image.image, false).await)
    }

    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse> {
        Ok(self.image_usage())
    }
}
