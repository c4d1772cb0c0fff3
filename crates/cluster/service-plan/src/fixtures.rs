//! Services and slices for tests, from the JSON that a user would write.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

/// `AsRef` over an owned slice.
pub(crate) struct Owned(pub(crate) EndpointSlice);
impl AsRef<EndpointSlice> for Owned {
    fn as_ref(&self) -> &EndpointSlice {
        &self.0
    }
}

pub(crate) fn service(spec: Value, status: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec, "status": status}))
        .unwrap()
}

/// An endpoint: address, node, ready, serving, terminating.
pub(crate) type Row<'a> = (&'a str, &'a str, bool, bool, bool);

pub(crate) fn slice(ports: Value, endpoints: &[Row<'_>]) -> Owned {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, node, ready, serving, terminating)| {
            json!({"addresses": [address], "nodeName": node, "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
        })
        .collect();
    Owned(
        serde_json::from_value(json!({"metadata": {}, "addressType": "IPv4", "ports": ports, "endpoints": endpoints}))
            .unwrap(),
    )
}
