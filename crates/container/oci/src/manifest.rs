//! Manifests and indexes: the documents that a registry serves, in OCI's and in Docker's media types.
//!
//! [`Document::parse`] is the only way in for bytes from outside. It keeps the invariant that one document has one
//! reading: what could be taken for a manifest by one program and for an index by another is refused, and so is a body
//! that contradicts its media type. It knows nothing of where the bytes came from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, Platform};

/// A manifest or index larger than this is refused unread (the limit that registries use).
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// The most layers an image may have; overlayfs itself stops at 500.
pub const MAX_LAYERS: usize = 500;
/// The most entries an index may have.
pub const MAX_INDEX_ENTRIES: usize = 1000;

/// Media types by name.
pub mod media_type {
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, OCI_INDEX | DOCKER_LIST)
    }

    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
    }
}

/// How a layer's bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Told from the first bytes, because media types lie and the content cannot.
    pub fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A zstd frame, or a skippable frame before one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// A pointer to stored bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
}

impl Descriptor {
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            artifact_type: None,
            annotations: None,
            platform: None,
            urls: None,
        }
    }

    /// A layer whose bytes no registry may hand out (`nondistributable`, `foreign`).
    pub fn is_foreign(&self) -> bool {
        self.media_type.contains("nondistributable") || self.media_type.contains("foreign")
    }
}

/// One platform's configuration and layers, lowest layer first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Which manifest serves which platform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Index {
    /// The first manifest that `wanted` can run, an exact variant before any other.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let runs = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.satisfies(wanted));
        let exact = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.variant == wanted.variant);
        let mut matching = self.manifests.iter().filter(runs);
        matching.clone().find(exact).or_else(|| matching.next())
    }
}

/// A manifest or an index, never both.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    Manifest(Box<Manifest>),
    Index(Box<Index>),
}

#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("manifest is {size} bytes, more than the limit of {MAX_MANIFEST_BYTES}")]
    TooLarge { size: usize },
    #[error("manifest is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("manifest is both an image manifest and an index")]
    Ambiguous,
    #[error("manifest is neither an image manifest nor an index")]
    Unknown,
    #[error("media type {declared} does not match the manifest's content ({found})")]
    MediaTypeMismatch { declared: String, found: String },
    #[error("unsupported manifest schema version {0}: schema 1 manifests are no longer supported")]
    SchemaVersion(u64),
    #[error("manifest has {count} {what}, more than the limit of {limit}")]
    TooMany { what: &'static str, count: usize, limit: usize },
}

impl Document {
    /// Parses bytes from outside. `declared` is what the transport said (Content-Type, descriptor), if anything.
    pub fn parse(bytes: &[u8], declared: Option<&str>) -> Result<Self, DocumentError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(DocumentError::TooLarge { size: bytes.len() });
        }
        let value: Value = serde_json::from_slice(bytes)?;
        let has = |key: &str| value.get(key).is_some_and(|v| !v.is_null());
        let (image_like, index_like) = (has("config") || has("layers"), has("manifests"));
        if has("fsLayers") || has("signatures") {
            return Err(if image_like || index_like {
                DocumentError::Ambiguous
            } else {
                DocumentError::SchemaVersion(1)
            });
        }
        match value.get("schemaVersion").and_then(Value::as_u64) {
            Some(2) => {}
            other => return Err(DocumentError::SchemaVersion(other.unwrap_or(0))),
        }
        let inner = value.get("mediaType").and_then(Value::as_str).map(str::to_owned);
        let document = match (image_like, index_like) {
            (true, true) => return Err(DocumentError::Ambiguous),
            (false, false) => return Err(DocumentError::Unknown),
            // From the bytes and not from `value`: serde then refuses a key that stands twice, which two JSON
            // readers could take for two different documents.
            (true, false) => Self::Manifest(serde_json::from_slice(bytes)?),
            (false, true) => Self::Index(serde_json::from_slice(bytes)?),
        };
        for name in [declared, inner.as_deref()].into_iter().flatten() {
            document.check_media_type(name)?;
        }
        document.check_counts()?;
        Ok(document)
    }

    fn check_media_type(&self, declared: &str) -> Result<(), DocumentError> {
        let (fits, found) = match self {
            Self::Manifest(_) => (!media_type::is_index(declared), "an image manifest"),
            Self::Index(_) => (!media_type::is_manifest(declared), "an index"),
        };
        if fits {
            Ok(())
        } else {
            Err(DocumentError::MediaTypeMismatch { declared: declared.into(), found: found.into() })
        }
    }

    fn check_counts(&self) -> Result<(), DocumentError> {
        let (what, count, limit) = match self {
            Self::Manifest(manifest) => ("layers", manifest.layers.len(), MAX_LAYERS),
            Self::Index(index) => ("entries", index.manifests.len(), MAX_INDEX_ENTRIES),
        };
        if count > limit { Err(DocumentError::TooMany { what, count, limit }) } else { Ok(()) }
    }

    /// The media type to store and serve it under.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Manifest(manifest) => manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST),
            Self::Index(index) => index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX),
        }
    }

    /// The manifest that this one refers to (OCI 1.1 referrers).
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(manifest) => manifest.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str, declared: Option<&str>) -> Result<Document, String> {
        Document::parse(text.replace("@D", D).as_bytes(), declared).map_err(|e| e.to_string())
    }

    #[test]
    fn a_document_with_two_readings_or_a_lying_media_type_is_refused() {
        let config = r#""config":{"mediaType":"x","digest":"@D","size":0},"layers":[]"#;
        let cases = [
            (format!(r#"{{"schemaVersion":2,{config},"manifests":[]}}"#), None, "both"),
            (format!(r#"{{"schemaVersion":2,{config},"fsLayers":[]}}"#), None, "both"),
            (format!(r#"{{"schemaVersion":2,{config},"layers":[]}}"#), None, "duplicate field"),
            (
                format!(r#"{{"schemaVersion":2,{config},"mediaType":"{}"}}"#, media_type::OCI_INDEX),
                None,
                "does not match",
            ),
            (format!(r#"{{"schemaVersion":2,{config}}}"#), Some(media_type::DOCKER_LIST), "does not match"),
            (r#"{"schemaVersion":2,"manifests":[]}"#.into(), Some(media_type::DOCKER_MANIFEST), "does not match"),
            (r#"{"schemaVersion":2}"#.into(), None, "neither"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), None, "schema version 1"),
            (
                r#"{"schemaVersion":2,"config":{"digest":"sha256:xyz","size":1}}"#.into(),
                None,
                "invalid checksum digest",
            ),
            (r#"{"schemaVersion":2,"config":{"digest":"@D","size":-1}}"#.into(), None, "invalid value"),
            ("[".repeat(100_000), None, "not valid JSON"),
        ];
        for (text, declared, why) in cases {
            let error = parse(&text, declared).unwrap_err();
            assert!(error.contains(why), "{error} should say {why}");
        }
    }

    #[test]
    fn an_index_offers_the_platform_that_was_asked_for() {
        let entry = |arch: &str, variant: &str, size: u64| {
            format!(
                r#"{{"mediaType":"{}","digest":"@D","size":{size},"platform":{{"os":"linux","architecture":"{arch}","variant":"{variant}"}}}}"#,
                media_type::OCI_MANIFEST
            )
        };
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
            entry("arm", "v6", 1),
            entry("arm", "v7", 2),
            entry("amd64", "", 3)
        );
        let Document::Index(index) = parse(&text, Some(media_type::OCI_INDEX)).unwrap() else { panic!("not an index") };
        let pick = |p: &str| index.select(&p.parse().unwrap()).map(|d| d.size);
        assert_eq!(pick("linux/arm/v7"), Some(2));
        assert_eq!(pick("linux/arm"), Some(1));
        assert_eq!(pick("linux/amd64"), Some(3));
        assert_eq!(pick("linux/s390x"), None);
    }

    #[test]
    fn layer_and_entry_counts_are_limited() {
        let layer = r#"{"mediaType":"x","digest":"@D","size":0}"#;
        let layers = vec![layer; MAX_LAYERS + 1].join(",");
        let error = parse(&format!(r#"{{"schemaVersion":2,"config":{layer},"layers":[{layers}]}}"#), None).unwrap_err();
        assert!(error.contains("limit of 500"), "{error}");
    }
}
