//! A build from its request to its image: parse, graph, the needed stages one after the other, the image record.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use content::{Image, NewImage, Origin, Store};
use jiff::Timestamp;
use oci::{ImageConfig, ImageId, Platform, Reference};
use snapshots::Snapshots;
use tokio::sync::mpsc;

use crate::BuildError;
use crate::cache::{Cache, CacheKey, Record};
use crate::context::Root;
use crate::dockerfile::{self, Dockerfile, Instruction, Statement};
use crate::events::BuildEvent;
use crate::graph::{BuildGraph, Stage, StageBase};
use crate::request::BuildRequest;
use crate::runner::{ImageSource, StepRunner};
use crate::stage::Arguments;
use crate::step::StageRun;

/// Builds images. Cheap to clone; builds may run at the same time.
#[derive(Clone)]
pub struct Builder {
    pub(crate) content: Store,
    pub(crate) snapshots: Snapshots,
    pub(crate) cache: Cache,
    pub(crate) runner: Arc<dyn StepRunner>,
    pub(crate) images: Arc<dyn ImageSource>,
}

/// What one stage came to.
#[derive(Clone)]
pub(crate) struct StageResult {
    pub record: Record,
    pub key: CacheKey,
}

/// Everything that the stages of one build share.
pub(crate) struct Session<'a> {
    pub builder: &'a Builder,
    pub request: &'a BuildRequest,
    pub context: Arc<Root>,
    pub file: &'a Dockerfile,
    pub graph: &'a BuildGraph,
    pub arguments: Arguments,
    pub events: &'a mpsc::Sender<BuildEvent>,
    pub done: BTreeMap<usize, StageResult>,
    pub step: usize,
    pub steps: usize,
}

impl Builder {
    pub fn new(
        content: Store,
        snapshots: Snapshots,
        runner: Arc<dyn StepRunner>,
        images: Arc<dyn ImageSource>,
    ) -> Result<Self, BuildError> {
        let cache = Cache::open(&content)?;
        Ok(Self { content, snapshots, cache, runner, images })
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Builds to the end. Dropping the future, or the other end of `events`, cancels it and leaves nothing behind but cache.
    pub async fn build(
        &self,
        request: &BuildRequest,
        events: &mpsc::Sender<BuildEvent>,
    ) -> Result<ImageId, BuildError> {
        // Holds every blob that this build touches until its image (or cache record) does.
        let _lease = self.content.lease("build");
        let tags = request.tags.iter().map(|tag| parse_tag(tag)).collect::<Result<Vec<_>, _>>()?;
        let context =
            Root::open(&request.context).map_err(BuildError::io("cannot open the build context", &request.context))?;
        let text = dockerfile_text(request, &context)?;
        let file = dockerfile::parse(&request.dockerfile_name, &text)?;
        let platform = Platform::host();
        let mut arguments = Arguments::new(request.build_args.clone(), &platform.os, &platform.architecture);
        declare_globals(&file, &mut arguments)?;
        let expand = |statement: &Statement, text: &str| expand_from(&file, &arguments, statement, text);
        let graph = BuildGraph::new(&file, &request.target, &expand)?;
        let steps = graph.needed.iter().map(|index| 1 + graph.stages[*index].statements.len()).sum();
        let mut session = Session {
            builder: self,
            request,
            context: Arc::new(context),
            file: &file,
            graph: &graph,
            arguments,
            events,
            done: BTreeMap::new(),
            step: 0,
            steps,
        };
        let mut last = None;
        for index in &graph.needed {
            let result = session.stage(&graph.stages[*index]).await?;
            session.done.insert(*index, result.clone());
            last = Some(result);
        }
        let result = last.ok_or_else(|| BuildError::Empty { file: file.name.clone() })?;
        let unused = session.arguments.unused();
        if !unused.is_empty() {
            let text = format!("[Warning] One or more build-args [{}] were not consumed", unused.join(" "));
            session.tell(BuildEvent::Warning { text }).await?;
        }
        self.finish(request, &tags, result, events).await
    }

    /// Writes the image and its names.
    async fn finish(
        &self,
        request: &BuildRequest,
        tags: &[Reference],
        result: StageResult,
        events: &mpsc::Sender<BuildEvent>,
    ) -> Result<ImageId, BuildError> {
        let mut config = result.record.config;
        config.config.labels.extend(request.labels.clone());
        // Only what an image is made without gets a time here: a cached build is the same image again.
        config.created.get_or_insert_with(Timestamp::now);
        let config = serde_json::to_vec(&config).map_err(|error| BuildError::Storage(error.to_string()))?;
        let layers = result.record.layers;
        let (content, names) = (self.content.clone(), tags.to_vec());
        let id = blocking(move || {
            let id = content.create_image(NewImage {
                config,
                layers,
                manifest_digest: None,
                origin: Origin::Local,
                size: None,
            })?;
            for name in &names {
                content.images().tag(&id, name)?;
            }
            Ok::<_, content::Error>(id)
        })
        .await?;
        tell(events, BuildEvent::Built { id: id.0.hex() }).await?;
        for tag in tags {
            tell(events, BuildEvent::Tagged { name: tag.familiar() }).await?;
        }
        Ok(id)
    }
}

impl Session<'_> {
    pub(crate) async fn tell(&self, event: BuildEvent) -> Result<(), BuildError> {
        tell(self.events, event).await
    }

    /// Tells that the next step begins.
    pub(crate) async fn announce(&mut self, text: &str) -> Result<(), BuildError> {
        self.step += 1;
        self.tell(BuildEvent::Step { number: self.step, total: self.steps, text: text.to_owned() }).await
    }

    async fn stage(&mut self, stage: &Stage) -> Result<StageResult, BuildError> {
        self.announce(&stage.from.text).await?;
        let mut start = self.base(stage).await?;
        self.tell(BuildEvent::Result { id: start.key.as_str().to_owned() }).await?;
        let triggers = std::mem::take(&mut start.record.config.config.on_build);
        let inherited = matches!(stage.base, StageBase::Stage(_));
        let mut run = StageRun::new(stage.index, start);
        // A stage that another stage starts from has run its base's triggers already.
        for trigger in triggers.iter().filter(|_| !inherited) {
            let statement = dockerfile::parse_onbuild(trigger)?;
            self.steps += 1;
            run.statement(self, &statement).await?;
        }
        if inherited {
            run.keep_triggers(triggers);
        }
        for statement in &stage.statements {
            run.statement(self, statement).await?;
        }
        Ok(run.finish())
    }

    async fn base(&mut self, stage: &Stage) -> Result<StageResult, BuildError> {
        match &stage.base {
            StageBase::Scratch => Ok(StageResult {
                record: Record { config: ImageConfig::scratch(), layers: Vec::new() },
                key: CacheKey::base("scratch"),
            }),
            StageBase::Stage(index) => self
                .done
                .get(index)
                .cloned()
                .ok_or_else(|| BuildError::step(format!("stage {index} has not been built"))),
            StageBase::Image(name) => self.image(name).await,
        }
    }

    /// An image as a starting point: by FROM, or by COPY --from.
    pub(crate) async fn image(&self, name: &str) -> Result<StageResult, BuildError> {
        Reference::parse(name).map_err(|_| BuildError::Reference { reference: name.to_owned() })?;
        let image = self.builder.images.image(name, self.request.pull, self.events).await?;
        let record = Record { config: image.config.as_ref().clone(), layers: image.layers.clone() };
        let snapshots = self.builder.snapshots.clone();
        let key = CacheKey::base(&image.id.0.hex());
        unpacked(snapshots, image).await?;
        Ok(StageResult { record, key })
    }
}

async fn unpacked(snapshots: Snapshots, image: Image) -> Result<(), BuildError> {
    blocking(move || snapshots.ensure_unpacked(&image)).await.map(drop)
}

pub(crate) async fn tell(events: &mpsc::Sender<BuildEvent>, event: BuildEvent) -> Result<(), BuildError> {
    events.send(event).await.map_err(|_| BuildError::Cancelled)
}

/// Runs what waits for the disk away from the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, BuildError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| BuildError::Storage(error.to_string()))?
        .map_err(|error| BuildError::Storage(error.to_string()))
}

fn parse_tag(tag: &str) -> Result<Reference, BuildError> {
    Reference::parse(tag).map(Reference::or_latest).map_err(|_| BuildError::Reference { reference: tag.to_owned() })
}

fn dockerfile_text(request: &BuildRequest, context: &Root) -> Result<String, BuildError> {
    if let Some(text) = &request.dockerfile {
        return Ok(text.clone());
    }
    let name = &request.dockerfile_name;
    context
        .read_small(name, dockerfile::MAX_BYTES as u64 + 1)
        .map_err(BuildError::io("cannot read the Dockerfile", Path::new(name)))?
        .ok_or_else(|| BuildError::NoDockerfile { file: name.clone() })
}

/// ARGs before the first FROM, each seeing those above it.
fn declare_globals(file: &Dockerfile, arguments: &mut Arguments) -> Result<(), BuildError> {
    for statement in &file.statements {
        let Instruction::Arg(args) = &statement.instruction else { break };
        for (name, default) in args {
            let default = default.as_deref().map(|text| expand_from(file, arguments, statement, text)).transpose()?;
            arguments.declare_global(name, default);
        }
    }
    Ok(())
}

fn expand_from(
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
