//! Revisioned key-value store with watch and etcd semantics; embedded backend.
