use oci::runtime_spec::LinuxSeccompAction;

use super::*;
use crate::{Capabilities, SeccompMode, UserSpec};

fn config() -> ContainerConfig {
    ContainerConfig { args: vec!["sh".into()], hostname: "box".into(), ..ContainerConfig::default() }
}

#[test]
fn the_default_is_dockers() {
    let spec = spec(&config()).unwrap();
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(linux.namespaces().as_ref().unwrap().len(), 6);
    assert!(linux.masked_paths().as_ref().unwrap().contains(&"/proc/kcore".to_owned()));
    assert_eq!(linux.readonly_paths().as_ref().unwrap().len(), 5);
    assert_eq!(linux.devices().as_ref().unwrap().len(), 6);
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.capabilities().as_ref().unwrap().effective().as_ref().unwrap().len(), 14);
    assert_eq!(
        process.env().as_ref().unwrap(),
        &[defaults::PATH.to_owned(), "HOSTNAME=box".into(), "HOME=/root".into()]
    );
    let seccomp = linux.seccomp().as_ref().unwrap();
    assert_eq!(seccomp.default_action(), LinuxSeccompAction::ScmpActErrno);
}

#[test]
fn privilege_removes_masks_and_filter_and_gives_all_devices() {
    let spec = spec(&ContainerConfig { privileged: true, ..config() }).unwrap();
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.seccomp().is_none());
    assert!(linux.masked_paths().as_ref().unwrap().is_empty());
    let rules = linux.resources().as_ref().unwrap().devices().as_ref().unwrap();
    assert!(rules.len() == 1 && rules[0].allow());
}

#[test]
fn another_user_has_capabilities_only_in_the_bounding_set() {
    let spec =
        spec(&ContainerConfig { user: UserSpec { uid: 1000, gid: 1000, ..UserSpec::default() }, ..config() }).unwrap();
    let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
    assert_eq!(sets.bounding().as_ref().unwrap().len(), 14);
    assert!(sets.effective().as_ref().unwrap().is_empty());
}

#[test]
fn a_pods_container_joins_its_sandbox() {
    let path = |name: &str| NamespaceMode::Path(format!("/run/ns/{name}").into());
    let spec = spec(&ContainerConfig {
        network: path("net"),
        ipc: path("ipc"),
        uts: path("uts"),
        cgroup_namespace: NamespaceMode::Host,
        ..config()
    })
    .unwrap();
    let namespaces = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
    assert_eq!(namespaces.iter().filter(|namespace| namespace.path().is_some()).count(), 3);
    assert!(spec.hostname().is_none(), "the sandbox has set the name");
}

#[test]
fn the_profile_depends_on_capabilities() {
    let calls = |add: &[&str]| {
        let capabilities =
            Capabilities { add: add.iter().map(|name| (*name).to_owned()).collect(), ..Capabilities::default() };
        let spec = spec(&ContainerConfig { capabilities, ..config() }).unwrap();
        let rules = spec.linux().as_ref().unwrap().seccomp().as_ref().unwrap().syscalls().clone().unwrap();
        move |name: &str| {
            rules.iter().any(|rule| {
                rule.names().iter().any(|known| known == name) && rule.action() == LinuxSeccompAction::ScmpActAllow
            })
        }
    };
    for (call, add) in [
        ("mount", "SYS_ADMIN"),
        ("bpf", "BPF"),
        ("init_module", "SYS_MODULE"),
        ("reboot", "SYS_BOOT"),
        ("syslog", "SYSLOG"),
    ] {
        assert!(!calls(&[])(call), "{call}");
        assert!(calls(&[add])(call), "{call}");
    }
    for never in ["keyctl", "add_key", "userfaultfd", "io_uring_setup", "kexec_load", "swapon"] {
        assert!(!calls(&["ALL"])(never), "{never}");
    }
}

#[test]
fn a_profile_in_dockers_format_is_read_with_its_conditions() {
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["chmod"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
        {"names":["mount"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_SYS_ADMIN"]}},
        {"names":["chown"],"action":"SCMP_ACT_ERRNO","includes":{"arches":["arm64"]}}]}"#;
    let spec = spec(&ContainerConfig { seccomp: SeccompMode::Profile(json.into()), ..config() }).unwrap();
    let rules = spec.linux().as_ref().unwrap().seccomp().as_ref().unwrap().syscalls().clone().unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].errno_ret(), Some(13));
    let broken = super::spec(&ContainerConfig { seccomp: SeccompMode::Profile("{".into()), ..config() });
    assert!(matches!(broken, Err(Error::SeccompProfile(_))));
}
