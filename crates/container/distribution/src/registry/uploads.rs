//! Uploading blobs: monolithic, chunked, or by mounting what is there already.
//!
//! An upload is an ingest of the content store with a name. One request at a time works on it. Uploads that nobody
//! touched for an hour are dropped when the next one starts; those of a process that was killed are swept at open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use content::Ingest;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use oci::{Digest, Reference};

use super::access::Action;
use super::reply::{self, Body, Failure};
use super::{Call, Registry};

const MAX_UPLOADS: usize = 1000;
const MAX_BLOB_BYTES: u64 = 64 << 30;
const IDLE: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub(super) struct Uploads(Mutex<HashMap<String, Upload>>);

#[derive(Clone)]
struct Upload {
    repository: String,
    touched: Instant,
    /// Empty once it is finished.
    ingest: Arc<tokio::sync::Mutex<Option<Ingest>>>,
}

impl Uploads {
    fn add(&self, repository: &str, ingest: Ingest) -> Result<String, Failure> {
        let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.retain(|_, upload| upload.touched.elapsed() < IDLE);
        if uploads.len() >= MAX_UPLOADS {
            return Err(Failure::new(429, "TOOMANYREQUESTS", "too many uploads at once"));
        }
        let id = uuid::Uuid::new_v4().to_string();
        let ingest = Arc::new(tokio::sync::Mutex::new(Some(ingest)));
        uploads.insert(id.clone(), Upload { repository: repository.to_owned(), touched: Instant::now(), ingest });
        Ok(id)
    }

    fn get(&self, id: &str, repository: &str) -> Result<Upload, Failure> {
        let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let upload = uploads.get_mut(id).filter(|u| u.repository == repository).ok_or_else(unknown)?;
        upload.touched = Instant::now();
        Ok(upload.clone())
    }

    pub(super) fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    fn remove(&self, id: &str) -> Option<Upload> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }
}

fn unknown() -> Failure {
    Failure::new(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
}

impl Registry {
    pub(super) async fn start_upload(&self, call: Call<'_>) -> Result<Response<Body>, Failure> {
        if let Some(digest) = call.query("mount")
            && let Ok(digest) = digest.parse::<Digest>()
            && self.mount(&call, &digest)?
        {
            return Ok(created(call.repository, &digest));
        }
        let ingest = self.shared.content.ingest(None)?;
        if let Some(digest) = call.query("digest") {
            let digest = parse_digest(&digest)?;
            let repository = call.repository;
            let mut ingest = ingest;
            self.receive(call.request.into_body(), &mut ingest, None).await?;
            return self.finish(repository, ingest, digest).await;
        }
        let id = self.shared.uploads.add(call.repository, ingest)?;
        Ok(accepted(call.repository, &id, 0))
    }

    /// Links a blob that another repository has, if the caller may pull from there; or one that the store has anyway,
    /// if nobody is asked who calls and the peer is this very machine.
    fn mount(&self, call: &Call<'_>, digest: &Digest) -> Result<bool, Failure> {
        let lease = self.shared.content.lease("registry mount");
        let index = &self.shared.index;
        let readable = |from: &str| call.caller.may(&self.shared, from, Action::Pull);
        let from_repository = match call.query("from") {
            Some(from) => Reference::is_repository_path(&from) && index.has_blob(&from, digest) && readable(&from),
            None => index.repositories_with(digest).iter().any(|from| readable(from)),
        };
        let local = self.shared.guard.is_none() && call.peer.ip().is_loopback();
        if !(from_repository || local) || !self.shared.content.contains(digest) {
            return Ok(false);
        }
        self.shared.recent.touch(call.repository, digest);
        self.shared.index.link_blob(call.repository, digest)?;
        drop(lease);
        Ok(true)
    }

    pub(super) async fn continue_upload(&self, call: Call<'_>, id: &str) -> Result<Response<Body>, Failure> {
        let upload = self.shared.uploads.get(id, call.repository)?;
        let mut slot = upload.ingest.lock().await;
        let ingest = slot.as_mut().ok_or_else(unknown)?;
        let length = in_order(&call, ingest.offset())?;
        let repository = call.repository;
        self.receive(call.request.into_body(), ingest, length).await?;
        Ok(accepted(repository, id, ingest.offset()))
    }

    pub(super) async fn finish_upload(&self, call: Call<'_>, id: &str) -> Result<Response<Body>, Failure> {
        let upload = self.shared.uploads.get(id, call.repository)?;
        let digest = parse_digest(&call.query("digest").unwrap_or_default())?;
        let mut slot = upload.ingest.lock().await;
        let repository = call.repository;
        let length = in_order(&call, slot.as_ref().ok_or_else(unknown)?.offset())?;
        self.receive(call.request.into_body(), slot.as_mut().ok_or_else(unknown)?, length).await?;
        let ingest = slot.take().ok_or_else(unknown)?;
        self.shared.uploads.remove(id);
        self.finish(repository, ingest, digest).await
    }

    async fn finish(&self, repository: &str, mut ingest: Ingest, digest: Digest) -> Result<Response<Body>, Failure> {
        let lease = self.shared.content.lease("registry upload");
        ingest.expect_digest(digest);
        let registry = self.clone();
        let name = repository.to_owned();
        let commit = move || -> Result<(), Failure> {
            ingest.commit("")?;
            registry.shared.recent.touch(&name, &digest);
            registry.shared.index.link_blob(&name, &digest)?;
            drop(lease);
            Ok(())
        };
        tokio::task::spawn_blocking(commit).await.map_err(|e| Failure::new(500, "UNKNOWN", e.to_string()))??;
        Ok(created(repository, &digest))
    }

    pub(super) async fn upload_status(&self, call: &Call<'_>, id: &str) -> Result<Response<Body>, Failure> {
        let upload = self.shared.uploads.get(id, call.repository)?;
        let offset = upload.ingest.lock().await.as_ref().ok_or_else(unknown)?.offset();
        let range = reply::upload_range(offset);
        let location = location(call.repository, id);
        Ok(reply::status(204, &[("location", &location), ("range", &range), ("docker-upload-uuid", id)]))
    }

    pub(super) fn cancel_upload(&self, call: &Call<'_>, id: &str) -> Result<Response<Body>, Failure> {
        self.shared.uploads.get(id, call.repository)?;
        self.shared.uploads.remove(id).ok_or_else(unknown)?;
        Ok(reply::status(204, &[]))
    }

    /// Appends a request's body. `promised` is the length that its range names: a body of another length is refused
    /// (what came of it stays, the upload's status says how far it is).
    async fn receive(&self, mut body: Incoming, ingest: &mut Ingest, promised: Option<u64>) -> Result<(), Failure> {
        let began = ingest.offset();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::new(400, "BLOB_UPLOAD_INVALID", error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            let after = ingest.offset() + data.len() as u64;
            if after > MAX_BLOB_BYTES {
                return Err(Failure::new(413, "SIZE_INVALID", format!("blob is larger than {MAX_BLOB_BYTES} bytes")));
            }
            if promised.is_some_and(|promised| after - began > promised) {
                return Err(Failure::out_of_order(ingest.offset()));
            }
            ingest.append(&data)?;
            self.shared.metrics.received_bytes.fetch_add(data.len() as u64, std::sync::atomic::Ordering::Relaxed);
        }
        match promised {
            Some(promised) if ingest.offset() - began != promised => Err(Failure::out_of_order(ingest.offset())),
            _ => Ok(()),
        }
    }
}

/// Whether a chunk goes on where the upload stands; the length that its `Content-Range` names, if it has one.
fn in_order(call: &Call<'_>, offset: u64) -> Result<Option<u64>, Failure> {
    let Some(range) = call.header("content-range") else { return Ok(None) };
    let range = range.trim_start_matches("bytes").trim_start_matches([' ', '=']);
    let (start, end) = range.split('/').next().and_then(|r| r.split_once('-')).unwrap_or((range, ""));
    match (start.parse::<u64>(), end.parse::<u64>()) {
        (Ok(start), Ok(end)) if start == offset && end >= start => Ok(Some(end - start + 1)),
        _ => Err(Failure::out_of_order(offset)),
    }
}

fn parse_digest(text: &str) -> Result<Digest, Failure> {
    text.parse().map_err(|error| Failure::new(400, "DIGEST_INVALID", format!("{error}")))
}

fn location(repository: &str, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

fn accepted(repository: &str, id: &str, offset: u64) -> Response<Body> {
    let (location, range) = (location(repository, id), reply::upload_range(offset));
    reply::status(
        202,
        &[("location", &location), ("range", &range), ("docker-upload-uuid", id), ("content-length", "0")],
    )
}

fn created(repository: &str, digest: &Digest) -> Response<Body> {
    let location = format!("/v2/{repository}/blobs/{digest}");
    reply::status(
        201,
        &[("location", &location), ("docker-content-digest", &digest.to_string()), ("content-length", "0")],
    )
}
