//! Starting a container, and what its first failure means.
//!
//! The user's clock runs here: nothing is synced to disk, no program is run, and the network namespace is
//! made while the files are written.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    Engine,
    disk::Durability,
    error::{Error, Result},
    record::{Exited, Phase, Running},
    table::Slot,
};

impl Engine {
    /// Starts it; `NotModified` when it runs already.
    pub async fn start_container(&self, name: &str) -> Result<()> {
        let slot = self.find(name)?;
        let _life = slot.life.lock().await;
        slot.abort_helpers();
        slot.state().last_delay = None;
        self.start_locked(&slot).await
    }

    /// Starts under the slot's life lock.
    pub(crate) async fn start_locked(&self, slot: &Arc<Slot>) -> Result<()> {
        match slot.phase() {
            Phase::Running(running) if running.paused => {
                return Err(Error::Conflict("cannot start a paused container, try unpause instead".to_owned()));
            }
            Phase::Running(_) => return Err(Error::NotModified(format!("container {} is already running", slot.id))),
            Phase::Removing | Phase::Dead => {
                return Err(Error::Conflict("container is marked for removal and cannot be started".to_owned()));
            }
            Phase::Created | Phase::Exited(_) | Phase::Restarting(_) => {}
        }
        // The last run's network must be gone before its namespace is made again.
        let teardown = slot.state().teardown.take();
        if let Some(teardown) = teardown {
            let _ = teardown.await;
        }
        match self.launch(slot).await {
            Ok(started) => {
                self.mark_running(slot, started);
                Ok(())
            }
            Err(error) => {
                self.mark_failed(slot, &error);
                Err(error)
            }
        }
    }

    fn mark_running(&self, slot: &Arc<Slot>, started: super::launch::Started) {
        let started_at = Timestamp::now();
        {
            let mut state = slot.state();
            state.phase = Phase::Running(Running { pid: started.pid, started_at, paused: false });
            state.handle = Some(started.handle.clone());
        }
        let kept = slot.update_record(Durability::Cached, |record| {
            record.started_at = Some(started_at);
            record.stopped_by_user = false;
            record.start_failure = None;
        });
        if let Err(error) = kept {
            tracing::warn!(container = %slot.id, %error, "start not recorded");
        }
        slot.pulse.send_modify(|pulse| pulse.running = true);
        let record = slot.record();
        tracing::info!(container = %slot.id, name = %record.name, pid = started.pid, "container started");
        self.volume_events(&record, "mount");
        self.container_event(&record, "start", &[]);
        self.watch_run(slot, started.handle);
        self.spawn_health(slot, None, started_at);
    }

    /// A start that failed leaves the container as it was, with the reason and the exit code that stands for it.
    fn mark_failed(&self, slot: &Arc<Slot>, error: &Error) {
        let code = match error {
            Error::StartFailed { exit_code, .. } => *exit_code,
            _ => 128,
        };
        let (message, now) = (error.to_string(), Timestamp::now());
        {
            let mut state = slot.state();
            state.pending.clear();
            state.handle = None;
            if !matches!(state.phase, Phase::Created) {
                let started_at = state.record.started_at.unwrap_or(now);
                let error = message.clone();
                state.phase = Phase::Exited(Exited { code, oom_killed: false, started_at, finished_at: now, error });
            }
        }
        let kept = slot.update_record(Durability::Cached, |record| record.start_failure = Some((code, message)));
        if let Err(error) = kept {
            tracing::warn!(container = %slot.id, %error, "failed start not recorded");
        }
        slot.pulse.send_modify(|pulse| {
            pulse.running = false;
            pulse.code = code;
            pulse.exits += 1;
        });
        if slot.record().host.auto_remove {
            self.spawn_auto_remove(slot);
        }
    }

    /// Stops and starts it.
    pub async fn restart_container(&self, name: &str, timeout: Option<std::time::Duration>) -> Result<()> {
        let slot = self.find(name)?;
        match self.stop_container(&slot.id, timeout).await {
            Ok(()) | Err(Error::NotModified(_)) => {}
            Err(error) => return Err(error),
        }
        self.start_container(&slot.id).await?;
        self.container_event(&slot.record(), "restart", &[]);
        Ok(())
    }
}
