//! What repositories contain: links to blobs, manifests and tags, each a durable record of the content store.
//!
//! Keys are `kind`, repository and name, parted by line feeds (which no name may contain), so that one repository's
//! records are neighbours. A link holds its blob; a manifest's record holds what the manifest refers to.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use content::{Records, Store};
use oci::{Digest, Document};
use serde::{Deserialize, Serialize};

pub(super) struct RepositoryIndex(Records);

/// What is kept of a manifest beside its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManifestRecord {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) size: u64,
    pub(super) subject: Option<Digest>,
    pub(super) artifact_type: Option<String>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

impl RepositoryIndex {
    pub(super) fn open(content: &Store) -> content::Result<Self> {
        Ok(Self(content.records("registry")?))
    }

    pub(super) fn has_blob(&self, repository: &str, digest: &Digest) -> bool {
        self.0.contains(&key("blob", repository, &digest.to_string()))
    }

    pub(super) fn link_blob(&self, repository: &str, digest: &Digest) -> content::Result<()> {
        if self.has_blob(repository, digest) {
            return Ok(());
        }
        self.0.put(&key("blob", repository, &digest.to_string()), &(), &[*digest])
    }

    pub(super) fn unlink_blob(&self, repository: &str, digest: &Digest) -> content::Result<bool> {
        self.0.remove(&key("blob", repository, &digest.to_string()))
    }

    pub(super) fn manifest(&self, repository: &str, digest: &Digest) -> Option<ManifestRecord> {
        self.0.get(&key("manifest", repository, &digest.to_string()))
    }

    pub(super) fn put_manifest(
        &self,
        repository: &str,
        record: &ManifestRecord,
        document: &Document,
    ) -> content::Result<()> {
        let mut holds = vec![record.digest];
        match document {
            Document::Manifest(manifest) => {
                holds.extend(manifest.layers.iter().chain([&manifest.config]).map(|d| d.digest))
            }
            Document::Index(index) => holds.extend(index.manifests.iter().map(|d| d.digest)),
        }
        self.0.put(&key("manifest", repository, &record.digest.to_string()), record, &holds)
    }

    /// Removes a manifest and the tags that point at it.
    pub(super) fn remove_manifest(&self, repository: &str, digest: &Digest) -> content::Result<bool> {
        for tag in self.tags(repository) {
            if self.tag(repository, &tag) == Some(*digest) {
                self.remove_tag(repository, &tag)?;
            }
        }
        self.0.remove(&key("manifest", repository, &digest.to_string()))
    }

    pub(super) fn manifests(&self, repository: &str) -> Vec<ManifestRecord> {
        self.0.list(&key("manifest", repository, "")).into_iter().map(|r| r.value).collect()
    }

    pub(super) fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        self.0.get(&key("tag", repository, tag))
    }

    pub(super) fn put_tag(&self, repository: &str, tag: &str, digest: &Digest) -> content::Result<()> {
        self.0.put(&key("tag", repository, tag), digest, &[])
    }

    pub(super) fn remove_tag(&self, repository: &str, tag: &str) -> content::Result<bool> {
        self.0.remove(&key("tag", repository, tag))
    }

    /// In order.
    pub(super) fn tags(&self, repository: &str) -> Vec<String> {
        let prefix = key("tag", repository, "");
        self.0.list::<Digest>(&prefix).into_iter().map(|r| r.key[prefix.len()..].to_owned()).collect()
    }

    /// Every repository that has a manifest, in order.
    pub(super) fn repositories(&self) -> BTreeSet<String> {
        let records = self.0.list::<serde_json::Value>("manifest\n");
        records.iter().filter_map(|r| r.key.split('\n').nth(1)).map(str::to_owned).collect()
    }

    /// Every link of a blob to a repository.
    pub(super) fn blob_links(&self) -> Vec<(String, Digest)> {
        let parts = |key: &str| {
            let mut parts = key.split('\n').skip(1);
            Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?))
        };
        self.0.list::<serde_json::Value>("blob\n").iter().filter_map(|r| parts(&r.key)).collect()
    }

    /// The repositories that have a blob.
    pub(super) fn repositories_with(&self, digest: &Digest) -> Vec<String> {
        self.blob_links().into_iter().filter(|(_, linked)| linked == digest).map(|(repository, _)| repository).collect()
    }

    /// What a repository's manifests refer to.
    pub(super) fn manifest_holds(&self, repository: &str) -> HashSet<Digest> {
        let records = self.0.list::<serde_json::Value>(&key("manifest", repository, ""));
        records.into_iter().flat_map(|r| r.holds).collect()
    }

    pub(super) fn exists(&self, repository: &str) -> bool {
        !self.manifests(repository).is_empty()
    }
}

fn key(kind: &str, repository: &str, name: &str) -> String {
    format!("{kind}\n{repository}\n{name}")
}
