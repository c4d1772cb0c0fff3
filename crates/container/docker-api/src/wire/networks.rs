//! Network answers.

use networking::{Driver, Network};
use serde_json::{Map, Value, json};

/// A network; `containers` only in inspect.
pub(crate) fn network(network: &Network, containers: bool) -> Value {
    let members: Map<String, Value> = if containers {
        let member = |endpoint: &networking::Endpoint| {
            let shown = json!({
                "Name": endpoint.name,
                "EndpointID": endpoint.id,
                "MacAddress": endpoint.mac.to_string(),
                "IPv4Address": format!("{}/{}", endpoint.address, endpoint.prefix_len),
                "IPv6Address": "",
            });
            (endpoint.namespace.clone(), shown)
        };
        network.endpoints.iter().map(member).collect()
    } else {
        Map::new()
    };
    let pool = network.subnet.map(|subnet| {
        let mut pool = json!({"Subnet": subnet.to_string()});
        if let Value::Object(map) = &mut pool {
            if let Some(range) = network.ip_range {
                map.insert("IPRange".to_owned(), range.to_string().into());
            }
            if let Some(gateway) = network.gateway {
                map.insert("Gateway".to_owned(), gateway.to_string().into());
            }
        }
        pool
    });
    json!({
        "Name": network.name,
        "Id": network.id.to_string(),
        "Created": network.created.to_string(),
        "Scope": "local",
        "Driver": network.driver.as_str(),
        "EnableIPv4": network.driver == Driver::Bridge,
        "EnableIPv6": false,
        "IPAM": {
            "Driver": "default",
            "Options": if network.user_defined { json!({}) } else { Value::Null },
            "Config": pool.map_or_else(|| if network.driver == Driver::Bridge { json!([]) } else { Value::Null }, |pool| json!([pool])),
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": members,
        "Options": network.options,
        "Labels": network.labels,
    })
}
