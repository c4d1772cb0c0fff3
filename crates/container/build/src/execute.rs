//! A build from its request to its image: parse, graph, the needed stages at the same time, the image record.

use std::path::Path;
use std::sync::Arc;

use content::{Image, NewImage, Origin, Store};
use futures_util::future::try_join_all;
use jiff::Timestamp;
use oci::{Descriptor, ImageConfig, ImageId, Platform, Reference};
use snapshots::Snapshots;

use crate::cache::{Cache, CacheKey, Record};
use crate::context::Root;
use crate::dockerfile::{self, Dockerfile, Instruction, Statement};
use crate::events::{BuildEvent, Events};
use crate::graph::{BuildGraph, Stage};
use crate::request::BuildRequest;
use crate::runner::{Client, ImageSource, StepRunner};
use crate::session::Session;
use crate::space::Space;
use crate::stage::Arguments;
use crate::{BuildError, check};

/// Builds images. Cheap to clone; builds may run at the same time.
#[derive(Clone)]
pub struct Builder {
    pub(crate) content: Store,
    pub(crate) snapshots: Snapshots,
    pub(crate) cache: Cache,
    pub(crate) runner: Arc<dyn StepRunner>,
    pub(crate) images: Arc<dyn ImageSource>,
    pub(crate) space: Space,
}

/// What a build came to: an image that is not in the store yet. Its layers stay for as long as this lives.
pub struct Built {
    pub config: ImageConfig,
    pub layers: Vec<Descriptor>,
    pub unused_args: Vec<String>,
    _lease: content::Lease,
}

/// What a prune took away.
pub struct Pruned {
    pub keys: Vec<String>,
    pub bytes: u64,
}

/// A result's files, mounted for as long as this lives.
pub struct MountedResult {
    tree: crate::session::Tree,
}

impl MountedResult {
    /// Where they are. Links in there lead anywhere: whoever reads must not follow them.
    pub fn path(&self) -> &Path {
        self.tree.path()
    }

    /// Reads a file, resolving links inside the result.
    pub fn read(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>, BuildError> {
        let found = self.tree.root().read_bytes(path, limit_bytes).map_err(BuildError::io("cannot read", path))?;
        found.ok_or_else(|| BuildError::step(format!("{path}: no such file or directory")))
    }
}

/// What one stage came to.
#[derive(Clone)]
pub(crate) struct StageResult {
    pub record: Record,
    pub key: CacheKey,
}

impl Builder {
    /// `dir`: where builds keep their temporary files and cache mounts. What a killed process left there is swept.
    pub fn new(
        content: Store,
        snapshots: Snapshots,
        runner: Arc<dyn StepRunner>,
        images: Arc<dyn ImageSource>,
        dir: &Path,
    ) -> Result<Self, BuildError> {
        let cache = Cache::open(&content)?;
        let space = Space::open(dir)?;
        Ok(Self { content, snapshots, cache, runner, images, space })
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    pub fn space(&self) -> &Space {
        &self.space
    }

    /// The layer store and the content store that the builder works on.
    pub fn stores(&self) -> (&Store, &Snapshots) {
        (&self.content, &self.snapshots)
    }

    /// Forgets all records and unused cache mounts, and gives back what only they held. Blocks.
    pub fn prune(&self) -> Result<Pruned, BuildError> {
        let storage = |error: String| BuildError::Storage(error);
        let mounts = self.space.clear_cache_mounts()?;
        let mut keys = self.cache.clear().map_err(|error| storage(error.to_string()))?;
        self.snapshots.gc().map_err(|error| storage(error.to_string()))?;
        let collected = self.content.gc().map_err(|error| storage(error.to_string()))?;
        let bytes = collected.bytes + mounts.iter().map(|(_, bytes)| bytes).sum::<u64>();
        keys.extend(mounts.into_iter().map(|(name, _)| name));
        Ok(Pruned { keys, bytes })
    }

    /// Builds to the end and names the image. Dropping the future, or the other end of `events`, cancels it and leaves
    /// nothing behind but cache.
    pub async fn build(
        &self,
        request: &BuildRequest,
        client: &dyn Client,
        events: &Events,
    ) -> Result<ImageId, BuildError> {
        parse_tags(&request.tags)?;
        let built = self.solve(request, client, events).await?;
        if !built.unused_args.is_empty() {
            let text = format!("[Warning] One or more build-args [{}] were not consumed", built.unused_args.join(" "));
            events.tell(BuildEvent::Warning { text }).await?;
        }
        self.store(&built, &request.tags, events).await
    }

    /// Everything up to the image's configuration and layers.
    pub async fn solve(
        &self,
        request: &BuildRequest,
        client: &dyn Client,
        events: &Events,
    ) -> Result<Built, BuildError> {
        // Holds every blob that this build touches until its image (or cache record) does.
        let lease = self.content.lease("build");
        let text = dockerfile_text(request, client, events).await?;
        let file = dockerfile::parse(&request.dockerfile_name, &text)?;
        let arguments = arguments(request, &file)?;
        let expand = |statement: &Statement, text: &str| expand_from(&file, &arguments, statement, text);
        let graph = BuildGraph::new(&file, &request.target, &expand)?;
        refuse_what_was_not_granted(request, &graph)?;
        for complaint in check::checks(&file)? {
            events.tell(BuildEvent::Check(complaint)).await?;
        }
        let session = Session::new(self, request, client, events, &file, &graph, &arguments).await?;
        let results = try_join_all(graph.needed.iter().map(|index| session.stage(*index))).await?;
        let result = results.into_iter().next_back().ok_or_else(|| BuildError::Empty { file: file.name.clone() })?;
        let mut config = result.record.config;
        config.config.labels.extend(request.labels.clone());
        // Only what an image is made without gets a time here: a cached build is the same image again.
        let now = request.epoch().unwrap_or_else(Timestamp::now);
        config.created.get_or_insert(now);
        if request.inline_cache {
            session.embed_cache(&mut config);
        } else {
            config.extra.remove(crate::cache::INLINE);
        }
        let unused_args = arguments.unused();
        Ok(Built { config, layers: result.record.layers, unused_args, _lease: lease })
    }

    /// Mounts a result's files, for those who copy them out.
    pub async fn mount(&self, built: &Built) -> Result<MountedResult, BuildError> {
        let result = StageResult {
            record: Record { config: built.config.clone(), layers: built.layers.clone() },
            key: CacheKey::base("result"),
        };
        Ok(MountedResult { tree: crate::session::mounted(self, &result).await? })
    }

    /// Writes the image and its names.
    pub async fn store(&self, built: &Built, tags: &[String], events: &Events) -> Result<ImageId, BuildError> {
        let names = parse_tags(tags)?;
        let config = serde_json::to_vec(&built.config).map_err(|error| BuildError::Storage(error.to_string()))?;
        let (content, layers, given) = (self.content.clone(), built.layers.clone(), names.clone());
        let id = blocking(move || {
            let new = NewImage { config, layers, manifest_digest: None, origin: Origin::Local, size: None };
            let id = content.create_image(new)?;
            for name in &given {
                content.images().tag(&id, name)?;
            }
            Ok::<_, content::Error>(id)
        })
        .await?;
        events.tell(BuildEvent::Built { id: id.0.hex() }).await?;
        for name in names {
            events.tell(BuildEvent::Tagged { name: name.familiar() }).await?;
        }
        Ok(id)
    }
}

/// A privilege is the client's to give, never the Dockerfile's to take.
fn refuse_what_was_not_granted(request: &BuildRequest, graph: &BuildGraph) -> Result<(), BuildError> {
    let statements = graph.needed.iter().flat_map(|index| &graph.stages[*index].statements);
    for statement in statements {
        if let Some(entitlement) = lacking(request, &statement.instruction) {
            return Err(BuildError::step(format!(
                "{entitlement} is not allowed ({}:{}: {})",
                request.dockerfile_name, statement.line, statement.text
            )));
        }
    }
    Ok(())
}

/// The privilege that an instruction wants and the client has not granted. Triggers of a base image are asked about when they are
/// known, which is when they run.
pub(crate) fn lacking(request: &BuildRequest, instruction: &Instruction) -> Option<&'static str> {
    let Instruction::Run(run) = instruction else { return None };
    let wants = [
        (run.insecure, "security.insecure"),
        (run.network.as_deref() == Some("host") && request.network != "host", "network.host"),
    ];
    wants
        .into_iter()
        .find(|(wanted, entitlement)| *wanted && !request.grants(entitlement))
        .map(|(_, entitlement)| entitlement)
}

fn parse_tags(tags: &[String]) -> Result<Vec<Reference>, BuildError> {
    let parse = |tag: &String| Reference::parse(tag).map(Reference::or_latest);
    tags.iter().map(|tag| parse(tag).map_err(|_| BuildError::Reference { reference: tag.clone() })).collect()
}

async fn dockerfile_text(request: &BuildRequest, client: &dyn Client, events: &Events) -> Result<String, BuildError> {
    if let Some(text) = &request.dockerfile {
        return Ok(text.clone());
    }
    let name = &request.dockerfile_name;
    let missing = || BuildError::NoDockerfile { file: name.clone() };
    let context = client.context("", events).await?.ok_or_else(missing)?;
    let root = Root::open(&context.dir).map_err(BuildError::io("cannot open the build context", &context.dir))?;
    root.read_small(name, dockerfile::MAX_BYTES as u64 + 1)
        .map_err(BuildError::io("cannot read the Dockerfile", Path::new(name)))?
        .ok_or_else(missing)
}

/// The arguments of the build, with the ARGs before the first FROM, each seeing those above it.
fn arguments(request: &BuildRequest, file: &Dockerfile) -> Result<Arguments, BuildError> {
    let mut arguments = Arguments::new(request.build_args.clone(), &Platform::host());
    for statement in &file.statements {
        let Instruction::Arg(args) = &statement.instruction else { break };
        for (name, default) in args {
            let default = default.as_deref().map(|text| expand_from(file, &arguments, statement, text)).transpose()?;
            arguments.declare_global(name, default);
        }
    }
    Ok(arguments)
}

pub(crate) fn expand_from(
    file: &Dockerfile,
    arguments: &Arguments,
    statement: &Statement,
    text: &str,
) -> Result<String, BuildError> {
    let lookup = |name: &str| arguments.global(name);
    crate::expand::Expander { escape: file.directives.escape, lookup: &lookup }
        .word(text)
        .map_err(|message| parse_error(file, statement, message))
}

/// A complaint about one statement, with its place.
pub(crate) fn parse_error(file: &Dockerfile, statement: &Statement, message: String) -> BuildError {
    BuildError::Parse { file: file.name.clone(), line: statement.line, text: statement.text.clone(), message }
}

/// Whether FROM's platform is one that this machine builds.
pub(crate) fn check_platform(stage: &Stage, platform: &str) -> Result<(), BuildError> {
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next());
    // A lone word is an operating system or an architecture.
    let (os, architecture) = match architecture {
        Some(architecture) => (os, architecture.to_owned()),
        None if os == "linux" => (os, Platform::host().architecture),
        None => ("linux", os.to_owned()),
    };
    let wanted = Platform::new(os, &architecture, parts.next());
    if Platform::host().satisfies(&wanted) {
        return Ok(());
    }
    let host = Platform::host();
    Err(BuildError::step(format!(
        "{}: no match for platform {platform}: this machine builds {}/{} only",
        stage.from.text, host.os, host.architecture
    )))
}

pub(crate) async fn unpacked(snapshots: Snapshots, image: Image) -> Result<(), BuildError> {
    blocking(move || snapshots.ensure_unpacked(&image)).await.map(drop)
}

/// Runs what waits for the disk away from the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static, E: Into<BuildError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, BuildError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| BuildError::Storage(error.to_string()))?.map_err(Into::into)
}
