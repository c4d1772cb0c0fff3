//! The environment of a container.
//!
//! Called when a container is about to be made. Order and precedence are Kubernetes': service variables,
//! then envFrom, then env, later ones winning, `$(NAME)` replaced by what is defined before it. Values are
//! never logged.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Service};

use crate::{
    error::{AgentError, Result},
    fields::{self, Place},
    references::Held,
};

/// Replaces `$(NAME)`; `$$` is a dollar, and what is not defined stays as written.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Variables in the order of their first definition.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Environment {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    pub(crate) fn expand(&self, text: &str) -> String {
        expand(text, |name| self.values.get(name).cloned())
    }

    pub(crate) fn into_pairs(mut self) -> Vec<(String, String)> {
        let order = std::mem::take(&mut self.order);
        order.into_iter().filter_map(|name| self.values.remove(&name).map(|value| (name, value))).collect()
    }
}

/// `KUBERNETES_SERVICE_HOST` and its like, for the services that a pod sees.
pub(crate) fn service_variables(services: &[&Service]) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let Some(first) = spec.ports.as_ref().and_then(|ports| ports.first()) else {
            continue;
        };
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let name = name.to_uppercase().replace('-', "_");
        out.push((format!("{name}_SERVICE_HOST"), ip.to_owned()));
        out.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            if let Some(port_name) = &port.name {
                let port_name = port_name.to_uppercase().replace('-', "_");
                out.push((format!("{name}_SERVICE_PORT_{port_name}"), port.port.to_string()));
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port.port);
            if index == 0 {
                out.push((format!("{name}_PORT"), url.clone()));
            }
            let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
            out.push((prefix.clone(), url));
            out.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
            out.push((format!("{prefix}_PORT"), port.port.to_string()));
            out.push((format!("{prefix}_ADDR"), ip.to_owned()));
        }
    }
    out
}

/// Everything that a container's environment is made of.
pub(crate) async fn build(
    pod: &Pod,
    container: &Container,
    services: &[(String, String)],
    place: &Place,
    held: &Held,
) -> Result<Environment> {
    let mut env = Environment::default();
    for (name, value) in services {
        env.set(name, value.clone());
    }
    env_from(&mut env, container, held).await?;
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(env.expand(value)),
            (None, Some(source)) => from_source(pod, container, source, place, held).await?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.set(&variable.name, value);
        }
    }
    Ok(env)
}

async fn env_from(env: &mut Environment, container: &Container, held: &Held) -> Result<()> {
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match held.config_map(&reference.name).await {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        env.set(&format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(missing("configmap", &reference.name)),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match held.secret(&reference.name).await {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let text = String::from_utf8_lossy(&value.0).into_owned();
                        env.set(&format!("{prefix}{key}"), text);
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(missing("secret", &reference.name)),
            }
        }
    }
    Ok(())
}

pub(crate) fn missing(kind: &str, name: &str) -> AgentError {
    AgentError::Config(format!("{kind} \"{name}\" not found"))
}

fn no_key(pod: &Pod, key: &str, kind: &str, name: &str) -> AgentError {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    AgentError::Config(format!("couldn't find key {key} in {kind} {namespace}/{name}"))
}

async fn from_source(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    place: &Place,
    held: &Held,
) -> Result<Option<String>> {
    if let Some(selector) = &source.field_ref {
        return fields::field(pod, place, selector).map(Some).map_err(AgentError::Config);
    }
    if let Some(selector) = &source.resource_field_ref {
        let containers = all_containers(pod);
        return fields::resource(&containers, Some(container), place, selector).map(Some).map_err(AgentError::Config);
    }
    if let Some(selector) = &source.config_map_key_ref {
        let optional = selector.optional == Some(true);
        let Some(map) = held.config_map(&selector.name).await else {
            return if optional { Ok(None) } else { Err(missing("configmap", &selector.name)) };
        };
        let value = map.data.as_ref().and_then(|data| data.get(&selector.key)).cloned();
        return match value {
            None if !optional => Err(no_key(pod, &selector.key, "ConfigMap", &selector.name)),
            value => Ok(value),
        };
    }
    if let Some(selector) = &source.secret_key_ref {
        let optional = selector.optional == Some(true);
        let Some(secret) = held.secret(&selector.name).await else {
            return if optional { Ok(None) } else { Err(missing("secret", &selector.name)) };
        };
        let value = secret.data.as_ref().and_then(|data| data.get(&selector.key));
        return match value {
            None if !optional => Err(no_key(pod, &selector.key, "Secret", &selector.name)),
            value => Ok(value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())),
        };
    }
    Ok(Some(String::new()))
}

/// Init and main containers of a pod.
pub(crate) fn all_containers(pod: &Pod) -> Vec<&Container> {
    let spec = pod.spec.as_ref();
    spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers)).collect()
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn references_to_variables_are_expanded_as_kubernetes_does() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(B)z", "x1y2z"),
            ("$(MISSING)", "$(MISSING)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(A", "$(A"),
            ("a$", "a$"),
            ("$A", "$A"),
        ] {
            let lookup = |name: &str| match name {
                "A" => Some("1".to_owned()),
                "B" => Some("2".to_owned()),
                _ => None,
            };
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }
}
