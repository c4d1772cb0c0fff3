//! The registry and the client: against the specification, against each other, against others, against the hostile.

mod access;
mod conformance;
mod hostile;
mod machine;
mod peers;
mod proxy;
mod pulls;
mod server;
