//! Which cgroup hierarchies this machine has, and where.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Only v1 controllers.
    V1,
    /// v1 controllers and a v2 mount beside them; the controllers that count are on v1.
    Hybrid,
    V2,
}

/// The mounts, as found in `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    v1: Vec<V1Mount>,
    v2: Option<PathBuf>,
}

/// Several controllers may share one mount (`cpu,cpuacct`).
#[derive(Debug, Clone, PartialEq, Eq)]
struct V1Mount {
    at: PathBuf,
    controllers: Vec<String>,
}

const V1_CONTROLLERS: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "net_cls",
    "net_prio",
    "perf_event",
    "name=systemd",
];

impl Hierarchies {
    pub fn detect() -> Result<Self, Error> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path).map_err(|error| Error::new(path, "read", error))?;
        let found = Self::parse(&text);
        if found.v1.is_empty() && found.v2.is_none() {
            return Err(Error::new(path, "no cgroup mount", io::Error::from(io::ErrorKind::NotFound)));
        }
        Ok(found)
    }

    pub(super) fn parse(mountinfo: &str) -> Self {
        let mut found = Hierarchies { v1: Vec::new(), v2: None };
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let (Some(at), mut right) = (left.split(' ').nth(4), right.split(' ')) else {
                continue;
            };
            let (Some(kind), _source, Some(options)) = (right.next(), right.next(), right.next()) else {
                continue;
            };
            match kind {
                "cgroup2" if found.v2.is_none() => found.v2 = Some(PathBuf::from(at)),
                "cgroup" => {
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|option| V1_CONTROLLERS.contains(option))
                        .map(str::to_owned)
                        .collect();
                    let known = found.v1.iter().any(|mount| mount.controllers == controllers);
                    if !controllers.is_empty() && !known {
                        found.v1.push(V1Mount { at: PathBuf::from(at), controllers });
                    }
                }
                _other_file_system => {}
            }
        }
        found
    }

    pub fn version(&self) -> Version {
        match (self.v1.iter().any(|mount| mount.controllers.iter().any(|name| !name.starts_with("name="))), &self.v2) {
            (false, Some(_)) => Version::V2,
            (true, Some(_)) => Version::Hybrid,
            (_, None) => Version::V1,
        }
    }

    pub fn v1_mount(&self, controller: &str) -> Option<&Path> {
        self.v1
            .iter()
            .find(|mount| mount.controllers.iter().any(|name| name == controller))
            .map(|mount| mount.at.as_path())
    }

    pub fn v2_mount(&self) -> Option<&Path> {
        self.v2.as_deref()
    }

    /// Every mount that a container's cgroup is made in. A hybrid's v2 mount carries no controller of ours and is left alone.
    pub fn mounts(&self) -> Vec<&Path> {
        match self.version() {
            Version::V2 => self.v2.as_deref().into_iter().collect(),
            Version::V1 | Version::Hybrid => self.v1.iter().map(|mount| mount.at.as_path()).collect(),
        }
    }

    /// The v1 mounts with the names under which a container sees them (`cpu,cpuacct`, `systemd`).
    pub fn v1_names(&self) -> Vec<(&Path, String)> {
        self.v1
            .iter()
            .map(|mount| {
                let names: Vec<&str> = mount.controllers.iter().map(|name| name.trim_start_matches("name=")).collect();
                (mount.at.as_path(), names.join(","))
            })
            .collect()
    }
}
