//! `docker logs` by the stock client: follow, since, until, tail, timestamps, rotation, drivers.

use crate::harness::World;

#[test]
fn docker_logs_follows_cuts_and_stamps_and_every_driver_keeps_its_promise() {
    let world = World::with_box();
    cuts(&world);
    follows(&world);
    rotates(&world);
    drivers(&world);
}

fn cuts(world: &World) {
    world.sh("docker run --name short box sh -c 'for i in 1 2 3; do echo line $i; sleep 0.3; done; echo err >&2; printf last'");
    assert_eq!(world.sh("docker logs short 2>/dev/null"), "line 1\nline 2\nline 3\nlast");
    assert_eq!(world.sh("docker logs short 2>&1 >/dev/null"), "err");
    assert_eq!(
        world.sh("docker logs -n 2 short 2>&1 | wc -l"),
        "1",
        "the last two entries: err and a line without an end"
    );
    assert_eq!(world.sh("docker logs --tail 0 short 2>&1"), "");
    assert_eq!(world.sh("docker logs --tail all short 2>/dev/null | wc -l"), "3");
    let stamped = world.sh("docker logs -t short 2>/dev/null");
    let first = stamped.lines().next().unwrap();
    let (stamp, text) = first.split_once(' ').unwrap();
    assert_eq!((stamp.len(), text), ("2026-01-01T00:00:00.000000000Z".len(), "line 1"));
    let third = stamped.lines().nth(2).unwrap().split(' ').next().unwrap().to_owned();
    assert_eq!(world.sh(&format!("docker logs --since {third} short 2>/dev/null")), "line 3\nlast");
    assert_eq!(world.sh(&format!("docker logs --until {stamp} short 2>/dev/null")), "line 1");
    assert_eq!(world.sh("docker logs --since 1h short 2>/dev/null | wc -l"), "3");
    assert_eq!(world.sh("docker logs --until 1h short 2>&1"), "");
    assert_eq!(world.sh("docker logs --details short 2>/dev/null | head -n 1"), "line 1");
    assert!(world.sh_fails("docker logs nothing").contains("No such container: nothing"));
    world.sh("docker rm short");
}

fn follows(world: &World) {
    world
        .sh("docker run -d --name long box sh -c 'i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo $i; sleep 0.05; done'");
    assert_eq!(world.sh("docker logs -f long | wc -l"), "20", "a follow ends with its container and misses nothing");
    assert_eq!(world.sh("docker logs -f -n 1 long"), "20", "following an ended container ends at once");
    world.sh("docker rm long; docker run -d --name silent box sh -c 'echo once; sleep 1000'");
    // Nothing comes, and yet the moment passes.
    assert_eq!(world.sh("sleep 0.3; timeout 10 docker logs -f --until 1s silent"), "once");
    let until = "timeout 10 docker logs -f --until $(date -u -d '+1 second' +%Y-%m-%dT%H:%M:%SZ) silent";
    assert_eq!(world.sh(until), "once");
    world.sh("docker rm -f silent");
}

fn rotates(world: &World) {
    // The promise without any option: no more than three files of ten megabytes.
    world.sh(
        "docker run --name flood box sh -c 'yes 0123456789012345678901234567890123456789 | head -n 600000' >/dev/null",
    );
    let dir = world.sh("dirname $(docker inspect -f '{{.LogPath}}' flood)");
    let sizes = world.sh(&format!("ls -l {dir}/*-json.log* | tr -s ' ' | cut -d' ' -f5"));
    let sizes: Vec<u64> = sizes.lines().map(|size| size.parse().unwrap()).collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size < 11 << 20), "{sizes:?}");
    assert_eq!(world.sh("docker logs -n 2 flood | wc -l"), "2");
    world.sh("docker rm flood; docker run --name own --log-opt max-size=1k --log-opt max-file=2 box sh -c 'seq 1 100' >/dev/null");
    assert_eq!(world.sh("docker logs own | tail -n 1"), "100");
    assert_eq!(world.sh("ls $(dirname $(docker inspect -f '{{.LogPath}}' own)) | grep -c json.log"), "2");
    assert_eq!(
        world.sh(
            "docker inspect -f '{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"max-size\"}}' own"
        ),
        "json-file 1k"
    );
    world.sh("docker rm own");
}

fn drivers(world: &World) {
    world.sh("docker run --name quiet --log-driver none box echo unheard");
    assert!(world.sh_fails("docker logs quiet").contains("configured logging driver does not support reading"));
    world.sh("docker run --name local --log-driver local --log-opt max-size=1m --log-opt compress=false box sh -c 'echo kept; echo err >&2'");
    assert_eq!(
        world
            .sh("docker logs local 2>/dev/null; docker inspect -f '{{.HostConfig.LogConfig.Type}}|{{.LogPath}}' local"),
        "kept\nlocal|"
    );
    assert_eq!(world.sh("docker logs -t local 2>&1 >/dev/null | cut -d' ' -f2"), "err");
    assert!(
        world
            .sh_fails("docker run --log-driver fluentd box true")
            .contains("no log driver named 'fluentd' is registered")
    );
    assert!(
        world
            .sh_fails("docker run --log-opt colour=red box true")
            .contains("unknown log opt 'colour' for json-file log driver")
    );
    assert!(world.sh_fails("docker run --log-opt max-file=0 box true").contains("max-file cannot be less than 1"));
    world.sh("docker rm quiet local");
    // With a terminal the log is raw.
    world.sh("docker run -d -t --name tty box echo raw; docker wait tty");
    assert_eq!(world.sh("docker logs tty"), "raw");
}
