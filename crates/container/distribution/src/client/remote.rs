//! Questions to a registry that fetch no image: what a name stands for there, and which names match a word.

use bytes::Bytes;
use http::header;
use oci::{Descriptor, Document, ImageConfig, Platform, Reference};
use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::hosts::Endpoint;
use super::pull::{ACCEPT, MAX_CONFIG_BYTES};
use super::transport::Session;
use super::{Auth, Shared};
use crate::error::{Error, Result};

const MAX_SEARCH_BYTES: usize = 4 << 20;
const MAX_TAG_PAGES: usize = 1000;

/// A body that is read piece by piece.
pub struct Download(Answer);

impl Download {
    /// Bytes in all, where the server says so.
    pub fn size(&self) -> Option<u64> {
        self.0.header("content-length")?.parse().ok()
    }

    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.0.data().await
    }
}

pub(super) async fn open_url(shared: &Shared, url: &str) -> Result<Download> {
    let invalid = || Error::Answer { url: url.to_owned(), reason: "it is neither http:// nor https://".to_owned() };
    let (scheme, rest) = url.split_once("://").ok_or_else(invalid)?;
    let scheme = if scheme == "https" { "https" } else { "http" };
    let host = rest.split(['/', '?']).next().unwrap_or_default().to_owned();
    let endpoint = Endpoint { host, scheme: Some(scheme), repository: String::new(), is_mirror: false };
    let session = shared.transport.session(&endpoint, None, None).await?;
    Ok(Download(session.get(url, &[]).await?.expect(&[200]).await?))
}

pub(super) async fn tags(shared: &Shared, reference: &Reference, auth: Option<&Auth>) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Page {
        tags: Option<Vec<String>>,
    }
    let endpoint = shared.transport.hosts().registry(reference.domain(), reference.path());
    let session = shared.transport.session(&endpoint, Some("pull"), auth).await?;
    let (mut path, mut all) = (session.path("tags/list"), Vec::new());
    for _ in 0..MAX_TAG_PAGES {
        let answer = session.get(&path, &[]).await?;
        let answer = match answer.status() {
            404 => return Err(Error::ManifestUnknown(reference.familiar_name())),
            401 | 403 => return Err(Error::Denied("pull", reference.familiar_name())),
            _ => answer.expect(&[200]).await?,
        };
        let (url, next) = (answer.url.clone(), answer.header("link").and_then(next_page));
        let bytes = answer.bytes(MAX_SEARCH_BYTES).await?;
        let page: Page = serde_json::from_slice(&bytes).map_err(|e| Error::Answer { url, reason: e.to_string() })?;
        all.extend(page.tags.unwrap_or_default());
        match next {
            Some(next) => path = next,
            None => break,
        }
    }
    Ok(all)
}

/// `</v2/…?last=x&n=2>; rel="next"`; only of this very registry.
fn next_page(link: &str) -> Option<String> {
    let (path, rest) = link.strip_prefix('<')?.split_once('>')?;
    (path.starts_with("/v2/") && rest.contains("next")).then(|| path.to_owned())
}

/// What a registry has under a name (`GET /distribution/…/json`).
#[derive(Clone, Debug)]
pub struct Remote {
    pub descriptor: Descriptor,
    pub platforms: Vec<Platform>,
}

/// One row of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hit {
    pub name: String,
    pub description: String,
    pub star_count: u64,
    pub is_official: bool,
    pub is_automated: bool,
}

pub(super) async fn inspect(shared: &Shared, reference: &Reference, auth: Option<&Auth>) -> Result<Remote> {
    let reference = reference.clone().or_latest();
    let endpoint = shared.transport.hosts().registry(reference.domain(), reference.path());
    let session = shared.transport.session(&endpoint, Some("pull"), auth).await?;
    let path = session.path(&format!("manifests/{}", reference.tag_or_digest()));
    let answer = session.get(&path, &[(header::ACCEPT, ACCEPT.to_owned())]).await?;
    let answer = match answer.status() {
        404 => return Err(Error::ManifestUnknown(reference.familiar())),
        401 | 403 => return Err(Error::Denied("pull", reference.familiar_name())),
        _ => answer.expect(&[200]).await?,
    };
    let declared = answer.header("content-type").map(|t| t.split(';').next().unwrap_or(t).trim().to_owned());
    let bytes = answer.bytes(oci::MAX_MANIFEST_BYTES).await?;
    let actual = oci::Digest::of(&bytes);
    if let Some(expected) = reference.digest().copied().filter(|wanted| *wanted != actual) {
        return Err(content::Error::DigestMismatch { expected, actual }.into());
    }
    let document = Document::parse(&bytes, declared.as_deref())?;
    let platforms = match &document {
        Document::Index(index) => index.manifests.iter().filter_map(|d| d.platform.clone()).collect(),
        Document::Manifest(manifest) => vec![platform(&session, &manifest.config).await?],
    };
    let media_type = declared.unwrap_or_else(|| document.media_type().to_owned());
    Ok(Remote { descriptor: Descriptor::new(&media_type, actual, bytes.len() as u64), platforms })
}

async fn platform(session: &Session, config: &Descriptor) -> Result<Platform> {
    let path = session.path(&format!("blobs/{}", config.digest));
    let answer = session.get(&path, &[]).await?.expect(&[200]).await?;
    let limit = usize::try_from(config.size.min(MAX_CONFIG_BYTES)).unwrap_or(usize::MAX);
    let bytes = answer.bytes(limit).await?;
    let actual = oci::Digest::of(&bytes);
    if actual != config.digest {
        return Err(content::Error::DigestMismatch { expected: config.digest, actual }.into());
    }
    Ok(ImageConfig::parse(&bytes).map_err(content::Error::Config)?.platform())
}

/// `term` may name a registry (`localhost:5000/web`); Docker Hub is asked where it names none.
pub(super) async fn search(shared: &Shared, term: &str, limit: usize, auth: Option<&Auth>) -> Result<Vec<Hit>> {
    #[derive(Deserialize)]
    struct Found {
        #[serde(default)]
        results: Vec<Hit>,
    }
    let is_host = |text: &str| text.contains(['.', ':']) || text == "localhost";
    let (host, word) = match term.split_once('/') {
        Some((host, word)) if is_host(host) => (host, word),
        _ => ("index.docker.io", term.strip_prefix("library/").unwrap_or(term)),
    };
    let endpoint = shared.transport.hosts().registry(host, "");
    let session = shared.transport.session(&endpoint, None, auth).await?;
    let path = format!("/v1/search?q={}&n={limit}", super::auth::percent_encode(word));
    let answer = session.get(&path, &[]).await?.expect(&[200]).await?;
    let url = answer.url.clone();
    let bytes = answer.bytes(MAX_SEARCH_BYTES).await?;
    let found: Found = serde_json::from_slice(&bytes).map_err(|e| Error::Answer { url, reason: e.to_string() })?;
    Ok(found.results.into_iter().take(limit).collect())
}
