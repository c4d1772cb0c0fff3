//! `proxy` of pods, services and nodes: an HTTP request (or an upgrade) handed on to what the object names.
//!
//! Invariants: no request reaches a loopback, link-local or metadata address through here (attacks 32), whatever an object's
//! status claims; each request has a connection of its own, which is closed with it, so a failed upgrade leaves nothing that
//! another request could use; the client's credentials stay here.

mod forward;
mod locate;

use http::header::{HeaderValue, LOCATION};
use http::{Response, StatusCode};
use kube_types::status;

use crate::body::Body;
use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::respond::Reply;

/// Where a request goes on to.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    address: std::net::SocketAddr,
    tls: bool,
}

pub(super) async fn serve(call: &Call, target: &Target) -> ApiResult<Reply> {
    let Some(rest) = rest_of(&call.info.path, !target.namespace.is_empty()) else {
        // Relative links of the page behind would lead astray without the slash.
        return redirect(&format!("{}/", call.info.path));
    };
    if target.is("", "nodes")
        && let Some(reply) = locate::node_itself(call, target, rest)?
    {
        return Ok(reply);
    }
    let place = locate::place(call, target)?;
    let prefix = call.info.path.strip_suffix(rest).unwrap_or_default().trim_end_matches('/').to_owned();
    forward::forward(call, &place, rest, &prefix).await
}

fn redirect(to: &str) -> ApiResult<Reply> {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(to).map_err(|error| status::bad_request(error.to_string()))?;
    reply.headers_mut().insert(LOCATION, location);
    Ok(reply)
}

/// The path behind `…/proxy`, as it was sent, with its slash; `None` when there is not even that.
fn rest_of(path: &str, namespaced: bool) -> Option<&str> {
    // /api/v1/namespaces/NS/pods/NAME/proxy or /api/v1/nodes/NAME/proxy
    let before = if namespaced { 8 } else { 6 };
    let (at, _) = path.match_indices('/').nth(before - 1)?;
    path.get(at..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_subresource_is_handed_on_as_it_was_sent() {
        for (path, namespaced, rest) in [
            ("/api/v1/namespaces/a/pods/b/proxy", true, None),
            ("/api/v1/namespaces/a/pods/b/proxy/", true, Some("/")),
            ("/api/v1/namespaces/a/services/http:b:web/proxy/x%2Fy//z", true, Some("/x%2Fy//z")),
            ("/api/v1/nodes/n/proxy/pods", false, Some("/pods")),
        ] {
            assert_eq!(rest_of(path, namespaced), rest, "{path}");
        }
    }
}
