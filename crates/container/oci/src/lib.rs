//! The words of the container half: digests, references, manifests, image configuration, runtime specification. No I/O.

pub use oci_spec::image;
pub use oci_spec::runtime as runtime_spec;
