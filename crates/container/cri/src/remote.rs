//! A CRI runtime behind a Unix socket: containerd, CRI-O, or another Gantry.
//!
//! The node agent uses it in the engine's place. Invariant: it is a plain translation; idempotence of stop and
//! remove is kept by reading "not found" as success. Streaming calls go to the URLs that the runtime hands out.

use std::{path::Path, path::PathBuf, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{
    Cri, CriError, Duplex, EventStream, Result, Session, Streaming, stream_client,
    v1::{self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient},
};

/// The client. Cheap to clone; connects when first used, and again after a loss.
#[derive(Debug, Clone)]
pub struct RemoteCri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl RemoteCri {
    /// A client of the runtime at `socket`.
    pub fn new(socket: &Path) -> Self {
        let path: PathBuf = socket.to_owned();
        let dial = move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        };
        // The address is never looked up; the connector above goes to the socket.
        let channel = Endpoint::from_static("http://cri.invalid").connect_with_connector_lazy(tower::service_fn(dial));
        Self { runtime: RuntimeServiceClient::new(channel.clone()), images: ImageServiceClient::new(channel) }
    }
}

impl RemoteCri {
    /// Where a client that speaks the runtime's streaming protocol itself can exec.
    pub async fn exec_url(&self, request: v1::ExecRequest) -> Result<String> {
        Ok(self.runtime.clone().exec(request).await?.into_inner().url)
    }

    /// The same for attach.
    pub async fn attach_url(&self, request: v1::AttachRequest) -> Result<String> {
        Ok(self.runtime.clone().attach(request).await?.into_inner().url)
    }

    /// The same for port-forward.
    pub async fn forward_url(&self, request: v1::PortForwardRequest) -> Result<String> {
        Ok(self.runtime.clone().port_forward(request).await?.into_inner().url)
    }
}

fn present<T>(field: Option<T>, what: &str) -> Result<T> {
    field.ok_or_else(|| CriError::Internal(format!("the runtime sent no {what}")))
}

fn gone_is_fine<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Result<()> {
    match answer.map_err(CriError::from) {
        Ok(_) | Err(CriError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl Cri for RemoteCri {
    async fn version(&self) -> Result<v1::VersionResponse> {
        let request = v1::VersionRequest { version: "v1".to_owned() };
        Ok(self.runtime.clone().version(request).await?.into_inner())
    }

    async fn status(&self) -> Result<v1::StatusResponse> {
        let request = v1::StatusRequest::default();
        Ok(self.runtime.clone().status(request).await?.into_inner())
    }

    async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig, handler: &str) -> Result<String> {
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        let answer = self.runtime.clone().run_pod_sandbox(request).await?;
        Ok(answer.into_inner().pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, sandbox_id: &str) -> Result<()> {
        let pod_sandbox_id = sandbox_id.to_owned();
        let request = v1::StopPodSandboxRequest { pod_sandbox_id };
        gone_is_fine(self.runtime.clone().stop_pod_sandbox(request).await)
    }

    async fn remove_pod_sandbox(&self, sandbox_id: &str) -> Result<()> {
        let pod_sandbox_id = sandbox_id.to_owned();
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id };
        gone_is_fine(self.runtime.clone().remove_pod_sandbox(request).await)
    }

    async fn pod_sandbox_status(&self, sandbox_id: &str) -> Result<v1::PodSandboxStatus> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: sandbox_id.to_owned(), verbose: false };
        let answer = self.runtime.clone().pod_sandbox_status(request).await?;
        present(answer.into_inner().status, "sandbox status")
    }

    async fn list_pod_sandbox(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>> {
        let request = v1::ListPodSandboxRequest { filter };
        Ok(self.runtime.clone().list_pod_sandbox(request).await?.into_inner().items)
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: v1::ContainerConfig,
        sandbox: v1::PodSandboxConfig,
    ) -> Result<String> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox),
        };
        let answer = self.runtime.clone().create_container(request).await?;
        Ok(answer.into_inner().container_id)
    }

    async fn start_container(&self, container_id: &str) -> Result<()> {
        let container_id = container_id.to_owned();
        let request = v1::StartContainerRequest { container_id };
        self.runtime.clone().start_container(request).await?;
        Ok(())
    }

    async fn stop_container(&self, container_id: &str, timeout_seconds: i64) -> Result<()> {
        let request = v1::StopContainerRequest { container_id: container_id.to_owned(), timeout: timeout_seconds };
        gone_is_fine(self.runtime.clone().stop_container(request).await)
    }

    async fn remove_container(&self, container_id: &str) -> Result<()> {
        let container_id = container_id.to_owned();
        let request = v1::RemoveContainerRequest { container_id };
        gone_is_fine(self.runtime.clone().remove_container(request).await)
    }

    async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>> {
        let request = v1::ListContainersRequest { filter };
        Ok(self.runtime.clone().list_containers(request).await?.into_inner().containers)
    }

    async fn container_status(&self, container_id: &str) -> Result<v1::ContainerStatus> {
        let request = v1::ContainerStatusRequest { container_id: container_id.to_owned(), verbose: false };
        let answer = self.runtime.clone().container_status(request).await?;
        present(answer.into_inner().status, "container status")
    }

    async fn update_container_resources(
        &self,
        container_id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<()> {
        let request = v1::UpdateContainerResourcesRequest {
            container_id: container_id.to_owned(),
            linux: Some(resources),
            ..Default::default()
        };
        self.runtime.clone().update_container_resources(request).await?;
        Ok(())
    }

    async fn reopen_container_log(&self, container_id: &str) -> Result<()> {
        let container_id = container_id.to_owned();
        let request = v1::ReopenContainerLogRequest { container_id };
        self.runtime.clone().reopen_container_log(request).await?;
        Ok(())
    }

    async fn exec_sync(
        &self,
        container_id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse> {
        let request = v1::ExecSyncRequest {
            container_id: container_id.to_owned(),
            cmd: command,
            timeout: i64::try_from(timeout.as_millis().div_ceil(1000)).unwrap_or(i64::MAX),
        };
        Ok(self.runtime.clone().exec_sync(request).await?.into_inner())
    }

    async fn container_stats(&self, container_id: &str) -> Result<v1::ContainerStats> {
        let container_id = container_id.to_owned();
        let request = v1::ContainerStatsRequest { container_id };
        let answer = self.runtime.clone().container_stats(request).await?;
        present(answer.into_inner().stats, "container stats")
    }

    async fn list_container_stats(&self, filter: Option<v1::ContainerStatsFilter>) -> Result<Vec<v1::ContainerStats>> {
        let request = v1::ListContainerStatsRequest { filter };
        Ok(self.runtime.clone().list_container_stats(request).await?.into_inner().stats)
    }

    async fn pod_sandbox_stats(&self, sandbox_id: &str) -> Result<v1::PodSandboxStats> {
        let request = v1::PodSandboxStatsRequest { pod_sandbox_id: sandbox_id.to_owned() };
        let answer = self.runtime.clone().pod_sandbox_stats(request).await?;
        present(answer.into_inner().stats, "sandbox stats")
    }

    async fn list_pod_sandbox_stats(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>> {
        let request = v1::ListPodSandboxStatsRequest { filter };
        Ok(self.runtime.clone().list_pod_sandbox_stats(request).await?.into_inner().stats)
    }

    async fn list_metric_descriptors(&self) -> Result<Vec<v1::MetricDescriptor>> {
        let request = v1::ListMetricDescriptorsRequest::default();
        Ok(self.runtime.clone().list_metric_descriptors(request).await?.into_inner().descriptors)
    }

    async fn list_pod_sandbox_metrics(&self) -> Result<Vec<v1::PodSandboxMetrics>> {
        let request = v1::ListPodSandboxMetricsRequest::default();
        Ok(self.runtime.clone().list_pod_sandbox_metrics(request).await?.into_inner().pod_metrics)
    }

    async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse> {
        Ok(self.runtime.clone().runtime_config(v1::RuntimeConfigRequest::default()).await?.into_inner())
    }

    async fn events(&self) -> Result<EventStream> {
        let request = v1::GetEventsRequest::default();
        match self.runtime.clone().get_container_events(request).await.map_err(CriError::from) {
            Ok(answer) => Ok(answer.into_inner().map(|one| one.map_err(CriError::from)).boxed()),
            // Runtimes from before CRI had events (containerd 1.6) have to be asked.
            Err(CriError::Unimplemented(_)) => Ok(crate::relist::events(self.clone())),
            Err(error) => Err(error),
        }
    }

    async fn list_images(&self) -> Result<Vec<v1::Image>> {
        let request = v1::ListImagesRequest::default();
        Ok(self.images.clone().list_images(request).await?.into_inner().images)
    }

    async fn image_status(&self, image: &v1::ImageSpec) -> Result<Option<v1::Image>> {
        let request = v1::ImageStatusRequest { image: Some(image.clone()), verbose: false };
        Ok(self.images.clone().image_status(request).await?.into_inner().image)
    }

    async fn pull_image(&self, image: v1::ImageSpec, auth: Option<v1::AuthConfig>) -> Result<String> {
        let request = v1::PullImageRequest { image: Some(image), auth, sandbox_config: None };
        Ok(self.images.clone().pull_image(request).await?.into_inner().image_ref)
    }

    async fn remove_image(&self, image: &v1::ImageSpec) -> Result<()> {
        let request = v1::RemoveImageRequest { image: Some(image.clone()) };
        gone_is_fine(self.images.clone().remove_image(request).await)
    }

    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse> {
        let request = v1::ImageFsInfoRequest::default();
        Ok(self.images.clone().image_fs_info(request).await?.into_inner())
    }
}

#[async_trait]
impl Streaming for RemoteCri {
    async fn exec(&self, request: v1::ExecRequest) -> Result<Session> {
        let (stdin, stdout, stderr) = (request.stdin, request.stdout, request.stderr);
        let url = self.runtime.clone().exec(request).await?.into_inner().url;
        stream_client::session(&url, stdin, stdout, stderr).await
    }

    async fn attach(&self, request: v1::AttachRequest) -> Result<Session> {
        let (stdin, stdout, stderr) = (request.stdin, request.stdout, request.stderr);
        let url = self.runtime.clone().attach(request).await?.into_inner().url;
        stream_client::session(&url, stdin, stdout, stderr).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        let request = v1::PortForwardRequest { pod_sandbox_id: sandbox_id.to_owned(), port: vec![i32::from(port)] };
        let url = self.runtime.clone().port_forward(request).await?.into_inner().url;
        stream_client::forward(&url, port).await
    }
}
