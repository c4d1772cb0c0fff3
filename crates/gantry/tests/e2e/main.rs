//! End to end: the binary in namespaces of its own, driven by the stock clients and by its own verbs.

mod clients;
mod cri_socket;
mod harness;
mod instance;
mod pods;
mod pods_config;
mod pods_containerd;
mod pods_life;
mod pods_limits;
mod pods_node;
