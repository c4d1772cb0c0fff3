//! The end of a run: exit code, events, teardown, restart or automatic removal.
//!
//! One task a running container waits for its monitor; it is spawned at start and at adoption.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::RemoveOptions;
use crate::{
    Engine,
    disk::Durability,
    record::{Exited, Phase},
    restart,
    table::Slot,
};

impl Engine {
    /// Waits for the end of a run in the background.
    pub(crate) fn watch_run(&self, slot: &Arc<Slot>, handle: monitor::Handle) {
        let (engine, slot) = (self.clone(), Arc::clone(slot));
        tokio::spawn(async move {
            let status = match handle.wait().await {
                Ok(status) => status,
                Err(error) => {
                    // A monitor that vanished without a record was killed from outside; so was its container.
                    tracing::warn!(container = %slot.id, %error, "monitor gone without an exit record");
                    monitor::ExitStatus { code: 137, signal: Some(9), oom_killed: false, finished_at: Timestamp::now() }
                }
            };
            engine.finish(&slot, &status).await;
        });
    }

    /// Marks the end, tells it, and decides what comes next.
    pub(crate) async fn finish(&self, slot: &Arc<Slot>, status: &monitor::ExitStatus) {
        let record = slot.record();
        slot.abort_helpers();
        let started_at = record.started_at.unwrap_or(status.finished_at);
        let exited = Exited {
            code: status.code,
            oom_killed: status.oom_killed,
            started_at,
            finished_at: status.finished_at,
            error: String::new(),
        };
        let ran_for = Duration::try_from(status.finished_at.duration_since(started_at)).unwrap_or_default();
        let delay = restart::decide(&restart::View {
            policy: &record.host.restart_policy,
            exit_code: status.code,
            ran_for,
            stopped_by_user: record.stopped_by_user,
            restarts: record.restart_count,
            last_delay: slot.state().last_delay,
        });
        // What is taken away is told after the end itself.
        let (told, end_is_told) = tokio::sync::oneshot::channel::<()>();
        {
            let mut state = slot.state();
            state.handle = None;
            state.last_delay = delay.or(state.last_delay);
            let (engine, record, cleaning) = (self.clone(), record.clone(), self.0.cleanups.begin());
            state.teardown = Some(tokio::spawn(async move {
                let _cleaning = cleaning;
                let _ = end_is_told.await;
                engine.clean_run(&record).await;
                engine.volume_events(&record, "unmount");
            }));
            if !matches!(state.phase, Phase::Removing) {
                state.phase = if delay.is_some() { Phase::Restarting(exited) } else { Phase::Exited(exited) };
            }
        }
        tracing::info!(container = %slot.id, name = %record.name, code = status.code, "container exited");
        if status.oom_killed {
            self.container_event(&record, "oom", &[]);
        }
        let seconds = ran_for.as_secs().to_string();
        self.container_event(&record, "die", &[("exitCode", status.code.to_string()), ("execDuration", seconds)]);
        drop(told);
        self.forget_execs(slot);
        slot.pulse.send_modify(|pulse| {
            pulse.running = false;
            pulse.code = status.code;
            pulse.exits += 1;
        });
        match delay {
            Some(delay) => self.spawn_restart(slot, delay),
            None if record.host.auto_remove => self.spawn_auto_remove(slot),
            None => {}
        }
    }

    fn spawn_restart(&self, slot: &Arc<Slot>, delay: Duration) {
        let (engine, again) = (self.clone(), Arc::clone(slot));
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // A task of its own: a start must not be cut off in the middle by the abort of a back-off.
            tokio::spawn(async move { engine.start_again(&again).await });
        });
        slot.state().helpers.push(task.abort_handle());
    }

    async fn start_again(&self, slot: &Arc<Slot>) {
        let _life = slot.life.lock().await;
        if !matches!(slot.phase(), Phase::Restarting(_)) {
            return;
        }
        if let Err(error) = slot.update_record(Durability::Cached, |record| record.restart_count += 1) {
            tracing::warn!(container = %slot.id, %error, "restart not counted");
        }
        if let Err(error) = self.start_locked(slot).await {
            tracing::warn!(container = %slot.id, %error, "restart failed");
        }
    }

    /// Removes an auto-remove container in the background.
    pub(crate) fn spawn_auto_remove(&self, slot: &Arc<Slot>) {
        let (engine, slot) = (self.clone(), Arc::clone(slot));
        tokio::spawn(async move {
            let options = RemoveOptions { force: true, volumes: true };
            if let Err(error) = engine.remove_container(&slot.id, options).await {
                tracing::debug!(container = %slot.id, %error, "automatic removal");
            }
        });
    }
}
