//! What a container uses and may use: statistics, limits, processes, freezing.

use std::{fs, sync::Arc};

use jiff::Timestamp;
use kernel::cgroup::Cgroup;

use super::{create::validate_resources, spec};
use crate::{
    Engine, blocking,
    config::{Resources, RestartPolicy},
    disk::Durability,
    error::{Error, Result},
    record::Phase,
    restart,
    table::Slot,
};

/// New limits; zero and empty mean "as it is".
pub type Limits = Resources;

/// One reading.
#[derive(Debug, Clone)]
pub struct ContainerStats {
    /// When it was read.
    pub time: Timestamp,
    /// The cgroup's numbers.
    pub cgroup: kernel::cgroup::Stats,
    /// CPU time of the whole machine, for percentages.
    pub system_cpu_ns: u64,
    /// Processors of the machine.
    pub cpus: usize,
    /// By interface: name, received bytes, packets, errors, drops, then sent ones.
    pub networks: Vec<(String, [u64; 8])>,
}

/// `docker top`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Top {
    /// Column names.
    pub titles: Vec<String>,
    /// One row a process.
    pub processes: Vec<Vec<String>>,
}

fn cgroup(path: &str) -> Result<Cgroup> {
    Cgroup::find(path).map_err(|e| Error::system("find cgroup", e))
}

impl Engine {
    /// Reads its use of resources.
    pub async fn container_stats(&self, name: &str) -> Result<ContainerStats> {
        let slot = self.find(name)?;
        let record = slot.record();
        let Phase::Running(running) = slot.phase() else { return Err(Error::NotRunning(slot.id.clone())) };
        blocking(move || {
            Ok(ContainerStats {
                time: Timestamp::now(),
                cgroup: cgroup(&record.cgroup)?.stats(),
                system_cpu_ns: system_cpu_ns(),
                cpus: std::thread::available_parallelism().map_or(1, usize::from),
                networks: interfaces(&fs::read_to_string(format!("/proc/{}/net/dev", running.pid)).unwrap_or_default()),
            })
        })
        .await
    }

    /// Changes limits, at once when it runs, and the restart policy when one is given.
    pub async fn update_container(&self, name: &str, limits: Limits, policy: Option<RestartPolicy>) -> Result<()> {
        let slot = self.find(name)?;
        let _life = slot.life.lock().await;
        let record = slot.record();
        if let Some(policy) = &policy {
            restart::validate(policy, record.host.auto_remove)?;
        }
        let merged = merge_limits(&record.host.resources, limits);
        validate_resources(&merged)?;
        if matches!(slot.phase(), Phase::Running(_)) {
            let asked = kernel_limits(spec::resources(&merged)?);
            let path = record.cgroup.clone();
            blocking(move || cgroup(&path)?.limit(&asked).map_err(|e| Error::system("update limits", e))).await?;
        }
        slot.update_record(Durability::Synced, |record| {
            record.host.resources = merged;
            if let Some(policy) = policy {
                record.host.restart_policy = policy;
            }
        })?;
        self.container_event(&slot.record(), "update", &[]);
        Ok(())
    }

    /// The processes of a running container, as `ps -ef` lists them, or as the host's `ps` does with other arguments.
    pub async fn top(&self, name: &str, arguments: &str) -> Result<Top> {
        let slot = self.find(name)?;
        if !matches!(slot.phase(), Phase::Running(_)) {
            return Err(Error::NotRunning(slot.id.clone()));
        }
        let (record, arguments) = (slot.record(), arguments.to_owned());
        blocking(move || {
            let pids = cgroup(&record.cgroup)?.pids().map_err(|e| Error::system("list processes", e))?;
            if !matches!(arguments.as_str(), "" | "-ef") {
                return listed_by_ps(&arguments, &pids);
            }
            let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"].map(str::to_owned).into();
            // A process that ended since then has no row.
            Ok(Top { titles, processes: pids.into_iter().filter_map(process_row).collect() })
        })
        .await
    }

    pub(super) async fn freeze(&self, slot: &Arc<Slot>, on: bool) -> Result<()> {
        let path = slot.record().cgroup;
        blocking(move || {
            let cgroup = cgroup(&path)?;
            let done = if on { cgroup.freeze() } else { cgroup.thaw() };
            done.map_err(|e| Error::system(if on { "pause" } else { "unpause" }, e))
        })
        .await?;
        if let Phase::Running(running) = &mut slot.state().phase {
            running.paused = on;
        }
        Ok(())
    }

    pub(super) fn is_frozen(&self, path: &str) -> bool {
        cgroup(path).is_ok_and(|cgroup| cgroup.is_frozen())
    }
}

/// Any other listing is the host's own program's.
fn listed_by_ps(arguments: &str, pids: &[i32]) -> Result<Top> {
    let output = std::process::Command::new("ps")
        .args(arguments.split_ascii_whitespace())
        .output()
        .map_err(|e| Error::system("cannot run ps on this host", e))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Invalid(format!("ps: {}", said.lines().next().unwrap_or("wrong arguments").trim())));
    }
    parse_ps(&String::from_utf8_lossy(&output.stdout), pids)
}

/// Keeps the rows of `pids` (pure).
fn parse_ps(text: &str, pids: &[i32]) -> Result<Top> {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    let column = titles.iter().position(|title| title == "PID");
    let column = column.ok_or_else(|| Error::Invalid("Couldn't find PID field in ps output".to_owned()))?;
    let row = |line: &str| {
        let mut words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
        // The last column may hold blanks.
        if words.len() > titles.len() {
            let rest = words.split_off(titles.len() - 1).join(" ");
            words.push(rest);
        }
        words
    };
    let own = |words: &Vec<String>| words.get(column).and_then(|pid| pid.parse().ok()).is_some_and(|pid| pids.contains(&pid));
    let processes = lines.map(row).filter(own).collect();
    Ok(Top { titles, processes })
}

fn merge_limits(old: &Resources, new: Limits) -> Resources {
    let mut merged = old.clone();
    let number = |to: &mut i64, from: i64| {
        if from != 0 {
            *to = from;
        }
    };
    number(&mut merged.cpu_shares, new.cpu_shares);
    number(&mut merged.memory, new.memory);
    number(&mut merged.memory_swap, new.memory_swap);
    number(&mut merged.memory_reservation, new.memory_reservation);
    number(&mut merged.nano_cpus, new.nano_cpus);
    number(&mut merged.cpu_period, new.cpu_period);
    number(&mut merged.cpu_quota, new.cpu_quota);
    for (to, from) in [(&mut merged.cpuset_cpus, new.cpuset_cpus), (&mut merged.cpuset_mems, new.cpuset_mems)] {
        if !from.is_empty() {
            *to = from;
        }
    }
    if new.blkio_weight != 0 {
        merged.blkio_weight = new.blkio_weight;
    }
    merged.pids_limit = new.pids_limit.or(merged.pids_limit);
    merged
}

fn kernel_limits(from: bundle::Resources) -> kernel::cgroup::Resources {
    kernel::cgroup::Resources {
        memory_bytes: from.memory_bytes,
        memory_swap_bytes: from.memory_swap_bytes,
        memory_reservation_bytes: from.memory_reservation_bytes,
        swappiness: from.memory_swappiness,
        cpu_shares: from.cpu_shares,
        cpu_quota_us: from.cpu_quota_us,
        cpu_period_us: from.cpu_period_us,
        cpuset_cpus: from.cpuset_cpus,
        cpuset_mems: from.cpuset_mems,
        pids: from.pids_limit,
        blkio_weight: from.blkio_weight,
        ..kernel::cgroup::Resources::default()
    }
}

/// Kernel ticks are hundredths of a second in everything that `/proc` shows.
const NS_PER_TICK: u64 = 10_000_000;

fn system_cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let total = text.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1).take(8);
    total.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * NS_PER_TICK
}

/// `/proc/<pid>/net/dev`, without loopback.
fn interfaces(text: &str) -> Vec<(String, [u64; 8])> {
    let rows = text.lines().skip(2).filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let n: Vec<u64> = numbers.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
        let at = |i: usize| n.get(i).copied().unwrap_or(0);
        Some((name.trim().to_owned(), [at(0), at(1), at(2), at(3), at(8), at(9), at(10), at(11)]))
    });
    rows.filter(|(name, _)| name != "lo").collect()
}

fn process_row(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything: fields are counted from its end.
    let (head, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    let name = head.split_once('(').map_or("", |(_, name)| name);
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&cmdline).trim_end_matches('\0').replace('\0', " ");
    let seconds = (number(11) + number(12)) / 100;
    let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(vec![
        user_of(pid),
        pid.to_string(),
        number(1).to_string(),
        "0".to_owned(),
        started(number(19)),
        "?".to_owned(),
        time,
        if command.is_empty() { format!("[{name}]") } else { command },
    ])
}

fn user_of(pid: i32) -> String {
    use std::os::unix::fs::MetadataExt;
    match fs::metadata(format!("/proc/{pid}")).map(|meta| meta.uid()) {
        Ok(0) => "root".to_owned(),
        Ok(uid) => uid.to_string(),
        Err(_) => String::new(),
    }
}

/// A start in ticks since boot as a time of day.
fn started(ticks: u64) -> String {
    let uptime = fs::read_to_string("/proc/uptime").ok();
    let uptime = uptime.and_then(|text| text.split_ascii_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0);
    let ago = (uptime - ticks as f64 / 100.0).max(0.0);
    let then = Timestamp::now() - jiff::SignedDuration::from_secs(ago as i64);
    then.strftime("%H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters_leave_loopback_out() {
        let text = "h\nh\n    lo: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n  eth0: 10 1 0 0 0 0 0 0 20 2 0 0 0 0 0 0\n";
        assert_eq!(interfaces(text), [("eth0".to_owned(), [10, 1, 0, 0, 20, 2, 0, 0])]);
    }

    #[test]
    fn rows_of_ps_are_kept_by_their_process_and_their_last_column_may_hold_blanks() {
        let text = "  PID COMMAND\n    1 init\n   42 sleep 10 20\n";
        let top = parse_ps(text, &[42]).unwrap();
        assert_eq!(top.processes, [["42", "sleep 10 20"]]);
        assert!(parse_ps("COMMAND\nsleep\n", &[42]).is_err());
    }

    #[test]
    fn an_update_changes_only_what_it_names() {
        let old = Resources { memory: 10, cpu_shares: 5, ..Resources::default() };
        let new = Limits { memory: 20, pids_limit: Some(7), ..Limits::default() };
        let merged = merge_limits(&old, new);
        assert_eq!((merged.memory, merged.cpu_shares, merged.pids_limit), (20, 5, Some(7)));
    }
}
