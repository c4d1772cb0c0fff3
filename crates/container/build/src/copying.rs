//! COPY and ADD as steps: their sources, their key, their layer.

use std::path::{Path, PathBuf};

use oci::ImageConfig;

use crate::BuildError;
use crate::cache::{CacheKey, Record};
use crate::context::{Found, Root};
use crate::copy::{self, CopyOptions, Destination};
use crate::copy_plan::{CopyPlan, Place};
use crate::dockerfile::{Copy, CopySource, Statement};
use crate::execute::{StageResult, blocking, parse_error};
use crate::layer::Scratch;
use crate::remote::{Fetched, Remote};
use crate::session::{Session, Source, Tree, unpack_layers};
use crate::step::StageRun;

impl StageRun<'_, '_> {
    pub(crate) async fn copy(&mut self, statement: &Statement, copy: &Copy) -> Result<(), BuildError> {
        let session = self.session;
        let complain = |message: String| parse_error(session.file, statement, message);
        let expand = |text: &str| self.expand(text);
        let expand_text = |text: &str| {
            let env = &self.record.config.config.env;
            self.scope.expand_text(env, session.file.directives.escape, text)
        };
        let working_dir = &self.record.config.config.working_dir;
        let plan = CopyPlan::new(copy, working_dir, &expand, &expand_text).map_err(complain)?;
        let from = copy.from.as_deref().map(expand).transpose().map_err(complain)?;
        let remotes = self.remotes(copy).await.map_err(|error| in_place(error, &complain))?;
        let source = match copy.sources.iter().any(|source| matches!(source, CopySource::Path(_))) && remotes.is_empty()
        {
            true => Some(session.source(from.as_deref(), self.index, &self.events).await?),
            false => None,
        };
        let digest = self.digest(&plan, source.as_ref(), &remotes).await?;
        if copy.link && plan.stands_alone() {
            return self.linked(plan, copy, source, remotes, &digest).await;
        }
        let key = self.layer_key(&[b"copy", &digest]);
        if self.cached(key).await? {
            return Ok(());
        }
        let text = plan.text(copy);
        let scratch = Scratch::prepare(&session.builder.snapshots, self.chain()).await?;
        self.place(&scratch, plan, source, remotes).await?;
        self.commit(scratch, text).await
    }

    /// Sources that are fetched: each with what identifies it, so that a cached layer needs no download.
    async fn remotes(&self, copy: &Copy) -> Result<Vec<Remote>, BuildError> {
        let mut remotes = Vec::new();
        for source in copy.sources.iter().filter(|_| copy.is_add) {
            let CopySource::Path(path) = source else { continue };
            let path = self.expand(path).map_err(BuildError::step)?;
            if let Some(remote) = Remote::of(&path, copy, &self.session.builder.space).await? {
                remotes.push(remote);
            }
        }
        if copy.checksum.is_some() && remotes.is_empty() {
            return Err(BuildError::step("checksum can't be specified for non-HTTP(S) & non-Git sources"));
        }
        if !remotes.is_empty() && remotes.len() != copy.sources.len() {
            return Err(BuildError::step("sources from the network and from the context need an ADD each"));
        }
        Ok(remotes)
    }

    async fn digest(
        &self,
        plan: &CopyPlan,
        source: Option<&Source>,
        remotes: &[Remote],
    ) -> Result<Vec<u8>, BuildError> {
        let from = source.and_then(|source| source.key.clone());
        let identities: Vec<String> = remotes.iter().map(|remote| remote.identity.clone()).collect();
        let (plan, tree) = (plan.clone(), source.map(|source| source.tree.clone()));
        blocking(move || plan.digest(tree.as_ref().map(Tree::root), from.as_deref(), &identities)).await
    }

    /// Copies into a prepared root.
    async fn place(
        &self,
        scratch: &Scratch,
        plan: CopyPlan,
        source: Option<Source>,
        remotes: Vec<Remote>,
    ) -> Result<(), BuildError> {
        let mut fetched: Vec<Fetched> = Vec::new();
        for remote in remotes {
            fetched.push(remote.fetch(&self.session.builder.space).await?);
        }
        let space = self.session.builder.space.temporary()?;
        scratch
            .in_root(move |root| {
                let tree = source.as_ref().map(|source| source.tree.root());
                let place = Place { tree, into: root, scratch: space.path(), fetched: &fetched };
                plan.execute(&place)
            })
            .await
    }

    /// `--link`: a layer that is the same whatever lies below it, found again under a key of its own.
    async fn linked(
        &mut self,
        plan: CopyPlan,
        copy: &Copy,
        source: Option<Source>,
        remotes: Vec<Remote>,
        digest: &[u8],
    ) -> Result<(), BuildError> {
        let session = self.session;
        let text = plan.text(copy);
        let key = self.layer_key(&[b"copy --link", digest]);
        if self.cached(key).await? {
            return Ok(());
        }
        let own = CacheKey::alone(
            &[digest, &self.session.request.epoch().map_or(0, |e| e.as_second()).to_le_bytes()].concat(),
        );
        let known = session.builder.cache.get(&own).filter(|record| {
            !session.request.no_cache && record.layers.iter().all(|l| session.builder.content.contains(&l.digest))
        });
        let layer = match known {
            Some(record) => record,
            None => {
                let scratch = Scratch::prepare(&session.builder.snapshots, None).await?;
                self.place(&scratch, plan, source, remotes).await?;
                let committed = scratch.commit(session.request.epoch()).await?;
                let mut record = Record { config: ImageConfig::scratch(), layers: vec![committed.blob] };
                record.config.rootfs.diff_ids.push(committed.diff_id);
                let (cache, made) = (session.builder.cache.clone(), record.clone());
                blocking(move || cache.put(&own, &made)).await?;
                record
            }
        };
        self.record.config.rootfs.diff_ids.extend(layer.config.rootfs.diff_ids);
        self.record.layers.extend(layer.layers);
        unpack_layers(session.builder, &self.record).await?;
        self.remember(text, false).await
    }
}

fn in_place(error: BuildError, complain: &impl Fn(String) -> BuildError) -> BuildError {
    match error {
        BuildError::Step { message } => complain(message),
        other => other,
    }
}

/// A named context as an image: all its files over nothing.
pub(crate) async fn whole_tree(session: &Session<'_>, tree: Tree, name: &str) -> Result<StageResult, BuildError> {
    let hashed = tree.clone();
    let digest = blocking(move || {
        let mut hash = <sha2::Sha256 as sha2::Digest>::new();
        let whole = Found { path: PathBuf::new(), is_dir: true };
        hashed.root().hash(&whole, &|_| false, &mut hash).map_err(BuildError::io("cannot read", "the context"))?;
        Ok::<_, BuildError>(sha2::Digest::finalize(hash).to_vec())
    })
    .await?;
    let key = CacheKey::alone(&[b"context", digest.as_slice()].concat());
    if let Some(record) = session.builder.cache.get(&key).filter(|_| !session.request.no_cache) {
        return Ok(StageResult { record, key });
    }
    let scratch = Scratch::prepare(&session.builder.snapshots, None).await?;
    scratch.in_root(move |into| copy_whole(tree.root(), into)).await?;
    let committed = scratch.commit(session.request.epoch()).await?;
    let mut record = Record { config: ImageConfig::scratch(), layers: vec![committed.blob] };
    record.config.rootfs.diff_ids.push(committed.diff_id);
    record.config.history.push(oci::History {
        created: Some(session.now()),
        created_by: Some(format!("FROM {name} (context)")),
        ..oci::History::default()
    });
    let (cache, own, made) = (session.builder.cache.clone(), key.clone(), record.clone());
    blocking(move || cache.put(&own, &made)).await?;
    Ok(StageResult { record, key })
}

fn copy_whole(from: &Root, into: &Root) -> Result<(), BuildError> {
    let whole = Found { path: PathBuf::new(), is_dir: true };
    let options = CopyOptions { owner: None, mode: None, parents: None, excluded: &|_| false, special_files: false };
    let destination = Destination { path: Path::new("/").to_owned(), must_be_dir: true };
    copy::copy(from, &whole, into, &destination, &options).map_err(BuildError::io("cannot copy", "the context"))
}
