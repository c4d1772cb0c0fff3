//! The [`Cri`] trait: the calls of RuntimeService and ImageService that a node agent needs.
//!
//! Implemented by `EngineCri` and `RemoteCri`; called by the node agent and by the gRPC server. Invariant:
//! stop and remove are idempotent, as CRI asks. It takes the configs themselves instead of the request
//! envelopes where an envelope adds nothing.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::{Result, v1};

/// Container events, oldest first. It ends when the runtime goes away.
pub type EventStream = BoxStream<'static, Result<v1::ContainerEventResponse>>;

/// CRI v1 as an object.
#[async_trait]
pub trait Cri: Send + Sync + 'static {
    /// Name and version of the runtime.
    async fn version(&self) -> Result<v1::VersionResponse>;
    /// `RuntimeReady` and `NetworkReady`.
    async fn status(&self) -> Result<v1::StatusResponse>;

    /// Makes a sandbox for a runtime handler (empty: the default one) and returns its id; it is ready when this returns.
    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig, handler: &str) -> Result<String>;
    /// Kills what runs in the sandbox and gives back its network. A missing sandbox is success.
    async fn stop_pod_sandbox(&self, sandbox_id: &str) -> Result<()>;
    /// Removes the sandbox and its containers. A missing sandbox is success.
    async fn remove_pod_sandbox(&self, sandbox_id: &str) -> Result<()>;
    /// One sandbox, with its addresses.
    async fn pod_sandbox_status(&self, sandbox_id: &str) -> Result<v1::PodSandboxStatus>;
    /// Sandboxes that match the filter, or all.
    async fn list_pod_sandbox(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>>;

    /// Makes a container in a sandbox and returns its id.
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: v1::ContainerConfig,
        sandbox: v1::PodSandboxConfig,
    ) -> Result<String>;
    /// Starts a created container.
    async fn start_container(&self, container_id: &str) -> Result<()>;
    /// Sends the stop signal, and KILL when `timeout_seconds` have passed. A missing container is success.
    async fn stop_container(&self, container_id: &str, timeout_seconds: i64) -> Result<()>;
    /// Removes a container, killing it if it runs. A missing container is success.
    async fn remove_container(&self, container_id: &str) -> Result<()>;
    /// Containers that match the filter, or all.
    async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>>;
    /// One container, with times and exit code.
    async fn container_status(&self, container_id: &str) -> Result<v1::ContainerStatus>;
    /// Changes the limits of a running container.
    async fn update_container_resources(
        &self,
        container_id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<()>;
    /// Opens the log file again after a rotation.
    async fn reopen_container_log(&self, container_id: &str) -> Result<()>;
    /// Runs a command to its end, bounded by `timeout` (zero: unbounded).
    async fn exec_sync(
        &self,
        container_id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse>;
    /// CPU and memory of one container.
    async fn container_stats(&self, container_id: &str) -> Result<v1::ContainerStats>;
    /// CPU and memory of the containers that match.
    async fn list_container_stats(&self, filter: Option<v1::ContainerStatsFilter>) -> Result<Vec<v1::ContainerStats>>;
    /// CPU, memory and network of one sandbox and its containers.
    async fn pod_sandbox_stats(&self, sandbox_id: &str) -> Result<v1::PodSandboxStats>;
    /// The same of the sandboxes that match.
    async fn list_pod_sandbox_stats(&self, filter: Option<v1::PodSandboxStatsFilter>)
    -> Result<Vec<v1::PodSandboxStats>>;
    /// What [`Cri::list_pod_sandbox_metrics`] can tell.
    async fn list_metric_descriptors(&self) -> Result<Vec<v1::MetricDescriptor>>;
    /// The metrics of all sandboxes, named as cAdvisor names them.
    async fn list_pod_sandbox_metrics(&self) -> Result<Vec<v1::PodSandboxMetrics>>;
    /// How the runtime is set up, as far as a kubelet must know.
    async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse>;
    /// Created, started, stopped and deleted events from now on.
    async fn events(&self) -> Result<EventStream>;

    /// All images.
    async fn list_images(&self) -> Result<Vec<v1::Image>>;
    /// One image; `None` when it is not here.
    async fn image_status(&self, image: &v1::ImageSpec) -> Result<Option<v1::Image>>;
    /// Pulls an image and returns its reference. An image of local origin is already satisfied.
    async fn pull_image(&self, image: v1::ImageSpec, auth: Option<v1::AuthConfig>) -> Result<String>;
    /// Removes an image. A missing image is success.
    async fn remove_image(&self, image: &v1::ImageSpec) -> Result<()>;
    /// Use of the file system that keeps the images.
    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse>;
}
