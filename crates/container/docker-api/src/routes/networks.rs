//! `/networks/…`.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use engine::config::{EndpointRequest, nullable};
use http::StatusCode;
use networking::{Network, NetworkSpec};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Body, Query};
use crate::{
    Backend,
    error::{ApiError, Result},
    filters::Filters,
    wire::{networks as wire, time},
};

pub(crate) fn routes() -> Router<Backend> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(show).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "label!", "name", "scope", "type"];

async fn list(State(backend): State<Backend>, query: Query) -> Result<Json<Value>> {
    let filters = Filters::parse(query.get("filters"), FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let fits = |network: &&Network| {
        let kind = if network.user_defined { "custom" } else { "builtin" };
        !network.hidden()
            && filters.any("driver", |driver| driver == network.driver.as_str())
            && filters.any("id", |id| network.id.as_str().starts_with(id))
            && filters.any("name", |name| super::container_list::name_fits(name, &network.name))
            && filters.any("scope", |scope| scope == "local")
            && filters.any("type", |wanted| wanted == kind)
            && dangling.is_none_or(|dangling| dangling == (network.user_defined && network.endpoints.is_empty()))
            && filters.labels(&network.labels)
    };
    let networks = backend.engine.networking().networks();
    Ok(Json(networks.iter().filter(fits).map(|network| wire::network(network, false)).collect()))
}

async fn show(State(backend): State<Backend>, Path(id): Path<String>) -> Result<Json<Value>> {
    Ok(Json(wire::network(&backend.engine.networking().network(&id)?, true)))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct CreateRequest {
    name: String,
    #[serde(deserialize_with = "nullable")]
    driver: String,
    #[serde(deserialize_with = "nullable")]
    internal: bool,
    #[serde(deserialize_with = "nullable")]
    attachable: bool,
    #[serde(rename = "EnableIPv6", deserialize_with = "nullable")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM", deserialize_with = "nullable")]
    ipam: Ipam,
    #[serde(deserialize_with = "nullable")]
    options: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Ipam {
    #[serde(deserialize_with = "nullable")]
    config: Vec<Pool>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Pool {
    #[serde(deserialize_with = "nullable")]
    subnet: String,
    #[serde(rename = "IPRange", deserialize_with = "nullable")]
    ip_range: String,
    #[serde(deserialize_with = "nullable")]
    gateway: String,
    #[serde(deserialize_with = "nullable")]
    auxiliary_addresses: BTreeMap<String, String>,
}

async fn create(State(backend): State<Backend>, Body(asked): Body<CreateRequest>) -> Result<Response> {
    let [pool] = match <[Pool; 1]>::try_from(asked.ipam.config) {
        Ok(one) => one,
        Err(none) if none.is_empty() => [Pool::default()],
        Err(_) => return Err(ApiError::bad_request("bridge driver doesn't support multiple subnets")),
    };
    let address = |text: &str| text.parse().map_err(|_| ApiError::bad_request(format!("invalid IP address: {text}")));
    let given = |text: &str| !text.is_empty();
    let spec = NetworkSpec {
        name: asked.name,
        driver: asked.driver,
        internal: asked.internal,
        attachable: asked.attachable,
        subnet: Some(&pool.subnet).filter(|s| given(s)).map(|text| text.parse()).transpose()?,
        ip_range: Some(&pool.ip_range).filter(|s| given(s)).map(|text| text.parse()).transpose()?,
        gateway: Some(&pool.gateway).filter(|s| given(s)).map(|text| address(text)).transpose()?,
        reserved: pool.auxiliary_addresses.values().map(|text| address(text)).collect::<Result<_>>()?,
        labels: asked.labels,
        options: asked.options,
    };
    let network = backend.engine.networking().create_network(spec).await?;
    let attributes =
        [("name".to_owned(), network.name.clone()), ("type".to_owned(), network.driver.as_str().to_owned())].into();
    backend.engine.publish(engine::Subject::Network, "create", network.id.as_str(), attributes);
    let warning = if asked.enable_ipv6 { "IPv6 is not served; the network has IPv4 only" } else { "" };
    Ok((StatusCode::CREATED, Json(json!({"Id": network.id.to_string(), "Warning": warning}))).into_response())
}

async fn remove(State(backend): State<Backend>, Path(id): Path<String>) -> Result<StatusCode> {
    backend.engine.remove_network(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct ConnectRequest {
    container: String,
    endpoint_config: Option<EndpointRequest>,
    force: bool,
}

async fn connect(
    State(backend): State<Backend>,
    Path(id): Path<String>,
    Body(asked): Body<ConnectRequest>,
) -> Result<StatusCode> {
    backend.engine.connect_network(&id, &asked.container, asked.endpoint_config.unwrap_or_default()).await?;
    Ok(StatusCode::OK)
}

async fn disconnect(
    State(backend): State<Backend>,
    Path(id): Path<String>,
    Body(asked): Body<ConnectRequest>,
) -> Result<StatusCode> {
    backend.engine.disconnect_network(&id, &asked.container, asked.force).await?;
    Ok(StatusCode::OK)
}

async fn prune(State(backend): State<Backend>, query: Query) -> Result<Json<Value>> {
    let filters = Filters::parse(query.get("filters"), &["until", "label", "label!"])?;
    let until = filters.values("until").next().map(|text| time::parse(text, jiff::Timestamp::now())).transpose()?;
    let wanted_by_containers: std::collections::BTreeSet<String> = backend
        .engine
        .containers()
        .iter()
        .flat_map(|container| engine::containers::wanted_networks(&container.record))
        .map(|(name, _)| name)
        .collect();
    let mut deleted = Vec::new();
    for network in backend.engine.networking().networks() {
        let idle = network.user_defined
            && !network.hidden()
            && network.endpoints.is_empty()
            && !wanted_by_containers.contains(&network.name);
        let fits = filters.labels(&network.labels) && until.is_none_or(|until| network.created < until);
        if idle && fits && backend.engine.remove_network(network.id.as_str()).await.is_ok() {
            deleted.push(network.name);
        }
    }
    Ok(Json(json!({"NetworksDeleted": if deleted.is_empty() { Value::Null } else { json!(deleted) }})))
}
