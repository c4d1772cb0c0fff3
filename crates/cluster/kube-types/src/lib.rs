//! Kubernetes resources: schema, defaulting, validation, patches, field management, printing. No I/O.
