//! Which groups, versions and resources there are: the plain documents and the aggregated one.

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, VARY};
use kube_types::{Resource, status};
use serde_json::{Value, json};

use crate::call::Call;
use crate::error::ApiResult;
use crate::negotiate;
use crate::respond::{self, Reply};
use crate::served::Served;

/// `parts` is a path below `/api` or `/apis`.
pub(crate) fn serve(call: &Call, parts: &[&str]) -> ApiResult<Reply> {
    let served = &call.server.served;
    let aggregated = negotiate::aggregated_discovery(&call.headers);
    let document = match (parts, aggregated) {
        ([root @ ("api" | "apis")], Some(version)) => {
            return Ok(aggregate(call, *root == "api", version));
        }
        (["api"], None) => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        }),
        (["apis"], None) => {
            let groups: Vec<Value> = groups(call)
                .iter()
                .filter(|(group, _)| !group.is_empty())
                .map(|(group, versions)| api_group(group, versions))
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        (["api", version], _) => resource_list(served, "", version)?,
        (["apis", group], _) => {
            let groups = groups(call);
            let (group, versions) =
                groups.iter().find(|(own, _)| own == group && !own.is_empty()).ok_or_else(status::path_not_found)?;
            let mut document = api_group(group, versions);
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            document
        }
        (["apis", group, version], _) if !group.is_empty() => resource_list(served, group, version)?,
        _ => return Err(status::path_not_found().into()),
    };
    Ok(respond::json(StatusCode::OK, &document))
}

/// Groups that are served here, and those of other servers.
fn groups(call: &Call) -> Vec<(String, Vec<String>)> {
    let mut all = call.server.served.groups();
    for backend in call.server.aggregated.backends().iter() {
        match all.iter_mut().find(|(group, _)| *group == backend.group) {
            Some((_, versions)) if versions.contains(&backend.version) => {}
            Some((_, versions)) => versions.push(backend.version.clone()),
            None => all.push((backend.group.clone(), vec![backend.version.clone()])),
        }
    }
    all
}

fn api_group(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

fn resource_list(served: &Served, group: &str, version: &str) -> ApiResult<Value> {
    let mut resources = Vec::new();
    for resource in &served.in_version(group, version) {
        resources.push(plain_entry(resource));
        for subresource in &resource.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, subresource.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": subresource.kind, "verbs": subresource.verbs,
            });
            if let Some((group, version)) = &subresource.group_version {
                entry["group"] = group.as_ref().into();
                entry["version"] = version.as_ref().into();
            }
            resources.push(entry);
        }
    }
    if resources.is_empty() {
        return Err(status::path_not_found().into());
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}))
}

fn plain_entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    entry
}

fn aggregate(call: &Call, core: bool, version: &str) -> Reply {
    let (served, backends) = (&call.server.served, call.server.aggregated.backends());
    let groups: Vec<Value> = groups(call)
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let other = backends.iter().find(|own| own.group == *group && own.version == *version);
                    if let Some(other) = other.filter(|_| served.in_version(group, version).is_empty()) {
                        let freshness = if other.available { "Current" } else { "Stale" };
                        let resources = others_entries(group, version, &other.resources);
                        return json!({"version": version, "freshness": freshness, "resources": resources});
                    }
                    let resources: Vec<Value> =
                        served.in_version(group, version).iter().map(|resource| aggregated_entry(resource)).collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            let metadata = if group.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": groups,
    });
    let mut reply = respond::json(StatusCode::OK, &document);
    let content_type = if version == "v2" {
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    } else {
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
    };
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    reply
}

/// Another server's plain list in the aggregated form.
fn others_entries(group: &str, version: &str, list: &[Value]) -> Vec<Value> {
    let kind = |entry: &Value| {
        let own = |key: &str, otherwise: &str| entry[key].as_str().unwrap_or(otherwise).to_owned();
        json!({"group": own("group", group), "version": own("version", version), "kind": entry["kind"]})
    };
    let name = |entry: &Value| entry["name"].as_str().unwrap_or_default().to_owned();
    let whole = list.iter().filter(|entry| !name(entry).contains('/'));
    whole
        .map(|entry| {
            let prefix = format!("{}/", name(entry));
            let parts: Vec<Value> = list
                .iter()
                .filter_map(|part| Some((name(part).strip_prefix(&prefix)?.to_owned(), part)))
                .map(|(own, part)| json!({"subresource": own, "responseKind": kind(part), "verbs": part["verbs"]}))
                .collect();
            let scope = if entry["namespaced"] == true { "Namespaced" } else { "Cluster" };
            let mut made = json!({
                "resource": name(entry), "responseKind": kind(entry), "scope": scope,
                "singularResource": entry["singularName"], "verbs": entry["verbs"],
            });
            for key in ["shortNames", "categories"] {
                if entry[key].is_array() {
                    made[key] = entry[key].clone();
                }
            }
            if !parts.is_empty() {
                made["subresources"] = parts.into();
            }
            made
        })
        .collect()
}

fn aggregated_entry(resource: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind(&resource.group, &resource.version, &resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|subresource| {
            let (group, version) = subresource.group_version.as_ref().map_or((&resource.group, &resource.version), |(group, version)| (group, version));
            json!({"subresource": subresource.name, "responseKind": kind(group, version, &subresource.kind), "verbs": subresource.verbs})
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}
