//! What the machine uses now: processor time, memory, file systems, processes.
//!
//! Read when somebody asks (metrics, node status, pressure). Invariant: nothing here fails; what cannot be read is zero or
//! absent, and its caller then decides nothing by it.

use std::path::Path;

/// One file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub(crate) capacity_bytes: u64,
    pub(crate) available_bytes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

pub(crate) fn file_system(path: &Path) -> Option<FileSystem> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(FileSystem {
        capacity_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        used_bytes: stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize),
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}

/// Memory of the machine, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    /// What can be had without taking from the working set.
    pub(crate) available: u64,
    pub(crate) usage: u64,
    pub(crate) working_set: u64,
    pub(crate) rss: u64,
}

pub(crate) fn memory() -> Memory {
    memory_of(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

/// The kubelet's arithmetic: usage is what is not free, the working set leaves out what was not touched for a while.
fn memory_of(meminfo: &str) -> Memory {
    let field = |name: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let total = field("MemTotal");
    let usage = total.saturating_sub(field("MemFree"));
    let working_set = usage.saturating_sub(field("Inactive(file)"));
    Memory { total, available: total.saturating_sub(working_set), usage, working_set, rss: field("AnonPages") }
}

/// Processor time that was spent on work since the start of the machine.
pub(crate) fn cpu_ns() -> u64 {
    cpu_ns_of(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn cpu_ns_of(stat: &str) -> u64 {
    let Some(line) = stat.lines().find_map(|line| line.strip_prefix("cpu ")) else { return 0 };
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal: all but idle and waiting; guests are part of user.
    let busy: u64 = ticks.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, t)| t).sum();
    // The kernel tells a hundredth of a second, whatever its own clock.
    busy * 10_000_000
}

/// Processes and threads that there are, and that there may be.
pub(crate) fn processes() -> Option<(u64, u64)> {
    let loadavg = std::fs::read_to_string("/proc/loadavg").ok()?;
    let current = loadavg.split_whitespace().nth(3)?.split('/').nth(1)?.parse().ok()?;
    let limit = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let max = limit("/proc/sys/kernel/pid_max")?.min(limit("/proc/sys/kernel/threads-max")?);
    Some((current, max))
}

/// Bytes and files below a directory, without following links or entering other file systems.
pub(crate) fn tree_usage(dir: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let Ok(root) = std::fs::symlink_metadata(dir) else { return (0, 0) };
    let (mut bytes, mut files) = (root.blocks() * 512, 1);
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        // What goes away meanwhile uses nothing.
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != root.dev() {
                continue;
            }
            bytes += metadata.blocks() * 512;
            files += 1;
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    (bytes, files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_as_a_kubelet_reads_it() {
        let memory = memory_of("MemTotal: 1000 kB\nMemFree: 300 kB\nAnonPages: 100 kB\nInactive(file): 200 kB\n");
        assert_eq!((memory.usage, memory.working_set, memory.available), (700 << 10, 500 << 10, 500 << 10));
        assert_eq!(cpu_ns_of("cpu  10 1 5 100 50 2 3 4 0 0\ncpu0 1 1 1 1\n"), 25 * 10_000_000);
        assert_eq!(memory_of(""), Memory::default());
        assert!(processes().is_some_and(|(now, most)| now > 0 && most > now));
    }

    #[test]
    fn a_trees_usage_counts_its_files_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/big"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("link")).unwrap();
        let (bytes, files) = tree_usage(dir.path());
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
        assert_eq!(files, 4);
    }
}
