//! Control: solve, status, workers, disk use, prune.

use std::collections::HashMap;

use async_trait::async_trait;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::{Control, ControlServer};
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, WorkerRecord};
use bollard_buildkit_proto::pb;
use futures_util::stream::{self, BoxStream, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioExecutor;
use hyper_util::service::TowerToHyperService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::bridge::Bridge;
use crate::jobs::{Job, JobContext};
use crate::{BuildKit, Exporter, proto, solve};

/// Larger requests are refused: definitions and frontend inputs are not executed here.
const MAX_REQUEST_BYTES: usize = 16 << 20;

/// How long a finished build can still be asked for.
const LATE_STATUS: std::time::Duration = std::time::Duration::from_secs(15);

pub(crate) async fn serve(kit: BuildKit, connection: Upgraded) {
    let control = ControlServer::new(Service(kit.clone())).max_decoding_message_size(MAX_REQUEST_BYTES);
    let bridge = LlbBridgeServer::new(Bridge(kit)).max_decoding_message_size(MAX_REQUEST_BYTES);
    let routes = Routes::new(control).add_service(bridge).prepare();
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(connection, TowerToHyperService::new(routes))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a BuildKit connection ended");
    }
}

struct Service(BuildKit);

type Reply<T> = Result<Response<T>, Status>;

pub(crate) fn worker(kit: &BuildKit) -> WorkerRecord {
    let host = oci::Platform::host();
    let platform = pb::Platform {
        architecture: host.architecture,
        os: host.os,
        variant: host.variant.unwrap_or_default(),
        ..pb::Platform::default()
    };
    WorkerRecord {
        id: "gantry".to_owned(),
        labels: HashMap::from([("org.mobyproject.buildkit.worker.executor".to_owned(), "gantry".to_owned())]),
        platforms: vec![platform],
        buildkit_version: Some(version(kit)),
        ..WorkerRecord::default()
    }
}

fn version(kit: &BuildKit) -> BuildkitVersion {
    let package = "gantry".to_owned();
    BuildkitVersion { package, version: kit.inner.version.clone(), revision: String::new() }
}

/// Makes the job's end known, however its Solve ends.
struct Ending<'a>(&'a BuildKit, std::sync::Arc<Job>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.1.progress.finish();
        self.1.end(Err("the build was given up".to_owned()));
        // The request for its status may be slower than a build that fails at once.
        let (kit, job) = (self.0.clone(), self.1.clone());
        tokio::spawn(async move {
            tokio::time::sleep(LATE_STATUS).await;
            kit.inner.jobs.leave(&job);
        });
    }
}

impl Service {
    async fn run(&self, request: proto::SolveRequest) -> Result<HashMap<String, String>, Status> {
        let job = self.0.inner.jobs.enter(&request.r#ref);
        let _ending = Ending(&self.0, job.clone());
        let cache = request.cache.unwrap_or_default();
        job.begin(JobContext {
            session: request.session,
            entitlements: request.entitlements,
            inline_cache: inline_cache(&cache)?,
            cache_from: cache.imports.iter().filter_map(|import| import.attrs.get("ref").cloned()).collect(),
        });
        let defined = request.definition.is_some_and(|definition| !definition.def.is_empty());
        let told = |error: build::BuildError| Status::unknown(error.solver_text());
        let exporters = exporters(request.exporters, request.exporter_deprecated, request.exporter_attrs_deprecated);
        match request.frontend.as_str() {
            "" if !defined => {
                // The client's own function runs meanwhile, and speaks to the gateway.
                let returned = tokio::select! {
                    returned = job.returned() => returned.map_err(Status::unknown)?,
                    () = job.cancelled.notified() => return Err(Status::cancelled("build cancelled")),
                };
                let built = returned.and_then(|id| job.result(&id));
                match built {
                    Some(built) => solve::finish(&self.0, &job, &built, &exporters).await.map_err(told),
                    None => Ok(HashMap::new()),
                }
            }
            "dockerfile.v0" => {
                let built = solve::frontend(&self.0, &job, &request.frontend_attrs).await.map_err(told)?;
                solve::finish(&self.0, &job, &built, &exporters).await.map_err(told)
            }
            other => Err(Status::unimplemented(format!(
                "frontend {other:?} (or an LLB definition) is not served by this builder"
            ))),
        }
    }
}

fn inline_cache(cache: &proto::CacheOptions) -> Result<bool, Status> {
    let mut inline = false;
    for export in &cache.exports {
        match export.r#type.as_str() {
            "inline" => inline = true,
            other => {
                return Err(Status::unimplemented(format!("cache export of type {other:?} is not served; use inline")));
            }
        }
    }
    Ok(inline)
}

fn exporters(given: Vec<proto::Exporter>, kind: String, attributes: HashMap<String, String>) -> Vec<Exporter> {
    if given.is_empty() {
        return vec![Exporter { kind, attributes }];
    }
    given.into_iter().map(|one| Exporter { kind: one.r#type, attributes: one.attrs }).collect()
}

#[async_trait]
impl Control for Service {
    async fn solve(&self, request: Request<proto::SolveRequest>) -> Reply<proto::SolveResponse> {
        let exporter_response = self.run(request.into_inner()).await?;
        Ok(Response::new(proto::SolveResponse { exporter_response }))
    }

    type StatusStream = BoxStream<'static, Result<proto::StatusResponse, Status>>;

    async fn status(&self, request: Request<proto::StatusRequest>) -> Reply<Self::StatusStream> {
        let job = self.0.inner.jobs.enter(&request.into_inner().r#ref);
        let (out, statuses) = mpsc::channel(64);
        tokio::spawn(job.progress.clone().follow(out));
        Ok(Response::new(ReceiverStream::new(statuses).boxed()))
    }

    type SessionStream = BoxStream<'static, Result<proto::BytesMessage, Status>>;

    async fn session(&self, _: Request<tonic::Streaming<proto::BytesMessage>>) -> Reply<Self::SessionStream> {
        Err(Status::unimplemented("sessions have a connection of their own here: POST /session"))
    }

    async fn list_workers(&self, _: Request<proto::ListWorkersRequest>) -> Reply<proto::ListWorkersResponse> {
        Ok(Response::new(proto::ListWorkersResponse { record: vec![worker(&self.0)] }))
    }

    async fn info(&self, _: Request<proto::InfoRequest>) -> Reply<proto::InfoResponse> {
        Ok(Response::new(proto::InfoResponse { buildkit_version: Some(version(&self.0)) }))
    }

    async fn disk_usage(&self, _: Request<proto::DiskUsageRequest>) -> Reply<proto::DiskUsageResponse> {
        let builder = self.0.inner.builder.clone();
        let records = tokio::task::spawn_blocking(move || records(&builder)).await;
        let record = records.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(proto::DiskUsageResponse { record }))
    }

    type PruneStream = BoxStream<'static, Result<proto::UsageRecord, Status>>;

    async fn prune(&self, _: Request<proto::PruneRequest>) -> Reply<Self::PruneStream> {
        let builder = self.0.inner.builder.clone();
        let pruned = tokio::task::spawn_blocking(move || {
            let gone = records(&builder);
            builder.prune().map(|_| gone)
        });
        let pruned = pruned.await.map_err(|error| Status::internal(error.to_string()))?;
        let gone = pruned.map_err(|error| Status::unknown(error.to_string()))?;
        Ok(Response::new(stream::iter(gone.into_iter().map(Ok)).boxed()))
    }

    type ListenBuildHistoryStream = BoxStream<'static, Result<proto::BuildHistoryEvent, Status>>;

    async fn listen_build_history(
        &self,
        _: Request<proto::BuildHistoryRequest>,
    ) -> Reply<Self::ListenBuildHistoryStream> {
        // No history is kept: an empty one, so that clients which list it show nothing.
        Ok(Response::new(stream::empty().boxed()))
    }

    async fn update_build_history(
        &self,
        _: Request<proto::UpdateBuildHistoryRequest>,
    ) -> Reply<proto::UpdateBuildHistoryResponse> {
        Err(Status::not_found("no history of builds is kept"))
    }
}

/// What the cache takes, for `buildx du`.
fn records(builder: &build::Builder) -> Vec<proto::UsageRecord> {
    let steps = builder.cache().entries().into_iter().filter(|entry| entry.layer.is_some()).map(|entry| {
        let created_at = entry.created.map(|time| bollard_buildkit_proto::google::protobuf::Timestamp {
            seconds: time.as_second(),
            nanos: time.subsec_nanosecond(),
        });
        proto::UsageRecord {
            id: entry.key,
            size: i64::try_from(entry.size_bytes).unwrap_or(i64::MAX),
            created_at,
            description: entry.description,
            record_type: "regular".to_owned(),
            ..proto::UsageRecord::default()
        }
    });
    let mounts = builder.space().cache_mounts().into_iter().map(|(id, bytes)| proto::UsageRecord {
        id,
        mutable: true,
        size: i64::try_from(bytes).unwrap_or(i64::MAX),
        description: "cached mount".to_owned(),
        record_type: "exec.cachemount".to_owned(),
        ..proto::UsageRecord::default()
    });
    steps.chain(mounts).collect()
}
