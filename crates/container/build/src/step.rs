//! One instruction at a time: cache look-up, else the work, then the record.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use oci::{ChainId, History, chain_id};
use sha2::{Digest as _, Sha256};

use crate::BuildError;
use crate::cache::{CacheKey, Record};
use crate::config::{self, command_args};
use crate::context::{Found, Root, normalise};
use crate::copy::{self, CopyOptions, Destination};
use crate::dockerfile::{Command, Copy, CopySource, Instruction, Run, Statement};
use crate::events::BuildEvent;
use crate::execute::{Session, StageResult, blocking, parse_error};
use crate::layer::{Scratch, owner};
use crate::runner::RunStep;
use crate::stage::{self, Scope};

/// A stage while its instructions run.
pub(crate) struct StageRun {
    index: usize,
    record: Record,
    key: CacheKey,
    scope: Scope,
    cmd_set: bool,
}

impl StageRun {
    pub(crate) fn new(index: usize, start: StageResult) -> Self {
        Self { index, record: start.record, key: start.key, scope: Scope::default(), cmd_set: false }
    }

    /// ONBUILD triggers that a stage inherits from another stage of the same file stay in its configuration.
    pub(crate) fn keep_triggers(&mut self, triggers: Vec<String>) {
        self.record.config.config.on_build = triggers;
    }

    pub(crate) fn finish(self) -> StageResult {
        StageResult { record: self.record, key: self.key }
    }

    /// Executes one instruction.
    pub(crate) async fn statement(
        &mut self,
        session: &mut Session<'_>,
        statement: &Statement,
    ) -> Result<(), BuildError> {
        session.announce(&statement.text).await?;
        let complain = |message: String| parse_error(session.file, statement, message);
        match &statement.instruction {
            Instruction::Run(run) => self.run(session, run).await?,
            Instruction::Copy(copy) => self.copy(session, statement, copy).await?,
            Instruction::Workdir(path) => {
                let path = self.expand(session, path).map_err(complain)?;
                self.workdir(session, &path).await?;
            }
            Instruction::Arg(args) => {
                for (name, default) in args {
                    let default = default
                        .as_deref()
                        .map(|text| self.expand(session, text))
                        .transpose()
                        .map_err(|message| parse_error(session.file, statement, message))?;
                    self.scope.declare(&mut session.arguments, name, default);
                }
            }
            _ => self.metadata(session, statement).await?,
        }
        session.tell(BuildEvent::Result { id: self.key.as_str().to_owned() }).await
    }

    fn expand(&self, session: &Session<'_>, text: &str) -> Result<String, String> {
        self.scope.expand(&self.record.config.config.env, session.file.directives.escape, text)
    }

    fn chain(&self) -> Option<ChainId> {
        chain_id(&self.record.config.rootfs.diff_ids)
    }

    /// Moves to the cached result of a key, if there is one.
    async fn cached(&mut self, session: &Session<'_>, key: CacheKey) -> Result<bool, BuildError> {
        self.key = key;
        if session.request.no_cache {
            return Ok(false);
        }
        let Some(record) = session.builder.cache.get(&self.key) else { return Ok(false) };
        if !record.layers.iter().all(|layer| session.builder.content.contains(&layer.digest)) {
            return Ok(false);
        }
        self.record = record;
        session.tell(BuildEvent::UsingCache).await?;
        Ok(true)
    }

    /// Notes a step's result in image history and cache.
    async fn record(&mut self, session: &Session<'_>, created_by: String, empty_layer: bool) -> Result<(), BuildError> {
        let now = Timestamp::now();
        let config = &mut self.record.config;
        config.created = Some(now);
        config.history.push(History {
            created: Some(now),
            created_by: Some(created_by),
            empty_layer,
            ..History::default()
        });
        let (cache, key, record) = (session.builder.cache.clone(), self.key.clone(), self.record.clone());
        blocking(move || cache.put(&key, &record)).await
    }

    async fn metadata(&mut self, session: &Session<'_>, statement: &Statement) -> Result<(), BuildError> {
        let mut config = self.record.config.clone();
        let mut cmd_set = self.cmd_set;
        let expand = |text: &str| self.expand(session, text);
        let applied = config::apply(&mut config, &statement.instruction, &mut cmd_set, &expand)
            .map_err(|message| parse_error(session.file, statement, message))?;
        let Some(text) = applied else { return Ok(()) };
        self.cmd_set = cmd_set;
        if self.cached(session, self.key.then(&[b"config", text.as_bytes()])).await? {
            return Ok(());
        }
        self.record.config = config;
        self.record(session, text, true).await
    }

    async fn run(&mut self, session: &Session<'_>, run: &Run) -> Result<(), BuildError> {
        let args = run_args(run, self.record.config.config.shell.as_deref());
        let build_args = self.scope.run_args(&self.record.config.config.env);
        let network = run.network.clone().unwrap_or_else(|| session.request.network.clone());
        let shown = serde_json::to_string(&(&args, &build_args, &network)).unwrap_or_default();
        if self.cached(session, self.key.then(&[b"run", shown.as_bytes()])).await? {
            return Ok(());
        }
        let scratch = Scratch::prepare(&session.builder.snapshots, self.chain()).await?;
        let step = RunStep {
            id: scratch.id().to_owned(),
            root: scratch.mount().clone(),
            args: args.clone(),
            env: [stage::predefined(&session.request.build_args), build_args, self.record.config.config.env.clone()]
                .concat(),
            user: self.record.config.config.user.clone(),
            working_dir: if self.record.config.config.working_dir.is_empty() {
                "/".to_owned()
            } else {
                self.record.config.config.working_dir.clone()
            },
            network,
            extra_hosts: session.request.extra_hosts.clone(),
            limits: session.request.limits.clone(),
        };
        let container = step.id.clone();
        session.tell(BuildEvent::RunningIn { container: container.clone() }).await?;
        let code = session.builder.runner.run(step, session.events).await?;
        session.tell(BuildEvent::Removed { container }).await?;
        if code != 0 {
            return Err(BuildError::Exit { command: args.join(" "), code });
        }
        self.commit(session, scratch, format!("RUN {}", args.join(" "))).await
    }

    /// Turns what a step wrote into a layer.
    async fn commit(&mut self, session: &Session<'_>, scratch: Scratch, created_by: String) -> Result<(), BuildError> {
        let committed = scratch.commit().await?;
        self.record.config.rootfs.diff_ids.push(committed.diff_id);
        self.record.layers.push(committed.blob);
        self.record(session, created_by, false).await
    }

    async fn workdir(&mut self, session: &Session<'_>, path: &str) -> Result<(), BuildError> {
        let dir = config::joined_dir(&self.record.config.config.working_dir, path);
        let text = format!("WORKDIR {dir}");
        if self.cached(session, self.key.then(&[b"workdir", dir.as_bytes()])).await? {
            return Ok(());
        }
        self.record.config.config.working_dir.clone_from(&dir);
        let scratch = Scratch::prepare(&session.builder.snapshots, self.chain()).await?;
        let made = scratch
            .in_root(move |root| {
                let exists =
                    root.resolve(Path::new(&dir), rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY).is_ok();
                if !exists {
                    root.make_dirs(Path::new(&dir), (0, 0))
                        .map_err(BuildError::io("cannot make the working directory", &dir))?;
                }
                Ok(!exists)
            })
            .await?;
        if made { self.commit(session, scratch, text).await } else { self.record(session, text, true).await }
    }

    async fn copy(&mut self, session: &Session<'_>, statement: &Statement, copy: &Copy) -> Result<(), BuildError> {
        let plan =
            CopyPlan::new(self, session, copy).map_err(|message| parse_error(session.file, statement, message))?;
        let (from, from_name) = self.copy_source(session, copy).await?;
        let tree = from.tree(session);
        let digest = {
            let (plan, tree, name) = (plan.clone(), tree.clone(), copy.name());
            blocking(move || plan.digest(&tree, &from_name, name)).await?
        };
        if self.cached(session, self.key.then(&[b"copy", &digest])).await? {
            return Ok(());
        }
        let scratch = Scratch::prepare(&session.builder.snapshots, self.chain()).await?;
        let text = plan.text(copy);
        let name = copy.name();
        scratch.in_root(move |root| plan.execute(&tree, root, name)).await?;
        drop(from);
        self.commit(session, scratch, text).await
    }

    /// Where COPY reads: the context, an earlier stage, or an image. The name is part of the cache key.
    async fn copy_source(&self, session: &Session<'_>, copy: &Copy) -> Result<(CopyFrom, String), BuildError> {
        let Some(from) = &copy.from else { return Ok((CopyFrom::Context, String::new())) };
        let from = self.expand(session, from).map_err(BuildError::step)?;
        let stage = match session.graph.stage_for_copy(&from, self.index) {
            Some(index) => session.done.get(&index).cloned().ok_or_else(|| {
                BuildError::step(format!("invalid from flag value {from}: it refers to a later stage"))
            })?,
            None => session.image(&from).await?,
        };
        let scratch =
            Scratch::prepare(&session.builder.snapshots, chain_id(&stage.record.config.rootfs.diff_ids)).await?;
        let root = scratch.open_root().await?;
        Ok((CopyFrom::Tree { root: Arc::new(root), _scratch: scratch }, stage.key.as_str().to_owned()))
    }
}

/// The tree that a COPY reads; a stage's or image's is mounted for as long as this lives.
enum CopyFrom {
    Context,
    Tree { root: Arc<crate::layer::MountedRoot>, _scratch: Scratch },
}

/// A tree to read that keeps its mount alive.
#[derive(Clone)]
enum Tree {
    Context(Arc<Root>),
    Mounted(Arc<crate::layer::MountedRoot>),
}

impl CopyFrom {
    fn tree(&self, session: &Session<'_>) -> Tree {
        match self {
            Self::Context => Tree::Context(session.context.clone()),
            Self::Tree { root, .. } => Tree::Mounted(root.clone()),
        }
    }
}

impl Tree {
    fn root(&self) -> &Root {
        match self {
            Self::Context(root) => root,
            Self::Mounted(mounted) => &mounted.root,
        }
    }
}

/// A COPY with its variables expanded.
#[derive(Clone)]
struct CopyPlan {
    sources: Vec<Source>,
    destination: PathBuf,
    must_be_dir: bool,
    chown: Option<String>,
    mode: Option<u32>,
    exclude: Vec<String>,
    parents: bool,
    /// Files come from another image: they keep their owners, and devices may be among them.
    from_image: bool,
    unpack: bool,
    /// Where an archive may be unpacked for a moment: beside the context, on the same disk.
    scratch: PathBuf,
}

#[derive(Clone)]
enum Source {
    Path(String),
    Inline { name: String, content: String },
}

impl CopyPlan {
    fn new(stage: &StageRun, session: &Session<'_>, copy: &Copy) -> Result<Self, String> {
        let expand = |text: &str| stage.expand(session, text);
        let env = &stage.record.config.config.env;
        let sources = copy
            .sources
            .iter()
            .map(|source| match source {
                CopySource::Path(path) => Ok(Source::Path(expand(path)?)),
                CopySource::Inline(heredoc) => {
                    let content = if heredoc.expand {
                        stage.scope.expand_text(env, session.file.directives.escape, &heredoc.content)?
                    } else {
                        heredoc.content.clone()
                    };
                    Ok(Source::Inline { name: heredoc.name.clone(), content })
                }
            })
            .collect::<Result<Vec<_>, String>>()?;
        for source in &sources {
            if let Source::Path(path) = source
                && (path.starts_with("http://")
                    || path.starts_with("https://")
                    || path.ends_with(".git")
                    || path.starts_with("git@"))
            {
                return Err(format!(
                    "{path}: sources from the network are not supported yet; fetch the file into the build context"
                ));
            }
        }
        let destination = expand(&copy.destination)?;
        let slash = destination.ends_with('/') || destination == "." || destination.ends_with("/.");
        let mode = copy.chmod.as_deref().map(&expand).transpose()?.map(|text| {
            u32::from_str_radix(&text, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .ok_or(format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"))
        });
        Ok(Self {
            must_be_dir: slash || sources.len() > 1,
            destination: PathBuf::from(config::joined_dir(&stage.record.config.config.working_dir, &destination)),
            chown: copy.chown.as_deref().map(&expand).transpose()?,
            mode: mode.transpose()?,
            exclude: copy.exclude.clone(),
            parents: copy.parents,
            from_image: copy.from.is_some(),
            unpack: copy.is_add,
            scratch: session.request.context.parent().unwrap_or(Path::new("/tmp")).to_owned(),
            sources,
        })
    }

    fn excluded(&self) -> impl Fn(&Path) -> bool + '_ {
        |path: &Path| {
            self.exclude
                .iter()
                .any(|pattern| crate::glob::path_match(pattern.trim_start_matches("./"), &path.to_string_lossy()))
        }
    }

    fn found(&self, tree: &Root, path: &str, instruction: &'static str) -> Result<Vec<Found>, BuildError> {
        let found = tree.find(path).map_err(BuildError::io("cannot read", path))?;
        if found.is_empty() {
            return Err(BuildError::SourceMissing { instruction, source_path: path.to_owned() });
        }
        Ok(found)
    }

    /// All that the result depends on. Another image's files are named by that image, a context's by their content.
    fn digest(&self, tree: &Tree, from: &str, instruction: &'static str) -> Result<Vec<u8>, BuildError> {
        let mut hash = Sha256::new();
        let options = (
            &self.destination,
            self.must_be_dir,
            &self.chown,
            self.mode,
            &self.exclude,
            self.parents,
            self.unpack,
            from,
        );
        hash.update(serde_json::to_vec(&options).map_err(|error| BuildError::Storage(error.to_string()))?);
        for source in &self.sources {
            match source {
                Source::Inline { name, content } => {
                    hash.update(name.as_bytes());
                    hash.update(content.as_bytes());
                }
                Source::Path(path) if self.from_image => hash.update(path.as_bytes()),
                Source::Path(path) => {
                    for found in self.found(tree.root(), path, instruction)? {
                        tree.root()
                            .hash(&found, &self.excluded(), &mut hash)
                            .map_err(BuildError::io("cannot read", &found.path))?;
                    }
                }
            }
        }
        Ok(hash.finalize().to_vec())
    }

    fn execute(&self, tree: &Tree, into: &Root, instruction: &'static str) -> Result<(), BuildError> {
        let excluded = self.excluded();
        let default_owner = if self.from_image { None } else { Some((0, 0)) };
        let chown = self.chown.as_deref().map(|text| owner(into, text)).transpose()?;
        let options = CopyOptions {
            owner: chown.or(default_owner),
            mode: self.mode,
            parents: self.parents,
            excluded: &excluded,
            special_files: self.from_image,
        };
        // What an archive holds keeps the owners that it says, as an image's files do.
        let archive_options =
            CopyOptions { owner: chown, mode: None, parents: false, excluded: &excluded, special_files: true };
        let mut destination = Destination { path: self.destination.clone(), must_be_dir: self.must_be_dir };
        for source in &self.sources {
            match source {
                Source::Inline { name, content } => {
                    copy::write_inline(content, name, into, &destination, &options)
                        .map_err(BuildError::io("cannot write", &destination.path))?;
                }
                Source::Path(path) => {
                    let all = self.found(tree.root(), path, instruction)?;
                    destination.must_be_dir |= all.len() > 1;
                    for found in all {
                        if self.unpack
                            && !found.is_dir
                            && crate::layer::add_archive(
                                tree.root(),
                                &found,
                                &self.scratch,
                                into,
                                &destination,
                                &archive_options,
                            )?
                        {
                            continue;
                        }
                        copy::copy(tree.root(), &found, into, &destination, &options)
                            .map_err(BuildError::io("cannot copy", &found.path))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn text(&self, copy: &Copy) -> String {
        let sources = self.sources.iter().map(|source| match source {
            Source::Path(path) => normalise(path).display().to_string(),
            Source::Inline { name, .. } => format!("<<{name}"),
        });
        let flags = [
            copy.from.as_ref().map(|from| format!("--from={from} ")),
            self.chown.as_ref().map(|chown| format!("--chown={chown} ")),
        ];
        format!(
            "{} {}{} {}",
            copy.name(),
            flags.into_iter().flatten().collect::<String>(),
            sources.collect::<Vec<_>>().join(" "),
            self.destination.display()
        )
    }
}

/// The argument vector of a RUN with its heredocs.
fn run_args(run: &Run, shell: Option<&[String]>) -> Vec<String> {
    let Command::Shell(text) = &run.command else { return command_args(&run.command, shell) };
    let script = match run.heredocs.as_slice() {
        [] => text.clone(),
        // `RUN <<EOF`: the document is the script itself.
        [only] if text.trim_start_matches("<<").trim_start_matches('-').trim_matches(['"', '\'']) == only.name => {
            only.content.clone()
        }
        // Otherwise the shell reads the documents from its own input, as they were written.
        all => all
            .iter()
            .fold(format!("{text}\n"), |script, heredoc| format!("{script}{}{}\n", heredoc.content, heredoc.name)),
    };
    config::shell_of(shell).into_iter().chain([script]).collect()
}
