//! The server itself: what it holds, and the way of a request from the door to its handler.

use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use kube_client::node::NodeGateway;
use kube_types::status;
use store::Store;
use tokio::sync::watch;

use crate::audit::{Audit, AuditConfig, AuditError};
use crate::authz::rbac::Rbac;
use crate::body::Body;
use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::pki::Pki;
use crate::request;
use crate::respond::{self, Reply};
use crate::served::Served;
use crate::token::TokenSigner;
use crate::{authn, authz, bootstrap, endpoints, extension, handlers};

/// What the server has to know about its surroundings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the `kubernetes` service leads: this node's address and the listener's port.
    pub advertise_address: IpAddr,
    pub advertise_port: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("writing bootstrap object {key}: {message}")]
    Bootstrap { key: String, message: String },
    #[error("watching roles")]
    Watch(#[from] store::Compacted),
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// The API server over one store.
pub struct ApiServer {
    pub(crate) store: Store,
    pub(crate) served: Served,
    pub(crate) rbac: Arc<Rbac>,
    pub(crate) tokens: TokenSigner,
    pub(crate) pki: Arc<Pki>,
    /// OpenAPI documents that were asked for, encoded.
    pub(crate) documents: Mutex<HashMap<String, Bytes>>,
    /// Groups that other servers answer for.
    pub(crate) aggregated: extension::aggregation::Aggregated,
    /// Webhooks and policies, decoded and compiled.
    pub(crate) hooks: extension::admit::Hooks,
    /// Up to which revision CustomResourceDefinitions are served as they say.
    pub(crate) definitions: watch::Sender<u64>,
    pub(crate) metrics: Arc<Metrics>,
    audit: Option<Audit>,
    nodes: RwLock<Option<Arc<dyn NodeGateway>>>,
    closing: watch::Sender<bool>,
    rbac_task: tokio::task::AbortHandle,
    extension_tasks: OnceLock<[tokio::task::AbortHandle; 3]>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.rbac_task.abort();
        self.extension_tasks.get().into_iter().flatten().for_each(tokio::task::AbortHandle::abort);
    }
}

impl ApiServer {
    /// Starts over `store`; the bootstrap objects (namespaces, roles, the `kubernetes` service) exist on return.
    pub async fn start(store: Store, pki: Arc<Pki>, config: Config) -> Result<Arc<Self>, StartError> {
        Self::start_audited(store, pki, config, None).await
    }

    /// The same, with what is written down about requests, and where.
    pub async fn start_audited(
        store: Store,
        pki: Arc<Pki>,
        config: Config,
        audit: Option<&AuditConfig>,
    ) -> Result<Arc<Self>, StartError> {
        let served = Served::builtin();
        bootstrap::ensure(&store, &served, &config).await?;
        let rbac = Arc::new(Rbac::load(&store));
        let rbac_task = Rbac::follow(&rbac, &store)?;
        let tokens = TokenSigner::new(pki.token_key());
        extension::definitions::load(&store, &served);
        let aggregated = extension::aggregation::Aggregated::new(&pki);
        let metrics = Arc::new(Metrics::default());
        let audit = audit.map(|audit| Audit::open(audit, Arc::clone(&metrics))).transpose()?;
        let server = Arc::new(Self {
            store,
            served,
            rbac,
            tokens,
            pki,
            documents: Mutex::default(),
            aggregated,
            hooks: extension::admit::Hooks::default(),
            definitions: watch::Sender::new(0),
            metrics,
            audit,
            nodes: RwLock::new(None),
            closing: watch::Sender::new(false),
            rbac_task,
            extension_tasks: OnceLock::new(),
        });
        server.extension_tasks.get_or_init(|| {
            [
                extension::definitions::follow(&server),
                extension::aggregation::follow(&server),
                extension::typecheck::follow(&server),
            ]
        });
        Ok(server)
    }

    /// Where `logs`, `exec`, `attach` and `port-forward` go. Until this is called they answer 503.
    pub fn connect_nodes(&self, nodes: Arc<dyn NodeGateway>) {
        *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = Some(nodes);
    }

    pub(crate) fn nodes(&self) -> ApiResult<Arc<dyn NodeGateway>> {
        self.nodes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or_else(|| status::service_unavailable("no node agent is connected").into())
    }

    /// Ends all watches and log streams, so that a listener can drain. Requests are still answered.
    pub fn close_streams(&self) {
        self.closing.send_replace(true);
    }

    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Answers one request of an authenticated user. An upgrade needs hyper's `OnUpgrade` among the request's extensions.
    pub async fn handle(self: &Arc<Self>, user: Identity, request: Request<Bytes>) -> Response<Body> {
        let mut call = Call::new(self, user, request);
        let counted = self.metrics.begin(&call);
        let trail = self.audit.as_ref().and_then(|audit| Some((audit, audit.begin(&call)?, call.user.clone())));
        // A bug that one request runs into must not take the connection's other requests with it.
        let result = AssertUnwindSafe(Box::pin(dispatch(&mut call))).catch_unwind().await;
        let mut reply = match result {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => respond::failure(&error),
            Err(_) => {
                tracing::error!(path = call.info.path, verb = call.info.verb, "a request's handler panicked");
                respond::status(&status::internal("the server could not process the request"))
            }
        };
        respond::warn(&mut reply, &call.take_warnings());
        tracing::debug!(
            annotations = ?call.annotations(),
            user = call.user.name,
            verb = call.info.verb,
            path = call.info.path,
            status = reply.status().as_u16(),
            "request"
        );
        if let Some((audit, trail, original)) = trail {
            reply = Box::pin(audit.end(trail, &call, &original, reply)).await;
        }
        self.metrics.end(counted, reply.status().as_u16());
        reply
    }
}

async fn dispatch(call: &mut Call) -> ApiResult<Reply> {
    authn::impersonate(call)?;
    authz::authorize_request(call)?;
    if let Some(reply) = extension::aggregation::serve(call).await? {
        return Ok(reply);
    }
    match call.info.target.clone() {
        request::Target::Other => endpoints::serve(call).await,
        request::Target::Resource(path) => {
            let target = find_target(call, path)?;
            handlers::serve(call, &target).await
        }
    }
}

fn find_target(call: &Call, path: request::ResourcePath) -> ApiResult<Target> {
    let resource =
        call.server.served.find(&path.group, &path.version, &path.resource).ok_or_else(status::path_not_found)?;
    let names_namespace = path.resource != "namespaces" && !path.namespace.is_empty();
    let mismatch = resource.namespaced != names_namespace && (names_namespace || !path.name.is_empty());
    let unknown_part = !path.subresource.is_empty() && !resource.has_subresource(&path.subresource);
    let further = !path.rest.is_empty() && path.subresource != "proxy";
    if mismatch || unknown_part || further {
        return Err(status::path_not_found().into());
    }
    for part in [&path.namespace, &path.name] {
        if !part.is_empty() && !crate::keys::is_segment(part) {
            return Err(status::bad_request(format!("invalid path segment {part:?}")).into());
        }
    }
    let namespace = if resource.namespaced { path.namespace } else { String::new() };
    Ok(Target { resource, namespace, name: path.name, subresource: path.subresource })
}
