//! Images as tar archives: `docker save`, `load` and `import`.
//!
//! What is written is at once a docker-archive and an OCI layout, as Docker 25 and later write it; both are read, too.
//! Loading goes through the archive once: every file becomes a blob, then the listing says which of them are images.
//! All calls block: use `spawn_blocking`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Write};

use content::{Image, NewImage, Origin, Store};
use jiff::Timestamp;
use oci::{
    Descriptor, Digest, Document, History, ImageConfig, ImageId, Index, MAX_MANIFEST_BYTES, Platform, Reference,
    media_type,
};
use serde::{Deserialize, Serialize};
use snapshots::{Ahead, Alone, Limits, Snapshots};
use tar::EntryType;

use crate::error::{Error, Result};

const MAX_FILES: u64 = 20_000;
const MAX_INDEX_DEPTH: usize = 3;
const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// How often progress is told, in bytes.
const PROGRESS_STEP: u64 = 4 << 20;

/// An image that came out of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub id: ImageId,
    pub names: Vec<Reference>,
    /// Images that had one of the names until now.
    pub replaced: Vec<(Reference, ImageId)>,
}

/// The manifest that stands for an image here: the one that it came with, or the one that it is saved with.
pub fn manifest_of(content: &Store, image: &Image) -> Result<(Descriptor, Vec<u8>)> {
    let (media_type, bytes) = match crate::client::original_manifest(content, image) {
        Some(original) => original,
        None => {
            let config = Descriptor::new(media_type::OCI_CONFIG, image.id.0, content.get(&image.id.0)?.size);
            let manifest = oci::Manifest {
                schema_version: 2,
                media_type: Some(media_type::OCI_MANIFEST.into()),
                artifact_type: None,
                config,
                layers: image.layers.clone(),
                subject: None,
                annotations: None,
            };
            (media_type::OCI_MANIFEST.to_owned(), to_json(&manifest)?)
        }
    };
    let mut descriptor = Descriptor::new(&media_type, Digest::of(&bytes), bytes.len() as u64);
    descriptor.platform = Some(image.config.platform());
    Ok((descriptor, bytes))
}

/// One image in a docker-archive's `manifest.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// Writes the named images (names or IDs) and everything that they need.
pub fn save(content: &Store, names: &[String], out: &mut dyn Write) -> Result<()> {
    let _lease = content.lease("save");
    let mut images: BTreeMap<ImageId, (Image, BTreeSet<String>)> = BTreeMap::new();
    for name in names {
        let image = content.images().resolve(name)?;
        let (_, tags) = images.entry(image.id).or_insert_with(|| (image.clone(), BTreeSet::new()));
        // Asked for by ID, an image is saved without names; as in Docker.
        let reference = Reference::parse(name).ok().map(Reference::or_latest).filter(|r| image.names.contains(r));
        tags.extend(reference.map(|r| r.familiar()));
    }
    write(content, images.into_values().collect(), out)
}

/// Writes one image under names that it need not have here.
pub fn save_as(content: &Store, id: &ImageId, names: &[Reference], out: &mut dyn Write) -> Result<()> {
    let _lease = content.lease("save");
    let image = content.images().get(id)?;
    write(content, vec![(image, names.iter().map(Reference::familiar).collect())], out)
}

fn write(content: &Store, images: Vec<(Image, BTreeSet<String>)>, out: &mut dyn Write) -> Result<()> {
    let out = std::io::BufWriter::with_capacity(256 << 10, out);
    let mut writer = Writer { tar: tar::Builder::new(out), written: BTreeSet::new() };
    let (mut listing, mut descriptors) = (Vec::new(), Vec::new());
    for (image, tags) in images {
        listing.push(writer.image(content, &image, &tags, &mut descriptors)?);
    }
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.into()),
        artifact_type: None,
        manifests: descriptors,
        subject: None,
        annotations: None,
    };
    writer.file("index.json", &to_json(&index)?)?;
    writer.file("manifest.json", &to_json(&listing)?)?;
    writer.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    writer.tar.into_inner()?.flush()?;
    Ok(())
}

struct Writer<W: Write> {
    tar: tar::Builder<W>,
    written: BTreeSet<Digest>,
}

impl<W: Write> Writer<W> {
    fn image(
        &mut self,
        content: &Store,
        image: &Image,
        tags: &BTreeSet<String>,
        descriptors: &mut Vec<Descriptor>,
    ) -> Result<Listed> {
        for digest in image.layers.iter().map(|l| l.digest).chain([image.id.0]) {
            self.blob(content, &digest)?;
        }
        let (descriptor, bytes) = manifest_of(content, image)?;
        if self.written.insert(descriptor.digest) {
            self.file(&blob_path(&descriptor.digest), &bytes)?;
        }
        if tags.is_empty() {
            descriptors.push(descriptor);
        } else {
            descriptors.extend(tags.iter().map(|tag| named(&descriptor, tag)));
        }
        let layers = image.layers.iter().map(|l| blob_path(&l.digest)).collect();
        Ok(Listed { config: blob_path(&image.id.0), repo_tags: Some(tags.iter().cloned().collect()), layers })
    }

    fn blob(&mut self, content: &Store, digest: &Digest) -> Result<()> {
        if !self.written.insert(*digest) {
            return Ok(());
        }
        let blob = content.get(digest)?;
        self.tar.append_data(&mut header(blob.size), blob_path(digest), blob.file)?;
        Ok(())
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.tar.append_data(&mut header(bytes.len() as u64), path, bytes)?;
        Ok(())
    }
}

/// The descriptor with the image's name, in containerd's and in OCI's annotation.
fn named(descriptor: &Descriptor, tag: &str) -> Descriptor {
    let full = Reference::parse(tag).map_or_else(|_| tag.to_owned(), |r| r.to_string());
    let short = tag.rsplit_once(':').map_or(tag, |(_, tag)| tag).to_owned();
    let annotations = BTreeMap::from([
        ("io.containerd.image.name".to_owned(), full),
        ("org.opencontainers.image.ref.name".to_owned(), short),
    ]);
    Descriptor { annotations: Some(annotations), ..descriptor.clone() }
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::Io(e.into()))
}

/// Reads an archive (plain or compressed) and records the images in it, names and all.
pub fn load(content: &Store, snapshots: &Snapshots, archive: &mut dyn Read) -> Result<Vec<Loaded>> {
    load_with(content, snapshots, archive, &mut |_| {})
}

/// How far the archive's reading is: `current` of `total` bytes of what looks like a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Twelve characters of the layer's name in the archive.
    pub id: String,
    pub current: u64,
    pub total: u64,
}

/// The same, telling how far it is.
pub fn load_with(
    content: &Store,
    snapshots: &Snapshots,
    archive: &mut dyn Read,
    progress: &mut dyn FnMut(Reading),
) -> Result<Vec<Loaded>> {
    let _lease = content.lease("load");
    let ahead = Ahead::new(snapshots);
    let files = Files::read(content, archive, &ahead, progress)?;
    let mut unpacked = ahead.take();
    let images = match files.bytes("manifest.json")? {
        Some(listing) => files.docker_images(&listing)?,
        None => {
            let index = files
                .bytes("index.json")?
                .ok_or_else(|| Error::Archive("it has neither manifest.json nor index.json".into()))?;
            files.layout_images(&index)?
        }
    };
    images.into_iter().map(|found| found.record(content, snapshots, &mut unpacked)).collect()
}

/// The archive's files as blobs.
struct Files<'a> {
    content: &'a Store,
    by_path: BTreeMap<String, Digest>,
    /// Old docker-archives link equal layers to each other.
    links: BTreeMap<String, String>,
}

struct Found {
    config: Vec<u8>,
    manifest: Option<Digest>,
    layers: Vec<Digest>,
    names: Vec<Reference>,
}

impl<'a> Files<'a> {
    fn read(
        content: &'a Store,
        archive: &mut dyn Read,
        ahead: &Ahead,
        progress: &mut dyn FnMut(Reading),
    ) -> Result<Self> {
        let limits = Limits { max_entries: MAX_FILES, ..Limits::default() };
        let mut archive = snapshots::archive::Archive::new(snapshots::decompress(archive)?, limits);
        let mut files = Self { content, by_path: BTreeMap::new(), links: BTreeMap::new() };
        let mut buffer = vec![0; 128 << 10];
        while let Some(entry) = archive.next_entry()? {
            let path = clean(&entry.path);
            match entry.kind {
                EntryType::Regular | EntryType::Continuous => {
                    let mut ingest = content.ingest(None)?;
                    let mut may_be_layer = false;
                    loop {
                        let n = archive.read_data(&mut buffer)?;
                        if n == 0 {
                            break;
                        }
                        if ingest.offset() == 0 {
                            may_be_layer = looks_like_layer(&buffer[..n]);
                        }
                        ingest.append(&buffer[..n])?;
                        let (current, total) = (ingest.offset(), entry.size);
                        let is_step = current / PROGRESS_STEP != (current - n as u64) / PROGRESS_STEP;
                        if may_be_layer && (is_step || current == total) {
                            progress(Reading { id: layer_name(&path), current, total });
                        }
                    }
                    let digest = ingest.commit("")?.digest;
                    if may_be_layer {
                        ahead.begin(digest);
                    }
                    files.by_path.insert(path, digest);
                }
                EntryType::Symlink | EntryType::Link => {
                    let base = if entry.kind == EntryType::Symlink {
                        path.rsplit_once('/').map_or("", |(dir, _)| dir)
                    } else {
                        ""
                    };
                    let target = clean(format!("{base}/{}", String::from_utf8_lossy(&entry.link)).as_bytes());
                    files.links.insert(path, target);
                }
                _ => {}
            }
        }
        Ok(files)
    }

    /// One link is followed, not a chain: there is no need, and a loop could not end.
    fn digest(&self, path: &str) -> Option<Digest> {
        let path = clean(path.as_bytes());
        let target = self.links.get(&path).unwrap_or(&path);
        self.by_path.get(target).copied()
    }

    fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>> {
        self.digest(path).map(|digest| self.content.read(&digest, MAX_CONFIG_BYTES)).transpose().map_err(Error::from)
    }

    fn needed(&self, path: &str) -> Result<Digest> {
        self.digest(path).ok_or_else(|| Error::Archive(format!("{path} is missing")))
    }

    fn docker_images(&self, listing: &[u8]) -> Result<Vec<Found>> {
        let listed: Vec<Listed> =
            serde_json::from_slice(listing).map_err(|e| Error::Archive(format!("manifest.json: {e}")))?;
        let found = |image: Listed| -> Result<Found> {
            let layers = image.layers.iter().map(|path| self.needed(path)).collect::<Result<Vec<_>>>()?;
            let names = image
                .repo_tags
                .unwrap_or_default()
                .iter()
                .map(|tag| Reference::parse(tag).map_err(content::Error::from))
                .collect::<Result<Vec<_>, _>>()?;
            let config = self.content.read(&self.needed(&image.config)?, MAX_CONFIG_BYTES)?;
            Ok(Found { config, manifest: None, layers, names })
        };
        listed.into_iter().map(found).collect()
    }

    fn layout_images(&self, index: &[u8]) -> Result<Vec<Found>> {
        let Document::Index(index) = Document::parse(index, None)? else {
            return Err(Error::Archive("index.json is not an index".into()));
        };
        index.manifests.iter().map(|descriptor| self.layout_image(descriptor)).collect()
    }

    fn layout_image(&self, descriptor: &Descriptor) -> Result<Found> {
        let annotation =
            |name: &str| descriptor.annotations.as_ref().and_then(|a| a.get(name)).filter(|n| n.contains([':', '/']));
        let name = annotation("io.containerd.image.name").or_else(|| annotation("org.opencontainers.image.ref.name"));
        let mut digest = descriptor.digest;
        for _ in 0..=MAX_INDEX_DEPTH {
            self.needed(&blob_path(&digest))?;
            match Document::parse(&self.content.read(&digest, MAX_MANIFEST_BYTES as u64)?, None)? {
                Document::Index(index) => {
                    let host = Platform::host();
                    digest = index.select(&host).ok_or(Error::NoPlatform(host))?.digest;
                }
                Document::Manifest(manifest) => {
                    let config = self.content.read(&manifest.config.digest, MAX_CONFIG_BYTES)?;
                    let names = name.and_then(|n| Reference::parse(n).ok()).into_iter().collect();
                    let layers = manifest.layers.iter().map(|l| l.digest).collect();
                    return Ok(Found { config, manifest: Some(digest), layers, names });
                }
            }
        }
        Err(Error::TooDeep(MAX_INDEX_DEPTH))
    }
}

impl Found {
    fn record(self, content: &Store, snapshots: &Snapshots, unpacked: &mut HashMap<Digest, Alone>) -> Result<Loaded> {
        let config = ImageConfig::parse(&self.config).map_err(content::Error::Config)?;
        let layer = |digest: &Digest| {
            Ok::<_, content::Error>(Descriptor::new(media_type::OCI_LAYER, *digest, content.get(digest)?.size))
        };
        let layers = self.layers.iter().map(layer).collect::<Result<Vec<_>, _>>()?;
        let chain = snapshots.ensure_with(&layers, &config.rootfs.diff_ids, unpacked)?;
        let size = Some(snapshots.stack_size(chain.as_ref()));
        let id = content.create_image(NewImage {
            config: self.config,
            layers,
            manifest_digest: self.manifest,
            origin: Origin::Local,
            size,
        })?;
        let names: Vec<Reference> = self.names.into_iter().map(Reference::or_latest).collect();
        let mut replaced = Vec::new();
        for name in &names {
            let before = content.images().named(name).filter(|image| image.id != id);
            replaced.extend(before.map(|image| (name.clone(), image.id)));
            content.images().tag(&id, name)?;
        }
        Ok(Loaded { id, names, replaced })
    }
}

/// `blobs/sha256/<hex>` and the older `<hex>/layer.tar` both name a layer by its digest.
fn layer_name(path: &str) -> String {
    let named = path.split('/').find(|part| part.len() == 64).unwrap_or(path);
    named.chars().take(12).collect()
}

/// A tar archive, or something compressed.
fn looks_like_layer(start: &[u8]) -> bool {
    oci::Compression::sniff(start) != oci::Compression::None || start.get(257..262) == Some(b"ustar")
}

/// Paths in archives are names only: nothing is opened by them.
fn clean(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Makes a one-layer image of a root filesystem's archive (`docker import`). `edit` sets its configuration.
pub fn import(
    content: &Store,
    snapshots: &Snapshots,
    archive: &mut dyn Read,
    message: &str,
    edit: &mut dyn FnMut(&mut ImageConfig),
) -> Result<ImageId> {
    let _lease = content.lease("import");
    let layer = snapshots.import(archive)?;
    let now = Timestamp::now();
    let comment = if message.is_empty() { "Imported from -" } else { message };
    let mut config = ImageConfig { created: Some(now), ..ImageConfig::scratch() };
    config.history.push(History { created: Some(now), comment: Some(comment.to_owned()), ..History::default() });
    edit(&mut config);
    config.rootfs.diff_ids = vec![layer.diff_id];
    let new = NewImage {
        config: to_json(&config)?,
        layers: vec![layer.blob],
        manifest_digest: None,
        origin: Origin::Local,
        size: Some(layer.size),
    };
    Ok(content.create_image(new)?)
}
