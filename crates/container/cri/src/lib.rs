//! CRI v1: the seam between the cluster half and the container half.
//!
//! The node agent calls [`Cri`] and [`Streaming`] and nothing else of the container half. Behind them
//! stands either [`EngineCri`] (Gantry's own engine, in this process) or [`RemoteCri`] (containerd, CRI-O
//! or another Gantry over its socket); [`serve`] offers whichever one it is given as gRPC, for `crictl`
//! or another kubelet. Invariant: both directions speak the messages of `proto/v1.proto` unchanged, so
//! the node agent cannot tell an engine in its own process from one behind a socket.
//!
//! In process Exec, Attach and PortForward are direct streams; over the socket they are URLs of a streaming server.

mod channels;
mod contract;
mod engine_cri;
mod error;
mod relist;
mod remote;
mod server;
mod stream_client;
mod stream_server;
mod streaming;
#[expect(
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/v1.proto; see the file's header"
)]
#[rustfmt::skip]
pub mod v1;

pub use contract::{Cri, EventStream};
pub use engine_cri::EngineCri;
pub use error::CriError;
pub use remote::RemoteCri;
pub use server::serve;
pub use streaming::{ByteStream, Duplex, Session, Streaming, TerminalSize};

/// What every call of this crate returns.
pub type Result<T, E = CriError> = std::result::Result<T, E>;
