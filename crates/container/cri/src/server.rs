//! CRI over a Unix socket: [`Cri`] as gRPC services.
//!
//! The binary calls [`serve`] with `<root>/run/cri.sock`; `crictl` and other kubelets connect. Invariant: it
//! adds nothing and decides nothing; every answer is the trait's, and Exec, Attach and PortForward hand out URLs of the
//! streaming server beside it. CheckpointContainer answers `Unimplemented`.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::BoxStream};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::{
    Cri, CriError, Result, Streaming,
    stream_server::StreamServer,
    v1::{self, image_service_server, runtime_service_server},
};

/// The largest request that is read; a pod's config is far below it.
const REQUEST_LIMIT_BYTES: usize = 16 << 20;

#[derive(Clone)]
struct Service(Arc<dyn Cri>, Arc<StreamServer>);

/// Serves until the task is dropped. The caller owns the socket file and its mode.
pub async fn serve(cri: Arc<dyn Cri>, streaming: Arc<dyn Streaming>, listener: UnixListener) -> Result<()> {
    let streams = StreamServer::bind(streaming).await?;
    let service = Service(cri, streams.clone());
    let runtime = runtime_service_server::RuntimeServiceServer::new(service.clone())
        .max_decoding_message_size(REQUEST_LIMIT_BYTES);
    let images =
        image_service_server::ImageServiceServer::new(service).max_decoding_message_size(REQUEST_LIMIT_BYTES);
    let serving = Server::builder()
        .add_service(runtime)
        .add_service(images)
        .serve_with_incoming(UnixListenerStream::new(listener));
    tokio::select! {
        served = serving => served.map_err(|error| CriError::Unavailable(format!("CRI server: {error}"))),
        () = streams.run() => Ok(()),
    }
}

fn required<T>(field: Option<T>, name: &str) -> Result<T, Status> {
    field.ok_or_else(|| Status::invalid_argument(format!("{name} is missing")))
}

fn not_offered<T>(what: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!("{what} is not offered")))
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl runtime_service_server::RuntimeService for Service {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        Ok(Response::new(self.0.version().await?))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        Ok(Response::new(self.0.status().await?))
    }

    async fn run_pod_sandbox(&self, request: Request<v1::RunPodSandboxRequest>) -> Answer<v1::RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = required(request.config, "config")?;
        let pod_sandbox_id = self.0.run_pod_sandbox(config, &request.runtime_handler).await?;
        Ok(Response::new(v1::RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        self.0.stop_pod_sandbox(&request.get_ref().pod_sandbox_id).await?;
        Ok(Response::new(v1::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        self.0.remove_pod_sandbox(&request.get_ref().pod_sandbox_id).await?;
        Ok(Response::new(v1::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        let status = self.0.pod_sandbox_status(&request.get_ref().pod_sandbox_id).await?;
        Ok(Response::new(v1::PodSandboxStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        let items = self.0.list_pod_sandbox(request.into_inner().filter).await?;
        Ok(Response::new(v1::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        let request = request.into_inner();
        let config = required(request.config, "config")?;
        let sandbox = request.sandbox_config.unwrap_or_default();
        let container_id = self.0.create_container(&request.pod_sandbox_id, config, sandbox).await?;
        Ok(Response::new(v1::CreateContainerResponse { container_id }))
    }

    async fn start_container(&self, request: Request<v1::StartContainerRequest>) -> Answer<v1::StartContainerResponse> {
        self.0.start_container(&request.get_ref().container_id).await?;
        Ok(Response::new(v1::StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<v1::StopContainerRequest>) -> Answer<v1::StopContainerResponse> {
        let request = request.into_inner();
        self.0.stop_container(&request.container_id, request.timeout).await?;
        Ok(Response::new(v1::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        self.0.remove_container(&request.get_ref().container_id).await?;
        Ok(Response::new(v1::RemoveContainerResponse {}))
    }

    async fn list_containers(&self, request: Request<v1::ListContainersRequest>) -> Answer<v1::ListContainersResponse> {
        let containers = self.0.list_containers(request.into_inner().filter).await?;
        Ok(Response::new(v1::ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        let status = self.0.container_status(&request.get_ref().container_id).await?;
        Ok(Response::new(v1::ContainerStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let linux = required(request.linux, "linux")?;
        self.0.update_container_resources(&request.container_id, linux).await?;
        Ok(Response::new(v1::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        self.0.reopen_container_log(&request.get_ref().container_id).await?;
        Ok(Response::new(v1::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        let request = request.into_inner();
        let timeout = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        let answer = self.0.exec_sync(&request.container_id, request.cmd, timeout).await?;
        Ok(Response::new(answer))
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        // Asked now, so that a wrong container is this call's error and not the stream's.
        self.0.container_status(&request.get_ref().container_id).await?;
        Ok(Response::new(v1::ExecResponse { url: self.1.exec_url(request.into_inner())? }))
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        self.0.container_status(&request.get_ref().container_id).await?;
        Ok(Response::new(v1::AttachResponse { url: self.1.attach_url(request.into_inner())? }))
    }

    async fn port_forward(&self, request: Request<v1::PortForwardRequest>) -> Answer<v1::PortForwardResponse> {
        self.0.pod_sandbox_status(&request.get_ref().pod_sandbox_id).await?;
        Ok(Response::new(v1::PortForwardResponse { url: self.1.forward_url(request.into_inner())? }))
    }

    async fn container_stats(&self, request: Request<v1::ContainerStatsRequest>) -> Answer<v1::ContainerStatsResponse> {
        let stats = self.0.container_stats(&request.get_ref().container_id).await?;
        Ok(Response::new(v1::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Answer<v1::ListContainerStatsResponse> {
        let stats = self.0.list_container_stats(request.into_inner().filter).await?;
        Ok(Response::new(v1::ListContainerStatsResponse { stats }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Answer<v1::PodSandboxStatsResponse> {
        let stats = self.0.pod_sandbox_stats(&request.get_ref().pod_sandbox_id).await?;
        Ok(Response::new(v1::PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Answer<v1::ListPodSandboxStatsResponse> {
        let stats = self.0.list_pod_sandbox_stats(request.into_inner().filter).await?;
        Ok(Response::new(v1::ListPodSandboxStatsResponse { stats }))
    }

    async fn update_runtime_config(
        &self,
        _: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Answer<v1::UpdateRuntimeConfigResponse> {
        // A pod CIDR is all it carries, and that belongs to the engine's networking.
        Ok(Response::new(v1::UpdateRuntimeConfigResponse {}))
    }

    async fn checkpoint_container(
        &self,
        _: Request<v1::CheckpointContainerRequest>,
    ) -> Answer<v1::CheckpointContainerResponse> {
        not_offered("CheckpointContainer")
    }

    type GetContainerEventsStream = BoxStream<'static, Result<v1::ContainerEventResponse, Status>>;

    async fn get_container_events(&self, _: Request<v1::GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let events = self.0.events().await?;
        Ok(Response::new(events.map(|one| one.map_err(Status::from)).boxed()))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Answer<v1::ListMetricDescriptorsResponse> {
        let descriptors = self.0.list_metric_descriptors().await?;
        Ok(Response::new(v1::ListMetricDescriptorsResponse { descriptors }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Answer<v1::ListPodSandboxMetricsResponse> {
        let pod_metrics = self.0.list_pod_sandbox_metrics().await?;
        Ok(Response::new(v1::ListPodSandboxMetricsResponse { pod_metrics }))
    }

    async fn runtime_config(&self, _: Request<v1::RuntimeConfigRequest>) -> Answer<v1::RuntimeConfigResponse> {
        Ok(Response::new(self.0.runtime_config().await?))
    }
}

#[tonic::async_trait]
impl image_service_server::ImageService for Service {
    async fn list_images(&self, request: Request<v1::ListImagesRequest>) -> Answer<v1::ListImagesResponse> {
        let wanted = request.into_inner().filter.and_then(|filter| filter.image);
        let images = match wanted.filter(|spec| !spec.image.is_empty()) {
            Some(spec) => self.0.image_status(&spec).await?.into_iter().collect(),
            None => self.0.list_images().await?,
        };
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    async fn image_status(&self, request: Request<v1::ImageStatusRequest>) -> Answer<v1::ImageStatusResponse> {
        let spec = required(request.into_inner().image, "image")?;
        let image = self.0.image_status(&spec).await?;
        Ok(Response::new(v1::ImageStatusResponse { image, ..Default::default() }))
    }

    async fn pull_image(&self, request: Request<v1::PullImageRequest>) -> Answer<v1::PullImageResponse> {
        let request = request.into_inner();
        let spec = required(request.image, "image")?;
        let image_ref = self.0.pull_image(spec, request.auth).await?;
        Ok(Response::new(v1::PullImageResponse { image_ref }))
    }

    async fn remove_image(&self, request: Request<v1::RemoveImageRequest>) -> Answer<v1::RemoveImageResponse> {
        let spec = required(request.into_inner().image, "image")?;
        self.0.remove_image(&spec).await?;
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<v1::ImageFsInfoRequest>) -> Answer<v1::ImageFsInfoResponse> {
        Ok(Response::new(self.0.image_fs_info().await?))
    }
}
