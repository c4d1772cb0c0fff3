//! The whole specification, put together from its parts.

use std::path::PathBuf;

use oci::runtime_spec::{
    Capability, Linux, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use crate::{ContainerConfig, Error, NamespaceMode, Propagation, capabilities, defaults, mounts, resources, seccomp};

fn built<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, Error> {
    result.map_err(|error| Error::Specification(error.to_string()))
}

/// The OCI runtime specification of `config`: Docker's default mounts, devices, capabilities, masked paths and seccomp profile, with the user's changes.
pub fn spec(config: &ContainerConfig) -> Result<Spec, Error> {
    let granted = capabilities::effective(&config.capabilities, config.privileged)?;
    let root = built(RootBuilder::default().path(config.rootfs.clone()).readonly(config.readonly_rootfs).build())?;
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(root)
        .mounts(mounts::mounts(config)?)
        .process(process(config, granted.clone())?)
        .linux(linux(config, &granted)?)
        .annotations(config.annotations.clone().into_iter().collect::<std::collections::HashMap<_, _>>());
    // Names are set only in a namespace of the container's own: the host keeps its name, and a sandbox has given its own.
    if config.uts == NamespaceMode::Private {
        spec = spec.hostname(config.hostname.as_str()).domainname(config.domainname.as_str());
    }
    let mut spec = built(spec.build())?;
    if config.uts != NamespaceMode::Private {
        // The library's default is a name of its own.
        spec.set_hostname(None);
    }
    Ok(spec)
}

fn process(config: &ContainerConfig, granted: Vec<Capability>) -> Result<Process, Error> {
    let user = UserBuilder::default()
        .uid(config.user.uid)
        .gid(config.user.gid)
        .additional_gids(config.user.additional_gids.clone());
    let user = match config.umask {
        Some(umask) => user.umask(umask),
        None => user,
    };
    let cwd = if config.cwd.is_empty() { "/" } else { config.cwd.as_str() };
    let mut process = ProcessBuilder::default()
        .terminal(config.terminal)
        .user(built(user.build())?)
        .args(config.args.clone())
        .env(environment(config))
        .cwd(PathBuf::from(cwd))
        .capabilities(capability_sets(config, granted)?)
        .rlimits(resources::rlimits(&config.ulimits)?)
        .no_new_privileges(config.no_new_privileges)
        .oom_score_adj(config.oom_score_adj.unwrap_or(0));
    if let Some((columns, rows)) = config.console_size {
        let size = oci::runtime_spec::BoxBuilder::default().width(u64::from(columns)).height(u64::from(rows)).build();
        process = process.console_size(built(size)?);
    }
    if let Some(profile) = &config.apparmor_profile {
        process = process.apparmor_profile(profile.as_str());
    }
    if let Some(label) = &config.selinux_label {
        process = process.selinux_label(label.as_str());
    }
    built(process.build())
}

/// A process that is not root starts without capabilities in its effective set, as Docker's do; the bounding set stays, for setuid programs.
fn capability_sets(config: &ContainerConfig, granted: Vec<Capability>) -> Result<LinuxCapabilities, Error> {
    let set = |wanted: bool| granted.iter().copied().filter(|_| wanted).collect::<std::collections::HashSet<_>>();
    let is_root = config.user.uid == 0;
    let ambient = config.capabilities.ambient && !is_root;
    built(
        LinuxCapabilitiesBuilder::default()
            .bounding(set(true))
            .permitted(set(is_root || ambient))
            .effective(set(is_root || ambient))
            .inheritable(set(ambient))
            .ambient(set(ambient))
            .build(),
    )
}

fn environment(config: &ContainerConfig) -> Vec<String> {
    let has = |name: &str| config.env.iter().any(|entry| entry.split('=').next() == Some(name));
    let mut environment = Vec::new();
    if !has("PATH") {
        environment.push(defaults::PATH.to_owned());
    }
    if !has("HOSTNAME") && !config.hostname.is_empty() {
        environment.push(format!("HOSTNAME={}", config.hostname));
    }
    if config.terminal && !has("TERM") {
        environment.push("TERM=xterm".to_owned());
    }
    environment.extend(config.env.iter().cloned());
    if !has("HOME") {
        let home = config
            .user
            .home
            .clone()
            .unwrap_or_else(|| if config.user.uid == 0 { "/root".to_owned() } else { "/".to_owned() });
        environment.push(format!("HOME={home}"));
    }
    environment
}

fn linux(config: &ContainerConfig, granted: &[Capability]) -> Result<Linux, Error> {
    let mut limits = resources::resources(&config.resources)?;
    limits.set_devices(Some(resources::device_rules(config)?));
    let paths = |chosen: &Option<Vec<String>>, default: Vec<&str>| match (chosen, config.privileged) {
        (Some(paths), _) => paths.clone(),
        (None, true) => Vec::new(),
        (None, false) => default.into_iter().map(str::to_owned).collect(),
    };
    let masked = defaults::MASKED_PATHS.into_iter().chain(defaults::MORE_MASKED_PATHS).collect();
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(config)?)
        .resources(limits)
        .devices(resources::devices(config)?)
        .sysctl(config.sysctls.clone().into_iter().collect::<std::collections::HashMap<_, _>>())
        .masked_paths(paths(&config.masked_paths, masked))
        .readonly_paths(paths(&config.readonly_paths, defaults::READ_ONLY_PATHS.to_vec()))
        .cgroups_path(PathBuf::from(&config.cgroup_path))
        .rootfs_propagation(rootfs_propagation(config));
    if let Some(profile) = seccomp::profile(&config.seccomp, config.privileged, granted)? {
        linux = linux.seccomp(profile);
    }
    built(linux.build())
}

/// Mounts can only reach the container, or leave it, when its root lets them.
fn rootfs_propagation(config: &ContainerConfig) -> &'static str {
    if let Some(chosen) = config.rootfs_propagation {
        return mounts::propagation(chosen);
    }
    let any = |wanted: [Propagation; 2]| {
        config.mounts.iter().any(|mount| match &mount.kind {
            crate::MountKind::Bind(bind) => bind.propagation.is_some_and(|propagation| wanted.contains(&propagation)),
            crate::MountKind::Tmpfs(_) => false,
        })
    };
    if any([Propagation::Shared, Propagation::Rshared]) { "shared" } else { "rslave" }
}

fn namespaces(config: &ContainerConfig) -> Result<Vec<LinuxNamespace>, Error> {
    let wanted = [
        (LinuxNamespaceType::Mount, &NamespaceMode::Private),
        (LinuxNamespaceType::Network, &config.network),
        (LinuxNamespaceType::Uts, &config.uts),
        (LinuxNamespaceType::Pid, &config.pid),
        (LinuxNamespaceType::Ipc, &config.ipc),
        (LinuxNamespaceType::Cgroup, &config.cgroup_namespace),
    ];
    wanted
        .into_iter()
        .filter_map(|(kind, mode)| match mode {
            NamespaceMode::Private => Some(LinuxNamespaceBuilder::default().typ(kind).build()),
            NamespaceMode::Path(path) => Some(LinuxNamespaceBuilder::default().typ(kind).path(path.clone()).build()),
            NamespaceMode::Host => None,
        })
        .map(built)
        .collect()
}

#[cfg(test)]
mod tests;
