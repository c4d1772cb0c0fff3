//! A kube-apiserver: authentication → authorisation → admission → storage; discovery, list, watch, patch, apply.
//!
//! [`ApiServer::handle`] is the single entry: the HTTPS listener ([`serve`]) and the in-process transport both end there.
//! Objects are decoded, defaulted, admitted and validated on write and encoded once; reads, lists and watches send the
//! stored bytes. All state is in `store`; there is no other cache of objects here, except the decoded roles.

mod admission;
mod audit;
mod authn;
mod authz;
mod body;
mod bootstrap;
mod call;
mod discovery;
mod endpoints;
mod error;
mod extension;
mod handlers;
mod health;
mod identity;
mod in_process;
mod keys;
mod listener;
mod metadata;
mod metrics;
mod negotiate;
mod object;
pub mod pki;
mod protobuf;
mod request;
mod resources;
mod respond;
mod reviews;
mod served;
mod server;
mod share;
mod spdy;
mod token;
mod websocket;
mod write;

pub use audit::{AuditConfig, AuditError};
pub use body::Body;
pub use identity::Identity;
pub use in_process::InProcess;
pub use listener::serve;
pub use pki::{Pki, PkiError, ServingNames};
pub use server::{ApiServer, Config, StartError};
