//! A container's life as the stock client steers it: stop, kill, pause, rename, update, wait, prune, restart policies, health.

use crate::harness::World;

#[test]
fn docker_stop_kill_pause_rename_update_wait_and_prune_do_what_they_say() {
    let world = World::with_box();
    ends(&world);
    pauses(&world);
    names_and_limits(&world);
    listings(&world);
    waits_and_prunes(&world);
}

fn ends(world: &World) {
    // A program that hears TERM ends by itself, with its own code; one that ignores it is killed.
    world.sh("docker run -d --name kind box sh -c 'trap \"exit 3\" TERM; while true; do sleep 0.1; done'");
    world.sh("docker run -d --name rude box sh -c 'trap \"\" TERM; while true; do sleep 0.1; done'");
    world.sh(
        "docker run -d --name usr --stop-signal USR1 box sh -c 'trap \"exit 5\" USR1; while true; do sleep 0.1; done'",
    );
    assert_eq!(world.sh("sleep 0.5; docker stop -t 5 kind usr; docker stop -t 1 rude"), "kind\nusr\nrude");
    let state =
        |name: &str| world.sh(&format!("docker inspect -f '{{{{.State.Status}}}} {{{{.State.ExitCode}}}}' {name}"));
    assert_eq!([state("kind"), state("rude"), state("usr")], ["exited 3", "exited 137", "exited 5"]);
    world.sh("docker start kind; sleep 0.5; docker kill -s TERM kind; docker wait kind");
    assert_eq!(state("kind"), "exited 3");
    assert!(world.sh_fails("docker kill kind").contains("is not running"));
    assert!(world.sh_fails("docker kill -s NOSUCH rude").contains("invalid signal: NOSUCH"));
    world.sh("docker start rude; docker restart -t 0 rude");
    assert_eq!(state("rude"), "running 0");
    assert!(
        world
            .sh_fails("docker rm rude")
            .contains("container is running: stop the container before removal or force remove")
    );
    assert_eq!(world.sh("docker rm -f rude kind usr"), "rude\nkind\nusr");
}

fn pauses(world: &World) {
    world.sh("docker run -d --name frozen box sh -c 'i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done'; docker pause frozen");
    assert_eq!(world.sh("docker inspect -f '{{.State.Status}} {{.State.Paused}}' frozen"), "paused true");
    assert!(world.sh("docker ps --filter name=frozen --format '{{.Status}}'").ends_with("(Paused)"));
    let still = world.sh("docker logs frozen | wc -l; sleep 0.4; docker logs frozen | wc -l");
    let counts: Vec<&str> = still.lines().collect();
    assert_eq!(counts[0], counts[1], "a paused container says nothing");
    assert!(world.sh_fails("docker pause frozen").contains("is already paused"));
    world.sh("docker unpause frozen");
    assert!(world.sh_fails("docker unpause frozen").contains("is not paused"));
    // A paused container can be stopped and removed.
    world.sh("docker pause frozen; docker stop -t 1 frozen; docker rm frozen");
}

fn names_and_limits(world: &World) {
    world.sh("docker run -d --name old -m 64m box sleep 1000; docker rename old new");
    assert_eq!(world.sh("docker inspect -f '{{.Name}}' new"), "/new");
    assert!(world.sh_fails("docker inspect old").contains("No such object: old"));
    world.sh("docker run -d --name other box sleep 1000");
    assert!(
        world
            .sh_fails("docker rename new other")
            .contains("Conflict. The container name \"/other\" is already in use by container")
    );
    world.sh("docker update -m 128m --memory-swap 256m --pids-limit 50 --cpus 0.5 --restart on-failure:2 new");
    assert_eq!(
        world.sh("docker inspect -f '{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}' new"),
        "134217728 50 500000000 on-failure 2"
    );
    let limits = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max";
    assert_eq!(world.sh(&format!("docker exec new sh -c '{limits}'")), "134217728\n50");
    assert!(world.sh_fails("docker update -m 1m new").contains("Minimum memory limit allowed is 6MB"));
    let top = world.sh("docker top new");
    assert!(top.lines().next().is_some_and(|line| line.starts_with("UID") && line.ends_with("CMD")), "{top}");
    assert!(top.lines().nth(1).is_some_and(|line| line.starts_with("root") && line.ends_with("sleep 1000")), "{top}");
    let top = world.sh("docker top new -o pid,comm");
    assert_eq!(
        top.lines().map(|line| line.split_whitespace().last().unwrap_or_default()).collect::<Vec<_>>(),
        ["COMMAND", "sleep"]
    );
    let stats = world.sh("docker stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDs}}' new");
    assert!(stats.starts_with("new ") && stats.contains("/ 128MiB 1"), "{stats}");
    world.sh("docker rm -f new other");
}

fn listings(world: &World) {
    world.sh("docker run -d --name a1 -l tier=front --network host box sleep 1000; docker run -d --name a2 -l tier=back -v data:/data --expose 80 box sleep 1000; docker run --name b1 box sh -c 'exit 4' || true");
    let names = |filter: &str| world.sh(&format!("docker ps -a {filter} --format '{{{{.Names}}}}'")).replace('\n', " ");
    assert_eq!(world.sh("docker ps --format '{{.Names}}'").replace('\n', " "), "a2 a1");
    for (filter, wanted) in [
        ("", "b1 a2 a1"),
        ("-n 1", "b1"),
        ("--filter name=a", "a2 a1"),
        ("--filter name=^/a1$", "a1"),
        ("--filter 'name=a[23]'", "a2"),
        ("--filter label=tier", "a2 a1"),
        ("--filter label=tier=back", "a2"),
        ("--filter status=exited", "b1"),
        ("--filter exited=4", "b1"),
        ("--filter exited=0", ""),
        ("--filter ancestor=box", "b1 a2 a1"),
        ("--filter volume=data", "a2"),
        ("--filter network=host", "a1"),
        ("--filter before=a2", "a1"),
        ("--filter since=a2", "b1"),
        ("--filter expose=80", "a2"),
        ("--filter health=none", "b1 a2 a1"),
    ] {
        assert_eq!(names(filter), wanted, "{filter}");
    }
    assert!(world.sh_fails("docker ps --filter colour=red").contains("invalid filter 'colour'"));
    let row = world.sh("docker ps -as --filter name=a2 --format '{{.Image}}|{{.Command}}|{{.Status}}|{{.Ports}}|{{.Mounts}}|{{.Networks}}|{{.Size}}'");
    assert!(row.starts_with("box|\"sleep 1000\"|Up ") && row.contains("|80/tcp|data|bridge|"), "{row}");
    let id = world.sh("docker inspect -f '{{.Id}}' a1");
    assert_eq!(world.sh(&format!("docker inspect -f '{{{{.Name}}}}' {}", &id[..6])), "/a1");
    world.sh("docker rm -f a1 a2 b1; docker volume rm data");
}

fn waits_and_prunes(world: &World) {
    assert_eq!(world.sh("docker run -d --name waited box sh -c 'sleep 0.3; exit 6' >/dev/null; docker wait waited; docker wait waited"), "6\n6");
    assert_eq!(
        world.sh("docker run -d --rm --name gone box sh -c 'sleep 0.3; exit 2' >/dev/null; docker wait gone"),
        "2"
    );
    world.sh_until("docker ps -aq --filter name=gone", |said| said.is_empty());
    world.sh("docker run -d --name stays box sleep 1000; docker create --name created -l keep box");
    let pruned = world.sh("docker container prune -f --filter label!=keep");
    assert!(pruned.contains("Deleted Containers:") && pruned.contains("Total reclaimed space:"), "{pruned}");
    assert_eq!(world.sh("docker ps -a --format '{{.Names}}'"), "created\nstays");
    world.sh("docker rm -f stays created");
}

#[test]
fn restart_policies_start_again_what_ended_and_survive_a_killed_engine() {
    let world = World::with_box();
    world.sh("docker run -d --name fails --restart on-failure:2 box sh -c 'echo run; exit 1'");
    world.sh_until("docker inspect -f '{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}' fails", |said| {
        said == "exited 2 1"
    });
    assert_eq!(world.sh("docker logs fails"), "run\nrun\nrun");
    world.sh("docker run -d --name always --restart always box sh -c 'echo run; sleep 0.2; exit 0'");
    world.sh_until("docker inspect -f '{{.RestartCount}}' always", |said| said.parse::<u32>().is_ok_and(|n| n >= 2));
    world.sh("docker stop -t 0 always");
    let count = world.sh("docker inspect -f '{{.RestartCount}}' always");
    assert_eq!(
        world.sh("sleep 1; docker inspect -f '{{.State.Status}} {{.RestartCount}}' always"),
        format!("exited {count}"),
        "a stopped one stays stopped"
    );
    world.sh("docker rm always; docker run -d --name up --restart unless-stopped box sleep 1000; docker run -d --name down --restart unless-stopped box sleep 1000; docker run -d --name again --restart always box sleep 1000; docker run -d --name no box sleep 1000; docker stop -t 0 down again");
    let pids = world.sh("docker inspect -f '{{.State.Pid}}' up no");
    world.kill_9();
    world.sh(&format!("kill -9 {}; sleep 0.3", pids.replace('\n', " ")));
    world.up();
    world.sh_until("docker ps --format '{{.Names}}' | sort | tr '\\n' ' '", |said| said == "again up");
    assert_eq!(world.sh("docker inspect -f '{{.State.ExitCode}}' no"), "137");
    let refused = world.sh_fails("docker run --rm --restart always box true");
    assert!(refused.contains("cannot specify both --restart and --rm"), "{refused}");
}

#[test]
fn health_checks_give_verdicts_order_events_and_survive_a_killed_engine() {
    let world = World::with_box();
    let flags = "--health-interval 200ms --health-retries 2 --health-timeout 2s";
    world.sh(&format!(
        "docker run -d --name hc {flags} --health-cmd 'test -e /tmp/ok || (echo not yet; false)' box sleep 1000"
    ));
    assert_eq!(world.sh("docker inspect -f '{{.State.Health.Status}}' hc"), "starting");
    world.sh_until("docker inspect -f '{{.State.Health.Status}}' hc", |said| said == "unhealthy");
    let log = world
        .sh("docker inspect -f '{{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}' hc");
    assert_eq!(log, "1 not yet");
    world.sh("docker exec hc touch /tmp/ok");
    world.sh_until("docker inspect -f '{{.State.Health.Status}} {{.State.Health.FailingStreak}}' hc", |said| {
        said == "healthy 0"
    });
    assert_eq!(
        world.sh("docker ps --filter health=healthy --format '{{.Names}} {{.Status}}' | grep -c '(healthy)'"),
        "1"
    );
    let told = "docker events --since 1h --until $(date +%s.%N) --filter event=health_status --format '{{.Action}}'";
    world.sh_until(told, |said| said == "health_status: unhealthy\nhealth_status: healthy");
    // Not started anew after a crash: a healthy container stays healthy, with its log.
    world.kill_9();
    world.up();
    assert_eq!(world.sh("docker inspect -f '{{.State.Health.Status}}' hc"), "healthy");
    // A check that hangs is ended, and is a failure.
    world.sh("docker run -d --name hangs --health-interval 100ms --health-timeout 300ms --health-retries 1 --health-cmd 'sleep 777' box sleep 1000");
    world.sh_until("docker inspect -f '{{.State.Health.Status}}' hangs", |said| said == "unhealthy");
    let said = world.sh(
        "docker inspect -f '{{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}' hangs",
    );
    assert!(said.starts_with("-1 Health check exceeded timeout (300ms)"), "{said}");
    world.sh_until("docker exec hangs ps | grep -c 'sleep 777' || true", |said| {
        said.parse::<u32>().is_ok_and(|n| n <= 2)
    });
    world.sh("docker rm -f hc hangs; docker run -d --name none --no-healthcheck box sleep 1000");
    assert_eq!(world.sh("docker inspect -f '{{.State.Health}}' none"), "<nil>");
}
