//! Which capabilities a container's process has: Docker's default set, `--cap-add`, `--cap-drop`, `--privileged`.

use oci::runtime_spec::Capability;

use crate::{Capabilities, Error};

/// The fourteen that Docker leaves to root in a container.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

const ALL: [(&str, Capability); 41] = [
    ("AUDIT_CONTROL", Capability::AuditControl),
    ("AUDIT_READ", Capability::AuditRead),
    ("AUDIT_WRITE", Capability::AuditWrite),
    ("BLOCK_SUSPEND", Capability::BlockSuspend),
    ("BPF", Capability::Bpf),
    ("CHECKPOINT_RESTORE", Capability::CheckpointRestore),
    ("CHOWN", Capability::Chown),
    ("DAC_OVERRIDE", Capability::DacOverride),
    ("DAC_READ_SEARCH", Capability::DacReadSearch),
    ("FOWNER", Capability::Fowner),
    ("FSETID", Capability::Fsetid),
    ("IPC_LOCK", Capability::IpcLock),
    ("IPC_OWNER", Capability::IpcOwner),
    ("KILL", Capability::Kill),
    ("LEASE", Capability::Lease),
    ("LINUX_IMMUTABLE", Capability::LinuxImmutable),
    ("MAC_ADMIN", Capability::MacAdmin),
    ("MAC_OVERRIDE", Capability::MacOverride),
    ("MKNOD", Capability::Mknod),
    ("NET_ADMIN", Capability::NetAdmin),
    ("NET_BIND_SERVICE", Capability::NetBindService),
    ("NET_BROADCAST", Capability::NetBroadcast),
    ("NET_RAW", Capability::NetRaw),
    ("PERFMON", Capability::Perfmon),
    ("SETFCAP", Capability::Setfcap),
    ("SETGID", Capability::Setgid),
    ("SETPCAP", Capability::Setpcap),
    ("SETUID", Capability::Setuid),
    ("SYSLOG", Capability::Syslog),
    ("SYS_ADMIN", Capability::SysAdmin),
    ("SYS_BOOT", Capability::SysBoot),
    ("SYS_CHROOT", Capability::SysChroot),
    ("SYS_MODULE", Capability::SysModule),
    ("SYS_NICE", Capability::SysNice),
    ("SYS_PACCT", Capability::SysPacct),
    ("SYS_PTRACE", Capability::SysPtrace),
    ("SYS_RAWIO", Capability::SysRawio),
    ("SYS_RESOURCE", Capability::SysResource),
    ("SYS_TIME", Capability::SysTime),
    ("SYS_TTY_CONFIG", Capability::SysTtyConfig),
    ("WAKE_ALARM", Capability::WakeAlarm),
];

fn bare(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

fn find(name: &str) -> Option<Capability> {
    let name = bare(name);
    ALL.iter().find(|(known, _)| *known == name).map(|(_, capability)| *capability)
}

fn is_all(name: &str) -> bool {
    bare(name) == "ALL"
}

/// The name as profiles write it: `CAP_CHOWN`.
pub(crate) fn name(capability: Capability) -> String {
    ALL.iter().find(|(_, known)| *known == capability).map_or_else(String::new, |(name, _)| format!("CAP_{name}"))
}

/// The set that the configuration leaves, in the order of names. Drops win over the defaults, additions over a drop of `ALL`.
pub fn effective(wanted: &Capabilities, privileged: bool) -> Result<Vec<Capability>, Error> {
    let added = named(&wanted.add, Error::UnknownCapabilityAdd)?;
    let dropped = named(&wanted.drop, Error::UnknownCapabilityDrop)?;
    let add_all = wanted.add.iter().any(|name| is_all(name));
    let drop_all = wanted.drop.iter().any(|name| is_all(name));
    let keeps = |capability: &Capability| match (privileged || add_all, drop_all) {
        (true, _) => privileged || !dropped.contains(capability),
        (false, true) => added.contains(capability),
        (false, false) => (DEFAULT.contains(capability) || added.contains(capability)) && !dropped.contains(capability),
    };
    Ok(ALL.iter().map(|(_, capability)| *capability).filter(keeps).collect())
}

fn named(names: &[String], unknown: impl Fn(String) -> Error) -> Result<Vec<Capability>, Error> {
    names.iter().filter(|name| !is_all(name)).map(|name| find(name).ok_or_else(|| unknown(name.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Vec<String> {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let wanted = Capabilities { add: words(add), drop: words(drop), ambient: false };
        effective(&wanted, false).unwrap().into_iter().map(name).collect()
    }

    #[test]
    fn additions_and_drops_change_dockers_default_set() {
        assert_eq!(set(&[], &[]).len(), 14);
        assert_eq!(set(&["net_admin"], &[]).len(), 15);
        assert_eq!(set(&[], &["CAP_CHOWN", "kill"]).len(), 12);
        assert_eq!(set(&["CHOWN"], &["ALL"]), ["CAP_CHOWN"]);
        assert_eq!(set(&["ALL"], &["SYS_ADMIN"]).len(), 40);
        assert!(set(&[], &["all"]).is_empty());
    }

    #[test]
    fn an_unknown_name_is_an_error_in_dockers_words() {
        let wanted = Capabilities { add: vec!["FLY".into()], ..Capabilities::default() };
        assert_eq!(effective(&wanted, false).unwrap_err().to_string(), "invalid CapAdd: unknown capability: \"FLY\"");
    }
}
