//! End to end: the binary in namespaces of its own, driven by the stock clients and by its own verbs.

mod clients;
mod docker_attach;
mod docker_clients;
mod docker_files;
mod docker_life;
mod docker_logs;
mod docker_networks;
mod docker_run;
mod docker_survival;
mod docker_system;
mod docker_volumes;
mod harness;
mod instance;
