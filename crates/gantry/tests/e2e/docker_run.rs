//! `docker run`, `create`, `start`, `exec`, by the stock client: what the program gets, and what comes back of it.

use crate::harness::World;

#[test]
fn docker_run_gives_the_program_what_was_asked_for_and_passes_its_exit_code() {
    let world = World::with_box();
    what_the_program_gets(&world);
    exit_codes(&world);
    input_and_output(&world);
    confinement(&world);
    created_first(&world);
}

fn what_the_program_gets(world: &World) {
    let run = |options: &str, script: &str| world.sh(&format!("docker run --rm {options} box sh -c '{script}'"));
    assert_eq!(run("-e A=1 -e B", "echo $A-$B-$FROM_IMAGE"), "1--yes");
    assert_eq!(run("-e FROM_IMAGE=no", "echo $FROM_IMAGE $HOME"), "no /root");
    assert_eq!(run("-u ann", "id -un; id -G; echo $HOME"), "ann\n1000 2000\n/home/ann");
    assert_eq!(run("-u 1234:5 --group-add extra", "id -u; id -g; id -G"), "1234\n5\n5 2000");
    assert_eq!(run("-w /new/dir", "pwd"), "/new/dir");
    assert_eq!(run("-h web --domainname example.org", "hostname; cat /etc/hostname"), "web\nweb");
    assert_eq!(run("--add-host far:1.2.3.4", "grep far /etc/hosts"), "1.2.3.4\tfar");
    assert_eq!(
        run("--dns 9.9.9.9 --dns-search example.org --dns-opt ndots:3", "cat /etc/resolv.conf"),
        "nameserver 9.9.9.9\nsearch example.org\noptions ndots:3"
    );
    assert_eq!(run("--ulimit nofile=100:200", "ulimit -n; ulimit -Hn"), "100\n200");
    assert_eq!(
        run(
            "--shm-size 1m --tmpfs /scratch:size=64k,mode=1770",
            "df -k /dev/shm /scratch | tail -n 2 | tr -s \" \" | cut -d\" \" -f2; stat -c %a /scratch"
        ),
        "1024\n64\n1770"
    );
    assert_eq!(
        run("--sysctl net.ipv4.ip_unprivileged_port_start=81", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"),
        "81"
    );
    assert_eq!(run("--oom-score-adj 300", "cat /proc/self/oom_score_adj"), "300");
    assert_eq!(run("-l a=b --label c", "true"), "");
    assert_eq!(world.sh("docker run --rm --entrypoint echo box hello"), "hello");
    assert_eq!(world.sh("docker run --rm --entrypoint '' box echo plain"), "plain");
    // A first process that is not the program: it hands on signals and reaps orphans.
    let init = world.sh("docker run --rm --init box sh -c 'cat /proc/1/comm; (sleep 0.1 & ); sleep 0.4; ps -o stat,comm | grep -c ^Z || true'");
    assert_eq!(init, "docker-init\n0");
    assert_eq!(world.sh_code("docker run --rm --init box sh -c 'exit 8'").0, 8);
}

fn exit_codes(world: &World) {
    assert_eq!(world.sh_code("docker run --rm box sh -c 'exit 7'").0, 7);
    assert_eq!(world.sh_code("docker run --rm box sh -c 'kill -9 $$'").0, 137);
    let (code, said) = world.sh_code("docker run --rm box nosuch");
    assert!(code == 127 && said.contains("exec: \"nosuch\": executable file not found in $PATH"), "{code} {said}");
    let (code, said) = world.sh_code("docker run --rm box /etc");
    assert!(code == 126 && said.contains("is a directory"), "{code} {said}");
    assert_eq!(world.sh_code("docker run --rm -w /etc/passwd box true").0, 127 - 1);
    let (code, said) = world.sh_code("docker run --rm -u nosuchuser box true");
    assert!(code == 126 || code == 125, "{code} {said}");
    assert!(said.contains("unable to find user nosuchuser"), "{said}");
    assert_eq!(world.sh("docker ps -aq"), "", "nothing of the failed runs is left");
}

fn input_and_output(world: &World) {
    assert_eq!(world.sh("printf 'one\\ntwo\\n' | docker run --rm -i box cat"), "one\ntwo");
    assert_eq!(world.sh("docker run --rm box sh -c 'echo out; echo err >&2' 2>/dev/null"), "out");
    assert_eq!(world.sh("docker run --rm box sh -c 'echo out; echo err >&2' 2>&1 >/dev/null"), "err");
    // A megabyte in and out, byte for byte.
    assert_eq!(
        world.sh("head -c 3000000 /dev/urandom > /tmp/gantry-e2e-$$; docker run --rm -i box md5sum < /tmp/gantry-e2e-$$ | cut -c1-32; docker run --rm -i box cat < /tmp/gantry-e2e-$$ | md5sum | cut -c1-32; md5sum < /tmp/gantry-e2e-$$ | cut -c1-32; rm /tmp/gantry-e2e-$$")
            .lines()
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        1
    );
    let tty = world
        .sh("script -qec 'docker run --rm -t box sh -c \"test -t 1 && stty size && echo $TERM\"' /dev/null </dev/null");
    assert!(tty.contains("xterm") || tty.contains("0 0"), "{tty:?}");
    let sized = world.sh("script -qec 'stty rows 33 cols 99; docker run --rm -it box stty size' /dev/null </dev/null");
    assert!(sized.contains("33 99"), "{sized:?}");
    let id = world
        .sh("docker run -d --cidfile /tmp/gantry-cid-$$ box sleep 100; cat /tmp/gantry-cid-$$; rm /tmp/gantry-cid-$$");
    let ids: Vec<&str> = id.lines().collect();
    assert_eq!(ids[0], ids[1]);
    world.sh(&format!("docker rm -f {}", ids[0]));
}

fn confinement(world: &World) {
    let run = |options: &str, script: &str| world.sh(&format!("docker run --rm {options} box sh -c '{script}'"));
    assert_eq!(run("--read-only", "touch /x 2>/dev/null || echo refused"), "refused");
    assert_eq!(run("--cap-drop ALL", "grep CapBnd /proc/self/status | cut -f2"), "0000000000000000");
    assert_eq!(run("--cap-drop ALL --cap-add NET_RAW", "grep CapEff /proc/self/status | cut -f2"), "0000000000002000");
    assert_eq!(run("--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status | cut -f2"), "1");
    assert_eq!(run("--security-opt seccomp=unconfined", "grep ^Seccomp: /proc/self/status | cut -f2"), "0");
    assert_eq!(run("", "grep ^Seccomp: /proc/self/status | cut -f2"), "2");
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#;
    let refused = world.sh(&format!(
        "echo '{profile}' > {root}/profile.json; docker run --rm --security-opt seccomp={root}/profile.json box sh -c 'mkdir /new 2>&1 || true; touch /tmp/fine && echo other calls work'",
        root = world.root.display()
    ));
    assert!(refused.contains("Permission denied") && refused.contains("other calls work"), "{refused}");
    assert_eq!(run("--privileged", "test -e /dev/kmsg -o -e /dev/loop-control && echo seen"), "seen");
    assert_eq!(run("--device /dev/zero:/dev/nothing:r", "head -c 3 /dev/nothing | wc -c"), "3");
    assert_eq!(run("-m 32m --memory-swap 32m --pids-limit 20 --cpus 0.5", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max").lines().collect::<Vec<_>>()[..2], ["33554432", "20"]);
    // The namespaces that were asked for, and no others.
    let own = world.sh("for n in pid ipc uts net cgroup; do readlink /proc/self/ns/$n; done");
    let own: Vec<&str> = own.lines().collect();
    for (option, index) in
        [("--pid=host", 0), ("--ipc=host", 1), ("--uts=host", 2), ("--network=host", 3), ("--cgroupns=host", 4)]
    {
        let inside = run(option, "for n in pid ipc uts net cgroup; do readlink /proc/self/ns/$n; done");
        for (at, name) in inside.lines().enumerate() {
            assert_eq!(name == own[at], at == index, "{option}: {inside}");
        }
    }
    world.sh("docker run -d --name holder --ipc shareable box sleep 100");
    let shared = run(
        "--network container:holder --pid container:holder --ipc container:holder",
        "ps -o comm | grep -c sleep; ip -4 -o addr show dev eth0 | wc -l",
    );
    assert_eq!(shared, "1\n1");
    world.sh("docker rm -f holder");
}

fn created_first(world: &World) {
    let id = world.sh("docker create --name made -i box sh -c 'read line; echo got $line'");
    assert_eq!(world.sh("docker ps -a --filter status=created --no-trunc -q"), id);
    assert_eq!(world.sh("echo words | docker start -ai made"), "got words");
    assert_eq!(world.sh("docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' made"), "exited 0");
    assert_eq!(world.sh("docker start made; docker stop -t 0 made; docker rm made"), "made\nmade\nmade");
}

#[test]
fn docker_exec_joins_the_container_as_whom_and_with_what_was_asked_for() {
    let world = World::with_box();
    world.sh("docker run -d --name web -e A=container -w /tmp box sleep 1000");
    let exec = |options: &str, script: &str| world.sh(&format!("docker exec {options} web sh -c '{script}'"));
    assert_eq!(exec("", "pwd; echo $A; id -u"), "/tmp\ncontainer\n0");
    assert_eq!(exec("-e A=exec -e B=2", "echo $A $B; env | grep -c ^A="), "exec 2\n1");
    assert_eq!(exec("-u ann -w /data", "id -un; pwd; echo $HOME"), "ann\n/data\n/home/ann");
    assert_eq!(world.sh_code("docker exec web sh -c 'exit 9'").0, 9);
    let (code, said) = world.sh_code("docker exec web nosuch");
    assert!(code == 127 && said.contains("executable file not found in $PATH"), "{code} {said}");
    assert_eq!(world.sh("echo piped | docker exec -i web cat"), "piped");
    assert_eq!(world.sh("docker exec web sh -c 'echo out; echo err >&2' 2>/dev/null"), "out");
    world.sh("docker exec -d web sh -c 'echo detached > /tmp/mark; sleep 1000'");
    world.until("docker exec web cat /tmp/mark", |said| said == "detached");
    let sized = world.sh("script -qec 'stty rows 21 cols 77; docker exec -it web stty size' /dev/null </dev/null");
    assert!(sized.contains("21 77"), "{sized:?}");
    assert_eq!(
        exec("--privileged", "grep CapEff /proc/self/status | cut -f2").trim_start_matches('0').len(),
        world.sh("grep CapBnd /proc/self/status | cut -f2").trim_start_matches('0').len()
    );
    world.sh("docker pause web");
    assert!(world.sh_fails("docker exec web true").contains("is paused, unpause the container before exec"));
    world.sh("docker unpause web; docker stop -t 0 web");
    assert!(world.sh_fails("docker exec web true").contains("is not running"));
    let missing = world.sh_fails("docker exec nothing true");
    assert!(missing.contains("No such container: nothing"), "{missing}");
}
