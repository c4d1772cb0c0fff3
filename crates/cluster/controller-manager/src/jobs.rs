//! The Job shell, which is also the one for the time to live of finished Jobs.
//!
//! Invariant: the status with its notes is stored before a pod loses its finalizer; see `controllers::job`.

use crate::Context;
use crate::pod_control;
use crate::runner::{Outcome, Queue, Reconcile, feed, or_gone, own_key, owner_keys, run};
use controllers::job::{self, Action, View};
use controllers::{owners, selection};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube_client::informer::{Change, ObjectKey};
use kube_client::recorder::{Severity, reference};
use kube_client::{ClientError, DeleteOptions, Propagation};
use std::sync::Arc;
use tokio::task::JoinSet;

const WORKERS: usize = 4;

struct Jobs(Arc<Context>);

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    feed(tasks, &context.caches.jobs, &queue, own_key);
    let seen = context.clone();
    feed(tasks, &context.caches.pods, &queue, move |change| pod_keys(&seen, change));
    run(tasks, context, &queue, Jobs(context.clone()), WORKERS);
}

fn pod_keys(context: &Context, change: &Change<Pod>) -> Vec<ObjectKey> {
    let mut keys = owner_keys(change, "Job");
    let meta = &change.object().metadata;
    if owners::controller_of(meta).is_none() {
        let jobs = context.caches.jobs.list_namespace(meta.namespace.as_deref().unwrap_or_default());
        let selects = |job: &Job| {
            let selector = job.spec.as_ref().and_then(|s| s.selector.as_ref());
            selector.is_some_and(|s| selection::matches(s, meta.labels.as_ref()))
        };
        keys.extend(jobs.iter().filter(|job| selects(job)).map(|job| ObjectKey::of(&job.metadata)));
    }
    keys
}

impl Reconcile for Jobs {
    const NAME: &'static str = "job";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        self.free_orphans(key).await?;
        let Some(job) = self.0.caches.jobs.get_key(key) else {
            return Ok(None);
        };
        let pods = pod_control::candidates(&self.0, &job.metadata);
        let decision = job::decide(&View { job: &job, pods: &pods, now: Timestamp::now() });
        let about = reference(&*job);
        let mut status = decision.status;
        let mut failed = None;
        let mut said = Vec::new();
        for action in decision.actions {
            match action {
                // What happened is told when the status that says so is stored.
                Action::Event { .. } => said.push(action),
                action => {
                    if let Err(error) = self.apply(&job, &about, action, status.as_mut()).await {
                        failed = Some(error);
                    }
                }
            }
        }
        if let Some(status) = status {
            self.write(&job, status).await?;
        }
        for event in said {
            if let Action::Event { warning, reason, message } = event {
                let severity = if warning { Severity::Warning } else { Severity::Normal };
                self.0.events.event(&about, severity, &reason, message);
            }
        }
        for pod in decision.untrack {
            pod_control::drop_finalizer(&self.0, &pod, job::TRACKING).await?;
        }
        failed.map_or(Ok(decision.wake_at), Err)
    }
}

impl Jobs {
    async fn apply(
        &self,
        job: &Job,
        about: &ObjectReference,
        action: Action,
        status: Option<&mut JobStatus>,
    ) -> Result<(), ClientError> {
        match action {
            Action::Adopt(pod) => pod_control::adopt::<Job>(&self.0, &job.metadata, &pod).await,
            Action::Release(pod) => {
                pod_control::drop_finalizer(&self.0, &pod, job::TRACKING).await?;
                let newest = self.0.caches.pods.get_key(&ObjectKey::of(&pod.metadata)).unwrap_or(pod);
                pod_control::release(&self.0, &job.metadata, &newest).await
            }
            Action::Create(pods) => {
                let (made, outcome) = pod_control::create(&self.0, about, &pods).await;
                if let Some(status) = status {
                    let missing = i32::try_from(pods.len() - made).unwrap_or(i32::MAX);
                    status.active = status.active.map(|active| active - missing).filter(|active| *active > 0);
                }
                outcome
            }
            Action::Delete(pod) => pod_control::delete(&self.0, about, &pod).await,
            Action::Discard(pod) => {
                pod_control::drop_finalizer(&self.0, &pod, job::TRACKING).await?;
                pod_control::delete(&self.0, about, &pod).await
            }
            Action::DeleteJob => self.delete(job).await,
            Action::Event { .. } => Ok(()),
        }
    }

    async fn write(&self, job: &Job, status: JobStatus) -> Result<(), ClientError> {
        if job.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = Job { status: Some(status), ..Job::clone(job) };
        let written = self.0.client.api::<Job>().update_status(&changed).await?;
        self.0.caches.jobs.observe(&written);
        Ok(())
    }

    async fn delete(&self, job: &Job) -> Result<(), ClientError> {
        let api = self.0.client.api::<Job>().namespace(job.metadata.namespace.clone().unwrap_or_default());
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let options = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            resource_version: job.metadata.resource_version.clone(),
            ..DeleteOptions::of(&job.metadata)
        };
        or_gone(api.delete(name, &options).await)?;
        Ok(())
    }

    /// Pods whose Job is gone, or another by now, are held by nobody.
    async fn free_orphans(&self, key: &ObjectKey) -> Result<(), ClientError> {
        let job = self.0.caches.jobs.get_key(key);
        let held: Vec<Arc<Pod>> = self.0.caches.pods.with_word(&tracked_word(&key.namespace, &key.name));
        for pod in held {
            let owner = owners::controller_of(&pod.metadata);
            let uid = owner.filter(|o| o.kind == "Job").map(|o| &o.uid);
            if uid != job.as_ref().and_then(|j| j.metadata.uid.as_ref()) || uid.is_none() {
                pod_control::drop_finalizer(&self.0, &pod, job::TRACKING).await?;
            }
        }
        Ok(())
    }
}

/// What a pod with the tracking finalizer is found by in the cache of pods.
pub(crate) fn tracked_word(namespace: &str, job: &str) -> String {
    format!("job/{namespace}/{job}")
}
