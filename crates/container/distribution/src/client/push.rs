//! One push: layers, configuration, then the manifest.
//!
//! What the registry has is not sent (`HEAD`), what it can take from elsewhere is mounted. To a registry on this machine
//! layers go as they are stored; to others they go compressed, and the compressed form is kept beside the layer, so that
//! the next push sends nothing and compresses nothing.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use content::{Image, Store};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{Method, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use oci::{Compression, Descriptor, Digest, Document, MAX_MANIFEST_BYTES, Manifest, Reference, media_type};

use super::hosts::is_loopback;
use super::transport::{Body, Session, full_body, no_body};
use super::{Auth, LayerState, Progress, Pushed, Shared, Sink};
use crate::error::{Error, Result};

const PARALLEL: usize = 5;
const CHUNK: usize = 256 << 10;

struct Push {
    shared: Arc<Shared>,
    session: Session,
    reference: Reference,
    progress: Sink,
}

pub(super) async fn push(
    shared: &Arc<Shared>,
    reference: &Reference,
    auth: Option<&Auth>,
    progress: Sink,
) -> Result<Pushed> {
    if reference.digest().is_some() {
        return Err(Error::PushDigest);
    }
    let reference = reference.clone().or_latest();
    let _lease = shared.content.lease("push");
    let image = shared.content.images().named(&reference).ok_or_else(|| Error::NoTag(reference.familiar()))?;
    let endpoint = shared.transport.hosts().registry(reference.domain(), reference.path());
    let session = shared.transport.session(&endpoint, Some("pull,push"), auth).await?;
    let push = Push { shared: Arc::clone(shared), session, reference, progress };
    push.status(None, format!("The push refers to repository [{}]", push.reference.name()));
    let pushed = push.image(&image).await.map_err(|error| match error {
        Error::Unauthorized(_) => Error::Denied("push", push.reference.familiar_name()),
        other => other,
    })?;
    shared.content.images().tag(&image.id, &push.reference.with_digest(pushed.digest))?;
    let tag = push.reference.tag().unwrap_or_default();
    push.status(None, format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size));
    tracing::info!(image = %image.id.0.short(), name = %push.reference.familiar(), digest = %pushed.digest, "image pushed");
    Ok(pushed)
}

impl Push {
    fn status(&self, id: Option<String>, message: String) {
        (self.progress)(Progress::Status { id, message });
    }

    fn tell(&self, diff_id: &Digest, state: LayerState) {
        (self.progress)(Progress::Layer { id: diff_id.short(), state });
    }

    async fn image(&self, image: &Image) -> Result<Pushed> {
        let diff_ids = &image.config.rootfs.diff_ids;
        for diff_id in diff_ids {
            self.tell(diff_id, LayerState::Preparing);
        }
        // The manifest that it came with, byte for byte, so that its digest stays what it was.
        let original = original_manifest(&self.shared.content, image);
        let keep = original.is_some() || is_loopback(self.reference.domain());
        let jobs = image
            .layers
            .iter()
            .zip(diff_ids)
            .map(|(layer, diff_id)| self.layer(layer, diff_id, image, keep))
            // Collected: a lazy iterator's closure would keep the future from being `Send`.
            .collect::<Vec<_>>();
        let layers: Vec<Descriptor> = stream::iter(jobs).buffered(PARALLEL).try_collect().await?;
        let config = Descriptor::new(media_type::OCI_CONFIG, image.id.0, self.shared.content.get(&image.id.0)?.size);
        self.blob(&config, None, image).await?;
        let (media_type, bytes) = match original {
            Some(original) => original,
            None => (media_type::OCI_MANIFEST.to_owned(), new_manifest(config, layers)?),
        };
        self.manifest(&media_type, bytes).await
    }

    async fn manifest(&self, media_type: &str, bytes: Vec<u8>) -> Result<Pushed> {
        let pushed = Pushed { digest: Digest::of(&bytes), size: bytes.len() as u64 };
        let path = self.session.path(&format!("manifests/{}", self.reference.tag_or_digest()));
        let bytes = Bytes::from(bytes);
        let headers = [(header::CONTENT_TYPE, media_type.to_owned())];
        let answer = self.session.send(Method::PUT, &path, &headers, &|| full_body(bytes.clone())).await?;
        answer.expect(&[200, 201, 202]).await?;
        Ok(pushed)
    }

    /// Sends one layer; the descriptor under which the registry has it.
    async fn layer(&self, layer: &Descriptor, diff_id: &Digest, image: &Image, keep: bool) -> Result<Descriptor> {
        let sent = if keep { layer.clone() } else { compressed(&self.shared.content, layer, diff_id).await? };
        self.blob(&sent, Some(diff_id), image).await?;
        Ok(as_oci(&self.shared.content, sent))
    }

    /// Again from the start, after a pause, where the registry broke off: an upload's rest cannot be trusted everywhere.
    async fn blob(&self, blob: &Descriptor, diff_id: Option<&Digest>, image: &Image) -> Result<()> {
        let patience = self.shared.transport.hosts().patience;
        let mut attempt = 1;
        loop {
            let result = self.blob_once(blob, diff_id, image).await;
            let Err(error) = &result else { return result };
            let again = error.is_transient() && !error.is_refused() && !matches!(error, Error::TooManyRequests(_));
            let Some(pause) = patience.pause(attempt, None).filter(|_| again) else { return result };
            tracing::debug!(digest = %blob.digest, attempt, %error, "upload is tried again");
            attempt += 1;
            tokio::time::sleep(pause).await;
        }
    }

    async fn blob_once(&self, blob: &Descriptor, diff_id: Option<&Digest>, image: &Image) -> Result<()> {
        let tell = |state| diff_id.into_iter().for_each(|id| self.tell(id, LayerState::clone(&state)));
        let repository = self.reference.path();
        let head = self.session.head(&self.session.path(&format!("blobs/{}", blob.digest))).await?;
        match head.status() {
            200 => {
                tell(LayerState::LayerAlreadyExists);
                return Ok(());
            }
            404 => {}
            _ => drop(head.expect(&[404]).await?),
        }
        let source =
            image.repo_digests.iter().find(|r| r.domain() == self.reference.domain() && r.path() != repository);
        let from = source.map(|r| format!("&from={}", r.path())).unwrap_or_default();
        let start = self.session.path(&format!("blobs/uploads/?mount={}{from}", blob.digest));
        let zero = [(header::CONTENT_LENGTH, "0".to_owned())];
        let answer = self.session.send(Method::POST, &start, &zero, &no_body).await?.expect(&[201, 202]).await?;
        if answer.status() == 201 {
            tell(source.map_or(LayerState::Pushed, |r| LayerState::MountedFrom(r.path().to_owned())));
            return Ok(());
        }
        let location = answer
            .location()
            .ok_or_else(|| Error::Answer { url: answer.url.clone(), reason: "no upload location".into() })?;
        self.upload(blob, diff_id, &location).await?;
        tell(LayerState::Pushed);
        Ok(())
    }

    async fn upload(&self, blob: &Descriptor, diff_id: Option<&Digest>, location: &str) -> Result<()> {
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={}", super::auth::percent_encode(&blob.digest.to_string()));
        let stored = self.shared.content.get(&blob.digest)?;
        let size = stored.size;
        let file = Arc::new(stored.file);
        let sent = Arc::clone(&self.session.sent);
        let draw: Arc<dyn Fn(u64) + Send + Sync> = match diff_id {
            Some(diff_id) => {
                let (sink, id) = (Arc::clone(&self.progress), diff_id.short());
                Arc::new(move |current| {
                    sink(Progress::Layer { id: id.clone(), state: LayerState::Pushing { current, total: size } })
                })
            }
            None => Arc::new(|_| ()),
        };
        let tell: Arc<dyn Fn(u64) + Send + Sync> = Arc::new(move |current| {
            sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            draw(current);
        });
        let headers =
            [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_LENGTH, size.to_string())];
        let body = || file_body(Arc::clone(&file), size, Arc::clone(&tell));
        self.session.send(Method::PUT, &url, &headers, &body).await?.expect(&[201, 204]).await?;
        Ok(())
    }
}

/// Reads by offset, so that a repeated request starts at the beginning again.
fn file_body(file: Arc<File>, size: u64, tell: Arc<dyn Fn(u64) + Send + Sync>) -> Body {
    let chunks = stream::try_unfold(0u64, move |at| {
        let (file, tell) = (Arc::clone(&file), Arc::clone(&tell));
        async move {
            if at >= size {
                return Ok(None);
            }
            let read = move || -> std::io::Result<Vec<u8>> {
                let mut bytes = vec![0; CHUNK.min(usize::try_from(size - at).unwrap_or(CHUNK))];
                std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes, at)?;
                Ok(bytes)
            };
            let bytes = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)??;
            let next = at + bytes.len() as u64;
            tell(next);
            Ok::<_, std::io::Error>(Some((Frame::data(Bytes::from(bytes)), next)))
        }
    });
    StreamBody::new(chunks).boxed_unsync()
}

/// The manifest that an image came with, byte for byte, if it still is what the image is made of.
pub(crate) fn original_manifest(content: &Store, image: &Image) -> Option<(String, Vec<u8>)> {
    let bytes = content.read(&image.manifest_digest?, MAX_MANIFEST_BYTES as u64).ok()?;
    let document = Document::parse(&bytes, None).ok()?;
    let media_type = document.media_type().to_owned();
    let Document::Manifest(manifest) = document else {
        return None;
    };
    let digests = |layers: &[Descriptor]| layers.iter().map(|l| l.digest).collect::<Vec<_>>();
    (digests(&manifest.layers) == digests(&image.layers)).then_some((media_type, bytes))
}

fn new_manifest(config: Descriptor, layers: Vec<Descriptor>) -> Result<Vec<u8>> {
    let media_type = Some(media_type::OCI_MANIFEST.to_owned());
    let manifest = Manifest {
        schema_version: 2,
        media_type,
        artifact_type: None,
        config,
        layers,
        subject: None,
        annotations: None,
    };
    serde_json::to_vec(&manifest).map_err(|e| Error::Io(e.into()))
}

fn sniff(content: &Store, layer: &Descriptor) -> Result<Compression> {
    let blob = content.get(&layer.digest)?;
    let mut start = [0; 4];
    let n = std::os::unix::fs::FileExt::read_at(&blob.file, &mut start, 0)?;
    Ok(Compression::sniff(&start[..n]))
}

/// The layer under the OCI media type that its bytes deserve.
fn as_oci(content: &Store, layer: Descriptor) -> Descriptor {
    let media_type = match sniff(content, &layer).unwrap_or(Compression::None) {
        Compression::None => media_type::OCI_LAYER,
        Compression::Gzip => media_type::OCI_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
    };
    Descriptor { media_type: media_type.into(), ..layer }
}

/// The layer's compressed form: itself, or from the table, or made now.
async fn compressed(content: &Store, layer: &Descriptor, diff_id: &Digest) -> Result<Descriptor> {
    if sniff(content, layer)? != Compression::None {
        return Ok(layer.clone());
    }
    let table = content.records("compressed-layers")?;
    if let Some(known) = table.get::<Descriptor>(&diff_id.to_string())
        && content.contains(&known.digest)
    {
        return Ok(known);
    }
    let (content, source, diff_id) = (content.clone(), layer.digest, *diff_id);
    let compress = move || -> Result<Descriptor> {
        let mut blob = content.get(&source)?;
        let mut encoder = flate2::write::GzEncoder::new(content.ingest(None)?, flate2::Compression::default());
        std::io::copy(&mut blob.file, &mut encoder)?;
        let descriptor = encoder.finish()?.commit(media_type::OCI_LAYER_GZIP)?;
        table.put_derived(&diff_id.to_string(), &descriptor, &[descriptor.digest], diff_id)?;
        Ok(descriptor)
    };
    tokio::task::spawn_blocking(compress).await?
}
