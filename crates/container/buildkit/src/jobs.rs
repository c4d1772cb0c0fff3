//! Builds under way, by the reference that the client gave them. Control, the status stream and the gateway meet here;
//! whoever comes first makes the job.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use build::Built;
use tokio::sync::{Notify, watch};

use crate::progress::Progress;

/// One build.
pub(crate) struct Job {
    pub reference: String,
    pub progress: Arc<Progress>,
    pub cancelled: Notify,
    /// What Control.Solve said, once it did: the gateway needs the session and the entitlements.
    context: watch::Sender<Option<JobContext>>,
    /// Results that the gateway solved, by the ID that it gave them.
    results: Mutex<HashMap<String, Arc<Built>>>,
    /// What the client's function came to: a result's ID (or none), or its failure.
    returned: watch::Sender<Option<Result<Option<String>, String>>>,
}

/// What a job's builds have in common.
#[derive(Clone, Default)]
pub(crate) struct JobContext {
    pub session: String,
    pub entitlements: Vec<String>,
    pub inline_cache: bool,
    pub cache_from: Vec<String>,
}

impl Job {
    fn new(reference: &str) -> Self {
        Self {
            reference: reference.to_owned(),
            progress: Arc::new(Progress::new(reference)),
            cancelled: Notify::new(),
            context: watch::channel(None).0,
            results: Mutex::default(),
            returned: watch::channel(None).0,
        }
    }

    pub(crate) fn begin(&self, context: JobContext) {
        self.context.send_replace(Some(context));
    }

    /// What Control.Solve said; waits for it.
    pub(crate) async fn context(&self) -> JobContext {
        let mut seen = self.context.subscribe();
        let context = seen.wait_for(Option::is_some).await;
        context.ok().and_then(|context| context.clone()).unwrap_or_default()
    }

    pub(crate) fn keep(&self, built: Built) -> String {
        let id = hex::encode(rand::random::<[u8; 16]>());
        self.results.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), Arc::new(built));
        id
    }

    pub(crate) fn result(&self, id: &str) -> Option<Arc<Built>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The client's function ended.
    pub(crate) fn end(&self, outcome: Result<Option<String>, String>) {
        self.returned.send_replace(Some(outcome));
    }

    /// Waits for the end of the client's function.
    pub(crate) async fn returned(&self) -> Result<Option<String>, String> {
        let mut seen = self.returned.subscribe();
        let outcome = seen.wait_for(Option::is_some).await;
        outcome.ok().and_then(|outcome| outcome.clone()).unwrap_or_else(|| Err("the build was given up".to_owned()))
    }
}

/// All jobs.
#[derive(Default)]
pub(crate) struct Jobs {
    known: Mutex<HashMap<String, Arc<Job>>>,
}

impl Jobs {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Job>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job of a reference, made where it is not known.
    pub(crate) fn enter(&self, reference: &str) -> Arc<Job> {
        self.lock().entry(reference.to_owned()).or_insert_with(|| Arc::new(Job::new(reference))).clone()
    }

    pub(crate) fn find(&self, reference: &str) -> Option<Arc<Job>> {
        self.lock().get(reference).cloned()
    }

    /// Forgets a job; who holds it may go on reading its progress.
    pub(crate) fn leave(&self, job: &Arc<Job>) {
        let mut known = self.lock();
        if known.get(&job.reference).is_some_and(|current| Arc::ptr_eq(current, job)) {
            known.remove(&job.reference);
        }
    }

    pub(crate) fn cancel(&self, reference: &str) {
        if let Some(job) = self.find(reference) {
            job.cancelled.notify_waiters();
        }
    }
}
