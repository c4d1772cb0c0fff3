//! The LoadBalancer shell: writes addresses into Services' status.
//!
//! Invariant: one worker only, and the cache holds its earlier writes, so that no address is given twice.

use crate::Context;
use crate::runner::{Outcome, Queue, Reconcile, feed, run};
use controllers::load_balancer::{self, Decision};
use k8s_openapi::api::core::v1::Service;
use kube_client::informer::{Change, ObjectKey};
use kube_client::recorder::{Severity, reference};
use std::sync::Arc;
use tokio::task::JoinSet;

struct LoadBalancers(Arc<Context>);

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    let seen = context.clone();
    feed(tasks, &context.caches.services, &queue, move |change| keys(&seen, change));
    run(tasks, context, &queue, LoadBalancers(context.clone()), 1);
}

/// A Service that goes may free the address that others wait for.
fn keys(context: &Context, change: &Change<Service>) -> Vec<ObjectKey> {
    match change {
        Change::Applied { new, .. } => vec![ObjectKey::of(&new.metadata)],
        Change::Deleted { .. } => {
            let all = context.caches.services.list();
            let waiting =
                all.iter().filter(|s| s.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("LoadBalancer"));
            waiting.map(|s| ObjectKey::of(&s.metadata)).collect()
        }
    }
}

impl Reconcile for LoadBalancers {
    const NAME: &'static str = "load-balancer";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let services = &self.0.caches.services;
        let Some(service) = services.get_key(key) else {
            return Ok(None);
        };
        match load_balancer::decide(&service, &services.list(), self.0.config.load_balancer_pool) {
            Decision::Nothing => {}
            Decision::SetStatus(status) => {
                let mut changed = Service::clone(&service);
                changed.status.get_or_insert_default().load_balancer = Some(status);
                services.observe(&self.0.client.api::<Service>().update_status(&changed).await?);
            }
            Decision::Unavailable(message) => {
                let about = reference(&*service);
                self.0.events.event(&about, Severity::Warning, "SyncLoadBalancerFailed", message);
            }
        }
        Ok(None)
    }
}
