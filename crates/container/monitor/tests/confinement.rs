//! What a container sees and may do, asked from inside; and the attacks that must fail.

mod support;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use bundle::{BindMount, Capabilities, ContainerConfig, MountKind, MountSpec, NamespaceMode, Tmpfs, Ulimit, UserSpec};
use monitor::Error;
use support::World;

async fn says(world: &World, config: &ContainerConfig) -> String {
    world.run("c", config).await.unwrap().1
}

#[tokio::test]
async fn the_default_container_is_confined_as_dockers() {
    let world = World::new();
    let script = "grep -E '^(CapEff|CapBnd|Seccomp|NoNewPrivs):' /proc/self/status; hostname; echo $HOME; \
                  cat /proc/interrupts | wc -c; ls /sys/firmware /proc/acpi 2>/dev/null | grep -v : | wc -w; \
                  echo x 2>&1 >/proc/sys/kernel/hostname || echo read-only; mount -t tmpfs x /tmp 2>&1; \
                  unshare -U true 2>&1; ls /proc | grep -c '^[0-9]'; ls /dev | tr '\\n' ' '";
    let said = says(&world, &World::config(script)).await;
    for line in [
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "Seccomp:\t2",
        "NoNewPrivs:\t0",
        "box",
        "/root",
        "read-only",
        "permission denied",
        "Operation not permitted",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(said.contains("\n0\n0\n"), "masked files and directories are empty: {said}");
    assert!(said.contains("fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"), "{said}");
    world.finish();
}

#[tokio::test]
async fn user_groups_limits_umask_and_directory_are_as_asked_for() {
    let world = World::new();
    let config = ContainerConfig {
        user: UserSpec { uid: 1000, gid: 1000, additional_gids: vec![1000, 2000], home: Some("/home/me".into()) },
        cwd: "/srv/here".into(),
        ulimits: vec![Ulimit { name: "nofile".into(), soft: 123, hard: 456 }],
        umask: Some(0o027),
        no_new_privileges: true,
        ..World::config(
            "id -u; id -G; pwd; ulimit -n; umask; grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; echo $HOME",
        )
    };
    let said = says(&world, &config).await;
    assert_eq!(
        said,
        "1000\n1000 2000\n/srv/here\n123\n0027\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n/home/me\n"
    );
    world.finish();
}

#[tokio::test]
async fn mounts_are_where_and_how_they_were_asked_for() {
    let world = World::new();
    let source = world.root.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    let bind = |name: &str, destination: &str, read_only| MountSpec {
        destination: destination.into(),
        read_only,
        kind: MountKind::Bind(BindMount { source: source.join(name), ..BindMount::default() }),
    };
    let config = ContainerConfig {
        mounts: vec![
            bind("", "/rw", false),
            bind("", "/ro", true),
            bind("file", "/etc/one-file", true),
            MountSpec {
                destination: "/scratch".into(),
                read_only: false,
                kind: MountKind::Tmpfs(Tmpfs { size_bytes: Some(1 << 20), mode: Some(0o700), options: vec![] }),
            },
        ],
        readonly_rootfs: true,
        ..World::config(
            "echo new >/rw/out; echo x 2>/dev/null >/ro/out || echo ro; cat /etc/one-file; echo; stat -c %a /scratch; \
                         echo x 2>/dev/null >/file || echo root-ro; grep ' /scratch ' /proc/mounts | cut -d' ' -f3,4; ls -d /sys/fs/cgroup/memory",
        )
    };
    let said = says(&world, &config).await;
    assert!(said.starts_with("ro\ncontent\n700\nroot-ro\n"), "{said}");
    assert_eq!(fs::read_to_string(source.join("out")).unwrap(), "new\n");
    world.finish();
}

#[tokio::test]
async fn sysctls_of_own_namespaces_are_set_and_others_refused() {
    let world = World::new();
    let mut config = World::config("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax");
    config.sysctls =
        [("net.ipv4.ip_forward", "1"), ("kernel.msgmax", "12345")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(says(&world, &config).await, "1\n12345\n");
    config.sysctls = [("kernel.core_pattern".to_owned(), "|/x".to_owned())].into();
    assert!(matches!(world.run("c", &config).await, Err(Error::Refused(_))));
    world.finish();
}

#[tokio::test]
async fn dropped_and_added_capabilities_and_privilege_are_seen_inside() {
    let world = World::new();
    let mut config = World::config("grep CapEff /proc/self/status | cut -f2");
    config.capabilities = Capabilities { add: vec!["CHOWN".into()], drop: vec!["ALL".into()], ambient: false };
    assert_eq!(says(&world, &config).await, "0000000000000001\n");
    let mut config = World::config(
        "grep Seccomp: /proc/self/status | cut -f2; mount -t tmpfs x /tmp && echo mounted; echo 1 >/proc/sys/net/ipv4/ip_forward && echo written",
    );
    config.privileged = true;
    assert_eq!(says(&world, &config).await, "0\nmounted\nwritten\n");
    world.finish();
}

/// Attack 12.
#[tokio::test]
async fn a_device_may_be_made_but_not_opened() {
    let world = World::new();
    let said = says(
        &world,
        &World::config(
            "mknod /disk b 8 0 && echo made; mknod /mem c 1 1; cat /disk; cat /mem; echo x >/dev/null && echo null",
        ),
    )
    .await;
    assert!(said.starts_with("made\nnull\n"), "{said}");
    assert_eq!(said.matches("Operation not permitted").count(), 2, "{said}");
    world.finish();
}

/// Attack 1: a program and an exec that run our binary inside, and write to it once it has ended.
#[tokio::test]
async fn our_own_binary_cannot_be_overwritten_from_inside() {
    let world = World::new();
    let own = std::env::current_exe().unwrap();
    let before = fs::read(&own).unwrap();
    let zygote = format!("/proc/{}/exe", world.zygote.pid());
    let refused = fs::OpenOptions::new().write(true).open(&zygote).unwrap_err();
    assert!(matches!(refused.raw_os_error(), Some(30 | 26)), "read-only or busy: {refused}");
    testkit::make_attackable(&world.image());
    let script = world.image().join("script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for program in ["/proc/self/exe", "/script"] {
        let mut config = World::config("");
        config.args = vec![program.into()];
        config.env = vec![testkit::ATTACK.into()];
        let said = says(&world, &config).await;
        assert!(said.starts_with("inside\n"), "{program}: {said}");
        // Busy as long as the zygote and its monitors run; what is left then is tested with the runtime alone.
        assert!(said.contains("Text file busy") || said.contains("Read-only file system"), "{program}: {said}");
    }
    assert!(before == fs::read(&own).unwrap(), "the binary is as it was");
    world.finish();
}

/// Attacks 10 and 11: no table of system calls leads around the default profile.
#[tokio::test]
async fn the_default_profile_holds_in_every_call_table() {
    let world = World::new();
    testkit::build_call_probe(&world.image().join("probe"));
    let mut config = World::config("");
    config.args = vec!["/probe".into()];
    let said = says(&world, &config).await;
    assert_eq!(said.lines().count(), 14, "{said}");
    for line in said.lines() {
        // EPERM of the profile; ENOSYS where this kernel lacks the whole table.
        let (name, errno) = line.split_once(' ').unwrap();
        assert!(errno == "1" || (name.ends_with("32") && errno == "38"), "{said}");
    }
    // The probe can tell: without a profile the same calls do something else.
    config.seccomp = bundle::SeccompMode::Unconfined;
    let said = says(&world, &config).await;
    assert!(said.contains("keyctl 0\n") && said.contains("keyctl_32 0\n"), "{said}");
    world.finish();
}

/// Attack 2.
#[tokio::test]
async fn a_working_directory_through_a_descriptor_is_refused_and_no_descriptor_is_inherited() {
    let world = World::new();
    for n in [3, 7, 8, 10] {
        let mut config = World::config("pwd");
        config.cwd = format!("/proc/self/fd/{n}");
        match world.run("c", &config).await {
            Err(Error::Refused(failure)) => {
                assert!(failure.message.contains("/proc/self/fd/"), "{failure}")
            }
            other => panic!("{other:?}"),
        }
        world.delete("c");
        // The same through a link of the image.
        let link = world.image().join("leak");
        let _ = fs::remove_file(&link);
        symlink(format!("/proc/self/fd/{n}"), &link).unwrap();
        config.cwd = "/leak".into();
        assert!(world.run("c", &config).await.is_err());
        world.delete("c");
    }
    let mut config = World::config("");
    config.args = ["ls", "/proc/self/fd"].map(str::to_owned).to_vec();
    // 3 is the directory that ls itself reads.
    assert_eq!(says(&world, &config).await, "0\n1\n2\n3\n");
    world.finish();
}

/// Attack 3: the image's /dev is covered by our own, so the swap needs a /dev bind; a container that brings one with a false null is refused.
#[tokio::test]
async fn a_false_null_device_is_never_mounted_over_a_masked_path() {
    let world = World::new();
    let dev = world.root.path().join("dev");
    fs::create_dir(&dev).unwrap();
    let canary = world.root.path().join("canary");
    fs::write(&canary, "canary").unwrap();
    symlink(&canary, dev.join("null")).unwrap();
    let mut config = World::config("cat /proc/kcore");
    config.mounts = vec![MountSpec {
        destination: "/dev".into(),
        read_only: false,
        kind: MountKind::Bind(BindMount { source: dev.clone(), ..BindMount::default() }),
    }];
    for _ in 0..2 {
        match world.run("c", &config).await {
            Err(Error::Refused(failure)) => {
                assert!(failure.message.contains("/dev/null"), "{failure}")
            }
            other => panic!("{other:?}"),
        }
        world.delete("c");
        fs::remove_file(dev.join("null")).unwrap();
        fs::write(dev.join("null"), "a file").unwrap();
    }
    assert_eq!(fs::read_to_string(canary).unwrap(), "canary");
    world.finish();
}

/// Attack 6.
#[tokio::test]
async fn an_image_with_links_for_system_directories_reaches_nothing_outside() {
    let world = World::new();
    let outside = world.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let image = world.image();
    for name in ["proc", "sys"] {
        fs::remove_dir(image.join(name)).unwrap();
        symlink("/tmp", image.join(name)).unwrap();
        match world.run("c", &World::config("true")).await {
            Err(Error::Refused(failure)) => {
                assert!(failure.message.contains("must be mounted on ordinary directory"), "{failure}")
            }
            other => panic!("{other:?}"),
        }
        world.delete("c");
        fs::remove_file(image.join(name)).unwrap();
        fs::create_dir(image.join(name)).unwrap();
    }
    fs::remove_dir(image.join("dev")).unwrap();
    symlink(&outside, image.join("dev")).unwrap();
    let said = says(&world, &World::config("echo fine >/dev/null && echo written")).await;
    assert_eq!(said, "written\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was made outside");
    world.finish();
}

/// Attacks 8 and 13.
#[tokio::test]
async fn the_monitors_socket_is_a_private_file_and_not_an_abstract_name() {
    let world = World::new();
    let mut config = World::config("cat /proc/net/unix; exec sleep 60");
    config.network = NamespaceMode::Host;
    let created = world.create("h", &config).await.unwrap();
    created.handle.start().await.unwrap();
    let mode = fs::metadata(world.dir("h").join("monitor.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    assert!(!sockets.lines().any(|line| line.contains(" @") && line.contains("gantry")), "{sockets}");
    created.handle.kill(9, true).await.unwrap();
    support::exit_of(&created.handle).await;
    world.delete("h");
    world.finish();
}

/// Attack 9 is in `runtime::compile`; 10: another call table is not a way around.
#[tokio::test]
async fn host_namespaces_are_the_hosts_and_leave_nothing_running() {
    let world = World::new();
    let mut config = World::config("sleep 300 & echo $(ls /proc | grep -c '^[0-9]') > /tmp/n; exit 0");
    config.pid = NamespaceMode::Host;
    let created = world.create("p", &config).await.unwrap();
    created.handle.start().await.unwrap();
    assert_eq!(support::exit_of(&created.handle).await.code, 0);
    world.delete("p");
    world.finish();
}
