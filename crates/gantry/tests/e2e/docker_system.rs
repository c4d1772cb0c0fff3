//! The engine as a whole by the stock client: version, info, events, disk use, prune, login, Swarm, plugins, limits of devices, TCP with TLS.

use crate::harness::World;

#[test]
fn docker_info_events_df_prune_and_what_is_absent_answer_as_docker_does() {
    let world = World::with_box();
    says_who_it_is(&world);
    events(&world);
    disk_use(&world);
    absent(&world);
    bad_input(&world);
}

fn says_who_it_is(world: &World) {
    assert_eq!(
        world.sh(
            "docker version -f '{{.Server.Version}} {{.Server.APIVersion}} {{.Server.MinAPIVersion}} {{.Server.Os}}'"
        ),
        "28.2.2 1.50 1.24 linux"
    );
    assert_eq!(
        world.sh("DOCKER_API_VERSION=1.24 docker ps -q; curl -s --unix-socket ${DOCKER_HOST#unix://} http://d/_ping"),
        "OK"
    );
    let newer = world.sh("curl -s --unix-socket ${DOCKER_HOST#unix://} http://d/v1.99/info");
    assert_eq!(newer, r#"{"message":"client version 1.99 is too new. Maximum supported API version is 1.50"}"#);
    world.sh("docker run -d --name runs box sleep 1000; docker run -d --name paused box sleep 1000; docker pause paused; docker create box");
    assert_eq!(world.sh("docker info -f '{{.Containers}} {{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}} {{.Images}} {{.Swarm.LocalNodeState}} {{.LoggingDriver}}'"), "3 1 1 1 1 inactive json-file");
    let info = world.sh("docker info 2>&1");
    for wanted in [
        "Server Version: 28.2.2",
        "Storage Driver: overlay2",
        "Cgroup Driver: cgroupfs",
        "Live Restore Enabled: true",
        "Default Runtime: runc",
    ] {
        assert!(info.contains(wanted), "{wanted}: {info}");
    }
    assert!(!info.contains("ERROR") && !info.contains("errors pretty printing"), "{info}");
    world.sh("docker rm -f $(docker ps -aq)");
}

fn events(world: &World) {
    let since = world.sh("date +%s.%N");
    world.sh("docker network create net; docker run --rm --name one -v vol:/v --network net box true; docker run -d --name two box sleep 1000; docker exec two true; docker stop -t 1 two; docker rm two; docker network rm net; docker volume rm vol; docker tag box other; docker rmi other; sleep 0.3");
    let all = world
        .sh(&format!("docker events --since {since} --until $(date +%s.%N) --format '{{{{.Type}}}} {{{{.Action}}}}'"));
    let one: Vec<&str> = all.lines().collect();
    let mut rest = one.as_slice();
    for wanted in [
        "network create",
        "volume create",
        "container create",
        "container attach",
        "network connect",
        "volume mount",
        "container start",
        "container die",
        "network disconnect",
        "volume unmount",
        "container create",
        "network connect",
        "container start",
        "container exec_create: true",
        "container exec_start: true",
        "container exec_die",
        "container kill",
        "container die",
        "container stop",
        "container destroy",
        "network destroy",
        "volume destroy",
        "image tag",
        "image untag",
    ] {
        // Teardown goes on in the background: its events may come a little later, but none is missing.
        match rest.iter().position(|event| *event == wanted) {
            Some(at) => rest = &rest[at + 1..],
            None => assert!(one.contains(&wanted), "{wanted} is missing in {one:?}"),
        }
    }
    let filtered = |filter: &str| {
        world
            .sh(&format!("docker events --since {since} --until $(date +%s.%N) {filter} --format '{{{{.Action}}}}'"))
            .replace('\n', " ")
    };
    assert_eq!(filtered("--filter container=two --filter event=start --filter event=die"), "start die");
    assert_eq!(filtered("--filter type=network --filter network=net --filter event=create"), "create");
    assert_eq!(world.sh(&format!("docker events --since {since} --until $(date +%s.%N) --filter container=one --filter event=die --format '{{{{.Actor.Attributes.exitCode}}}} {{{{.Actor.Attributes.image}}}} {{{{.Actor.Attributes.name}}}}'")), "0 box one");
    let live = world.sh("timeout 10 sh -c 'docker events --filter event=destroy --format \"{{.Actor.Attributes.name}}\" | head -n 1' & sleep 1; docker run --rm --name live box true; docker run --rm --name live2 box true; wait");
    assert!(live.contains("live"), "{live}");
}

fn disk_use(world: &World) {
    world.sh("docker tag box shared:1; docker run --name writer box sh -c 'head -c 1000000 /dev/zero > /big'; docker commit writer derived:1; docker run --rm -v vol:/v box sh -c 'head -c 500000 /dev/zero > /v/f'");
    let rows = world.sh("docker system df --format '{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}'");
    let rows: Vec<Vec<&str>> = rows.lines().map(|row| row.split('|').collect()).collect();
    assert_eq!((rows[0][0], rows[0][1], rows[0][2]), ("Images", "2", "1"));
    // Two images, one base: its two megabytes count once, as what is stored and as the layer that is unpacked.
    let size: f64 = rows[0][3].trim_end_matches("MB").parse().unwrap();
    assert!((5.0..7.5).contains(&size), "{rows:?}");
    assert!(rows[1][0] == "Containers" && rows[1][1] == "1" && rows[1][3].ends_with("MB"), "{rows:?}");
    assert!(
        rows[2][0] == "Local Volumes" && rows[2][1] == "1" && rows[2][2] == "0" && rows[2][3].starts_with("500"),
        "{rows:?}"
    );
    assert!(world.sh("docker system df -v").contains("SHARED SIZE"));
    let pruned = world.sh("docker system prune -f --volumes");
    assert!(pruned.contains("Deleted Containers:") && pruned.contains("Total reclaimed space:"), "{pruned}");
    world.sh("docker rmi derived:1 shared:1; docker volume rm vol");
}

fn absent(world: &World) {
    for command in [
        "docker node ls",
        "docker service ls",
        "docker secret ls",
        "docker config ls",
        "docker stack ls",
        "docker swarm join-token worker",
    ] {
        let said = world.sh_fails(command);
        assert!(said.contains("This node is not a swarm manager."), "{command}: {said}");
    }
    assert!(world.sh_fails("docker swarm leave").contains("This node is not part of a swarm"));
    let said = world.sh_fails("docker swarm init");
    assert!(said.contains("swarm mode is not offered"), "{said}");
    assert_eq!(world.sh("docker plugin ls -q"), "");
    assert!(world.sh_fails("docker plugin inspect nosuch").contains("plugin \"nosuch\" not found"));
    // A registry that wants a name and a password.
    let registry = r#"
import base64, http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = self.headers.get('Authorization') == 'Basic ' + base64.b64encode(b'ann:secret').decode()
        self.send_response(200 if good else 401)
        if not good: self.send_header('WWW-Authenticate', 'Basic realm="r"')
        self.send_header('Content-Length', '2'); self.end_headers(); self.wfile.write(b'{}')
    def log_message(self, *a): pass
http.server.HTTPServer(('127.0.0.1', 5555), H).serve_forever()
"#;
    std::fs::write(world.root.join("registry.py"), registry).unwrap();
    let root = world.root.display();
    let login = format!(
        "timeout 60 python3 {root}/registry.py & server=$!; sleep 1; export DOCKER_CONFIG={root}/client; echo secret | docker login -u ann --password-stdin 127.0.0.1:5555 2>/dev/null; echo wrong | docker login -u ann --password-stdin 127.0.0.1:5555 2>&1 | tail -n 1; kill $server"
    );
    let said = world.sh(&login);
    assert!(said.starts_with("Login Succeeded"), "{said}");
    assert!(
        said.lines().last().is_some_and(|line| line.contains("401") || line.to_lowercase().contains("unauthorized")),
        "{said}"
    );
}

fn bad_input(world: &World) {
    for (command, wanted) in [
        (
            "docker run --name 'no spaces' box true",
            "Invalid container name (no spaces), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        ),
        ("docker run -m 1m box true", "Minimum memory limit allowed is 6MB"),
        ("docker run --cpus 1 --cpu-quota 5000 box true", "Conflicting options: Nano CPUs and CPU"),
        ("docker run --cap-add FLY box true", "unknown capability"),
        ("docker run --runtime nosuch box true", "unknown or invalid runtime name: nosuch"),
        (
            "docker run -w relative box true",
            "the working directory 'relative' is invalid, it needs to be an absolute path",
        ),
        ("docker run --security-opt make=fast box true", "invalid --security-opt"),
        ("docker run --sysctl kernel.core_pattern=x box true", "kernel.core_pattern"),
        (
            "docker run --device /dev/nosuch box true",
            "error gathering device information while adding custom device \"/dev/nosuch\"",
        ),
        ("docker run --ulimit nosuch=1 box true", "invalid ulimit type: nosuch"),
        ("docker run --gpus all box true", "could not select device driver"),
        ("docker create --pull never nosuch", "No such image: nosuch:latest"),
        ("docker start nosuch", "No such container: nosuch"),
        ("docker rmi nosuch", "No such image: nosuch:latest"),
    ] {
        let said = world.sh_fails(command);
        assert!(said.contains(wanted), "{command}: {said}");
    }
    // What failed at its start is there to be looked at and goes when asked.
    world.sh("docker ps -aq | xargs -r docker rm >/dev/null");
    assert_eq!(world.sh("docker ps -aq"), "");
    let limits = world.sh("docker run --rm --device-read-bps /dev/vda:1mb --device-write-iops /dev/vda:100 box sh -c 'cat /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device /sys/fs/cgroup/blkio/blkio.throttle.write_iops_device 2>/dev/null || cat /sys/fs/cgroup/io.max' 2>/dev/null || true");
    if std::path::Path::new("/dev/vda").exists() {
        assert!(limits.contains("1048576") && limits.contains("100"), "{limits}");
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left_half_made() {
    let world = World::new();
    world.sh(&format!("mkdir -p {0}; mount -t tmpfs -o size=48m tmpfs {0}", world.root.display()));
    world.up();
    world.import_box();
    let full = world.sh_fails("docker run --name filler box sh -c 'dd if=/dev/zero of=/big bs=1M count=100'");
    assert!(full.contains("No space left on device"), "{full}");
    let made = world.sh_fails(
        "docker create --name second box && docker cp /bin/busybox second:/x && docker cp /bin/busybox second:/y",
    );
    assert!(made.to_lowercase().contains("no space left on device"), "{made}");
    world.sh("docker rm -f filler; docker rm -f second 2>/dev/null || true; sleep 0.5");
    assert_eq!(world.sh("docker run --rm box echo room again"), "room again");
    assert_eq!(world.sh("docker ps -aq"), "");
}

#[test]
fn the_api_over_tcp_lets_in_who_has_a_certificate_and_nobody_else() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let sign = "openssl req -newkey rsa:2048 -nodes -keyout $n-key.pem -subj /CN=$n -out $n.csr 2>/dev/null; openssl x509 -req -in $n.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile $n.ext -out $n.pem 2>/dev/null";
    world.sh(&format!(
        "cd {at}; openssl req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -subj /CN=ca -days 2 -out ca.pem 2>/dev/null
        echo 'subjectAltName=IP:127.0.0.1,DNS:localhost' > server.ext; printf 'extendedKeyUsage=clientAuth\\nsubjectAltName=DNS:client' > client.ext
        n=server; {sign}; n=client; {sign}"
    ));
    let refused = world.refused(env!("CARGO_BIN_EXE_gantry"), &["up", "--detach", "--host", "tcp://0.0.0.0:2375"]);
    assert!(refused.contains("add --tlsverify"), "{refused}");
    let path = |name: &str| dir.path().join(name).display().to_string();
    world.gantry(&[
        "up",
        "--detach",
        "--host",
        "tcp://127.0.0.1:2376",
        "--tlsverify",
        "--tlscacert",
        &path("ca.pem"),
        "--tlscert",
        &path("server.pem"),
        "--tlskey",
        &path("server-key.pem"),
    ]);
    world.import_box();
    let docker = format!(
        "DOCKER_HOST= docker -H tcp://127.0.0.1:2376 --tlsverify --tlscacert {at}/ca.pem --tlscert {at}/client.pem --tlskey {at}/client-key.pem"
    );
    assert_eq!(
        world.sh(&format!("{docker} run --rm box echo by TLS; echo piped | {docker} run --rm -i box cat")),
        "by TLS\npiped"
    );
    world.sh(&format!("export DOCKER_CONFIG={at}/config; docker context create far --docker 'host=tcp://127.0.0.1:2376,ca={at}/ca.pem,cert={at}/client.pem,key={at}/client-key.pem' >/dev/null; DOCKER_HOST= docker --context far ps"));
    assert_ne!(world.sh_code("DOCKER_HOST= docker -H tcp://127.0.0.1:2376 ps").0, 0);
    assert_ne!(world.sh_code(&format!("curl -s --max-time 5 --cacert {at}/ca.pem https://127.0.0.1:2376/_ping")).0, 0);
}
