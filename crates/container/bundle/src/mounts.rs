//! The mounts of a container: Docker's own, then the user's, where the user's take the place of Docker's at the same destination.

use std::path::{Component, Path, PathBuf};

use oci::runtime_spec::{Mount, MountBuilder};

use crate::{BindMount, ContainerConfig, Error, MountKind, MountSpec, Propagation, Tmpfs, defaults};

pub(crate) fn mounts(config: &ContainerConfig) -> Result<Vec<Mount>, Error> {
    let mut users = config.mounts.iter().map(user_mount).collect::<Result<Vec<_>, _>>()?;
    // Parents before what is mounted inside them, whatever order the user gave them in.
    users.sort_by_key(|mount| mount.destination().components().count());
    let taken = |destination: &Path| users.iter().any(|mount| mount.destination() == destination);
    let mut all: Vec<Mount> = own_mounts(config)?.into_iter().filter(|mount| !taken(mount.destination())).collect();
    all.extend(users);
    Ok(all)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount, Error> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(|error| Error::Specification(error.to_string()))
}

fn own_mounts(config: &ContainerConfig) -> Result<Vec<Mount>, Error> {
    let access = if config.privileged { "rw" } else { "ro" };
    let mut own = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access])?,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &[access, "nosuid", "noexec", "nodev"])?,
    ];
    own.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?);
    own.push(match &config.shm_path {
        Some(path) => {
            mount("/dev/shm", "bind", &path.display().to_string(), &["rbind", "rprivate", "nosuid", "noexec", "nodev"])?
        }
        None => {
            let size = format!("size={}", config.shm_size_bytes.unwrap_or(defaults::SHM_BYTES));
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size])?
        }
    });
    Ok(own)
}

fn user_mount(spec: &MountSpec) -> Result<Mount, Error> {
    let destination = clean(&spec.destination)?;
    let destination = destination.display().to_string();
    match &spec.kind {
        MountKind::Bind(bind) => bind_mount(&destination, bind, spec.read_only),
        MountKind::Tmpfs(tmpfs) => tmpfs_mount(&destination, tmpfs, spec.read_only),
    }
}

/// Absolute, and without `.`, `..` or doubled slashes.
fn clean(destination: &str) -> Result<PathBuf, Error> {
    let path = Path::new(destination);
    if !path.is_absolute() {
        return Err(Error::MountPath(destination.to_owned()));
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if clean == Path::new("/") { Err(Error::MountPath(destination.to_owned())) } else { Ok(clean) }
}

fn bind_mount(destination: &str, bind: &BindMount, read_only: bool) -> Result<Mount, Error> {
    let mut options = vec![if bind.non_recursive { "bind" } else { "rbind" }];
    if read_only {
        options.push("ro");
        if bind.recursive_read_only {
            options.push("rro");
        }
    }
    options.push(propagation(bind.propagation.unwrap_or(Propagation::Rprivate)));
    mount(destination, "bind", &bind.source.display().to_string(), &options)
}

pub(crate) fn propagation(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "private",
        Propagation::Rprivate => "rprivate",
        Propagation::Slave => "slave",
        Propagation::Rslave => "rslave",
        Propagation::Shared => "shared",
        Propagation::Rshared => "rshared",
    }
}

fn tmpfs_mount(destination: &str, tmpfs: &Tmpfs, read_only: bool) -> Result<Mount, Error> {
    let size = tmpfs.size_bytes.map(|size| format!("size={size}"));
    let mode = tmpfs.mode.map(|mode| format!("mode={mode:o}"));
    let mut options = vec!["noexec", "nosuid", "nodev"];
    // The user's words come after the defaults, and win.
    options.extend(tmpfs.options.iter().map(String::as_str));
    options.extend(size.iter().chain(&mode).map(String::as_str));
    if read_only {
        options.push("ro");
    }
    mount(destination, "tmpfs", "tmpfs", &options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destinations(config: &ContainerConfig) -> Vec<String> {
        mounts(config).unwrap().iter().map(|mount| mount.destination().display().to_string()).collect()
    }

    fn bind(destination: &str) -> MountSpec {
        MountSpec {
            destination: destination.into(),
            read_only: true,
            kind: MountKind::Bind(BindMount { source: "/src".into(), ..BindMount::default() }),
        }
    }

    #[test]
    fn the_users_mounts_come_after_and_replace_dockers() {
        let config =
            ContainerConfig { mounts: vec![bind("/a/b"), bind("/a/"), bind("/dev/shm")], ..ContainerConfig::default() };
        let all = destinations(&config);
        assert_eq!(&all[all.len() - 3..], ["/a", "/a/b", "/dev/shm"]);
        assert_eq!(all.iter().filter(|path| *path == "/dev/shm").count(), 1);
    }

    #[test]
    fn a_destination_is_cleaned_and_must_not_be_the_root() {
        assert_eq!(clean("/a/../../b//c/.").unwrap(), Path::new("/b/c"));
        assert!(clean("a").is_err());
        assert!(clean("/..").is_err());
    }

    #[test]
    fn a_read_only_bind_is_private_unless_told_otherwise() {
        let config = ContainerConfig { mounts: vec![bind("/data")], ..ContainerConfig::default() };
        let all = mounts(&config).unwrap();
        assert_eq!(all.last().unwrap().options().as_deref().unwrap(), ["rbind", "ro", "rprivate"]);
    }
}
