//! What the files of configMap, secret, downwardAPI and projected volumes contain.
//!
//! Invariant: rendering reads, it writes nothing; a missing object that is not optional is an error in
//! Kubernetes' words, and its arrival (told by `References`) leads to another try.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{
        ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount, ServiceAccountTokenProjection, Volume,
    },
};
use kube_client::Client;

use super::atomic::{FileContent, Files};
use crate::{
    env::{all_containers, missing},
    error::{AgentError, Result},
    fields::{self, Place},
    references::Held,
};

/// Where contents come from.
pub(crate) struct Sources<'a> {
    pub(crate) client: &'a Client,
    pub(crate) held: &'a Held,
    pub(crate) place: &'a Place,
    pub(crate) tokens: &'a Tokens,
    /// The node's state, below which directories of local volumes are made.
    pub(crate) root: &'a std::path::Path,
}

/// Tokens that were issued to one pod and are not due for renewal, by audience and lifetime.
#[derive(Default)]
pub(crate) struct Tokens(tokio::sync::Mutex<HashMap<TokenKey, (Vec<u8>, Timestamp)>>);

type TokenKey = (Option<String>, i64);

/// Files, and when they grow old.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    pub(super) files: Files,
    pub(super) renew_at: Option<Timestamp>,
}

pub(super) fn is_projected(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    u32::try_from(own.or(default).unwrap_or(0o644)).unwrap_or(0o644) & 0o777
}

pub(super) async fn render(pod: &Pod, volume: &Volume, sources: &Sources<'_>) -> Result<Rendered> {
    let mut out = Rendered::default();
    if let Some(spec) = &volume.config_map {
        let map = sources.held.config_map(&spec.name).await;
        let pairs = map.as_deref().map(config_map_pairs);
        let what = ("configmap", spec.name.as_str(), spec.optional == Some(true));
        pick(&mut out.files, pairs, spec.items.as_deref(), spec.default_mode, what)?;
    } else if let Some(spec) = &volume.secret {
        let name = spec.secret_name.as_deref().unwrap_or_default();
        let secret = sources.held.secret(name).await;
        let pairs = secret.as_deref().map(secret_pairs);
        let what = ("secret", name, spec.optional == Some(true));
        pick(&mut out.files, pairs, spec.items.as_deref(), spec.default_mode, what)?;
    } else if let Some(spec) = &volume.downward_api {
        downward(&mut out.files, pod, spec.items.as_deref(), spec.default_mode, sources)?;
    } else if let Some(spec) = &volume.projected {
        projected(&mut out, pod, spec, sources).await?;
    }
    Ok(out)
}

async fn projected(
    out: &mut Rendered,
    pod: &Pod,
    spec: &k8s_openapi::api::core::v1::ProjectedVolumeSource,
    sources: &Sources<'_>,
) -> Result<()> {
    for source in spec.sources.iter().flatten() {
        if let Some(one) = &source.config_map {
            let map = sources.held.config_map(&one.name).await;
            let pairs = map.as_deref().map(config_map_pairs);
            let what = ("configmap", one.name.as_str(), one.optional == Some(true));
            pick(&mut out.files, pairs, one.items.as_deref(), spec.default_mode, what)?;
        }
        if let Some(one) = &source.secret {
            let secret = sources.held.secret(&one.name).await;
            let pairs = secret.as_deref().map(secret_pairs);
            let what = ("secret", one.name.as_str(), one.optional == Some(true));
            pick(&mut out.files, pairs, one.items.as_deref(), spec.default_mode, what)?;
        }
        if let Some(one) = &source.downward_api {
            downward(&mut out.files, pod, one.items.as_deref(), spec.default_mode, sources)?;
        }
        if let Some(one) = &source.service_account_token {
            let (token, renew_at) = cached_token(pod, one, sources).await?;
            let mode = mode(None, spec.default_mode);
            out.files.insert(one.path.clone(), FileContent { bytes: token, mode });
            out.renew_at = [out.renew_at, Some(renew_at)].into_iter().flatten().min();
        }
    }
    Ok(())
}

type Pairs = Vec<(String, Vec<u8>)>;

fn config_map_pairs(map: &ConfigMap) -> Pairs {
    let text = map.data.iter().flatten();
    let binary = map.binary_data.iter().flatten();
    text.map(|(key, value)| (key.clone(), value.clone().into_bytes()))
        .chain(binary.map(|(key, value)| (key.clone(), value.0.clone())))
        .collect()
}

fn secret_pairs(secret: &Secret) -> Pairs {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

/// Takes all keys, or those that the items name.
fn pick(
    files: &mut Files,
    pairs: Option<Pairs>,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    (kind, name, optional): (&str, &str, bool),
) -> Result<()> {
    let Some(pairs) = pairs else {
        return if optional { Ok(()) } else { Err(missing(kind, name)) };
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let mode = mode(None, default_mode);
        files.extend(pairs.into_iter().map(|(key, bytes)| (key, FileContent { bytes, mode })));
        return Ok(());
    };
    for item in items {
        match pairs.iter().find(|(key, _)| *key == item.key) {
            Some((_, bytes)) => {
                let mode = mode(item.mode, default_mode);
                files.insert(item.path.clone(), FileContent { bytes: bytes.clone(), mode });
            }
            None if optional => {}
            None => {
                let text = format!("{kind} references non-existent {kind} key: {}", item.key);
                return Err(AgentError::Config(text));
            }
        }
    }
    Ok(())
}

fn downward(
    files: &mut Files,
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    default_mode: Option<i32>,
    sources: &Sources<'_>,
) -> Result<()> {
    for item in items.into_iter().flatten() {
        let text = if let Some(selector) = &item.field_ref {
            fields::field(pod, sources.place, selector)
        } else if let Some(selector) = &item.resource_field_ref {
            fields::resource(&all_containers(pod), None, sources.place, selector)
        } else {
            Err(format!("downwardAPI file {} names nothing", item.path))
        };
        let bytes = text.map_err(AgentError::Config)?.into_bytes();
        let mode = mode(item.mode, default_mode);
        files.insert(item.path.clone(), FileContent { bytes, mode });
    }
    Ok(())
}

/// Issued once and kept until it is due, so that a changed ConfigMap does not renew every token.
async fn cached_token(
    pod: &Pod,
    spec: &ServiceAccountTokenProjection,
    sources: &Sources<'_>,
) -> Result<(Vec<u8>, Timestamp)> {
    let key = (spec.audience.clone(), spec.expiration_seconds.unwrap_or(3600));
    let mut tokens = sources.tokens.0.lock().await;
    if let Some((bytes, renew_at)) = tokens.get(&key)
        && Timestamp::now() < *renew_at
    {
        return Ok((bytes.clone(), *renew_at));
    }
    let fresh = token(pod, spec, sources.client).await?;
    tokens.insert(key, fresh.clone());
    Ok(fresh)
}

/// A token bound to the pod, and when four fifths of its life are over.
async fn token(pod: &Pod, spec: &ServiceAccountTokenProjection, client: &Client) -> Result<(Vec<u8>, Timestamp)> {
    let lifetime = spec.expiration_seconds.unwrap_or(3600);
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: spec.audience.clone().map(|one| vec![one]),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            expiration_seconds: Some(lifetime),
        }),
        ..TokenRequest::default()
    };
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let accounts = client.api::<ServiceAccount>().namespace(namespace);
    let answer: TokenRequest = accounts.post(account.unwrap_or("default"), "token", &request).await?;
    let status = answer.status.unwrap_or_default();
    let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
        return Err(AgentError::Config("the API server sent no token".to_owned()));
    };
    let now = Timestamp::now();
    let life = expires.0.duration_since(now);
    let renew_at =
        now.saturating_add(SignedDuration::from_secs((life.as_secs() * 4 / 5).max(10))).unwrap_or(Timestamp::MAX);
    Ok((token.into_bytes(), renew_at))
}
