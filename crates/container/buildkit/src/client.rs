//! What a build asks of a session: contexts, secrets, SSH agents, credentials.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, secrets_client::SecretsClient};
use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, auth_client::AuthClient};
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, ssh_client::SshClient};
use bollard_buildkit_proto::moby::upload::v1::{BytesMessage as Uploaded, upload_client::UploadClient};
use build::{BoxFuture, BuildError, Client, Context, Credentials, Events, Guard, Ignore, Space};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use crate::filesync::{self, Wanted};
use crate::progress::Progress;
use crate::session::Session;

/// Where a client says that it uploads a context over its session.
const UPLOAD: &str = "http://buildkit-session/";

/// One session as the builder sees it.
pub(crate) struct SessionClient {
    pub session: Option<Arc<Session>>,
    pub space: Space,
    pub progress: Arc<Progress>,
    /// The main context: empty for a directory of the client's, else an address.
    pub context: String,
    /// Named contexts that are no images: `local:KEY` or an address.
    pub named: BTreeMap<String, String>,
    pub ignore: Ignore,
    pub dockerfile_name: String,
    pub keep_git_dir: bool,
    /// A context that was fetched before the Dockerfile could be read.
    pub fetched: Option<Context>,
}

fn told(status: Status) -> BuildError {
    BuildError::step(status.message().to_owned())
}

impl SessionClient {
    fn session(&self) -> Result<&Arc<Session>, BuildError> {
        self.session.as_ref().ok_or_else(|| BuildError::step("the client's session is not there"))
    }

    /// One of the client's directories, in a folder of ours.
    async fn directory(&self, dir_name: &str, exclude: Vec<String>, shown: &str) -> Result<Context, BuildError> {
        let vertex = self.progress.vertex(shown);
        let wanted = Wanted { dir_name: dir_name.to_owned(), exclude, follow: Vec::new() };
        let space = self.space.temporary()?;
        // A folder in the folder: a step's user must be able to read what is bound into it.
        let dir = space.path().join("context");
        let failed = |error| BuildError::step(format!("cannot make {}: {error}", dir.display()));
        std::fs::create_dir(&dir).map_err(failed)?;
        let received = filesync::receive(self.session()?, &wanted, &dir).await.map_err(told);
        match received {
            Ok(bytes) => vertex.transferred("transferring context", bytes),
            Err(error) => {
                vertex.failed(&error.to_string());
                return Err(error);
            }
        }
        vertex.done();
        Ok(Context { dir, guard: Some(Arc::new(space)) })
    }
}

/// A context from an address: over the session, or from the network.
pub(crate) async fn fetch(
    session: Option<&Arc<Session>>,
    space: &Space,
    address: &str,
    keep_git_dir: bool,
) -> Result<(Context, bool), BuildError> {
    if let Some(path) = address.strip_prefix(UPLOAD) {
        let session = session.ok_or_else(|| BuildError::step("the client's session is not there"))?;
        let into = space.temporary()?;
        let file = into.path().join("upload");
        upload(session, path, &file).await?;
        let only_dockerfile = build::remote::unpack_upload(&file, &into.path().join("context")).await?;
        let dir = into.path().join("context");
        return Ok((Context { dir, guard: Some(Arc::new(into)) }, only_dockerfile));
    }
    let fetched = build::remote::context(address, keep_git_dir, space).await?;
    Ok((Context { dir: fetched.dir, guard: Some(Arc::new(fetched.space)) }, fetched.only_dockerfile))
}

async fn upload(session: &Session, path: &str, file: &Path) -> Result<(), BuildError> {
    let mut request = Request::new(tokio_stream::empty::<Uploaded>());
    let path = format!("/{path}").parse().map_err(|_| BuildError::step("a bad upload address"))?;
    request.metadata_mut().insert("urlpath", path);
    let mut pieces = UploadClient::new(session.channel.clone()).pull(request).await.map_err(told)?.into_inner();
    let mut out = tokio::fs::File::create(file)
        .await
        .map_err(|error| BuildError::step(format!("{}: {error}", file.display())))?;
    while let Some(piece) = pieces.message().await.map_err(told)? {
        out.write_all(&piece.data).await.map_err(|error| BuildError::step(format!("{}: {error}", file.display())))?;
    }
    out.flush().await.map_err(|error| BuildError::step(format!("{}: {error}", file.display())))
}

impl Client for SessionClient {
    fn context<'a>(&'a self, name: &'a str, _: &'a Events) -> BoxFuture<'a, Result<Option<Context>, BuildError>> {
        Box::pin(async move {
            if name.is_empty() {
                if let Some(fetched) = &self.fetched {
                    return Ok(Some(fetched.clone()));
                }
                let patterns = self.ignore.patterns();
                return self.directory("context", patterns, "[internal] load build context").await.map(Some);
            }
            let Some(source) = self.named.get(name) else { return Ok(None) };
            let shown = format!("[context {name}] load from client");
            match source.strip_prefix("local:") {
                Some(key) => self.directory(key, Vec::new(), &shown).await.map(Some),
                None if build::remote::is_remote(source) => {
                    let fetched = fetch(self.session.as_ref(), &self.space, source, self.keep_git_dir).await?;
                    Ok(Some(fetched.0))
                }
                None => Err(BuildError::step(format!("unsupported context source {source} for {name}"))),
            }
        })
    }

    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BuildError>> {
        Box::pin(async move {
            let mut client = SecretsClient::new(self.session()?.channel.clone());
            let request = GetSecretRequest { id: id.to_owned(), ..GetSecretRequest::default() };
            match client.get_secret(request).await {
                Ok(secret) => Ok(Some(secret.into_inner().data)),
                Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => Ok(None),
                Err(status) => Err(told(status)),
            }
        })
    }

    fn ssh_agent<'a>(&'a self, id: &'a str, socket: &'a Path) -> BoxFuture<'a, Result<Option<Guard>, BuildError>> {
        Box::pin(async move {
            let session = self.session()?.clone();
            let check = CheckAgentRequest { id: id.to_owned() };
            if SshClient::new(session.channel.clone()).check_agent(check).await.is_err() {
                return Ok(None);
            }
            let listener = UnixListener::bind(socket)
                .map_err(|error| BuildError::step(format!("cannot listen on {}: {error}", socket.display())))?;
            let serving = tokio::spawn(serve_agent(listener, session, id.to_owned()));
            Ok(Some(Box::new(AbortOnDrop(serving)) as Guard))
        })
    }

    fn credentials<'a>(&'a self, registry: &'a str) -> BoxFuture<'a, Option<Credentials>> {
        Box::pin(async move {
            let session = self.session.as_ref()?;
            let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
            let request = CredentialsRequest { host: host.to_owned() };
            let answer = AuthClient::new(session.channel.clone()).credentials(request).await.ok()?.into_inner();
            let known = !answer.secret.is_empty();
            known.then_some(Credentials { username: answer.username, secret: answer.secret })
        })
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Carries each connection to the client's agent; all of them end with the step.
async fn serve_agent(listener: UnixListener, session: Arc<Session>, id: String) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (session, id) = (session.clone(), id.clone());
        connections.spawn(async move {
            if let Err(status) = forward(stream, &session, &id).await {
                tracing::debug!(%status, "an SSH agent's connection ended");
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn forward(stream: UnixStream, session: &Session, id: &str) -> Result<(), Status> {
    let (mut reader, mut writer) = stream.into_split();
    let (sender, body) = mpsc::channel(16);
    let mut request = Request::new(ReceiverStream::new(body));
    let id = id.parse().map_err(|_| Status::invalid_argument("bad SSH ID"))?;
    request.metadata_mut().insert("buildkit.ssh.id", id);
    let to_client = async move {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(n) = reader.read(&mut buffer).await {
            if n == 0 || sender.send(BytesMessage { data: buffer[..n].to_vec() }).await.is_err() {
                break;
            }
        }
    };
    let from_client = async {
        let mut answers = SshClient::new(session.channel.clone()).forward_agent(request).await?.into_inner();
        while let Some(message) = answers.next().await {
            let data = message?.data;
            if writer.write_all(&data).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    tokio::join!(to_client, from_client).1
}
