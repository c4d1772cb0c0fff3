//! Ending, freezing and waiting for containers.

use std::{sync::Arc, time::Duration};

use crate::{
    Engine,
    disk::Durability,
    error::{Error, Result},
    record::{Phase, Record},
    signal,
    table::{Pulse, Slot},
};

/// Docker's grace period.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a killed container may take to be gone; a process in an uninterruptible sleep takes longer.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a wait waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// Not running now or any more.
    #[default]
    NotRunning,
    /// The next end.
    NextExit,
    /// Gone.
    Removed,
}

impl Engine {
    /// Asks it to end (its stop signal) and kills it after the timeout (`None`: the container's own, or 10 s).
    pub async fn stop_container(&self, name: &str, timeout: Option<Duration>) -> Result<()> {
        self.stop_with(name, None, timeout).await
    }

    /// As [`Engine::stop_container`], with another signal.
    pub async fn stop_with(&self, name: &str, signal: Option<&str>, timeout: Option<Duration>) -> Result<()> {
        let slot = self.find(name)?;
        let record = slot.record();
        let signal = match signal.filter(|s| !s.is_empty()).unwrap_or(&record.config.stop_signal) {
            "" => signal::TERM,
            text => signal::parse(text)?,
        };
        let own = record.config.stop_timeout.map(|s| u64::try_from(s).map_or(Duration::MAX, Duration::from_secs));
        let timeout = timeout.or(own).unwrap_or(DEFAULT_TIMEOUT);
        let Some(handle) = self.begin_stop(&slot).await? else { return Ok(()) };
        let mut pulse = slot.pulse.subscribe();
        let before = pulse.borrow().exits;
        if matches!(slot.phase(), Phase::Running(running) if running.paused) {
            self.thaw(&slot).await?;
        }
        let ended = |pulse: &Pulse| pulse.exits != before || pulse.removed;
        let heard = hears(&slot, &record, signal);
        // A failed signal means that it ended by itself just now: the wait sees that.
        let _ = handle.kill(signal, false).await;
        self.container_event(&record, "kill", &[("signal", signal.to_string())]);
        if !heard || !within(timeout, pulse.wait_for(ended)).await {
            let _ = handle.kill(signal::KILL, true).await;
            self.container_event(&record, "kill", &[("signal", signal::KILL.to_string())]);
            if !within(KILL_TIMEOUT, pulse.wait_for(ended)).await {
                return Err(Error::System(format!(
                    "cannot stop container: {}: tried to kill container, but did not receive an exit event",
                    slot.id
                )));
            }
        }
        self.container_event(&record, "stop", &[]);
        Ok(())
    }

    /// Notes the user's wish, so that no policy starts it again. `None`: it waited for a restart and is stopped now.
    async fn begin_stop(&self, slot: &Arc<Slot>) -> Result<Option<monitor::Handle>> {
        let _life = slot.life.lock().await;
        let phase = slot.phase();
        match phase {
            Phase::Running(_) => {
                slot.update_record(Durability::Cached, |record| record.stopped_by_user = true)?;
                slot.handle().map(Some)
            }
            Phase::Restarting(exited) => {
                slot.abort_helpers();
                slot.update_record(Durability::Cached, |record| record.stopped_by_user = true)?;
                slot.state().phase = Phase::Exited(exited);
                Ok(None)
            }
            Phase::Created | Phase::Exited(_) | Phase::Removing | Phase::Dead => {
                Err(Error::NotModified(format!("container {} is already stopped", slot.id)))
            }
        }
    }

    /// Sends a signal (`TERM`, `SIGTERM`, `15`); empty means KILL.
    pub async fn kill_container(&self, name: &str, signal: &str) -> Result<()> {
        let slot = self.find(name)?;
        let number = if signal.is_empty() { signal::KILL } else { signal::parse(signal)? };
        let not_running =
            || Error::Conflict(format!("cannot kill container: {name}: container {} is not running", slot.id));
        let handle = slot.handle().map_err(|_| not_running())?;
        let record = slot.record();
        let is_stop = number == signal::KILL
            || number == signal::TERM
            || signal::parse(&record.config.stop_signal).is_ok_and(|stop| stop == number);
        if is_stop {
            slot.update_record(Durability::Cached, |record| record.stopped_by_user = true)?;
        }
        let paused = matches!(slot.phase(), Phase::Running(running) if running.paused);
        let before = slot.pulse.borrow().exits;
        handle.kill(number, false).await.map_err(|error| match error {
            monitor::Error::Gone { .. } => not_running(),
            other => Error::system("cannot kill container", other),
        })?;
        if paused && number == signal::KILL {
            self.thaw(&slot).await?;
        }
        self.container_event(&record, "kill", &[("signal", number.to_string())]);
        if number == signal::KILL {
            let mut pulse = slot.pulse.subscribe();
            within(KILL_TIMEOUT, pulse.wait_for(|pulse| pulse.exits != before || pulse.removed)).await;
        }
        Ok(())
    }

    /// Freezes all of its processes.
    pub async fn pause_container(&self, name: &str) -> Result<()> {
        let slot = self.find(name)?;
        let _life = slot.life.lock().await;
        match slot.phase() {
            Phase::Running(running) if running.paused => {
                return Err(Error::Conflict(format!("container {} is already paused", slot.id)));
            }
            Phase::Running(_) => {}
            _ => return Err(Error::NotRunning(slot.id.clone())),
        }
        self.freeze(&slot, true).await?;
        self.container_event(&slot.record(), "pause", &[]);
        Ok(())
    }

    /// Lets a frozen container run on.
    pub async fn unpause_container(&self, name: &str) -> Result<()> {
        let slot = self.find(name)?;
        let _life = slot.life.lock().await;
        if !matches!(slot.phase(), Phase::Running(running) if running.paused) {
            return Err(Error::Conflict(format!("container {} is not paused", slot.id)));
        }
        self.thaw(&slot).await?;
        self.container_event(&slot.record(), "unpause", &[]);
        Ok(())
    }

    async fn thaw(&self, slot: &Arc<Slot>) -> Result<()> {
        self.freeze(slot, false).await
    }

    /// Waits for the condition: the exit code. The wait is registered when this is first polled.
    pub async fn wait_container(&self, name: &str, condition: WaitCondition) -> Result<i32> {
        self.begin_wait(name, condition)?.await
    }

    /// Registers a wait now, so that an end between this call and the await is not missed.
    pub fn begin_wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = Result<i32>> + Send + use<>> {
        let slot = self.find(name)?;
        let mut pulse = slot.pulse.subscribe();
        let before = pulse.borrow().exits;
        Ok(async move {
            let over = move |pulse: &Pulse| match condition {
                WaitCondition::NotRunning => !pulse.running || pulse.removed,
                WaitCondition::NextExit => pulse.exits != before || pulse.removed,
                WaitCondition::Removed => pulse.removed,
            };
            match pulse.wait_for(over).await {
                Ok(pulse) => Ok(pulse.code),
                Err(_) => Err(Error::NoSuchContainer(slot.id.clone())),
            }
        })
    }
}

/// True when the future ended in time.
async fn within<F: Future>(limit: Duration, future: F) -> bool {
    if limit == Duration::MAX {
        future.await;
        return true;
    }
    tokio::time::timeout(limit, future).await.is_ok()
}

/// Whether anybody in the container can make use of the time between this signal and KILL.
fn hears(slot: &Slot, record: &Record, signal: i32) -> bool {
    let Phase::Running(running) = slot.phase() else { return true };
    let pids = kernel::cgroup::Cgroup::find(&record.cgroup).and_then(|cgroup| cgroup.pids());
    let alone = pids.is_ok_and(|pids| pids.len() == 1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid)).unwrap_or_default();
    !alone || super::deaf::hears(&status, signal)
}
