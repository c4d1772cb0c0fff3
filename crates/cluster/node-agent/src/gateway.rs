//! How the API server reaches this node: logs, exec, attach, port-forward.
//!
//! Invariant: a request names a pod by UID, and only a container of that very pod is reached.

use async_trait::async_trait;
use cri::v1;
use futures_util::{FutureExt, StreamExt};
use kube_client::node::{
    ByteStream, Duplex, ExecRequest, ExecStreams, GatewayError, LogOptions, NodeGateway, NodeUsage, PodRef,
    TerminalSize,
};
use pod_plan::{ContainerState, ObservedContainer};
use tokio::sync::mpsc;

use crate::{
    agent::NodeAgent,
    layout::PodPaths,
    logs,
    observe::{self, Observed},
    static_pods,
};

type Result<T> = std::result::Result<T, GatewayError>;

fn wire(error: cri::CriError) -> GatewayError {
    match &error {
        cri::CriError::NotFound(_) => GatewayError::not_found(error.to_string()),
        cri::CriError::InvalidArgument(_) => GatewayError::bad_request(error.to_string()),
        cri::CriError::AlreadyExists(_)
        | cri::CriError::FailedPrecondition(_)
        | cri::CriError::DeadlineExceeded(_)
        | cri::CriError::Unavailable(_)
        | cri::CriError::Unimplemented(_)
        | cri::CriError::Internal(_) => GatewayError::internal(error.to_string()),
    }
}

impl NodeAgent {
    /// The UID by which the runtime knows a pod: a mirror stands for its static pod.
    fn uid(&self, pod: &PodRef) -> String {
        let known = self.shared.pods.get(&pod.namespace, &pod.name);
        let known = known.filter(|known| known.metadata.uid.as_deref() == Some(&pod.uid));
        known.and_then(|known| static_pods::mirrored(&known).cloned()).unwrap_or_else(|| pod.uid.clone())
    }

    fn paths(&self, pod: &PodRef) -> PodPaths {
        let object = k8s_openapi::api::core::v1::Pod {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                uid: Some(self.uid(pod)),
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                ..Default::default()
            },
            ..Default::default()
        };
        PodPaths::new(&self.shared.config.root, &object)
    }

    async fn observed(&self, pod: &PodRef) -> Result<Observed> {
        let cri = self.shared.config.cri.as_ref();
        observe::observe(cri, &self.uid(pod), &self.paths(pod))
            .await
            .map_err(|error| GatewayError::internal(error.to_string()))
    }

    /// The instances of a container, newest first; an empty name is the pod's first main container.
    async fn instances(&self, pod: &PodRef, name: &str) -> Result<(String, Vec<ObservedContainer>)> {
        let name = if name.is_empty() { self.only_container(pod)? } else { name.to_owned() };
        let mut instances = self.observed(pod).await?.containers;
        instances.retain(|one| one.name == name);
        instances.sort_by_key(|one| std::cmp::Reverse((one.attempt, one.created_at)));
        Ok((name, instances))
    }

    fn only_container(&self, pod: &PodRef) -> Result<String> {
        let known = self.shared.pods.get(&pod.namespace, &pod.name);
        known
            .and_then(|known| known.spec.as_ref()?.containers.first().map(|one| one.name.clone()))
            .ok_or_else(|| GatewayError::not_found(format!("pods \"{}\" not found", pod.name)))
    }

    pub(crate) async fn running(&self, pod: &PodRef, name: &str) -> Result<String> {
        let (name, instances) = self.instances(pod, name).await?;
        instances
            .into_iter()
            .find(ObservedContainer::is_running)
            .map(|one| one.id)
            .ok_or_else(|| GatewayError::internal(format!("container not found (\"{name}\")")))
    }

    pub(crate) async fn ready_sandbox(&self, pod: &PodRef) -> Result<String> {
        let ready = self.observed(pod).await?.sandboxes.into_iter().filter(|one| one.ready);
        let newest = ready.max_by_key(|one| one.attempt).map(|one| one.id);
        newest.ok_or_else(|| GatewayError::internal(format!("pod {} does not run", pod.name)))
    }

    /// Completes when a container has ended.
    fn ended(&self, id: String) -> impl Future<Output = ()> + Send + 'static {
        let cri = self.shared.config.cri.clone();
        async move {
            let Ok(mut events) = cri.events().await else { return };
            let running = i32::from(v1::ContainerState::ContainerRunning);
            loop {
                // Asked after subscribing and again at each event, so that an end in between is seen.
                if !cri.container_status(&id).await.is_ok_and(|status| status.state == running) {
                    return;
                }
                loop {
                    match events.next().await {
                        Some(Ok(event)) if event.container_id == id => break,
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return,
                    }
                }
            }
        }
    }
}

#[async_trait]
impl NodeGateway for NodeAgent {
    async fn logs(&self, pod: PodRef, options: LogOptions) -> Result<ByteStream> {
        let (name, instances) = self.instances(&pod, &options.container).await?;
        let wanted = if options.previous { instances.get(1) } else { instances.first() };
        let Some(one) = wanted else {
            let text = if options.previous {
                format!("previous terminated container \"{name}\" in pod \"{}\" not found", pod.name)
            } else {
                format!("container \"{name}\" in pod \"{}\" is waiting to start: ContainerCreating", pod.name)
            };
            return Err(GatewayError::bad_request(text));
        };
        if one.state == ContainerState::Created {
            let text = format!("container \"{name}\" in pod \"{}\" is waiting to start: ContainerCreating", pod.name);
            return Err(GatewayError::bad_request(text));
        }
        let path = self.paths(&pod).logs.join(PodPaths::log_file(&name, one.attempt));
        Ok(logs::stream(path, options, self.ended(one.id.clone())))
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecStreams> {
        let container_id = self.running(&request.pod, &request.container).await?;
        let cri_request = v1::ExecRequest {
            container_id,
            cmd: request.command.unwrap_or_default(),
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr && !request.tty,
        };
        let session = self.shared.config.streaming.exec(cri_request).await.map_err(wire)?;
        Ok(streams(session))
    }

    async fn attach(&self, request: ExecRequest) -> Result<ExecStreams> {
        let container_id = self.running(&request.pod, &request.container).await?;
        let cri_request = v1::AttachRequest {
            container_id,
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr && !request.tty,
        };
        let session = self.shared.config.streaming.attach(cri_request).await.map_err(wire)?;
        Ok(streams(session))
    }

    async fn port_forward(&self, pod: PodRef, port: u16) -> Result<Box<dyn Duplex>> {
        let sandbox = self.ready_sandbox(&pod).await?;
        let pipe = self.shared.config.streaming.port_forward(&sandbox, port).await.map_err(wire)?;
        Ok(Box::new(pipe))
    }

    async fn usage(&self) -> Result<Vec<NodeUsage>> {
        let usage = self.shared.meter.usage(&self.shared).await;
        usage.map(|usage| vec![usage]).map_err(|error| GatewayError::internal(error.to_string()))
    }
}

fn streams(session: cri::Session) -> ExecStreams {
    let bytes = |stream: cri::ByteStream| -> ByteStream {
        stream.map(|chunk| chunk.map_err(|error| GatewayError::internal(error.to_string()))).boxed()
    };
    let (resize, mut sizes) = mpsc::channel::<TerminalSize>(4);
    let to_cri = session.resize;
    // Ends with whichever side goes first.
    tokio::spawn(async move {
        while let Some(size) = sizes.recv().await {
            let size = cri::TerminalSize { width: size.width, height: size.height };
            if to_cri.send(size).await.is_err() {
                return;
            }
        }
    });
    ExecStreams {
        stdin: session.stdin,
        stdout: session.stdout.map(bytes),
        stderr: session.stderr.map(bytes),
        resize: Some(resize),
        exit: session.exit.map(|code| code.map_err(wire)).boxed(),
    }
}
