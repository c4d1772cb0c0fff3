//! The gateway: the calls that a client's own build function makes while its Control.Solve waits for it. `buildx build`
//! asks here for the frontend to be run, and returns the result that it got.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{self as wire, result::Result as Solved};
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::jobs::Job;
use crate::{BuildKit, solve};

/// Metadata that says which build a call belongs to.
const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// The largest part of a file that one call reads.
const MAX_READ_BYTES: u64 = 16 << 20;
/// What clients may use of the gateway.
const CAPABILITIES: [&str; 10] = [
    "solve.base",
    "solve.inlinereturn",
    "readfile",
    "return",
    "returnmap",
    "importcaches",
    "proto.refarray",
    "gateway.solve.metadata",
    "gateway.solve.evaluate",
    "gateway.warnings",
];

/// The service.
pub(crate) struct Bridge(pub BuildKit);

type Reply<T> = Result<Response<T>, Status>;

impl Bridge {
    fn job<T>(&self, request: &Request<T>) -> Result<Arc<Job>, Status> {
        let id = request.metadata().get(BUILD_ID).and_then(|id| id.to_str().ok());
        let id = id.ok_or_else(|| Status::invalid_argument("the call names no build"))?;
        Ok(self.0.inner.jobs.enter(id))
    }
}

fn not_served(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not served by this builder"))
}

#[async_trait]
impl LlbBridge for Bridge {
    async fn ping(&self, _: Request<wire::PingRequest>) -> Reply<wire::PongResponse> {
        let capability = |id: &str| ApiCap { id: id.to_owned(), enabled: true, ..ApiCap::default() };
        let frontend_api_caps = CAPABILITIES.into_iter().map(capability).collect();
        let workers = vec![crate::control::worker(&self.0)];
        Ok(Response::new(wire::PongResponse { frontend_api_caps, llb_caps: Vec::new(), workers }))
    }

    async fn solve(&self, request: Request<wire::SolveRequest>) -> Reply<wire::SolveResponse> {
        let job = self.job(&request)?;
        let wanted = request.into_inner();
        if wanted.frontend != "dockerfile.v0" {
            return Err(not_served(&format!("frontend {:?} (or an LLB definition)", wanted.frontend)));
        }
        let built = solve::frontend(&self.0, &job, &wanted.frontend_opt).await;
        let built = built.map_err(|error| Status::unknown(error.solver_text()))?;
        let config = serde_json::to_vec(&built.config).map_err(|error| Status::internal(error.to_string()))?;
        let id = job.keep(built);
        let result = wire::Result {
            result: Some(Solved::Ref(wire::Ref { id: id.clone(), def: None })),
            metadata: HashMap::from([("containerimage.config".to_owned(), config)]),
            attestations: HashMap::new(),
        };
        Ok(Response::new(wire::SolveResponse { r#ref: id, result: Some(result) }))
    }

    async fn r#return(&self, request: Request<wire::ReturnRequest>) -> Reply<wire::ReturnResponse> {
        let job = self.job(&request)?;
        let returned = request.into_inner();
        let outcome = match returned.error {
            Some(error) => Err(error.message),
            None => reference(returned.result),
        };
        job.end(outcome);
        Ok(Response::new(wire::ReturnResponse {}))
    }

    async fn evaluate(&self, request: Request<wire::EvaluateRequest>) -> Reply<wire::EvaluateResponse> {
        // Every result was executed before it got its ID.
        let job = self.job(&request)?;
        job.result(&request.into_inner().r#ref).ok_or_else(|| Status::not_found("no such result"))?;
        Ok(Response::new(wire::EvaluateResponse {}))
    }

    async fn read_file(&self, request: Request<wire::ReadFileRequest>) -> Reply<wire::ReadFileResponse> {
        let job = self.job(&request)?;
        let wanted = request.into_inner();
        let built = job.result(&wanted.r#ref).ok_or_else(|| Status::not_found("no such result"))?;
        let failed = |error: build::BuildError| Status::unknown(error.to_string());
        let mounted = self.0.inner.builder.mount(&built).await.map_err(failed)?;
        let read = tokio::task::spawn_blocking(move || mounted.read(&wanted.file_path, MAX_READ_BYTES));
        let mut data = read.await.map_err(|error| Status::internal(error.to_string()))?.map_err(failed)?;
        if let Some(range) = wanted.range {
            let bound = |n: i64| usize::try_from(n).unwrap_or(0).min(data.len());
            let start = bound(range.offset);
            let end = bound(range.offset.saturating_add(range.length)).max(start);
            data = data[start..end].to_vec();
        }
        Ok(Response::new(wire::ReadFileResponse { data }))
    }

    async fn inputs(&self, _: Request<wire::InputsRequest>) -> Reply<wire::InputsResponse> {
        Ok(Response::new(wire::InputsResponse::default()))
    }

    async fn warn(&self, request: Request<wire::WarnRequest>) -> Reply<wire::WarnResponse> {
        let job = self.job(&request)?;
        let text = String::from_utf8_lossy(&request.into_inner().short).into_owned();
        job.progress.event(build::StepId::WHOLE, build::BuildEvent::Warning { text });
        Ok(Response::new(wire::WarnResponse {}))
    }

    async fn resolve_image_config(
        &self,
        _: Request<wire::ResolveImageConfigRequest>,
    ) -> Reply<wire::ResolveImageConfigResponse> {
        Err(not_served("ResolveImageConfig"))
    }

    async fn resolve_source_meta(
        &self,
        _: Request<wire::ResolveSourceMetaRequest>,
    ) -> Reply<wire::ResolveSourceMetaResponse> {
        Err(not_served("ResolveSourceMeta"))
    }

    async fn read_dir(&self, _: Request<wire::ReadDirRequest>) -> Reply<wire::ReadDirResponse> {
        Err(not_served("ReadDir"))
    }

    async fn stat_file(&self, _: Request<wire::StatFileRequest>) -> Reply<wire::StatFileResponse> {
        Err(not_served("StatFile"))
    }

    async fn new_container(&self, _: Request<wire::NewContainerRequest>) -> Reply<wire::NewContainerResponse> {
        Err(not_served("NewContainer"))
    }

    async fn release_container(
        &self,
        _: Request<wire::ReleaseContainerRequest>,
    ) -> Reply<wire::ReleaseContainerResponse> {
        Err(not_served("ReleaseContainer"))
    }

    type ExecProcessStream = BoxStream<'static, Result<wire::ExecMessage, Status>>;

    async fn exec_process(&self, _: Request<tonic::Streaming<wire::ExecMessage>>) -> Reply<Self::ExecProcessStream> {
        Err(not_served("ExecProcess"))
    }

    async fn read_file_container(&self, _: Request<wire::ReadFileRequest>) -> Reply<wire::ReadFileResponse> {
        Err(not_served("ReadFileContainer"))
    }

    async fn read_dir_container(&self, _: Request<wire::ReadDirRequest>) -> Reply<wire::ReadDirResponse> {
        Err(not_served("ReadDirContainer"))
    }

    async fn stat_file_container(&self, _: Request<wire::StatFileRequest>) -> Reply<wire::StatFileResponse> {
        Err(not_served("StatFileContainer"))
    }
}

/// The one result that a client's function may return.
fn reference(result: Option<wire::Result>) -> Result<Option<String>, String> {
    let named = |id: String| Ok(Some(id).filter(|id| !id.is_empty()));
    match result.and_then(|result| result.result) {
        None => Ok(None),
        Some(Solved::Ref(one)) => named(one.id),
        Some(Solved::RefDeprecated(id)) => named(id),
        Some(Solved::Refs(many)) if many.refs.len() == 1 => {
            named(many.refs.into_values().next().unwrap_or_default().id)
        }
        Some(Solved::RefsDeprecated(many)) if many.refs.len() == 1 => {
            named(many.refs.into_values().next().unwrap_or_default())
        }
        Some(Solved::Refs(_) | Solved::RefsDeprecated(_)) => {
            Err("results for several platforms are not served".to_owned())
        }
    }
}
