//! Networks by the stock client: user-defined ones, names and aliases, links, fixed addresses, connect and disconnect, published ports.

use crate::harness::World;

#[test]
fn docker_networks_connect_name_and_isolate_containers() {
    let world = World::with_box();
    user_defined(&world);
    addresses(&world);
    links(&world);
    special_modes(&world);
    listings(&world);
}

fn user_defined(world: &World) {
    world.sh("docker network create front; docker network create --internal back; docker run -d --name web --network front --network-alias www box sleep 1000; docker run -d --name db --network back box sleep 1000");
    let lookup = |from: &str, name: &str| world.sh_code(&format!("docker exec {from} ping -c 1 -W 1 {name}")).0 == 0;
    world.sh("docker run -d --name client --network front box sleep 1000");
    assert!(lookup("client", "web") && lookup("client", "www") && lookup("client", "web.front"));
    assert!(!lookup("client", "db"), "another network's names are not known");
    world.sh("docker network connect --alias database back web");
    assert!(lookup("web", "db") && lookup("db", "web") && lookup("db", "database"));
    assert_eq!(world.sh("docker inspect -f '{{len .NetworkSettings.Networks}}' web"), "2");
    assert_eq!(
        world.sh("docker exec web ls /sys/class/net").split_whitespace().collect::<Vec<_>>(),
        ["eth0", "eth1", "lo"]
    );
    assert_eq!(
        world.sh("docker exec db ip route | grep -c default || true"),
        "0",
        "an internal network has no way out"
    );
    assert!(
        world
            .sh_fails("docker network connect back web")
            .contains("endpoint with name web already exists in network back")
    );
    let busy = world.sh_fails("docker network rm back");
    assert!(busy.contains("error while removing network: network back has active endpoints"), "{busy}");
    world.sh("docker network disconnect back web");
    assert!(!lookup("web", "db"));
    let twice = world.sh_fails("docker network disconnect back web");
    assert!(
        twice.contains("is not connected to network back") || twice.contains("is not connected to the network back"),
        "{twice}"
    );
    world.sh("docker network disconnect front web");
    assert_eq!(world.sh("docker inspect -f '{{len .NetworkSettings.Networks}}' web"), "0");
    world.sh("docker network connect front web");
    assert!(lookup("client", "web"));
    // What was connected while it ran is there after a restart as well.
    world.sh("docker network connect back web; docker restart -t 0 web");
    assert!(lookup("client", "web") && lookup("db", "web"));
    world.sh("docker rm -f web db client; docker network rm front back");
}

fn addresses(world: &World) {
    world.sh("docker network create --subnet 10.77.0.0/24 --ip-range 10.77.0.128/25 --gateway 10.77.0.9 --aux-address host=10.77.0.129 -o com.docker.network.driver.mtu=1400 -o com.docker.network.bridge.name=gt-own fixed");
    world.sh("docker run -d --name first --network fixed --ip 10.77.0.50 --mac-address 02:aa:bb:cc:dd:ee box sleep 1000; docker run -d --name second --network fixed box sleep 1000");
    assert_eq!(world.sh("docker inspect -f '{{with index .NetworkSettings.Networks \"fixed\"}}{{.IPAddress}} {{.MacAddress}} {{.Gateway}} {{.IPPrefixLen}}{{end}}' first"), "10.77.0.50 02:aa:bb:cc:dd:ee 10.77.0.9 24");
    assert_eq!(
        world.sh("docker exec first sh -c 'cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu'"),
        "02:aa:bb:cc:dd:ee\n1400"
    );
    assert_eq!(
        world.sh("docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' second"),
        "10.77.0.128"
    );
    assert_eq!(world.sh("ip -o link show gt-own | wc -l"), "1");
    let taken = world.sh_fails("docker run --rm --network fixed --ip 10.77.0.50 box true");
    assert!(taken.contains("Address already in use"), "{taken}");
    let outside = world.sh_fails("docker run --rm --network fixed --ip 10.78.0.5 box true");
    assert!(
        outside.contains("no configured subnet contains IP address 10.78.0.5")
            || outside.contains("no configured subnet or ip-range contain the IP address 10.78.0.5"),
        "{outside}"
    );
    let default = world.sh_fails("docker run --rm --ip 172.17.0.77 box true");
    assert!(
        default.contains("user specified IP address is supported on user defined networks only")
            || default.contains("user configured subnets"),
        "{default}"
    );
    assert!(
        world
            .sh_fails("docker network create --subnet 10.77.0.0/16 overlapping")
            .contains("Pool overlaps with other one on this address space")
    );
    assert!(world.sh_fails("docker network create fixed").contains("network with name fixed already exists"));
    // An address that was fixed stays its own over a restart.
    world.sh("docker restart -t 0 first");
    assert_eq!(
        world.sh("docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' first"),
        "10.77.0.50"
    );
    world.sh("docker rm -f first second; docker network rm fixed");
}

fn links(world: &World) {
    world.sh("docker run -d --name target --expose 5432 -e SECRET=x box sleep 1000");
    let linked = world.sh("docker run --rm --name source --link target:db box sh -c 'ping -c 1 -W 1 db >/dev/null && ping -c 1 -W 1 target >/dev/null && echo reached; env | grep ^DB_ | sort'");
    let ip = world.sh("docker inspect -f '{{.NetworkSettings.IPAddress}}' target");
    assert_eq!(
        linked,
        format!(
            "reached\nDB_ENV_FROM_IMAGE=yes\nDB_ENV_SECRET=x\nDB_NAME=/source/db\nDB_PORT=tcp://{ip}:5432\nDB_PORT_5432_TCP=tcp://{ip}:5432\nDB_PORT_5432_TCP_ADDR={ip}\nDB_PORT_5432_TCP_PORT=5432\nDB_PORT_5432_TCP_PROTO=tcp"
        )
    );
    world.sh("docker create --name lister --link target:db --link target box");
    assert_eq!(
        world.sh("docker inspect -f '{{.HostConfig.Links}}' lister"),
        "[/target:/lister/db /target:/lister/target]"
    );
    let missing = world.sh_fails("docker run --rm --link nothing box true");
    assert!(
        missing.contains("could not get container for nothing") || missing.contains("No such container: nothing"),
        "{missing}"
    );
    world.sh("docker stop -t 0 target");
    let stopped = world.sh_fails("docker start lister");
    assert!(stopped.contains("Cannot link to a non running container: /target AS /lister/db"), "{stopped}");
    world.sh(
        "docker rm -f target lister; docker network create nn; docker run -d --name target --network nn box sleep 1000",
    );
    assert_eq!(
        world.sh(
            "docker run --rm --network nn --link target:db box sh -c 'ping -c 1 -W 1 db >/dev/null && echo reached'"
        ),
        "reached"
    );
    assert_ne!(
        world.sh_code("docker run --rm --network nn box ping -c 1 -W 1 db").0,
        0,
        "a link is one container's own"
    );
    world.sh("docker rm -f target; docker network rm nn");
}

fn special_modes(world: &World) {
    assert_eq!(world.sh("docker run --rm --network none box ls /sys/class/net"), "lo");
    assert_eq!(
        world.sh("docker run --rm --network host box sh -c 'ip -o link | wc -l'"),
        world.sh("ip -o link | wc -l")
    );
    assert!(world.sh_fails("docker run --rm --network nosuch box true").contains("network nosuch not found"));
    assert!(
        world.sh_fails("docker run --rm --network container:nosuch box true").contains("No such container: nosuch")
    );
    world.sh("docker run -d --name holder box sleep 1000");
    assert!(
        world.sh_fails("docker run --rm --network container:holder -p 80:80 box true").contains("conflicting options")
    );
    assert_eq!(
        world.sh("docker run --rm --network container:holder box hostname"),
        world.sh("docker inspect -f '{{.Config.Hostname}}' holder")
    );
    world.sh("docker rm -f holder");
}

fn listings(world: &World) {
    world.sh("docker network create --label tier=a one; docker network create two; docker run -d --name user --network two box sleep 1000");
    let names = |filter: &str| {
        world.sh(&format!("docker network ls {filter} --format '{{{{.Name}}}}' | sort")).replace('\n', " ")
    };
    for (filter, wanted) in [
        ("", "bridge host none one two"),
        ("--filter type=custom", "one two"),
        ("--filter type=builtin", "bridge host none"),
        ("--filter label=tier", "one"),
        ("--filter driver=bridge", "bridge one two"),
        ("--filter name=w", "two"),
        ("--filter dangling=true", "one"),
    ] {
        assert_eq!(names(filter), wanted, "{filter}");
    }
    assert_eq!(world.sh("docker network inspect -f '{{range .Containers}}{{.Name}}{{end}}' two"), "user");
    assert!(world.sh_fails("docker network inspect nosuch").contains("network nosuch not found"));
    assert!(
        world.sh_fails("docker network rm bridge").contains("bridge is a pre-defined network and cannot be removed")
    );
    assert!(world.sh_fails("docker network create -d nosuch x").contains("plugin"));
    assert_eq!(world.sh("docker network prune -f"), "Deleted Networks:\none");
    world.sh("docker rm -f user; docker network rm two");
}

#[test]
fn published_ports_carry_tcp_and_udp_from_everywhere_to_the_container() {
    let world = World::with_box();
    world.sh("ip link add out0 type bridge; ip addr add 198.51.100.7/24 dev out0; ip link set out0 up");
    world.sh("docker run -d --name web -p 8080:80 -p 127.0.0.1:8081:80 -p 9000-9002:9000-9002 -p 5300:53/udp box sh -c 'mkdir /w; echo served > /w/index.html; httpd -f -p 80 -h /w'");
    // A server of datagrams in the container's network (busybox has none).
    let echo = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 53)); s.settimeout(60); data, peer = s.recvfrom(100); s.sendto(data + b' from ' + peer[0].encode(), peer)";
    world.sh(&format!("pid=$(docker inspect -f '{{{{.State.Pid}}}}' web); nsenter --net=/proc/$pid/ns/net python3 -c \"{echo}\" >/dev/null 2>&1 & sleep 1"));
    world.sh_until("wget -qO- http://127.0.0.1:8080/", |said| said == "served");
    assert_eq!(world.sh("wget -qO- http://198.51.100.7:8080/; wget -qO- http://127.0.0.1:8081/"), "served\nserved");
    assert_ne!(world.sh_code("wget -T 2 -t 1 -qO- http://198.51.100.7:8081/").0, 0, "published on loopback only");
    // From a container, by the host's address and by its own published port.
    assert_eq!(world.sh("docker run --rm box wget -qO- http://198.51.100.7:8080/; docker exec web wget -qO- http://198.51.100.7:8080/"), "served\nserved");
    let datagram = r#"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.sendto(b'ping', ('127.0.0.1', 5300)); print(s.recv(100).decode())"#;
    assert!(world.sh(&format!("python3 -c \"{datagram}\"")).starts_with("ping from "));
    assert_eq!(world.sh("docker port web 80/tcp | grep -c 0.0.0.0:8080; docker port web 53/udp"), "1\n0.0.0.0:5300");
    let ports = world.sh("docker ps --format '{{.Ports}}'");
    assert!(ports.contains("0.0.0.0:9000-9002->9000-9002/tcp") && ports.contains("127.0.0.1:8081->80/tcp"), "{ports}");
    let taken = world.sh_fails("docker run -d --name second -p 8080:80 box sleep 9");
    assert!(taken.contains("Bind for 0.0.0.0:8080 failed: port is already allocated"), "{taken}");
    // The one that could not start is still there, and starts once the port is free.
    world.sh("docker rm -f web; docker start second; docker rm -f second; docker run -d --name random -P --expose 80 -p 81 box sleep 1000");
    let random = world.sh("docker port random | wc -l; docker port random 80 | head -n 1 | cut -d: -f2");
    let random: Vec<&str> = random.lines().collect();
    assert!(random[0] == "2" || random[0] == "4", "{random:?}");
    assert!(random[1].parse::<u16>().is_ok_and(|port| port >= 1024), "{random:?}");
    let (code, said) = world.sh_code("python3 -c \"import socket,subprocess,sys; s=socket.socket(); s.bind(('0.0.0.0',7070)); s.listen(); sys.exit(subprocess.call(['docker','run','--rm','-p','7070:80','box','true']))\"");
    assert!(code == 125 && said.contains("address already in use"), "{code} {said}");
    world.sh("docker rm -f random");
}
