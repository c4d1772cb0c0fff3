//! End to end: the binary in namespaces of its own, driven by the stock clients and by its own verbs.

mod buildkit;
mod builds;
mod clients;
mod harness;
mod image_attacks;
mod image_crashes;
mod images;
mod instance;
mod kubectl;
mod libraries;
mod rolling;
mod start;
mod verbs;
mod why;
