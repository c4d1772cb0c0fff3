//! The ClusterRole aggregation shell.

use crate::Context;
use crate::runner::{Outcome, Queue, Reconcile, feed, run};
use controllers::role_aggregation;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube_client::informer::{Cache, ObjectKey, Scope};
use std::sync::Arc;
use tokio::task::JoinSet;

struct Aggregation {
    context: Arc<Context>,
    roles: Cache<ClusterRole>,
}

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    let roles: Cache<ClusterRole> = Cache::start(&context.client, Scope::default());
    let all = roles.clone();
    // Any role may be a part of any aggregated one.
    feed(tasks, &roles, &queue, move |_| {
        let aggregated = all.list().into_iter().filter(|role| role.aggregation_rule.is_some());
        aggregated.map(|role| ObjectKey::of(&role.metadata)).collect()
    });
    run(tasks, context, &queue, Aggregation { context: context.clone(), roles }, 1);
}

impl Reconcile for Aggregation {
    const NAME: &'static str = "clusterrole-aggregation";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        self.roles.synced().await;
        let Some(role) = self.roles.get_key(key) else {
            return Ok(None);
        };
        if let Some(changed) = role_aggregation::decide(&role, &self.roles.list()) {
            let written = self.context.client.api::<ClusterRole>().update(&changed).await?;
            self.roles.observe(&written);
        }
        Ok(None)
    }
}
