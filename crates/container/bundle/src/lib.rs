//! Container configuration to OCI runtime specification (pure).
//!
//! The engine resolves everything that needs I/O first (image config merged with the user's, user names to ids, volumes to host
//! paths, namespaces to paths); [`spec`] then decides what Docker's defaults add. Serves Docker containers and pod containers alike.

mod capabilities;
mod config;
mod defaults;
mod mounts;
mod resources;
mod seccomp;
mod spec;

pub use capabilities::effective as effective_capabilities;
pub use config::{
    BindMount, Capabilities, ContainerConfig, Device, DeviceRule, MountKind, MountSpec, NamespaceMode, Propagation,
    Resources, SeccompMode, Throttle, Tmpfs, Ulimit, UserSpec,
};
pub use resources::resources as runtime_resources;
pub use spec::spec;

/// What a configuration asks for and cannot have; Docker's wording where it has one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("invalid CapAdd: unknown capability: \"{0}\"")]
    UnknownCapabilityAdd(String),
    #[error("invalid CapDrop: unknown capability: \"{0}\"")]
    UnknownCapabilityDrop(String),
    #[error("invalid seccomp profile: {0}")]
    SeccompProfile(String),
    #[error("invalid ulimit type: {0}")]
    Ulimit(String),
    #[error("invalid mount path: '{0}' mount path must be absolute")]
    MountPath(String),
    #[error("invalid device: {0}")]
    Device(String),
    #[error("OCI specification: {0}")]
    Specification(String),
}
