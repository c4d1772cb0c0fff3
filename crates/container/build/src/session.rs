//! What the stages of one build share: its contexts, its numbering, its results. Each stage is built once, by whoever
//! needs it first; the others wait for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use oci::{ImageConfig, Reference, chain_id};
use tokio::sync::OnceCell;

use crate::cache::{CacheKey, Imported, Record};
use crate::context::Root;
use crate::dockerfile::{self, Dockerfile, Instruction};
use crate::events::{BuildEvent, Events, StepId};
use crate::execute::{Builder, StageResult, blocking, check_platform, expand_from, unpacked};
use crate::graph::{BuildGraph, Stage, StageBase};
use crate::layer::{MountedRoot, Scratch};
use crate::request::BuildRequest;
use crate::runner::{BoxFuture, Client, Context};
use crate::stage::Arguments;
use crate::step::StageRun;
use crate::{BuildError, copying};

/// Everything that the stages of one build share.
pub(crate) struct Session<'a> {
    pub builder: &'a Builder,
    pub request: &'a BuildRequest,
    pub client: &'a dyn Client,
    pub events: &'a Events,
    pub file: &'a Dockerfile,
    pub graph: &'a BuildGraph,
    pub arguments: &'a Arguments,
    /// Results that images brought along (`--cache-from`).
    pub imported: BTreeMap<String, Record>,
    cells: Vec<OnceCell<StageResult>>,
    contexts: tokio::sync::Mutex<BTreeMap<String, Option<Tree>>>,
    /// Number of each stage's FROM in the whole build.
    first: Vec<usize>,
    total: usize,
    /// Every layer-making step of this build, for the inline cache.
    made: Mutex<Vec<(CacheKey, Record)>>,
}

/// A tree to read from that stays for as long as this lives.
#[derive(Clone)]
pub(crate) enum Tree {
    Context { root: Arc<Root>, context: Context },
    Mounted { root: Arc<MountedRoot>, _scratch: Arc<Scratch> },
}

impl Tree {
    pub(crate) fn root(&self) -> &Root {
        match self {
            Self::Context { root, .. } => root,
            Self::Mounted { root, .. } => &root.root,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Context { context, .. } => &context.dir,
            Self::Mounted { root, .. } => root.path(),
        }
    }
}

/// A tree with what stands for it in a cache key.
pub(crate) struct Source {
    pub tree: Tree,
    /// The key of a stage or image; `None` for a context, whose files count by their content.
    pub key: Option<String>,
}

impl<'a> Session<'a> {
    pub(crate) async fn new(
        builder: &'a Builder,
        request: &'a BuildRequest,
        client: &'a dyn Client,
        events: &'a Events,
        file: &'a Dockerfile,
        graph: &'a BuildGraph,
        arguments: &'a Arguments,
    ) -> Result<Self, BuildError> {
        let mut next = 1;
        let mut first = vec![0; graph.stages.len()];
        for index in &graph.needed {
            first[*index] = next;
            next += 1 + graph.stages[*index].statements.len();
        }
        let imported = Imported::of(builder, &request.cache_from, client, events).await?;
        let cells = graph.stages.iter().map(|_| OnceCell::new()).collect();
        let (contexts, made) = (tokio::sync::Mutex::default(), Mutex::default());
        let total = next - 1;
        Ok(Self {
            builder,
            request,
            client,
            events,
            file,
            graph,
            arguments,
            imported,
            cells,
            contexts,
            first,
            total,
            made,
        })
    }

    /// Now, or the moment that a reproducible build has for everything.
    pub(crate) fn now(&self) -> Timestamp {
        self.request.epoch().unwrap_or_else(Timestamp::now)
    }

    pub(crate) fn note(&self, key: &CacheKey, record: &Record) {
        if self.request.inline_cache {
            self.made.lock().unwrap_or_else(PoisonError::into_inner).push((key.clone(), record.clone()));
        }
    }

    /// Puts the records of the image's own chain into its configuration.
    pub(crate) fn embed_cache(&self, config: &mut ImageConfig) {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        config.extra.insert(crate::cache::INLINE.to_owned(), Imported::encode(&made, &config.rootfs.diff_ids));
    }

    /// A stage's result; built here if nobody has.
    pub(crate) fn stage(&self, index: usize) -> BoxFuture<'_, Result<StageResult, BuildError>> {
        Box::pin(async move { self.cells[index].get_or_try_init(|| self.build_stage(index)).await.cloned() })
    }

    async fn build_stage(&self, index: usize) -> Result<StageResult, BuildError> {
        let stage = &self.graph.stages[index];
        let id = |place: usize| StepId { stage: index, index: place };
        let events = self.events.at(id(0));
        self.announce(&events, stage, 0, &stage.from.text).await?;
        let mut start = match self.base(stage, &events).await {
            Ok(start) => start,
            Err(error) => {
                events.hint(BuildEvent::Failed { message: error.solver_text() });
                return Err(error);
            }
        };
        events.tell(BuildEvent::Result { id: start.key.as_str().to_owned() }).await?;
        let triggers = std::mem::take(&mut start.record.config.config.on_build);
        let mut run = StageRun::new(self, index, start);
        // A stage that another stage starts from has run its base's triggers already.
        if matches!(stage.base, StageBase::Stage(_)) {
            run.keep_triggers(triggers);
        } else if !triggers.is_empty() {
            events.tell(BuildEvent::Triggers { count: triggers.len() }).await?;
            for (place, trigger) in triggers.iter().enumerate() {
                let statement = dockerfile::parse_onbuild(trigger)?;
                if let Some(entitlement) = crate::execute::lacking(self.request, &statement.instruction) {
                    return Err(BuildError::step(format!("{entitlement} is not allowed (ONBUILD {trigger})")));
                }
                run.statement(&statement, self.events.at(id(StepId::TRIGGERS + place))).await?;
            }
        }
        for (place, statement) in stage.statements.iter().enumerate() {
            let events = self.events.at(id(place + 1));
            self.announce(&events, stage, place + 1, &statement.text).await?;
            run.statement(statement, events).await?;
        }
        self.events.at(id(usize::MAX)).tell(BuildEvent::StageDone).await?;
        Ok(run.finish())
    }

    /// Tells that a step begins. `place`: 0 for FROM.
    async fn announce(&self, events: &Events, stage: &Stage, place: usize, text: &str) -> Result<(), BuildError> {
        let number = self.first[stage.index] + place;
        let vertex = self.vertex(stage, place, text);
        events.tell(BuildEvent::Step { number, total: self.total, text: text.to_owned(), vertex }).await
    }

    /// BuildKit's name of a step: `[stage 2/3] RUN …`.
    fn vertex(&self, stage: &Stage, place: usize, text: &str) -> Option<String> {
        let makes = |place: &usize| *place == 0 || makes_files(&stage.statements[place - 1].instruction);
        if !makes(&place) {
            return None;
        }
        let total = (0..=stage.statements.len()).filter(makes).count();
        let number = (0..=place).filter(makes).count();
        let name = match &stage.name {
            Some(name) => format!("{name} "),
            None if self.graph.needed.len() > 1 => format!("stage-{} ", stage.index),
            None => String::new(),
        };
        let width = total.to_string().len();
        Some(format!("[{name}{number:>width$}/{total}] {text}"))
    }

    async fn base(&self, stage: &Stage, events: &Events) -> Result<StageResult, BuildError> {
        if let Instruction::From { platform: Some(platform), .. } = &stage.from.instruction {
            let platform = expand_from(self.file, self.arguments, &stage.from, platform)?;
            check_platform(stage, &platform)?;
        }
        match &stage.base {
            StageBase::Scratch => Ok(scratch()),
            StageBase::Stage(index) => self.stage(*index).await,
            StageBase::Image(name) => match self.named_context(name, events).await? {
                Some(tree) => copying::whole_tree(self, tree, name).await,
                None => self.image(name, events).await,
            },
        }
    }

    /// An image as a starting point: by FROM, or by COPY --from.
    pub(crate) async fn image(&self, name: &str, events: &Events) -> Result<StageResult, BuildError> {
        let name = self.request.named_images.get(name).map_or(name, String::as_str);
        Reference::parse(name).map_err(|_| BuildError::Reference { reference: name.to_owned() })?;
        let image = self.builder.images.image(name, self.request.pull, self.client, events).await?;
        let record = Record { config: image.config.as_ref().clone(), layers: image.layers.clone() };
        let key = CacheKey::base(&image.id.0.hex());
        unpacked(self.builder.snapshots.clone(), image).await?;
        Ok(StageResult { record, key })
    }

    /// A named context that is a directory.
    async fn named_context(&self, name: &str, events: &Events) -> Result<Option<Tree>, BuildError> {
        if name.is_empty() || self.request.named_images.contains_key(name) {
            Ok(None)
        } else {
            self.context(name, events).await
        }
    }

    /// The build's context (empty name), or a named one.
    async fn context(&self, name: &str, events: &Events) -> Result<Option<Tree>, BuildError> {
        let mut contexts = self.contexts.lock().await;
        if let Some(known) = contexts.get(name) {
            return Ok(known.clone());
        }
        let found = match self.client.context(name, events).await? {
            Some(context) => {
                let root =
                    Root::open(&context.dir).map_err(BuildError::io("cannot open the build context", &context.dir))?;
                Some(Tree::Context { root: Arc::new(root), context })
            }
            None => None,
        };
        contexts.insert(name.to_owned(), found.clone());
        Ok(found)
    }

    /// What `--from` names, seen from stage `before`; without it the build's context.
    pub(crate) async fn source(
        &self,
        from: Option<&str>,
        before: usize,
        events: &Events,
    ) -> Result<Source, BuildError> {
        let Some(from) = from else {
            let tree = self.context("", events).await?;
            return Ok(Source { tree: tree.ok_or_else(|| BuildError::step("the build has no context"))?, key: None });
        };
        let result = match self.graph.stage_for_copy(from, before) {
            Some(index) => self.stage(index).await?,
            None if from == "scratch" => scratch(),
            None if self.graph.is_later_stage(from, before) => {
                return Err(BuildError::step(format!("invalid from flag value {from}: it refers to a later stage")));
            }
            None => match self.named_context(from, events).await? {
                Some(tree) => return Ok(Source { tree, key: None }),
                None => self.image(from, events).await?,
            },
        };
        let tree = mounted(self.builder, &result).await?;
        Ok(Source { tree, key: Some(result.key.as_str().to_owned()) })
    }
}

/// A stage's result, mounted to be read.
pub(crate) async fn mounted(builder: &Builder, result: &StageResult) -> Result<Tree, BuildError> {
    let chain = chain_id(&result.record.config.rootfs.diff_ids);
    let scratch = Scratch::prepare(&builder.snapshots, chain).await?;
    let root = scratch.open_root().await?;
    Ok(Tree::Mounted { root: Arc::new(root), _scratch: Arc::new(scratch) })
}

fn scratch() -> StageResult {
    StageResult {
        record: Record { config: ImageConfig::scratch(), layers: Vec::new() },
        key: CacheKey::base("scratch"),
    }
}

fn makes_files(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_))
}

/// Makes an imported record's layers usable: unpacked, as one of our own would be.
pub(crate) async fn unpack_layers(builder: &Builder, record: &Record) -> Result<(), BuildError> {
    let (snapshots, record) = (builder.snapshots.clone(), record.clone());
    blocking(move || snapshots.ensure_layers(&record.layers, &record.config.rootfs.diff_ids)).await.map(drop)
}
