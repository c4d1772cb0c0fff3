//! The words of the container half: digests, references, manifests, image configuration, runtime specification. No I/O.
//!
//! Everything here is parsed from, or printed for, somebody else: registries, archives, Docker clients. Parsing is
//! strict where a wrong value could make two readers see two different images, and tolerant (unknown fields are kept)
//! where a newer peer may say more than we understand. Nothing here panics on input.

mod config;
mod digest;
mod manifest;
mod platform;
mod reference;

pub use config::{Empty, HealthCheck, History, ImageConfig, RootFs, RunConfig};
pub use digest::{ChainId, Digest, DigestError, DigestHasher, ImageId, chain_id, chain_ids};
pub use manifest::{
    Compression, Descriptor, Document, DocumentError, Index, MAX_INDEX_ENTRIES, MAX_LAYERS, MAX_MANIFEST_BYTES,
    Manifest, media_type,
};
pub use oci_spec::runtime as runtime_spec;
pub use platform::Platform;
pub use reference::{Reference, ReferenceError};
