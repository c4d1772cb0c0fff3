//! The runtime specification, as seen from inside of containers made from plain bundles.

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
};

use serde_json::{Value, json};
use support::{World, text};

fn add(spec: &mut Value, list: &str, entry: Value) {
    let list = spec.pointer_mut(list).unwrap();
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap().push(entry);
}

fn without(spec: &mut Value, namespace: &str) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != namespace);
}

fn grant(spec: &mut Value, capability: &str) {
    for set in ["bounding", "effective", "permitted"] {
        add(spec, &format!("/process/capabilities/{set}"), json!(capability));
    }
}

#[test]
fn hooks_run_in_their_order_and_namespaces() {
    let world = World::new();
    let log = world.root.path().join("log");
    let host_net = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    let hook = |name: &str, script: &str| {
        // The state comes on standard input; what a hook is is its place in the log.
        let script = format!(
            "read -r state; echo \"{name} $(echo $state | sed 's/.*\"status\":\"\\([a-z]*\\)\".*/\\1/') {script}\" >> {}",
            text(&log)
        );
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": 30})
    };
    let net = "$(readlink /proc/self/ns/net)";
    world.configure("c", "cat /from-hook; cat /from-start", |spec| {
        spec["hooks"] = json!({
            "prestart": [hook("prestart", net)],
            "createRuntime": [hook("createRuntime", net)],
            "createContainer": [hook("createContainer", net), hook("second", "")],
            "poststart": [hook("poststart", net)],
            "poststop": [hook("poststop", net)],
            // In the container: its shell, its paths.
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "read -r state; echo \"$state\" > /from-start; echo $A > /from-hook"], "env": ["PATH=/bin", "A=b"]}],
        });
    });
    let (code, said) = world.run("c");
    assert_eq!(code, 0, "{said}");
    let (first, state) = said.split_once('\n').unwrap();
    let state: Value = serde_json::from_str(state).unwrap();
    assert_eq!((first, &state["id"], &state["status"]), ("b", &json!("c"), &json!("created")));
    assert!(state["pid"].as_i64().unwrap() > 1 && state["bundle"] == text(&world.bundle()));
    let lines = fs::read_to_string(&log).unwrap();
    let names: Vec<&str> = lines.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["prestart", "createRuntime", "createContainer", "second", "poststart", "poststop"]);
    for line in lines.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let status = match words[0] {
            "poststart" => "running",
            "poststop" => "stopped",
            _ => "creating",
        };
        assert_eq!(words[1], status, "{line}");
        match words[0] {
            "createContainer" => assert_ne!(words[2], host_net, "in the container's namespaces"),
            "second" => {}
            _ => assert_eq!(words[2], host_net, "in the runtime's namespaces"),
        }
    }
    // One that fails makes the container fail; a poststop one only warns.
    for name in ["createRuntime", "createContainer", "startContainer", "poststart"] {
        world.configure("c", "sleep 300", |spec| spec["hooks"] = json!({name: [{"path": "/bin/false"}]}));
        let (code, said) = world.run("c");
        assert!(code != 0 && said.contains(&format!("error running {name} hook #0 (/bin/false)")), "{name}: {said}");
    }
    world.configure("c", "true", |spec| spec["hooks"] = json!({"poststop": [{"path": "/bin/false"}]}));
    let (code, said) = world.run("c");
    assert!(code == 0 && said.starts_with("warning: error running poststop hook"), "{said}");
    world.finish();
}

#[test]
fn identity_limits_and_scheduling_are_as_asked_for() {
    let world = World::new();
    let script = "ulimit -n; ulimit -c; umask; id -G; cat /proc/self/oom_score_adj; uname -m; awk '{ print $41, $19 }' /proc/self/stat; ionice -p $$; echo $HOME";
    let said = world.says(script, |spec| {
        spec["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ]);
        spec["process"]["user"] = json!({"uid": 0, "gid": 0, "umask": 0o27, "additionalGids": [5, 6]});
        spec["process"]["oomScoreAdj"] = json!(500);
        spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 3});
        spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
        spec["linux"]["personality"] = json!({"domain": "LINUX32"});
    });
    let lines: Vec<&str> = said.lines().collect();
    // SCHED_BATCH is policy 3.
    assert_eq!(lines[..7], ["99", "0", "0027", "0 5 6", "500", "i686", "3 3"], "{said}");
    assert_eq!(lines[7..], ["best-effort: prio 6", "/root"], "{said}");
    // Lowering the score below our own needs a right that an engine may lack: then it stays, and the container runs.
    world.says("true", |spec| spec["process"]["oomScoreAdj"] = json!(-900));
    // A user that is not root owns its standard output.
    let said = world.says("echo again >/dev/stdout; id -u; pwd; echo $HOME", |spec| {
        spec["process"]["user"] = json!({"uid": 65534, "gid": 65534});
        spec["process"]["cwd"] = json!("/made/here");
    });
    assert_eq!(said, "again\n65534\n/made/here\n/\n");
    world.finish();
}

#[test]
fn mounts_have_every_option_and_propagation() {
    let world = World::new();
    let source = world.root.path().join("source");
    fs::create_dir_all(source.join("below")).unwrap();
    let bind = |to: &str, options: &[&str]| json!({"destination": to, "type": "bind", "source": text(&source), "options": options});
    let below = format!("mount -t tmpfs below {}", text(&source.join("below")));
    let status = std::process::Command::new("sh").args(["-c", &below]).status().unwrap();
    assert!(status.success());
    fs::create_dir(world.rootfs().join("full")).unwrap();
    fs::write(world.rootfs().join("full/file"), "kept").unwrap();
    chown(world.rootfs().join("full/file"), Some(7), Some(8)).unwrap();
    fs::set_permissions(world.rootfs().join("full/file"), fs::Permissions::from_mode(0o644)).unwrap();
    symlink("file", world.rootfs().join("full/link")).unwrap();
    let script = "grep -E ' /(a|b|c|d|e|f|t|full)(/below)? ' /proc/self/mountinfo | awk '{ print $5, $6, $7 }' | sort; \
                  touch /b/x 2>/dev/null || echo b-ro; touch /b/below/x && echo b-below-rw; \
                  touch /c/below/x 2>/dev/null || echo c-below-ro; ls /d; cat /full/link; stat -c ' %a %u %g' /full/file; \
                  touch /full/new && echo full-rw; stat -c %a /t";
    let said = world.says(script, |spec| {
        add(spec, "/mounts", bind("/a", &["rbind", "rshared", "nosuid", "noexec", "nodev", "noatime"]));
        add(spec, "/mounts", bind("/b", &["rbind", "ro", "rprivate", "nodiratime"]));
        add(spec, "/mounts", bind("/c", &["rbind", "rro", "rslave", "nosymfollow"]));
        add(spec, "/mounts", bind("/d", &["bind", "relatime", "unbindable"]));
        add(spec, "/mounts", bind("/e", &["rbind", "rnosuid", "rnodev", "rnoatime"]));
        add(spec, "/mounts", json!({"destination": "/f", "type": "none", "source": "../source", "options": ["bind", "strictatime"]}));
        add(spec, "/mounts", json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=711", "sync", "lazytime"]}));
        add(spec, "/mounts", json!({"destination": "/full", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nosuid"]}));
        add(spec, "/mounts", json!({"destination": "/f", "type": "", "options": ["remount", "ro"]}));
        spec["linux"]["rootfsPropagation"] = json!("rslave");
    });
    let un = std::process::Command::new("umount").arg(source.join("below")).status().unwrap();
    assert!(un.success());
    for wanted in [
        "/a rw,nosuid,nodev,noexec,noatime shared:",
        "/b ro,nodiratime,relatime",
        "/b/below rw,relatime",
        "/c/below ro,relatime",
        "/c ro,relatime",
        "/d rw,relatime unbindable",
        "/e rw,nosuid,nodev,noatime",
        "/e/below rw,nosuid,nodev,noatime",
        "/f ro",
        "/t rw,relatime",
        "b-ro\n",
        "b-below-rw\n",
        "c-below-ro\n",
        "below\nkept 644 7 8\nfull-rw\n711\n",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert!(!source.join("x").exists());
    assert!(!world.rootfs().join("full/new").exists(), "the image is as it was");
    world.finish();
}

#[test]
fn seccomp_knows_every_action_and_conditions() {
    let world = World::new();
    let profile = |rule: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule]});
    let with = |script: &str, rule: Value| {
        world.configure("c", script, |spec| spec["linux"]["seccomp"] = profile(rule));
        world.run("c")
    };
    let errno = json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28});
    assert!(with("mkdir /x", errno).1.contains("No space left on device"));
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let (code, said) = with("busybox mkdir /x; echo $?", json!({"names": ["mkdir"], "action": action}));
        assert!(code == 0 && said.contains("159\n"), "{action}: {said}");
    }
    for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"] {
        let (code, said) = with(&format!("mkdir /tmp/{action}"), json!({"names": ["mkdir"], "action": action}));
        assert_eq!(code, 0, "{action}: {said}");
    }
    // Nobody traces: the call answers that it is unknown.
    assert!(with("mkdir /y", json!({"names": ["mkdir"], "action": "SCMP_ACT_TRACE"})).1.contains("not implemented"));
    // Only signals with this bit: USR1 is 10, CONT 18.
    let arg = json!({"index": 1, "value": 8, "valueTwo": 8, "op": "SCMP_CMP_MASKED_EQ"});
    let rule = json!({"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [arg]});
    let (code, said) = with("kill -CONT $$ && echo continued && kill -USR1 $$", rule);
    assert!(code == 1 && said.starts_with("continued\n") && said.contains("Operation not permitted"), "{said}");
    // An exec is filtered as the container is.
    world.configure("c", "exec sleep 300", |spec| {
        spec["linux"]["seccomp"] = profile(json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}));
    });
    world.create("c");
    world.ok(&["start", "c"]);
    assert!(world.refused(&["exec", "c", "mkdir", "/tmp/z"]).contains("Operation not permitted"));
    world.ok(&["delete", "-f", "c"]);
    let words = world
        .cannot(|spec| spec["linux"]["seccomp"] = profile(json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})));
    assert!(words.contains("SCMP_ACT_NOTIFY is not supported"), "{words}");
    world.finish();
}

#[test]
fn devices_are_made_and_opened_as_the_rules_say() {
    let world = World::new();
    let script = "stat -c '%n %F %t:%T %a %u %g' /dev/made /dev/fifo; head -c 1 /dev/made | wc -c; ls -l /dev/ptmx /dev/fd | wc -l; \
                  cat /dev/denied 2>&1; for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
                  head -c 1 /dev/zero | wc -c";
    let said = world.says(script, |spec| {
        grant(spec, "CAP_MKNOD");
        spec["linux"]["devices"] = json!([
            {"path": "/dev/made", "type": "c", "major": 1, "minor": 9, "fileMode": 0o644, "uid": 3, "gid": 4},
            {"path": "/dev/fifo", "type": "p", "major": 0, "minor": 0, "fileMode": 0o600},
            {"path": "/dev/denied", "type": "c", "major": 1, "minor": 1},
        ]);
    });
    assert!(
        said.starts_with("/dev/made character special file 1:9 644 3 4\n/dev/fifo fifo 0:0 600 0 0\n1\n"),
        "{said}"
    );
    assert!(said.contains("can't open '/dev/denied': Operation not permitted") && said.ends_with("\n1\n"), "{said}");
    // The kernel's log, for writing only; nothing is written.
    let kmsg = |spec: &mut Value| {
        spec["linux"]["devices"] = json!([{"path": "/dev/log-of-the-kernel", "type": "c", "major": 1, "minor": 11}]);
    };
    let script = ": >/dev/log-of-the-kernel; true <>/dev/log-of-the-kernel; echo end";
    world.configure("c", script, kmsg);
    assert!(world.run("c").1.contains("Operation not permitted"));
    world.configure("c", script, |spec| {
        kmsg(spec);
        spec["linux"]["resources"]["devices"] =
            json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"}]);
    });
    let (_, said) = world.run("c");
    assert_eq!(said.matches("Operation not permitted").count(), 1, "reading was not granted: {said}");
    world.finish();
}

#[test]
fn user_namespaces_map_and_reach_what_the_host_opened() {
    let world = World::new();
    let (first, count) = (200_000, 65_536);
    // As an engine prepares it: the root file system belongs to the mapped root, below a directory that only the host's root may enter.
    let chown_all = format!("chown -R {first}:{first} {}", text(&world.rootfs()));
    assert!(std::process::Command::new("sh").args(["-c", &chown_all]).status().unwrap().success());
    let source = world.root.path().join("private");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "bound\n").unwrap();
    let script = "cat /proc/self/uid_map | tr -s ' '; id -u; touch /made && stat -c %u /made; cat /bound/file; \
                  mount -t tmpfs x /tmp 2>/dev/null && echo mounted; echo x >/dev/null && echo null; hostname";
    let said = world.says(script, |spec| {
        add(spec, "/linux/namespaces", json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": first, "size": count}]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
        grant(spec, "CAP_SYS_ADMIN");
        add(
            spec,
            "/mounts",
            json!({"destination": "/bound", "type": "bind", "source": text(&source), "options": ["rbind", "ro"]}),
        );
    });
    assert_eq!(said, " 0 200000 65536\n0\n0\nbound\nmounted\nnull\ngantry\n");
    assert_eq!(fs::metadata(world.rootfs().join("made")).unwrap().uid(), first);
    let words = world.cannot(|spec| add(spec, "/linux/namespaces", json!({"type": "user"})));
    assert!(words.contains("no uid mappings found"), "{words}");
    world.finish();
}

#[test]
fn namespaces_are_made_or_joined() {
    let world = World::new();
    let said = world.says("cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets | tr -s ' '", |spec| {
        add(spec, "/linux/namespaces", json!({"type": "time"}));
        spec["linux"]["timeOffsets"] =
            json!({"boottime": {"secs": 1_000_000_000, "nanosecs": 5}, "monotonic": {"secs": 7}});
    });
    let (uptime, offsets) = said.split_once('\n').unwrap();
    assert!(uptime.parse::<u64>().unwrap() >= 1_000_000_000, "{said}");
    assert!(offsets.contains("monotonic 7 0") && offsets.contains("boottime 1000000000 5"), "{said}");
    // A second container in the namespaces of a first one, as a pod's are.
    world.configure("pod", "exec sleep 300", |spec| spec["hostname"] = json!("pod"));
    world.create("pod");
    world.ok(&["start", "pod"]);
    let pid = world.state("pod")["pid"].as_i64().unwrap();
    let said = world.says("hostname; echo $$; ls /proc | grep -c '^[0-9]'; readlink /proc/self/ns/net", |spec| {
        for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
            let file = match namespace["type"].as_str().unwrap() {
                "network" => "net",
                "uts" => "uts",
                "ipc" => "ipc",
                "pid" => "pid",
                _ => continue,
            };
            namespace["path"] = json!(format!("/proc/{pid}/ns/{file}"));
        }
        spec.as_object_mut().unwrap().remove("hostname");
    });
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "pod");
    assert_ne!(lines[1], "1", "the pod's first process is another one");
    assert_eq!(lines[3], fs::read_link(format!("/proc/{pid}/ns/net")).unwrap().to_str().unwrap());
    world.ok(&["delete", "-f", "pod"]);
    world.finish();
}

#[test]
fn paths_are_hidden_and_the_root_is_read_only_when_asked() {
    let world = World::new();
    fs::create_dir(world.rootfs().join("secret")).unwrap();
    fs::write(world.rootfs().join("secret/key"), "key").unwrap();
    fs::write(world.rootfs().join("etc/token"), "token").unwrap();
    let script = "ls /secret | wc -l; cat /etc/token | wc -c; touch /new 2>/dev/null || echo ro; touch /etc/x 2>/dev/null || echo etc-ro; \
                  echo 1 2>/dev/null >/proc/sys/kernel/msgmax || echo sys-ro; touch /dev/shm/x && echo shm; cat /proc/sys/net/ipv4/ip_forward";
    let said = world.says(script, |spec| {
        spec["root"]["readonly"] = json!(true);
        add(spec, "/linux/maskedPaths", json!("/secret"));
        add(spec, "/linux/maskedPaths", json!("/etc/token"));
        add(spec, "/linux/readonlyPaths", json!("/etc"));
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    });
    assert_eq!(said, "0\n0\nro\netc-ro\nsys-ro\nshm\n1\n");
    world.finish();
}

#[test]
fn what_is_lacking_is_refused_by_name() {
    let world = World::new();
    type Change = fn(&mut Value);
    let refusals: [(Change, &str); 16] = [
        (|spec| spec["linux"]["intelRdt"] = json!({"closID": "x"}), "linux.intelRdt is not supported"),
        (|spec| spec["linux"]["netDevices"] = json!({"eth0": {}}), "linux.netDevices is not supported"),
        (|spec| spec["linux"]["resources"]["rdma"] = json!({"mlx5": {"hcaHandles": 3}}), "rdma is not supported"),
        (|spec| spec["linux"]["resources"]["network"] = json!({"classID": 5}), "network is not supported"),
        (
            |spec| spec["linux"]["resources"]["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": 1}]),
            "hugepageLimits",
        ),
        (|spec| spec["process"]["execCPUAffinity"] = json!({"initial": "0"}), "execCPUAffinity is not supported"),
        (|spec| spec["linux"]["cgroupsPath"] = json!("system.slice:x:y"), "systemd's cgroup driver"),
        (|spec| spec["ociVersion"] = json!("2.0.0"), "ociVersion"),
        (|spec| spec["root"]["path"] = json!("nowhere"), "invalid rootfs"),
        (|spec| without(spec, "uts"), "unable to set hostname"),
        (|spec| without(spec, "mount"), "mount namespace of its own"),
        (|spec| add(spec, "/linux/namespaces", json!({"type": "pid"})), "duplicated namespace"),
        (|spec| spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}}), "need a time namespace"),
        (|spec| spec["process"]["cwd"] = json!("relative"), "Cwd must be an absolute path"),
        (
            |spec| {
                add(
                    spec,
                    "/mounts",
                    json!({"destination": "/x", "type": "bind", "source": "/tmp", "options": ["bind", "idmap"]}),
                )
            },
            "option \"idmap\" is not supported",
        ),
        (|spec| spec["hooks"] = json!({"poststop": [{"path": "relative"}]}), "the path is not absolute"),
    ];
    for (change, words) in refusals {
        let said = world.cannot(change);
        assert!(said.contains(words), "{words}: {said}");
    }
    world.finish();
}
