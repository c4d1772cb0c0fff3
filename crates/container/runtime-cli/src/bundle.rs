//! A bundle's `config.json`: read, checked as runc checks it, completed with what every container gets, and compiled.

use std::{
    fs,
    path::{Path, PathBuf},
};

use oci::runtime_spec::{
    Hook as SpecHook, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxNamespaceType, LinuxResources, Spec,
};
use runtime::{
    Failure, Plan, RootFs,
    hooks::{Hook, Hooks, Subject},
};

use crate::error::Error;

pub(crate) const SPEC_VERSION: &str = "1.2.0";

/// Below which a cgroup is made when the specification names none, or a relative one.
const CGROUP_PARENT: &str = "/gantry-runtime";

pub(crate) fn load(bundle: &Path) -> Result<Spec, Error> {
    let path = bundle.join("config.json");
    let text = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Usage(format!("JSON specification file {} not found", path.display())));
        }
        other => other.map_err(|error| Error::io("read", &path, error))?,
    };
    serde_json::from_slice(&text).map_err(|source| Error::Json { path, source })
}

/// The plan of container `id`. Relative paths of the specification are the bundle's.
pub(crate) fn plan(mut spec: Spec, bundle: &Path, id: &str) -> Result<(Plan, Spec), Error> {
    let rootfs = check(&spec, bundle)?;
    complete(&mut spec, bundle);
    let cgroup = cgroup_path(&spec, id)?;
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let filter = seccomp.map(runtime::seccomp::compile).transpose()?;
    let mut plan = runtime::compile(&spec, RootFs::Plain { path: rootfs }, &cgroup, filter)?;
    plan.hooks = hooks(&spec, bundle, id)?;
    Ok((plan, spec))
}

/// What a plan could not tell any more. The root file system.
fn check(spec: &Spec, bundle: &Path) -> Result<PathBuf, Failure> {
    let invalid = |message: &str| Err(Failure::invalid(message));
    if !spec.version().starts_with("1.") {
        return Err(Failure::invalid(format!("ociVersion {:?} is not supported (1.x is)", spec.version())));
    }
    if spec.vm().is_some() || spec.windows().is_some() || spec.solaris().is_some() {
        return invalid("only Linux containers are supported: vm, windows and solaris are not");
    }
    let Some(root) = spec.root() else {
        return invalid("root property must not be empty");
    };
    let rootfs = bundle.join(root.path());
    if !rootfs.is_dir() {
        return Err(Failure::invalid(format!("invalid rootfs: {} is not a directory", rootfs.display())));
    }
    let linux = spec.linux().as_ref().ok_or_else(|| Failure::invalid("linux property must not be empty"))?;
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let has = |kind| namespaces.iter().any(|namespace| namespace.typ() == kind);
    let names = [spec.hostname(), spec.domainname()];
    if names.iter().any(|name| name.as_ref().is_some_and(|name| !name.is_empty())) && !has(LinuxNamespaceType::Uts) {
        return invalid("unable to set hostname without a private UTS namespace");
    }
    let own_users =
        namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User && namespace.path().is_none());
    let mapped = |map: &Option<Vec<_>>| map.as_ref().is_some_and(|map| !map.is_empty());
    match (own_users, mapped(linux.uid_mappings()), mapped(linux.gid_mappings())) {
        (true, false, _) => return invalid("user namespaces enabled, but no uid mappings found"),
        (true, _, false) => return invalid("user namespaces enabled, but no gid mappings found"),
        (false, true, _) | (false, _, true) if !has(LinuxNamespaceType::User) => {
            return invalid("id mappings without a user namespace");
        }
        _sound => {}
    }
    let label = linux.mount_label().as_ref().is_some_and(|label| !label.is_empty());
    if label && Path::new("/sys/fs/selinux/enforce").exists() {
        return invalid("mountLabel is not supported");
    }
    Ok(rootfs)
}

/// Sources relative to the bundle, and the devices that no specification has to name.
fn complete(spec: &mut Spec, bundle: &Path) {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let bind = mount.typ().as_deref() == Some("bind")
            || mount.options().iter().flatten().any(|option| matches!(option.as_str(), "bind" | "rbind"));
        let relative = mount.source().clone().filter(|source| bind && source.is_relative());
        if let Some(source) = relative {
            mount.set_source(Some(bundle.join(source)));
        }
    }
    let Some(linux) = spec.linux_mut() else {
        return;
    };
    let mut devices = linux.devices().clone().unwrap_or_default();
    for (path, major, minor) in DEVICES {
        if !devices.iter().any(|device: &LinuxDevice| device.path() == Path::new(path)) {
            devices.extend(node(path, major, minor));
        }
    }
    linux.set_devices(Some(devices));
    let mut resources = linux.resources().clone().unwrap_or_else(no_limits);
    let asked = resources.devices().clone().unwrap_or_default();
    let rules =
        [rule(false, LinuxDeviceType::A, None, None, "rwm")].into_iter().flatten().chain(asked).chain(default_rules());
    resources.set_devices(Some(rules.collect()));
    linux.set_resources(Some(resources));
}

fn no_limits() -> LinuxResources {
    let mut resources = LinuxResources::default();
    // The library's default is a rule of its own.
    resources.set_devices(None);
    resources
}

const DEVICES: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

fn node(path: &str, major: i64, minor: i64) -> Option<LinuxDevice> {
    LinuxDeviceBuilder::default()
        .path(path)
        .typ(LinuxDeviceType::C)
        .major(major)
        .minor(minor)
        .file_mode(0o666u32)
        .uid(0u32)
        .gid(0u32)
        .build()
        .ok()
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Option<LinuxDeviceCgroup> {
    let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access).build().ok()?;
    rule.set_major(major);
    rule.set_minor(minor);
    Some(rule)
}

/// Any node may be made, the harmless ones and terminals may be opened; after the specification's own rules.
fn default_rules() -> impl Iterator<Item = LinuxDeviceCgroup> {
    let terminals = [(5, Some(1)), (5, Some(2)), (136, None)];
    let open = DEVICES.iter().map(|(_, major, minor)| (*major, Some(*minor))).chain(terminals);
    let any = [LinuxDeviceType::C, LinuxDeviceType::B].into_iter().filter_map(|kind| rule(true, kind, None, None, "m"));
    any.chain(open.filter_map(|(major, minor)| rule(true, LinuxDeviceType::C, Some(major), minor, "rwm")))
}

fn cgroup_path(spec: &Spec, id: &str) -> Result<String, Failure> {
    let asked = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    let asked = asked.map(|path| path.display().to_string()).filter(|path| !path.is_empty());
    match asked {
        None => Ok(format!("{CGROUP_PARENT}/{id}")),
        Some(path) if path.starts_with('/') => Ok(path),
        Some(path) if path.split(':').count() == 3 => Err(Failure::invalid(format!(
            "cgroupsPath {path:?} is for systemd's cgroup driver, which is not supported: use the engine's cgroupfs driver"
        ))),
        Some(path) => Ok(format!("{CGROUP_PARENT}/{path}")),
    }
}

fn hooks(spec: &Spec, bundle: &Path, id: &str) -> Result<Option<Hooks>, Failure> {
    let Some(listed) = spec.hooks() else {
        return Ok(None);
    };
    let list = |hooks: &Option<Vec<SpecHook>>| hooks.iter().flatten().map(hook).collect::<Result<Vec<_>, _>>();
    let mut create_runtime = list(listed.prestart())?;
    create_runtime.extend(list(listed.create_runtime())?);
    let hooks = Hooks {
        subject: Subject {
            oci_version: spec.version().clone(),
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
        },
        create_runtime,
        create_container: list(listed.create_container())?,
        start_container: list(listed.start_container())?,
        poststart: list(listed.poststart())?,
        poststop: list(listed.poststop())?,
    };
    let none =
        [&hooks.create_runtime, &hooks.create_container, &hooks.start_container, &hooks.poststart, &hooks.poststop]
            .iter()
            .all(|list| list.is_empty());
    Ok((!none).then_some(hooks))
}

fn hook(hook: &SpecHook) -> Result<Hook, Failure> {
    let shown = hook.path().display();
    if !hook.path().is_absolute() {
        return Err(Failure::invalid(format!("hook {shown}: the path is not absolute")));
    }
    let timeout_s = match hook.timeout() {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Some(seconds),
            Ok(_) | Err(_) => {
                return Err(Failure::invalid(format!("hook {shown}: the timeout must be greater than zero")));
            }
        },
    };
    Ok(Hook {
        path: hook.path().clone(),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone().unwrap_or_default(),
        timeout_s,
    })
}
