//! What some kinds do beyond the verbs that all have: bindings, evictions, scales, tokens, logs, streams and proxies.

mod binding;
mod eviction;
mod logs;
mod metrics;
mod proxy;
mod scale;
mod token;

use kube_client::node::{GatewayError, PodRef};
use kube_types::{meta, status};
use serde_json::Value;

use crate::call::{Call, Target};
use crate::error::{ApiError, ApiResult};
use crate::object;
use crate::respond::Reply;
use crate::websocket;

/// Answers what is special; `None` for everything that the plain handlers do.
pub(crate) async fn serve(call: &Call, target: &Target) -> ApiResult<Option<Reply>> {
    let verb = call.info.verb;
    let parts = (target.resource.group.as_ref(), target.resource.plural.as_ref(), target.subresource.as_str());
    Box::pin(crate::extension::admit::on_part(call, target)).await?;
    match (parts, verb) {
        (("", "bindings", ""), "create") => Box::pin(binding::create(call, target)).await.map(Some),
        (("", "pods", "binding"), "create") => Box::pin(binding::create(call, target)).await.map(Some),
        (("", "pods", "eviction"), "create") => Box::pin(eviction::create(call, target)).await.map(Some),
        (("", "serviceaccounts", "token"), "create") => token::create(call, target).map(Some),
        (("", "pods", "log"), "get") => logs::serve(call, target).await.map(Some),
        (("", "pods", "exec" | "attach"), "get" | "create") => websocket::exec::serve(call, target).await.map(Some),
        (("", "pods", "portforward"), "get" | "create") => websocket::forward::serve(call, target).await.map(Some),
        (("metrics.k8s.io", _, ""), "get" | "list") => metrics::serve(call, target).await.map(Some),
        (("", "pods" | "services" | "nodes", "proxy"), _) => Box::pin(proxy::serve(call, target)).await.map(Some),
        ((_, _, "scale"), "get") => scale::get(call, target).map(Some),
        ((_, _, "scale"), "update" | "patch") => Box::pin(scale::write(call, target, verb == "patch")).await.map(Some),
        _ => Ok(None),
    }
}

/// An object's scale, as admission sees it.
pub(crate) fn scale_of(target: &Target, object: &Value) -> Value {
    scale::of(target, object)
}

/// A pod that runs (or ran) on a node, and where.
pub(crate) fn placed_pod(call: &Call, target: &Target) -> ApiResult<(Value, PodRef)> {
    let pod = object::decode(&crate::handlers::get::find(call, target)?.value);
    let node = object::text(&pod, "/spec/nodeName");
    if node.is_empty() {
        let text = format!("pod {} does not have a host assigned", target.name);
        return Err(status::bad_request(text).into());
    }
    let reference = PodRef {
        node: node.to_owned(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        uid: meta::uid(&pod).to_owned(),
    };
    Ok((pod, reference))
}

/// The container that a log, exec or attach is about.
pub(crate) fn container(call: &Call, pod: &Value) -> ApiResult<String> {
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|container| container["name"].as_str()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let asked =
        call.query.text("container").or_else(|| meta::annotation(pod, "kubectl.kubernetes.io/default-container"));
    let name = meta::name(pod);
    match (asked, main.as_slice()) {
        (Some(asked), _) if main.iter().chain(&init).chain(&ephemeral).any(|own| *own == asked) => Ok(asked.to_owned()),
        (Some(asked), _) => Err(status::bad_request(format!("container {asked} is not valid for pod {name}")).into()),
        (None, [only]) => Ok((*only).to_owned()),
        (None, several) => {
            let mut text =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", several.join(" "));
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(status::bad_request(text).into())
        }
    }
}

impl From<GatewayError> for ApiError {
    fn from(error: GatewayError) -> Self {
        let mut status = match error.status {
            400 => status::bad_request(error.message),
            503 => status::service_unavailable(error.message),
            _ => {
                let mut status = status::internal(&error.message);
                status.message = error.message;
                status
            }
        };
        if error.status == 404 {
            status.reason = "NotFound";
        }
        if (400..600).contains(&error.status) {
            status.code = error.status;
        }
        status.into()
    }
}
