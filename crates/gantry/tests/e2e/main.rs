//! End to end: the binary in namespaces of its own, driven by the stock clients and by its own verbs.

mod build_attacks;
mod buildkit;
mod builds;
mod clients;
mod docker_attach;
mod docker_files;
mod docker_life;
mod docker_logs;
mod docker_networks;
mod docker_run;
mod cri_socket;
mod harness;
mod image_attacks;
mod image_crashes;
mod images;
mod instance;
mod rolling;
mod start;
mod verbs;
mod why;
mod pods;
mod pods_config;
mod pods_life;
mod pods_limits;
mod pods_node;
