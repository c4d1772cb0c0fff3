//! End to end: the binary in namespaces of its own, driven by the stock clients and by its own verbs.

mod buildkit;
mod builds;
mod clients;
mod harness;
mod instance;
