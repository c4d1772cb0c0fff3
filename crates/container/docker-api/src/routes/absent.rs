//! What this engine has not: Swarm and plugins. They answer as an engine that manages no swarm and has no plugins.

use axum::{
    Json, Router,
    extract::Path,
    routing::{any, get, post},
};
use http::StatusCode;
use serde_json::json;

use crate::{Backend, error::ApiError};

pub(crate) fn routes() -> Router<Backend> {
    let mut router = Router::new()
        .route("/swarm", get(no_manager))
        .route("/swarm/init", post(no_swarm_mode))
        .route("/swarm/join", post(no_swarm_mode))
        .route("/swarm/leave", post(no_member))
        .route("/swarm/update", post(no_manager))
        .route("/swarm/unlockkey", get(no_manager))
        .route("/swarm/unlock", post(no_member))
        .route("/plugins", get(|| async { Json(json!([])) }))
        .route("/plugins/privileges", get(no_plugins))
        .route("/plugins/pull", post(no_plugins))
        .route("/plugins/create", post(no_plugins))
        .route("/plugins/{*name}", any(no_such_plugin));
    for kind in ["nodes", "services", "tasks", "secrets", "configs"] {
        router = router.route(&format!("/{kind}"), any(no_manager)).route(&format!("/{kind}/{{*rest}}"), any(no_manager));
    }
    router
}

async fn no_manager() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
    )
}

async fn no_member() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm")
}

async fn no_swarm_mode() -> ApiError {
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "swarm mode is not offered: this engine's cluster is Kubernetes")
}

async fn no_plugins() -> ApiError {
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "plugins are not offered by this engine")
}

async fn no_such_plugin(Path(tail): Path<String>) -> ApiError {
    let verbs = ["/json", "/enable", "/disable", "/upgrade", "/push", "/set"];
    let name = verbs.iter().find_map(|verb| tail.strip_suffix(verb)).unwrap_or(&tail);
    ApiError::not_found(format!("plugin \"{name}\" not found"))
}
