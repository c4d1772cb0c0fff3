//! Container configuration to OCI runtime specification (pure).
//!
//! The engine resolves everything that needs I/O first (image config merged with the user's, user names to ids, volumes to host
//! paths, namespaces to paths); [`spec`] then decides what Docker's defaults add. Serves Docker containers and pod containers alike.

mod config;

pub use config::{
    BindMount, Capabilities, ContainerConfig, Device, DeviceRule, MountKind, MountSpec,
    NamespaceMode, Propagation, Resources, SeccompMode, Tmpfs, Ulimit, UserSpec,
};

/// What a configuration asks for and cannot have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("{0}")]
    Invalid(String),
}

/// The OCI runtime specification of `config`: Docker's default mounts, devices, capabilities, masked paths and seccomp profile, with the user's changes.
pub fn spec(_config: &ContainerConfig) -> Result<oci::runtime_spec::Spec, Error> {
    todo!()
}
