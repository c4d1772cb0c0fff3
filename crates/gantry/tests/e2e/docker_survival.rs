//! kill -9 of the engine while the stock client makes, starts, connects, fills and removes: nothing leaks, nothing is lost.

use crate::harness::World;

#[test]
fn kill_9_at_every_step_of_a_containers_life_leaks_nothing_and_loses_nothing() {
    let world = World::with_box();
    world.sh("docker run --name many box sh -c 'mkdir /many; for i in $(seq 1 1500); do echo $i > /many/$i; done'; docker commit many many:1; docker rm many; docker network create n1; docker network create n2; docker run -d --name witness --restart always -v kept:/kept box sh -c 'echo kept > /kept/file; sleep 1000'");
    let witness = world.sh("docker inspect -f '{{.State.Pid}}' witness");
    let root = world.root.display().to_string();
    for step in 0..12 {
        let delay = format!("0.{:03}", 20 + step * 45);
        let life = format!(
            "docker run -d --name one --network n1 -p 0:80 -v /anonymous -v filled{step}:/many many:1 sleep 1000; docker network connect n2 one; docker rm -f -v one; true"
        );
        let pid = world.pid();
        world.sh(&format!("({life}) >/dev/null 2>&1 & sleep {delay}; kill -9 {pid}; wait; while readlink /proc/{pid}/exe >/dev/null 2>&1; do sleep 0.02; done"));
        world.up();
        // A container exists wholly or not at all; one that exists can be inspected, started and removed.
        let left = world.sh("docker ps -a --format '{{.Names}}' | grep -v witness || true");
        assert!(left.is_empty() || left == "one", "step {step}: {left}");
        if left == "one" {
            world.sh(
                "docker inspect one >/dev/null; docker start one >/dev/null; docker exec one true; docker rm -f -v one",
            );
        }
        // A volume was filled or was not, and is filled at its next use.
        let volumes = world.sh("docker volume ls -q");
        if volumes.lines().any(|name| name == format!("filled{step}")) {
            let count = world.sh(&format!("docker run --rm -v filled{step}:/many many:1 sh -c 'ls /many | wc -l'; docker volume rm filled{step} >/dev/null"));
            assert_eq!(count, "1500", "step {step}");
        }
        assert!(
            volumes.lines().all(|name| name.len() != 64) || left == "one",
            "step {step}: an anonymous volume is left: {volumes}"
        );
        assert_eq!(
            world
                .sh("docker inspect -f '{{.State.Pid}} {{.RestartCount}}' witness; docker exec witness cat /kept/file"),
            format!("{witness} 0\nkept"),
            "step {step}"
        );
    }
    // What the kernel and the disk hold is what the witness needs.
    world.sh_until(&format!("ls {root}/containers | wc -l; ls -A {root}/containers/.trash | wc -l; ls {root}/run/netns | wc -l; ip -o link 2>/dev/null | grep -c veth; ls -d {root}/snapshots/a/* | wc -l; mount | grep -c '{root}/snapshots' || true"), |said| {
        said.split_whitespace().collect::<Vec<_>>() == ["1", "0", "1", "1", "1", "0"]
    });
    let cgroup = world.sh(&format!("grep -o 'gantry-[0-9a-f]*' /proc/{witness}/cgroup | head -n 1"));
    world.sh_until(&format!("d=$(find /sys/fs/cgroup -maxdepth 2 -name {cgroup} | head -n 1); find $d -mindepth 1 -maxdepth 1 -type d | wc -l"), |said| said == "1");
    world.sh("docker rm -f witness; docker network rm n1 n2; docker volume rm kept");
    assert_eq!(world.sh("docker volume ls -q; docker ps -aq; docker network ls -q --filter type=custom"), "");
}
