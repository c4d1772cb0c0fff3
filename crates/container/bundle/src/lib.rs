//! Container configuration to OCI runtime specification (pure).
