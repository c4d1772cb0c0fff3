//! The CronJob shell: wakes at scheduled times and makes Jobs.
//!
//! Invariant: a Job's name is made of its scheduled time, so that after a lost answer it is found and not made twice.

use crate::Context;
use crate::runner::{Outcome, Queue, Reconcile, feed, or_gone, own_key, owner_keys, run};
use controllers::cron_job::{self, Action, View};
use controllers::owners;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use kube_client::informer::ObjectKey;
use kube_client::recorder::{Severity, reference};
use kube_client::{ClientError, DeleteOptions, Propagation};
use std::sync::Arc;
use tokio::task::JoinSet;

struct CronJobs(Arc<Context>);

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    feed(tasks, &context.caches.cron_jobs, &queue, own_key);
    feed(tasks, &context.caches.jobs, &queue, |change| owner_keys(change, "CronJob"));
    run(tasks, context, &queue, CronJobs(context.clone()), 2);
}

impl Reconcile for CronJobs {
    const NAME: &'static str = "cronjob";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let caches = &self.0.caches;
        let Some(cron_job) = caches.cron_jobs.get_key(key) else {
            return Ok(None);
        };
        let jobs = caches.jobs.controlled_by(cron_job.metadata.uid.as_deref().unwrap_or_default());
        let zone = zone(&cron_job);
        let zone = zone.as_ref().map_err(String::as_str);
        let view = View { cron_job: &cron_job, jobs: &jobs, zone, now: Timestamp::now() };
        let decision = cron_job::decide(&view);
        let mut status = decision.status;
        for action in decision.actions {
            self.apply(&cron_job, &mut status, action).await?;
        }
        if cron_job.status.as_ref() != Some(&status) {
            let changed = CronJob { status: Some(status), ..CronJob::clone(&cron_job) };
            let written = self.0.client.api::<CronJob>().update_status(&changed).await?;
            caches.cron_jobs.observe(&written);
        }
        Ok(decision.wake_at)
    }
}

/// Without a zone of its own a schedule is in the controller's: UTC, as everything here.
fn zone(cron_job: &CronJob) -> Result<TimeZone, String> {
    match cron_job.spec.time_zone.as_deref() {
        None => Ok(TimeZone::UTC),
        Some(name) => TimeZone::get(name).map_err(|_| format!("unknown time zone {name}")),
    }
}

impl CronJobs {
    async fn apply(&self, cron_job: &CronJob, status: &mut CronJobStatus, action: Action) -> Result<(), ClientError> {
        let about = reference(cron_job);
        match action {
            Action::Event { warning, reason, message } => {
                let severity = if warning { Severity::Warning } else { Severity::Normal };
                self.0.events.event(&about, severity, reason, message);
                Ok(())
            }
            Action::Delete(job) => {
                let name = job.metadata.name.as_deref().unwrap_or_default();
                let api = self.0.client.api::<Job>().namespace(job.metadata.namespace.clone().unwrap_or_default());
                let options =
                    DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::of(&job.metadata) };
                match or_gone(api.delete(name, &options).await)? {
                    Some(Some(going)) => self.0.caches.jobs.observe(&going),
                    Some(None) | None => {
                        let key = ObjectKey::of(&job.metadata);
                        self.0.caches.jobs.observe_gone(&key, job.metadata.uid.as_deref());
                    }
                }
                self.0.events.event(&about, Severity::Normal, "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            Action::Create(job) => self.create(cron_job, status, &job).await,
        }
    }

    async fn create(&self, cron_job: &CronJob, status: &mut CronJobStatus, job: &Job) -> Result<(), ClientError> {
        let about = reference(cron_job);
        let name = job.metadata.name.as_deref().unwrap_or_default();
        match self.0.client.api::<Job>().create(job).await {
            Ok(made) => {
                cron_job::started(status, &made);
                self.0.caches.jobs.observe(&made);
                self.0.events.event(&about, Severity::Normal, "SuccessfulCreate", format!("Created job {name}"));
                Ok(())
            }
            Err(error) if error.is_already_exists() => {
                let api = self.0.client.api::<Job>().namespace(job.metadata.namespace.clone().unwrap_or_default());
                if let Some(there) = api.get_opt(name).await?
                    && owners::is_controlled_by(&there.metadata, &cron_job.metadata)
                {
                    cron_job::started(status, &there);
                }
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                let message = format!("Error creating job: {error}");
                self.0.events.event(&about, Severity::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }
}
