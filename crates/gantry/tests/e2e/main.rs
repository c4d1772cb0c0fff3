//! End to end: the binary in namespaces of its own, driven by the stock clients and by its own verbs.

mod clients;
mod harness;
mod instance;
mod workloads;
