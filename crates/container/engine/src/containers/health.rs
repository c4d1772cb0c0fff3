//! Health checks: when to run one and what its result means (pure), and the task that runs them.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    Engine,
    disk::{self, Durability},
    config::{Config, Healthcheck},
    exec::ExecConfig,
    record::{Health, HealthResult, HealthStatus},
    table::Slot,
};

/// Bytes of output that a result keeps.
const OUTPUT_LIMIT: usize = 4096;
const FILE: &str = "health.json";
/// Results that are kept.
const KEPT: usize = 5;

/// A check with Docker's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Check {
    /// `None` when there is nothing to run.
    fn of(config: &Config) -> Option<Self> {
        let check: &Healthcheck = config.healthcheck.as_ref()?;
        let command = match check.test.split_first() {
            Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => rest.to_vec(),
            Some((kind, rest)) if kind == "CMD-SHELL" && !rest.is_empty() => {
                let shell = config.shell.clone().filter(|shell| !shell.is_empty());
                let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
                command.push(rest.join(" "));
                command
            }
            _ => return None,
        };
        let or = |ns: i64, default: u64| match u64::try_from(ns) {
            Ok(ns) if ns > 0 => Duration::from_nanos(ns),
            _ => Duration::from_secs(default),
        };
        Some(Self {
            command,
            interval: or(check.interval, 30),
            timeout: or(check.timeout, 30),
            start_period: or(check.start_period, 0),
            start_interval: or(check.start_interval, 5),
            retries: u32::try_from(check.retries).ok().filter(|n| *n > 0).unwrap_or(3),
        })
    }

    /// The pause before the next check.
    fn pause(&self, health: &Health, age: Duration) -> Duration {
        if health.status == HealthStatus::Starting && age < self.start_period {
            self.start_interval
        } else {
            self.interval
        }
    }

    /// The health after one more result; a failure in the start period does not count.
    fn judge(&self, mut health: Health, result: HealthResult, age: Duration) -> Health {
        if result.exit_code == 0 {
            health.failing_streak = 0;
            health.status = HealthStatus::Healthy;
        } else if !(health.status == HealthStatus::Starting && age < self.start_period) {
            health.failing_streak += 1;
            if health.failing_streak >= self.retries {
                health.status = HealthStatus::Unhealthy;
            }
        }
        health.log.push(result);
        let surplus = health.log.len().saturating_sub(KEPT);
        health.log.drain(..surplus);
        health
    }
}

impl Engine {
    /// Runs the container's checks until its end, from a verdict that is known or from none. A pod's probes are the node agent's.
    pub(super) fn spawn_health(&self, slot: &Arc<Slot>, known: Option<Health>, started_at: Timestamp) {
        let record = slot.record();
        let Some(check) = Check::of(&record.config).filter(|_| record.pod.is_none()) else { return };
        keep(slot, known.unwrap_or_default());
        let (engine, checked) = (self.clone(), Arc::clone(slot));
        let task = tokio::spawn(async move { engine.check_health(&checked, &check, started_at).await });
        slot.state().helpers.push(task.abort_handle());
    }

    async fn check_health(&self, slot: &Arc<Slot>, check: &Check, started_at: Timestamp) {
        let age = || Duration::try_from(Timestamp::now().duration_since(started_at)).unwrap_or_default();
        loop {
            let health = slot.state().health.clone().unwrap_or_default();
            tokio::time::sleep(check.pause(&health, age())).await;
            let result = self.check_once(slot, check).await;
            let after = check.judge(health.clone(), result, age());
            let status = after.status;
            keep(slot, after);
            if status != health.status {
                self.container_event(&slot.record(), &format!("health_status: {}", status.as_str()), &[]);
            }
        }
    }

    async fn check_once(&self, slot: &Arc<Slot>, check: &Check) -> HealthResult {
        let start = Timestamp::now();
        let config = ExecConfig {
            cmd: check.command.clone(),
            attach_stdout: true,
            attach_stderr: true,
            ..ExecConfig::default()
        };
        let (exit_code, output) = match self.exec_run_within(&slot.id, config, OUTPUT_LIMIT, check.timeout).await {
            Ok(Some((code, output))) => (code, String::from_utf8_lossy(&output).into_owned()),
            Ok(None) => (-1, format!("Health check exceeded timeout ({:?})", check.timeout)),
            Err(error) => (-1, error.to_string()),
        };
        HealthResult { start, end: Timestamp::now(), exit_code, output }
    }
}

/// In memory and beside the record.
fn keep(slot: &Slot, health: Health) {
    let kept = disk::write_json(&slot.dir.join(FILE), &health, Durability::Cached);
    slot.state().health = Some(health);
    if let Err(error) = kept {
        tracing::warn!(container = %slot.id, %error, "health not recorded");
    }
}

/// The verdict of an earlier process.
pub(super) fn recall(dir: &std::path::Path) -> Option<Health> {
    disk::read_json(&dir.join(FILE)).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(retries: i64, start_period: i64) -> Check {
        let test = vec!["CMD".to_owned(), "true".to_owned()];
        let healthcheck = Some(Healthcheck { test, retries, start_period, ..Healthcheck::default() });
        Check::of(&Config { healthcheck, ..Config::default() }).unwrap()
    }

    fn result(exit_code: i32) -> HealthResult {
        HealthResult { start: Timestamp::UNIX_EPOCH, end: Timestamp::UNIX_EPOCH, exit_code, output: String::new() }
    }

    fn after(check: &Check, codes: &[i32], age: Duration) -> Health {
        codes.iter().fold(Health::default(), |health, code| check.judge(health, result(*code), age))
    }

    #[test]
    fn unhealthy_needs_the_retries_in_a_row() {
        let check = check(3, 0);
        let late = Duration::from_secs(60);
        let table: [(&[i32], HealthStatus); 5] = [
            (&[], HealthStatus::Starting),
            (&[1, 1], HealthStatus::Starting),
            (&[1, 1, 1], HealthStatus::Unhealthy),
            (&[1, 1, 0, 1, 1], HealthStatus::Healthy),
            (&[1, 1, 1, 0], HealthStatus::Healthy),
        ];
        for (codes, expected) in table {
            assert_eq!(after(&check, codes, late).status, expected, "{codes:?}");
        }
        assert_eq!(after(&check, &[0; 9], late).log.len(), KEPT);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let check = check(1, 10_000_000_000);
        assert_eq!(after(&check, &[1, 1, 1], Duration::from_secs(5)).status, HealthStatus::Starting);
        assert_eq!(after(&check, &[1], Duration::from_secs(11)).status, HealthStatus::Unhealthy);
        assert_eq!(check.pause(&Health::default(), Duration::from_secs(1)), Duration::from_secs(5));
        assert_eq!(check.pause(&Health::default(), Duration::from_secs(11)), Duration::from_secs(30));
    }

    #[test]
    fn none_and_empty_tests_run_nothing() {
        for test in [vec![], vec!["NONE".to_owned()], vec!["CMD".to_owned()]] {
            let healthcheck = Some(Healthcheck { test, ..Healthcheck::default() });
            assert_eq!(Check::of(&Config { healthcheck, ..Config::default() }), None);
        }
    }
}
