//! securityContext → CRI's, pod and container merged.
//!
//! Pure. Invariant: what the container says wins over what the pod says, and `runAsNonRoot` is refused when the
//! user is root or only known by a name, never silently run.

use cri::v1;
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};

use crate::{
    error::{AgentError, Result},
    sandbox_config,
};

fn seccomp(profile: Option<&SeccompProfile>, root: &std::path::Path) -> Result<v1::SecurityProfile> {
    use v1::security_profile::ProfileType;
    let (kind, localhost_ref) = match profile.map(|one| one.type_.as_str()) {
        Some("Unconfined") => (ProfileType::Unconfined, String::new()),
        Some("Localhost") => {
            let file = profile.and_then(|one| one.localhost_profile.clone()).unwrap_or_default();
            let inside = std::path::Path::new(&file).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if file.is_empty() || !inside {
                return Err(AgentError::Config(format!("invalid seccomp localhostProfile {file:?}: it must stay below {}", root.display())));
            }
            (ProfileType::Localhost, root.join(file).to_string_lossy().into_owned())
        }
        // Secure by default: a pod that says nothing gets the runtime's profile, not none.
        Some(_) | None => (ProfileType::RuntimeDefault, String::new()),
    };
    Ok(v1::SecurityProfile { profile_type: kind.into(), localhost_ref })
}

/// The user of an image as CRI tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageUser {
    pub(crate) uid: Option<i64>,
    pub(crate) name: String,
}

fn check_non_root(pod: &str, container: &str, run_as: Option<i64>, image: &ImageUser) -> Result<()> {
    let said = |why: String| Err(AgentError::Config(format!("{why} (pod: {pod:?}, container: {container})")));
    let refuse = |why: String| said(format!("container has runAsNonRoot and {why}"));
    match run_as {
        Some(0) => said("container's runAsUser breaks non-root policy".to_owned()),
        Some(_) => Ok(()),
        None if !image.name.is_empty() => {
            refuse(format!("image has non-numeric user ({}), cannot verify user is non-root", image.name))
        }
        None if image.uid.unwrap_or(0) == 0 => refuse("image will run as root".to_owned()),
        None => Ok(()),
    }
}

pub(crate) fn context(
    pod: &Pod,
    container: &Container,
    image: &ImageUser,
    seccomp_root: &std::path::Path,
) -> Result<v1::LinuxContainerSecurityContext> {
    let empty_pod = PodSecurityContext::default();
    let empty = SecurityContext::default();
    let spec = pod.spec.as_ref();
    let of_pod = spec.and_then(|spec| spec.security_context.as_ref()).unwrap_or(&empty_pod);
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let run_as = own.run_as_user.or(of_pod.run_as_user);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        let metadata = &pod.metadata;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let pod = format!("{}_{}({})", text(&metadata.name), text(&metadata.namespace), text(&metadata.uid));
        check_non_root(&pod, &container.name, run_as, image)?;
    }
    let privileged = own.privileged == Some(true);
    let int = |value| v1::Int64Value { value };
    let mut groups: Vec<i64> = of_pod.supplemental_groups.clone().unwrap_or_default();
    groups.extend(of_pod.fs_group);
    let capabilities = own.capabilities.as_ref().map(|caps| v1::Capability {
        add_capabilities: caps.add.clone().unwrap_or_default(),
        drop_capabilities: caps.drop.clone().unwrap_or_default(),
        ..Default::default()
    });
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked") || privileged;
    let paths = |list: &[&str]| {
        if unmasked { Vec::new() } else { list.iter().map(|path| (*path).to_owned()).collect() }
    };
    let seccomp_profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    Ok(v1::LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options: spec.map(sandbox_config::namespaces),
        run_as_user: run_as.map(int),
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(int),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups,
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(if privileged && seccomp_profile.is_none() {
            v1::SecurityProfile {
                profile_type: v1::security_profile::ProfileType::Unconfined.into(),
                localhost_ref: String::new(),
            }
        } else {
            seccomp(seccomp_profile, seccomp_root)?
        }),
        ..Default::default()
    })
}

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_as_non_root_is_refused_for_root_and_for_users_known_by_name_only() {
        let user = |uid, name: &str| ImageUser { uid, name: name.to_owned() };
        for (run_as, image, allowed) in [
            (Some(0), user(Some(5), ""), false),
            (Some(1000), user(None, "app"), true),
            (None, user(None, "app"), false),
            (None, user(Some(0), ""), false),
            (None, user(None, ""), false),
            (None, user(Some(7), ""), true),
        ] {
            let answer = check_non_root("p", "c", run_as, &image);
            assert_eq!(answer.is_ok(), allowed, "{run_as:?} {image:?}");
        }
    }
}
