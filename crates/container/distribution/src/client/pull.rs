//! One pull: reference → manifest for the platform → configuration and layers → image.
//!
//! Layers are fetched side by side, resumed where an earlier attempt stopped, and unpacked as they come. A lease keeps
//! collection away until the image is recorded.

use std::sync::Arc;

use content::{Image, Ingest, NewImage, Origin};
use http::header;
use oci::{
    Descriptor, Digest, Document, ImageConfig, ImageId, MAX_MANIFEST_BYTES, Manifest, Platform, Reference, media_type,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::transport::Session;
use super::{Auth, LayerState, Progress, Shared, Sink};
use crate::error::{Error, Result};

pub(super) const MAX_CONFIG_BYTES: u64 = 8 << 20;
const MAX_INDEX_DEPTH: usize = 3;
/// Fetches at once, as dockerd's default.
const PARALLEL: usize = 3;
/// How often progress is told, in bytes.
const PROGRESS_STEP: u64 = 512 << 10;
pub(super) const ACCEPT: &str = concat!(
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, ",
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"
);

struct Pull {
    shared: Arc<Shared>,
    session: Arc<Session>,
    reference: Reference,
    /// `None`: this machine's.
    platform: Option<Platform>,
    progress: Sink,
}

/// Mirrors first; what one of them has not, or not well, the next may have.
pub(super) async fn pull(
    shared: &Arc<Shared>,
    reference: &Reference,
    platform: Option<&Platform>,
    auth: Option<&Auth>,
    progress: Sink,
) -> Result<ImageId> {
    let _lease = shared.content.lease("pull");
    let reference = reference.clone().or_latest();
    let mut endpoints = shared.transport.hosts().endpoints(&reference).into_iter().peekable();
    loop {
        // There is always one: the registry itself.
        let Some(endpoint) = endpoints.next() else { return Err(Error::ManifestUnknown(reference.familiar())) };
        let outcome = match shared.transport.session(&endpoint, Some("pull"), auth).await {
            Ok(session) => {
                let (shared, session) = (Arc::clone(shared), Arc::new(session));
                let (reference, platform, progress) = (reference.clone(), platform.cloned(), Arc::clone(&progress));
                Pull { shared, session, reference, platform, progress }.run().await
            }
            Err(error) => Err(error),
        };
        match outcome {
            Err(error) if endpoints.peek().is_some() => {
                tracing::warn!(mirror = endpoint.host, image = %reference.familiar(), %error, "mirror passed over");
            }
            outcome => return outcome,
        }
    }
}

impl Pull {
    async fn run(self) -> Result<ImageId> {
        let (document, bytes, top) = self.manifest(&self.reference.tag_or_digest(), None).await?;
        self.status(Some(self.reference.tag_or_digest()), format!("Pulling from {}", self.reference.path()));
        let (manifest, manifest_bytes, manifest_digest) = self.select(document, bytes, top).await?;
        let known = self.shared.content.images().get(&ImageId(manifest.config.digest)).ok();
        let config = self.config(&manifest.config).await?;
        let parsed = ImageConfig::parse(&config).map_err(content::Error::Config)?;
        if parsed.rootfs.diff_ids.is_empty() && !manifest.layers.is_empty() {
            return Err(Error::NotAnImage("its configuration names no layers (an artifact?)"));
        }
        self.layers(&manifest, &parsed).await?;
        self.shared.content.put_bytes(media_type::OCI_MANIFEST, &manifest_bytes)?;
        let image = self.record(&manifest, config, &parsed, manifest_digest)?;
        self.name(&image, top, known.as_ref())?;
        let has = parsed.platform();
        if let Some(wanted) = self.platform.as_ref().filter(|wanted| !has.satisfies(wanted)) {
            // An image of one platform comes whatever was asked for; Docker says so, in these words.
            let name = self.reference.familiar();
            let told = format!("image with reference {name} was found but its platform ({has}) does not match");
            self.status(None, format!("WARNING: {told} the specified platform ({wanted})"));
        }
        Ok(image)
    }

    fn status(&self, id: Option<String>, message: String) {
        (self.progress)(Progress::Status { id, message });
    }

    /// Fetches one document and checks it against what was asked for.
    async fn manifest(&self, target: &str, expected: Option<&Descriptor>) -> Result<(Document, Vec<u8>, Digest)> {
        let path = self.session.path(&format!("manifests/{target}"));
        let answer = self.session.get(&path, &[(header::ACCEPT, ACCEPT.to_owned())]).await?;
        let answer = match answer.status() {
            404 => return Err(Error::ManifestUnknown(self.reference.familiar())),
            401 | 403 => return Err(Error::Denied("pull", self.reference.familiar_name())),
            _ => answer.expect(&[200]).await?,
        };
        let declared = answer.header("content-type").map(|t| t.split(';').next().unwrap_or(t).trim().to_owned());
        let bytes = answer.bytes(MAX_MANIFEST_BYTES).await?;
        let actual = Digest::of(&bytes);
        let wanted = expected.map(|d| d.digest).or(self.reference.digest().copied());
        if let Some(expected) = wanted.filter(|wanted| *wanted != actual) {
            return Err(content::Error::DigestMismatch { expected, actual }.into());
        }
        Ok((Document::parse(&bytes, declared.as_deref())?, bytes.to_vec(), actual))
    }

    /// Goes from an index to the manifest of the wanted platform.
    async fn select(
        &self,
        mut document: Document,
        mut bytes: Vec<u8>,
        mut digest: Digest,
    ) -> Result<(Manifest, Vec<u8>, Digest)> {
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        for _ in 0..=MAX_INDEX_DEPTH {
            let index = match document {
                Document::Manifest(manifest) => return Ok((*manifest, bytes, digest)),
                Document::Index(index) => index,
            };
            let chosen = index.select(&platform).ok_or_else(|| Error::NoPlatform(platform.clone()))?;
            (document, bytes, digest) = self.manifest(&chosen.digest.to_string(), Some(chosen)).await?;
        }
        Err(Error::TooDeep(MAX_INDEX_DEPTH))
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        if descriptor.size > MAX_CONFIG_BYTES {
            return Err(content::Error::SizeMismatch { expected: MAX_CONFIG_BYTES, actual: descriptor.size }.into());
        }
        fetch(&self.shared, &self.session, descriptor, &|_| ()).await?;
        Ok(self.shared.content.read(&descriptor.digest, MAX_CONFIG_BYTES)?)
    }

    async fn layers(&self, manifest: &Manifest, config: &ImageConfig) -> Result<()> {
        let diff_ids: Arc<[Digest]> = config.rootfs.diff_ids.as_slice().into();
        if manifest.layers.len() != diff_ids.len() {
            return Err(content::Error::LayerCount { diff_ids: diff_ids.len(), layers: manifest.layers.len() }.into());
        }
        // Another pull of the same image does the work for both: then everything is there already.
        let lock = self.shared.fetch_lock(&chain_key(&diff_ids));
        let _only = match lock.try_lock() {
            Ok(only) => only,
            Err(_) => {
                for layer in &manifest.layers {
                    (self.progress)(Progress::Layer { id: layer.digest.short(), state: LayerState::Waiting });
                }
                lock.lock().await
            }
        };
        let permits = Arc::new(Semaphore::new(PARALLEL));
        let mut tasks = JoinSet::new();
        for (index, layer) in manifest.layers.iter().enumerate() {
            let job = LayerJob {
                shared: Arc::clone(&self.shared),
                session: Arc::clone(&self.session),
                layer: layer.clone(),
                diff_ids: Arc::clone(&diff_ids),
                index,
                progress: Arc::clone(&self.progress),
            };
            job.tell(LayerState::PullingFsLayer);
            tasks.spawn(job.run(Arc::clone(&permits)));
        }
        let mut staged = Vec::new();
        while let Some(done) = tasks.join_next().await {
            // The first failure drops the set, which ends the other fetches.
            staged.extend(done??);
        }
        let snapshots = self.shared.snapshots.clone();
        tokio::task::spawn_blocking(move || snapshots.record(staged)).await??;
        Ok(())
    }

    fn record(
        &self,
        manifest: &Manifest,
        config: Vec<u8>,
        parsed: &ImageConfig,
        manifest_digest: Digest,
    ) -> Result<ImageId> {
        let size = self.shared.snapshots.stack_size(parsed.chain_id().as_ref());
        let origin = Origin::Pulled { registry: self.reference.domain().to_owned() };
        let new = NewImage {
            config,
            layers: manifest.layers.clone(),
            manifest_digest: Some(manifest_digest),
            origin,
            size: Some(size),
        };
        Ok(self.shared.content.create_image(new)?)
    }

    fn name(&self, image: &ImageId, top: Digest, known: Option<&Image>) -> Result<()> {
        let images = self.shared.content.images();
        let had = known.is_some_and(|k| k.names.contains(&self.reference) || k.repo_digests.contains(&self.reference));
        if self.reference.tag().is_some() && self.reference.digest().is_none() {
            images.tag(image, &self.reference)?;
        }
        images.tag(image, &self.reference.with_digest(top))?;
        self.status(None, format!("Digest: {top}"));
        let familiar = self.reference.familiar();
        let what = if had { "Image is up to date for" } else { "Downloaded newer image for" };
        self.status(None, format!("Status: {what} {familiar}"));
        tracing::info!(image = %image.0.short(), name = %familiar, "image pulled");
        Ok(())
    }
}

struct LayerJob {
    shared: Arc<Shared>,
    session: Arc<Session>,
    layer: Descriptor,
    diff_ids: Arc<[Digest]>,
    index: usize,
    progress: Sink,
}

impl LayerJob {
    fn tell(&self, state: LayerState) {
        (self.progress)(Progress::Layer { id: self.layer.digest.short(), state });
    }

    async fn run(self, permits: Arc<Semaphore>) -> Result<Option<snapshots::Staged>> {
        let chain = oci::chain_ids(&self.diff_ids[..=self.index])[self.index];
        if self.shared.snapshots.has_layer(&chain) && self.shared.content.contains(&self.layer.digest) {
            self.tell(LayerState::AlreadyExists);
            return Ok(None);
        }
        {
            let _permit = permits.acquire().await.map_err(std::io::Error::other)?;
            let total = self.layer.size;
            fetch(&self.shared, &self.session, &self.layer, &|current| {
                self.tell(LayerState::Downloading { current, total })
            })
            .await?;
        }
        self.tell(LayerState::VerifyingChecksum);
        self.tell(LayerState::DownloadComplete);
        self.tell(LayerState::Extracting { current: self.layer.size, total: self.layer.size });
        let (snapshots, layer, diff_ids, index) =
            (self.shared.snapshots.clone(), self.layer.clone(), Arc::clone(&self.diff_ids), self.index);
        let staged = tokio::task::spawn_blocking(move || snapshots.stage(&layer, &diff_ids, index)).await??;
        self.tell(LayerState::PullComplete);
        Ok(staged)
    }
}

/// What stands for a whole stack of layers among the locks; no blob has such a digest.
fn chain_key(diff_ids: &[Digest]) -> Digest {
    Digest::of(format!("{diff_ids:?}").as_bytes())
}

/// Gets a blob into the store, unless it is there; verified, resumed, retried.
async fn fetch(
    shared: &Shared,
    session: &Session,
    descriptor: &Descriptor,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let lock = shared.fetch_lock(&descriptor.digest);
    let _only = lock.lock().await;
    if shared.content.size(&descriptor.digest) == Some(descriptor.size) {
        return Ok(());
    }
    let patience = shared.transport.hosts().patience;
    let mut attempt = 1;
    loop {
        let mut ingest = shared.content.resume(descriptor)?;
        let before = ingest.offset();
        match download(session, descriptor, &mut ingest, progress).await {
            Ok(()) => {
                let media_type = descriptor.media_type.clone();
                tokio::task::spawn_blocking(move || ingest.commit(&media_type)).await??;
                return Ok(());
            }
            Err(error) => {
                // A connection that brought something was no failed attempt: a large layer may need many.
                if ingest.offset() > before {
                    attempt = 1;
                }
                let again = error.is_transient() && !error.is_refused() && !matches!(error, Error::TooManyRequests(_));
                let Some(pause) = patience.pause(attempt, None).filter(|_| again) else { return Err(error) };
                tracing::debug!(digest = %descriptor.digest, attempt, %error, "fetch is tried again");
                attempt += 1;
                drop(ingest);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn download(
    session: &Session,
    descriptor: &Descriptor,
    ingest: &mut Ingest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    if ingest.offset() == descriptor.size && descriptor.size > 0 {
        return Ok(());
    }
    let path = session.path(&format!("blobs/{}", descriptor.digest));
    let range = (ingest.offset() > 0).then(|| (header::RANGE, format!("bytes={}-", ingest.offset())));
    let mut answer = session.get(&path, range.as_slice()).await?.expect(&[200, 206]).await?;
    let start = format!("bytes {}-", ingest.offset());
    if answer.status() == 206 && !answer.header("content-range").is_some_and(|r| r.starts_with(&start)) {
        let reason = "it answers another range than was asked for".to_owned();
        return Err(Error::Answer { url: answer.url, reason });
    }
    if answer.status() == 200 && ingest.offset() > 0 {
        ingest.restart()?;
    }
    let mut told = ingest.offset();
    while let Some(data) = answer.data().await? {
        ingest.append(&data)?;
        if ingest.offset() - told >= PROGRESS_STEP {
            told = ingest.offset();
            progress(told);
        }
    }
    Ok(())
}
