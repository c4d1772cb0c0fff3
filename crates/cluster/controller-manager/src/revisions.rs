//! Writes ControllerRevisions for the DaemonSet and StatefulSet shells.

use crate::Context;
use crate::runner::or_gone;
use controllers::owners;
use controllers::revisions::Action;
use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_client::informer::ObjectKey;
use kube_client::{ClientError, DeleteOptions};
use std::sync::Arc;

/// Whether the name that a new revision wants is taken by something else: the owner's collision count has to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    Done,
    NameTaken,
}

pub(crate) async fn apply<K: Resource>(
    context: &Context,
    owner: &ObjectMeta,
    action: Action,
) -> Result<Applied, ClientError> {
    let (api, cache) = (context.client.api::<ControllerRevision>(), &context.caches.revisions);
    match action {
        Action::Create(revision) => match api.create(&revision).await {
            Ok(made) => cache.observe(&made),
            Err(error) if error.is_already_exists() => {
                let name = revision.metadata.name.as_deref().unwrap_or_default();
                let there = api.namespace(owner.namespace.clone().unwrap_or_default()).get_opt(name).await?;
                return match there {
                    Some(there) if owners::is_controlled_by(&there.metadata, owner) && there.data == revision.data => {
                        cache.observe(&there);
                        Ok(Applied::Done)
                    }
                    _ => Ok(Applied::NameTaken),
                };
            }
            Err(error) if error.is_namespace_terminating() => {}
            Err(error) => return Err(error),
        },
        Action::Renumber(revision) => cache.observe(&api.update(&revision).await?),
        Action::Adopt(revision) => {
            let mut changed = ControllerRevision::clone(&revision);
            changed.metadata.owner_references.get_or_insert_default().push(owners::reference::<K>(owner));
            cache.observe(&api.update(&changed).await?);
        }
        Action::Delete(revision) => {
            let name = revision.metadata.name.as_deref().unwrap_or_default();
            let api = api.namespace(owner.namespace.clone().unwrap_or_default());
            or_gone(api.delete(name, &DeleteOptions::of(&revision.metadata)).await)?;
            cache.observe_gone(&ObjectKey::of(&revision.metadata), revision.metadata.uid.as_deref());
        }
    }
    Ok(Applied::Done)
}

/// Revisions that are the owner's own or nobody's.
pub(crate) fn candidates(context: &Context, owner: &ObjectMeta) -> Vec<Arc<ControllerRevision>> {
    let cache = &context.caches.revisions;
    let mut all = cache.controlled_by(owner.uid.as_deref().unwrap_or_default());
    all.extend(cache.orphans(owner.namespace.as_deref().unwrap_or_default()));
    all
}
