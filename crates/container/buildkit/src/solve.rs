//! One solve: attributes → contexts → the builder → exporters. Control, the gateway and the classic route share it.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;
use build::{BuildError, Built, Context, Events, Ignore};
use prost::Message;
use tokio::sync::mpsc;

use crate::attributes::Attributes;
use crate::client::{SessionClient, fetch};
use crate::filesync::{self, Wanted};
use crate::jobs::{Job, JobContext};
use crate::progress::{DOCKERFILE_VERTEX, Progress};
use crate::session::Session;
use crate::{BuildKit, export};

/// Events between the builder and the progress.
const BUFFERED: usize = 256;
const MAX_IGNORE_BYTES: u64 = 4 << 20;
const MAX_DOCKERFILE_BYTES: u64 = 4 << 20;

/// A whole build, as `POST /build?version=2` asks for it.
#[derive(Debug, Clone, Default)]
pub struct SolveSpec {
    pub reference: String,
    pub session: String,
    /// Of the `dockerfile.v0` frontend.
    pub attributes: HashMap<String, String>,
    pub entitlements: Vec<String>,
    pub cache_from: Vec<String>,
    pub exporters: Vec<Exporter>,
}

/// What becomes of a result.
#[derive(Debug, Clone, Default)]
pub struct Exporter {
    pub kind: String,
    pub attributes: HashMap<String, String>,
}

/// Runs the frontend. Failures are words for the user.
pub(crate) async fn frontend(
    kit: &BuildKit,
    job: &Job,
    attributes: &HashMap<String, String>,
) -> Result<Built, BuildError> {
    let said = job.context().await;
    let mut read = Attributes::parse(attributes, &said.entitlements).map_err(BuildError::step)?;
    if let Some(question) = &read.question {
        return Err(BuildError::step(format!("unsupported request {question}")));
    }
    read.request.inline_cache |= said.inline_cache;
    read.request.cache_from.extend(said.cache_from.iter().cloned());
    let session = if said.session.is_empty() { None } else { kit.inner.sessions.find(&said.session).await };
    let (client, text) = prepare(kit, job, session, &mut read).await?;
    job.progress.source(&read.request.dockerfile_name, text.as_bytes());
    read.request.dockerfile = Some(text);
    let (events, mut happened) = Events::channel(BUFFERED);
    let building = async {
        let built = kit.inner.builder.solve(&read.request, &client, &events).await;
        drop(events);
        built
    };
    let telling = async {
        while let Some((id, event)) = happened.recv().await {
            job.progress.event(id, event);
        }
    };
    tokio::pin!(building);
    tokio::pin!(telling);
    // The events end with the build, so both end; a cancelled job drops both.
    tokio::select! {
        (built, ()) = async { tokio::join!(building, telling) } => built,
        () = job.cancelled.notified() => Err(BuildError::Cancelled),
    }
}

/// Reads the Dockerfile and what is to be left out, from wherever the context is.
async fn prepare(
    kit: &BuildKit,
    job: &Job,
    session: Option<Arc<Session>>,
    read: &mut Attributes,
) -> Result<(SessionClient, String), BuildError> {
    let space = kit.inner.builder.space().clone();
    let mut client = SessionClient {
        session,
        space,
        progress: job.progress.clone(),
        context: read.context.clone(),
        named: std::mem::take(&mut read.named),
        ignore: Ignore::default(),
        dockerfile_name: read.request.dockerfile_name.clone(),
        keep_git_dir: read.keep_git_dir,
        fetched: None,
    };
    let remote = !client.context.is_empty() && !client.context.starts_with("local:");
    let text = if remote { from_address(&mut client, read).await? } else { from_session(&mut client).await? };
    Ok((client, text))
}

async fn from_address(client: &mut SessionClient, read: &mut Attributes) -> Result<String, BuildError> {
    let vertex = client.progress.vertex("[internal] load remote build context");
    let progress = client.progress.clone();
    let address = client.context.clone();
    let fetched = fetch(client.session.as_ref(), &client.space, &address, client.keep_git_dir).await;
    let (context, only_dockerfile) = match fetched {
        Ok(fetched) => fetched,
        Err(error) => {
            vertex.failed(&error.to_string());
            return Err(error);
        }
    };
    vertex.done();
    drop(progress);
    if only_dockerfile {
        "Dockerfile".clone_into(&mut read.request.dockerfile_name);
    }
    let name = read.request.dockerfile_name.clone();
    let dir = context.dir.clone();
    let kept = name.clone();
    tokio::task::spawn_blocking(move || build::filter_context(&dir, &kept))
        .await
        .map_err(|error| BuildError::step(error.to_string()))??;
    let text = read_text(&context, &name, MAX_DOCKERFILE_BYTES)?.ok_or(BuildError::NoDockerfile { file: name })?;
    client.fetched = Some(context);
    Ok(text)
}

async fn from_session(client: &mut SessionClient) -> Result<String, BuildError> {
    let name = client.dockerfile_name.clone();
    let own_ignore = format!("{name}.dockerignore");
    let progress = client.progress.clone();
    let files = some_files(client, "dockerfile", &[&name, &own_ignore], DOCKERFILE_VERTEX, &progress).await?;
    let text = read_text(&files, &name, MAX_DOCKERFILE_BYTES)?;
    let ignore = match read_text(&files, &own_ignore, MAX_IGNORE_BYTES)? {
        Some(ignore) => Some(ignore),
        None => {
            let shown = "[internal] load .dockerignore";
            let files = some_files(client, "context", &[".dockerignore"], shown, &progress).await?;
            read_text(&files, ".dockerignore", MAX_IGNORE_BYTES)?
        }
    };
    client.ignore = Ignore::parse(&ignore.unwrap_or_default());
    text.ok_or_else(|| BuildError::step(format!("failed to read dockerfile: open {name}: no such file or directory")))
}

/// A few files of one of the client's directories.
async fn some_files(
    client: &SessionClient,
    dir_name: &str,
    names: &[&str],
    shown: &str,
    progress: &Progress,
) -> Result<Context, BuildError> {
    let session = client.session.as_ref().ok_or_else(|| BuildError::step("the client's session is not there"))?;
    let vertex = progress.vertex(shown);
    let space = client.space.temporary()?;
    let follow = names.iter().map(|name| (*name).to_owned()).collect();
    let wanted = Wanted { dir_name: dir_name.to_owned(), exclude: Vec::new(), follow };
    match filesync::receive(session, &wanted, space.path()).await {
        Ok(bytes) => {
            vertex.transferred(
                if dir_name == "dockerfile" { "transferring dockerfile" } else { "transferring context" },
                bytes,
            );
            vertex.done();
        }
        Err(status) => {
            vertex.failed(status.message());
            return Err(BuildError::step(status.message().to_owned()));
        }
    }
    Ok(Context { dir: space.path().to_owned(), guard: Some(Arc::new(space)) })
}

fn read_text(context: &Context, name: &str, limit: u64) -> Result<Option<String>, BuildError> {
    build::read_context_file(&context.dir, name, limit)
}

/// Exports a result in all the ways that were asked for.
pub(crate) async fn finish(
    kit: &BuildKit,
    job: &Job,
    built: &Built,
    exporters: &[Exporter],
) -> Result<HashMap<String, String>, BuildError> {
    let said = job.context().await;
    let mut answers = HashMap::new();
    for (number, exporter) in exporters.iter().enumerate() {
        let session = if said.session.is_empty() { None } else { kit.inner.sessions.find(&said.session).await };
        answers.extend(export::export(kit, job, built, exporter, number, session.as_deref()).await?);
    }
    Ok(answers)
}

/// See [`BuildKit::solve`].
pub(crate) async fn streamed(
    kit: &BuildKit,
    spec: SolveSpec,
    status: mpsc::Sender<Vec<u8>>,
) -> Result<HashMap<String, String>, String> {
    let job = kit.inner.jobs.enter(&spec.reference);
    job.begin(JobContext {
        session: spec.session,
        entitlements: spec.entitlements,
        inline_cache: false,
        cache_from: spec.cache_from,
    });
    let (out, mut seen) = mpsc::channel::<Result<StatusResponse, tonic::Status>>(BUFFERED);
    let building = async {
        let built = frontend(kit, &job, &spec.attributes).await;
        let answers = match built {
            Ok(built) => finish(kit, &job, &built, &spec.exporters).await,
            Err(error) => Err(error),
        };
        job.progress.finish();
        answers
    };
    let telling = async {
        while let Some(Ok(message)) = seen.recv().await {
            if status.send(message.encode_to_vec()).await.is_err() {
                break;
            }
        }
    };
    // The client went away: everything is dropped with this future's owner.
    let (answers, (), ()) = tokio::join!(building, job.progress.clone().follow(out), telling);
    kit.inner.jobs.leave(&job);
    answers.map_err(|error| error.solver_text())
}
