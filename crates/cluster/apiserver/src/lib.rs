//! A kube-apiserver: authentication → authorisation → admission → storage; discovery, list, watch, patch, apply.
//!
//! [`ApiServer::handle`] is the single entry: the HTTPS listener ([`serve`]) and the in-process transport both end there.
//! Objects are decoded, defaulted, admitted and validated on write and encoded once; reads, lists and watches send the
//! stored bytes. All state is in `store`; there is no other cache of objects here.

mod body;
mod identity;
pub mod pki;

use std::net::IpAddr;
use std::sync::Arc;

pub use body::Body;
pub use identity::Identity;
pub use pki::{Pki, PkiError, ServingNames};

/// What the server has to know about its surroundings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the `kubernetes` service leads.
    pub advertise_address: IpAddr,
    pub advertise_port: u16,
}

/// The API server over one store.
pub struct ApiServer {}

#[derive(Debug, thiserror::Error)]
pub enum StartError {}

impl ApiServer {
    /// Starts over `store`; the bootstrap objects (namespaces, roles, the `kubernetes` service) exist on return.
    pub async fn start(
        _store: Arc<store::Store>,
        _pki: Arc<Pki>,
        _config: Config,
    ) -> Result<Arc<Self>, StartError> {
        todo!()
    }

    /// Where `logs`, `exec`, `attach` and `port-forward` go. Until this is called they answer 503.
    pub fn connect_nodes(&self, _nodes: Arc<dyn kube_client::node::NodeGateway>) {
        todo!()
    }

    /// Answers one request of an authenticated user.
    pub async fn handle(
        self: &Arc<Self>,
        _user: Identity,
        _request: http::Request<bytes::Bytes>,
    ) -> http::Response<Body> {
        todo!()
    }
}

/// Serves HTTPS on `listener` until `shutdown` completes.
pub async fn serve(
    _server: Arc<ApiServer>,
    _listener: tokio::net::TcpListener,
    _shutdown: impl Future<Output = ()> + Send,
) -> Result<(), PkiError> {
    todo!()
}
