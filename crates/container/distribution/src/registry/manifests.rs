//! Manifests, tags, the catalogue and referrers.
//!
//! A manifest is taken only if everything that it refers to is in its repository already, and served byte for byte.

use http::Response;
use http_body_util::{BodyExt, Limited};
use oci::{Digest, Document, Index, MAX_MANIFEST_BYTES, media_type};

use super::index::ManifestRecord;
use super::reply::{self, Body, Failure};
use super::route::Target;
use super::{Call, Registry};

impl Registry {
    pub(super) fn get_manifest(&self, call: &Call<'_>, target: &Target) -> Result<Response<Body>, Failure> {
        let record = self.find(call, target)?;
        let bytes = self.shared.content.read(&record.digest, MAX_MANIFEST_BYTES as u64)?;
        let (digest, length) = (record.digest.to_string(), bytes.len().to_string());
        let etag = format!("\"{digest}\"");
        let headers = [
            ("content-type", record.media_type.as_str()),
            ("docker-content-digest", &digest),
            ("content-length", &length),
            ("etag", &etag),
        ];
        Ok(reply::with_body(200, &headers, reply::bytes(bytes)))
    }

    fn find(&self, call: &Call<'_>, target: &Target) -> Result<ManifestRecord, Failure> {
        let index = &self.shared.index;
        let found = match target {
            Target::Tag(tag) => index.tag(call.repository, tag),
            Target::Digest(digest) => Some(*digest),
        };
        let record = found.and_then(|digest| index.manifest(call.repository, &digest));
        record.ok_or_else(|| match index.exists(call.repository) {
            true => Failure::new(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            false => Failure::new(404, "NAME_UNKNOWN", "repository name not known to registry"),
        })
    }

    pub(super) async fn put_manifest(&self, call: Call<'_>, target: &Target) -> Result<Response<Body>, Failure> {
        let declared = call.header("content-type").map(str::to_owned);
        let repository = call.repository;
        let body = Limited::new(call.request.into_body(), MAX_MANIFEST_BYTES).collect().await;
        let bytes = body.map_err(|error| Failure::new(413, "MANIFEST_INVALID", error.to_string()))?.to_bytes();
        let document = Document::parse(&bytes, declared.as_deref())
            .map_err(|error| Failure::new(400, "MANIFEST_INVALID", error.to_string()))?;
        let digest = Digest::of(&bytes);
        if let Target::Digest(expected) = target
            && *expected != digest
        {
            return Err(Failure::new(400, "DIGEST_INVALID", "provided digest did not match uploaded content"));
        }
        let _lease = self.shared.content.lease("registry manifest");
        self.check_references(repository, &document)?;
        let media_type = declared
            .filter(|d| media_type::is_index(d) || media_type::is_manifest(d))
            .unwrap_or_else(|| document.media_type().to_owned());
        self.shared.content.put_bytes(&media_type, &bytes)?;
        self.shared.index.put_manifest(
            repository,
            &record(digest, media_type, bytes.len() as u64, &document),
            &document,
        )?;
        if let Target::Tag(tag) = target {
            self.shared.index.put_tag(repository, tag, &digest)?;
            tracing::info!(repository, tag, %digest, "manifest pushed");
        }
        let (name, location) = (digest.to_string(), format!("/v2/{repository}/manifests/{digest}"));
        let subject = document.subject().map(|s| s.digest.to_string());
        let mut headers =
            vec![("location", location.as_str()), ("docker-content-digest", &name), ("content-length", "0")];
        headers.extend(subject.as_deref().map(|s| ("oci-subject", s)));
        Ok(reply::status(201, &headers))
    }

    fn check_references(&self, repository: &str, document: &Document) -> Result<(), Failure> {
        let index = &self.shared.index;
        let missing =
            |digest: &Digest| Failure::new(404, "MANIFEST_BLOB_UNKNOWN", format!("blob unknown to registry: {digest}"));
        match document {
            Document::Manifest(manifest) => {
                let needed = manifest.layers.iter().filter(|l| !l.is_foreign()).chain([&manifest.config]);
                for descriptor in needed {
                    let size = index
                        .has_blob(repository, &descriptor.digest)
                        .then(|| self.shared.content.size(&descriptor.digest))
                        .flatten();
                    match size {
                        None => return Err(missing(&descriptor.digest)),
                        Some(size) if size != descriptor.size => {
                            return Err(Failure::new(
                                400,
                                "SIZE_INVALID",
                                format!("{} is {size} bytes", descriptor.digest),
                            ));
                        }
                        Some(_) => {}
                    }
                }
                Ok(())
            }
            Document::Index(list) => {
                // What a registry may lack of an index it may lack for other platforms, too; we promise whole ones.
                match list.manifests.iter().find(|d| index.manifest(repository, &d.digest).is_none()) {
                    Some(unknown) => Err(missing(&unknown.digest)),
                    None => Ok(()),
                }
            }
        }
    }

    pub(super) fn delete_manifest(&self, call: &Call<'_>, target: &Target) -> Result<Response<Body>, Failure> {
        let removed = match target {
            Target::Tag(tag) => self.shared.index.remove_tag(call.repository, tag)?,
            Target::Digest(digest) => self.shared.index.remove_manifest(call.repository, digest)?,
        };
        if !removed {
            return Err(Failure::new(404, "MANIFEST_UNKNOWN", "manifest unknown"));
        }
        self.shared.recent.wanted.notify_one();
        Ok(reply::status(202, &[("content-length", "0")]))
    }

    pub(super) fn tags(&self, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        if !self.shared.index.exists(call.repository) {
            return Err(Failure::new(404, "NAME_UNKNOWN", "repository name not known to registry"));
        }
        let tags = self.shared.index.tags(call.repository);
        page(call, tags, |tags| serde_json::json!({"name": call.repository, "tags": tags}))
    }

    pub(super) fn catalog(&self, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        let mut repositories = self.shared.index.repositories();
        repositories.retain(|name| call.caller.may_list(&self.shared, name));
        page(call, repositories.into_iter().collect(), |names| serde_json::json!({"repositories": names}))
    }

    /// The search that `docker search HOST/WORD` asks for: repositories whose name contains the word.
    pub(super) fn search(&self, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        let word = call.query("q").unwrap_or_default();
        let limit = call.query("n").and_then(|n| n.parse().ok()).unwrap_or(25).min(100);
        let mut names: Vec<String> = self.shared.index.repositories().into_iter().collect();
        names.retain(|name| name.contains(&word) && call.caller.may_list(&self.shared, name));
        let hit = |name: &String| serde_json::json!({"name": name, "description": "", "star_count": 0, "is_official": false, "is_automated": false});
        let results: Vec<_> = names.iter().take(limit).map(hit).collect();
        let answer = serde_json::json!({
            "num_pages": 1, "num_results": results.len(), "page": 1, "page_size": limit, "query": word, "results": results,
        });
        Ok(reply::json(200, &answer))
    }

    pub(super) fn referrers(&self, call: &Call<'_>, subject: &Digest) -> Result<Response<Body>, Failure> {
        let wanted = call.query("artifactType");
        let referring =
            self.shared.index.manifests(call.repository).into_iter().filter(|m| m.subject == Some(*subject));
        let manifests = referring.filter(|m| wanted.is_none() || m.artifact_type == wanted).map(descriptor).collect();
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.into()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: None,
        };
        let bytes = serde_json::to_vec(&index).map_err(|e| Failure::new(500, "UNKNOWN", e.to_string()))?;
        let length = bytes.len().to_string();
        let mut headers = vec![("content-type", media_type::OCI_INDEX), ("content-length", length.as_str())];
        if wanted.is_some() {
            headers.push(("oci-filters-applied", "artifactType"));
        }
        Ok(reply::with_body(200, &headers, reply::bytes(bytes)))
    }
}

fn descriptor(record: ManifestRecord) -> oci::Descriptor {
    let ManifestRecord { digest, media_type, size, artifact_type, annotations, subject: _ } = record;
    oci::Descriptor { artifact_type, annotations, ..oci::Descriptor::new(&media_type, digest, size) }
}

fn record(digest: Digest, media_type: String, size: u64, document: &Document) -> ManifestRecord {
    let (artifact_type, annotations) = match document {
        // Without an artifact type, the configuration's media type stands for it (OCI 1.1, referrers).
        Document::Manifest(m) => {
            (m.artifact_type.clone().or_else(|| Some(m.config.media_type.clone())), m.annotations.clone())
        }
        Document::Index(i) => (i.artifact_type.clone(), i.annotations.clone()),
    };
    ManifestRecord {
        digest,
        media_type,
        size,
        subject: document.subject().map(|s| s.digest),
        artifact_type,
        annotations,
    }
}

/// `n` names after `last`, with a link to the next page if there is one.
fn page(
    call: &Call<'_>,
    mut names: Vec<String>,
    body: impl Fn(&[String]) -> serde_json::Value,
) -> Result<Response<Body>, Failure> {
    let n = call
        .query("n")
        .map(|n| {
            n.parse::<usize>()
                .map_err(|_| Failure::new(400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested"))
        })
        .transpose()?;
    if let Some(last) = call.query("last") {
        names.retain(|name| *name > last);
    }
    let limit = n.unwrap_or(usize::MAX);
    let more = names.len() > limit;
    names.truncate(limit);
    let mut response = reply::json(200, &body(&names));
    if let (true, Some(last)) = (more, names.last()) {
        let link = format!("<{}?last={last}&n={limit}>; rel=\"next\"", call.request.uri().path());
        if let Ok(link) = http::HeaderValue::from_str(&link) {
            response.headers_mut().insert("link", link);
        }
    }
    Ok(response)
}
