//! What a test must not leave behind.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// A picture of what the kernel holds for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaks {
    root: PathBuf,
    cgroup: String,
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    interfaces: BTreeSet<String>,
    processes: BTreeSet<i32>,
}

impl Leaks {
    /// Counts mounts and processes that mention `root`, cgroups below `cgroup` (a name of the test's own), and all interfaces of this network namespace.
    pub fn snapshot(root: &Path, cgroup: &str) -> Self {
        Leaks {
            root: root.to_path_buf(),
            cgroup: cgroup.to_owned(),
            mounts: mounts(root),
            cgroups: cgroups(cgroup),
            interfaces: names_in(Path::new("/sys/class/net")),
            processes: processes(root),
        }
    }

    /// Panics when there is more than at the time of the snapshot; what is going away at this moment is waited for.
    pub fn assert_none(&self) {
        assert_soon("nothing is left behind", || {
            let now = Leaks::snapshot(&self.root, &self.cgroup);
            let new = |what: &str, left: Vec<String>| {
                if left.is_empty() { Ok(()) } else { Err(format!("{what}: {left:?}")) }
            };
            new("mounts", now.mounts.difference(&self.mounts).cloned().collect())?;
            new("cgroups", now.cgroups.difference(&self.cgroups).map(|path| path.display().to_string()).collect())?;
            new("interfaces", now.interfaces.difference(&self.interfaces).cloned().collect())?;
            new("processes", now.processes.difference(&self.processes).map(i32::to_string).collect())
        });
        // The test's own parent of cgroups, empty by now, in every hierarchy.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&self.cgroup));
        }
    }
}

/// Tries until `check` holds, for two seconds at most.
pub fn assert_soon(what: &str, mut check: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match check() {
            Ok(()) => return,
            Err(problem) if Instant::now() >= deadline => panic!("{what}: {problem}"),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn mounts(root: &Path) -> BTreeSet<String> {
    let root = root.display().to_string();
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    table.lines().filter(|line| line.contains(&root)).map(str::to_owned).collect()
}

fn names_in(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn cgroups(name: &str) -> BTreeSet<PathBuf> {
    let hierarchies = kernel::cgroup::Hierarchies::detect().expect("cgroup mounts");
    hierarchies
        .mounts()
        .iter()
        .map(|mount| mount.join(name.trim_start_matches('/')))
        .flat_map(|dir| directories(&dir))
        .collect()
}

/// `dir` itself is the test's; what is below it must go.
fn directories(dir: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.map(|entry| entry.path()).collect()
}

/// Processes that have something below `root` open, as root or as working directory.
fn processes(root: &Path) -> BTreeSet<i32> {
    let own = std::process::id() as i32;
    let pids = names_in(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok()).filter(|pid| *pid != own);
    pids.filter(|pid| {
        let links = ["root", "cwd"].map(|name| PathBuf::from(format!("/proc/{pid}/{name}")));
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        links.into_iter().chain(open).any(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(root)))
    })
    .collect()
}
