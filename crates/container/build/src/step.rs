//! One instruction at a time: cache look-up, else the work, then the record.

use std::path::Path;

use oci::{ChainId, History, chain_id};
use rustix::fs::OFlags;

use crate::BuildError;
use crate::cache::{CacheKey, Record};
use crate::config;
use crate::dockerfile::{Instruction, Statement};
use crate::events::{BuildEvent, Events};
use crate::execute::{StageResult, blocking, parse_error};
use crate::layer::Scratch;
use crate::session::{Session, unpack_layers};
use crate::stage::Scope;

/// A stage while its instructions run.
pub(crate) struct StageRun<'s, 'a> {
    pub session: &'s Session<'a>,
    pub index: usize,
    pub record: Record,
    pub key: CacheKey,
    pub scope: Scope,
    /// Where the instruction at hand tells what happens.
    pub events: Events,
    cmd_set: bool,
}

impl<'s, 'a> StageRun<'s, 'a> {
    pub(crate) fn new(session: &'s Session<'a>, index: usize, start: StageResult) -> Self {
        let events = session.events.clone();
        let (record, key) = (start.record, start.key);
        Self { session, index, record, key, scope: Scope::default(), events, cmd_set: false }
    }

    /// ONBUILD triggers that a stage inherits from another stage of the same file stay in its configuration.
    pub(crate) fn keep_triggers(&mut self, triggers: Vec<String>) {
        self.record.config.config.on_build = triggers;
    }

    pub(crate) fn finish(self) -> StageResult {
        StageResult { record: self.record, key: self.key }
    }

    /// Executes one instruction.
    pub(crate) async fn statement(&mut self, statement: &Statement, events: Events) -> Result<(), BuildError> {
        self.events = events;
        let done = self.instruction(statement).await;
        if let Err(error) = &done {
            self.events.hint(BuildEvent::Failed { message: error.solver_text() });
        }
        done?;
        self.events.tell(BuildEvent::Result { id: self.key.as_str().to_owned() }).await
    }

    async fn instruction(&mut self, statement: &Statement) -> Result<(), BuildError> {
        let file = self.session.file;
        let complain = |message: String| parse_error(file, statement, message);
        match &statement.instruction {
            Instruction::Run(run) => Box::pin(self.run(run)).await,
            Instruction::Copy(copy) => Box::pin(self.copy(statement, copy)).await,
            Instruction::Workdir(path) => {
                let path = self.expand(path).map_err(complain)?;
                self.workdir(&path).await
            }
            Instruction::Arg(args) => {
                for (name, default) in args {
                    let default = default.as_deref().map(|text| self.expand(text)).transpose().map_err(complain)?;
                    self.scope.declare(self.session.arguments, name, default);
                }
                Ok(())
            }
            _ => self.metadata(statement).await,
        }
    }

    pub(crate) fn expand(&self, text: &str) -> Result<String, String> {
        self.scope.expand(&self.record.config.config.env, self.session.file.directives.escape, text)
    }

    pub(crate) fn chain(&self) -> Option<ChainId> {
        chain_id(&self.record.config.rootfs.diff_ids)
    }

    fn may_use_cache(&self) -> bool {
        let request = self.session.request;
        let name = self.session.graph.stages[self.index].name.as_deref();
        !request.no_cache && !request.no_cache_stages.iter().any(|stage| Some(stage.as_str()) == name)
    }

    /// Moves to the cached result of a key, if there is one.
    pub(crate) async fn cached(&mut self, key: CacheKey) -> Result<bool, BuildError> {
        self.key = key;
        if !self.may_use_cache() {
            return Ok(false);
        }
        let builder = self.session.builder;
        let whole = |record: &Record| record.layers.iter().all(|layer| builder.content.contains(&layer.digest));
        let record = match builder.cache.get(&self.key).filter(whole) {
            Some(record) => record,
            None => {
                let Some(record) = self.session.imported.get(self.key.as_str()).filter(|r| whole(r)) else {
                    return Ok(false);
                };
                unpack_layers(builder, record).await?;
                record.clone()
            }
        };
        self.session.note(&self.key, &record);
        self.record = record;
        self.events.tell(BuildEvent::UsingCache).await?;
        Ok(true)
    }

    /// Notes a step's result in image history and cache.
    pub(crate) async fn remember(&mut self, created_by: String, empty_layer: bool) -> Result<(), BuildError> {
        let now = self.session.now();
        let config = &mut self.record.config;
        config.created = Some(now);
        config.history.push(History {
            created: Some(now),
            created_by: Some(created_by),
            empty_layer,
            ..History::default()
        });
        self.session.note(&self.key, &self.record);
        let (cache, key, record) = (self.session.builder.cache.clone(), self.key.clone(), self.record.clone());
        blocking(move || cache.put(&key, &record)).await
    }

    async fn metadata(&mut self, statement: &Statement) -> Result<(), BuildError> {
        let mut config = self.record.config.clone();
        let mut cmd_set = self.cmd_set;
        let expand = |text: &str| self.expand(text);
        let applied = config::apply(&mut config, &statement.instruction, &mut cmd_set, &expand)
            .map_err(|message| parse_error(self.session.file, statement, message))?;
        let Some(text) = applied else { return Ok(()) };
        self.cmd_set = cmd_set;
        if self.cached(self.key.then(&[b"config", text.as_bytes()])).await? {
            return Ok(());
        }
        self.record.config = config;
        self.remember(text, true).await
    }

    /// Turns what a step wrote into a layer.
    pub(crate) async fn commit(&mut self, scratch: Scratch, created_by: String) -> Result<(), BuildError> {
        let committed = scratch.commit(self.session.request.epoch()).await?;
        self.record.config.rootfs.diff_ids.push(committed.diff_id);
        self.record.layers.push(committed.blob);
        self.remember(created_by, false).await
    }

    async fn workdir(&mut self, path: &str) -> Result<(), BuildError> {
        let dir = config::joined_dir(&self.record.config.config.working_dir, path);
        let text = format!("WORKDIR {dir}");
        let key = self.layer_key(&[b"workdir", dir.as_bytes()]);
        if self.cached(key).await? {
            return Ok(());
        }
        self.record.config.config.working_dir.clone_from(&dir);
        let scratch = Scratch::prepare(&self.session.builder.snapshots, self.chain()).await?;
        let made = scratch
            .in_root(move |root| {
                let exists = root.resolve(Path::new(&dir), OFlags::DIRECTORY | OFlags::RDONLY).is_ok();
                if !exists {
                    root.make_dirs(Path::new(&dir), (0, 0))
                        .map_err(BuildError::io("cannot make the working directory", &dir))?;
                }
                Ok(!exists)
            })
            .await?;
        if made { self.commit(scratch, text).await } else { self.remember(text, true).await }
    }
}
