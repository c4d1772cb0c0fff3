//! Networking on the real kernel. Each test runs itself again inside network and mount namespaces of its own.

use kernel::netlink::{Destination, Route, VethSpec};
use kernel::netns::Namespace;
use networking::{
    Endpoint, EndpointSpec, HostPort, NetworkSpec, Networking, NetworkingConfig, Protocol, PublishedPort,
};
use std::future::Future;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Re-executes the test inside `unshare -nm`; the inner process runs `body` on a runtime of its own.
fn isolated<F: Future<Output = ()>>(name: &str, body: impl FnOnce(std::path::PathBuf) -> F) {
    const INSIDE: &str = "GANTRY_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_none() {
        let me = std::env::current_exe().unwrap();
        let status = std::process::Command::new("unshare")
            .args(["-nm", "--propagation", "private"])
            .arg(me)
            .args([name, "--exact", "--nocapture"])
            .env(INSIDE, "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(20), body(root.path().to_owned())).await.unwrap() });
}

fn config(root: &Path) -> NetworkingConfig {
    std::fs::write(root.join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
    NetworkingConfig { host_resolv_conf: root.join("resolv.conf"), ..NetworkingConfig::with_root(root) }
}

fn named(name: &str, ports: Vec<PublishedPort>) -> EndpointSpec {
    EndpointSpec { name: name.into(), ports, ..EndpointSpec::default() }
}

fn tcp(host_ip: Option<Ipv4Addr>, host_port: u16) -> PublishedPort {
    PublishedPort { protocol: Protocol::Tcp, container_port: 80, host_ip, host_port: HostPort::Fixed(host_port) }
}

/// Another machine, on a cable to this node.
fn outside() -> Namespace {
    let mut here = Route::open().unwrap();
    let lo = here.link("lo").unwrap().unwrap().index;
    here.set_up(lo).unwrap();
    let (namespace, mut there) = Namespace::create(Route::open).unwrap();
    here.create_veth(&VethSpec {
        name: "uplink",
        master: None,
        namespace: namespace.as_fd(),
        peer_name: "far",
        peer_mac: None,
        mtu: None,
    })
    .unwrap();
    let near = here.link("uplink").unwrap().unwrap().index;
    here.configure(near, NODE, 24, None).unwrap();
    let far = there.link("far").unwrap().unwrap().index;
    there.configure(far, OUTSIDE, 24, Some(NODE)).unwrap();
    there
        .ensure_route((Ipv4Addr::new(127, 0, 0, 7), 32), Destination::Gateway { interface: far, gateway: NODE })
        .unwrap();
    namespace
}

fn inside(networking: &Networking, id: &str) -> Namespace {
    Namespace::open(&networking.namespace_path(id)).unwrap()
}

/// Answers every connection with the address that it sees, for as long as the test runs.
fn serve(namespace: &Namespace, port: u16) {
    let listener = namespace.run(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = stream.write_all(peer.ip().to_string().as_bytes());
        }
    });
}

fn ask_here(to: Ipv4Addr, port: u16) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, port)), Duration::from_millis(300))?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn ask(from: &Namespace, to: Ipv4Addr, port: u16) -> Result<String, std::io::Error> {
    from.run(move || ask_here(to, port)).unwrap()
}

async fn container(
    networking: &Networking,
    id: &str,
    network: &str,
    ports: Vec<PublishedPort>,
) -> (Namespace, Endpoint) {
    networking.create_namespace(id).await.unwrap();
    let endpoint = networking.connect(id, network, named(id, ports)).await.unwrap();
    (inside(networking, id), endpoint)
}

#[test]
fn published_ports_answer_from_everywhere_and_nothing_else_does() {
    isolated("published_ports_answer_from_everywhere_and_nothing_else_does", |root| async move {
        let outside = outside();
        let networking = Networking::open(config(&root)).await.unwrap();
        let (web, endpoint) =
            container(&networking, "web", "bridge", vec![tcp(None, 8000), tcp(Some(Ipv4Addr::LOCALHOST), 8001)]).await;
        let (other, neighbour) = container(&networking, "other", "bridge", vec![]).await;
        serve(&web, 80);
        serve(&web, 81);
        assert_eq!(
            (endpoint.address, endpoint.mac.to_string().as_str(), endpoint.interface.as_str()),
            (Ipv4Addr::new(172, 17, 0, 2), "02:42:ac:11:00:02", "eth0")
        );
        assert_eq!(
            ask(&outside, NODE, 8000).unwrap(),
            OUTSIDE.to_string(),
            "from another machine, with its own address"
        );
        for (what, answer) in [
            ("loopback", ask_here(Ipv4Addr::LOCALHOST, 8000)),
            ("loopback only", ask_here(Ipv4Addr::LOCALHOST, 8001)),
            ("the node's address", ask_here(NODE, 8000)),
            ("the container itself", ask(&web, NODE, 8000)),
            ("a neighbour by the node", ask(&other, NODE, 8000)),
            ("a neighbour", ask(&other, endpoint.address, 81)),
        ] {
            assert!(answer.is_ok(), "{what}: {answer:?}");
        }
        assert!(ask(&outside, NODE, 8001).is_err(), "published on loopback only");
        assert!(ask(&outside, endpoint.address, 81).is_err(), "an unpublished port is not routable from outside");
        // Egress is masqueraded.
        serve(&outside, 8080);
        assert_eq!(ask(&other, OUTSIDE, 8080).unwrap(), NODE.to_string());
        // The loopback guard: a service on 127.0.0.7 is out of reach for others, whatever they address.
        let _service = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 7), 7000)).unwrap();
        assert!(
            ask_here(Ipv4Addr::new(127, 0, 0, 7), 7000).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock),
            "reachable from here"
        );
        assert!(
            ask(&outside, Ipv4Addr::new(127, 0, 0, 7), 7000).is_err_and(|e| e.kind() == std::io::ErrorKind::TimedOut)
        );
        let error = networking.connect("other", "bridge", named("again", vec![])).await.unwrap_err();
        assert_eq!(error.to_string(), "endpoint with name again already exists in network bridge");
        networking.create_namespace("late").await.unwrap();
        let error = networking.connect("late", "bridge", named("late", vec![tcp(None, 8000)])).await.unwrap_err();
        assert_eq!(error.to_string(), "Bind for 0.0.0.0:8000 failed: port is already allocated");
        assert!(networking.endpoints("late").is_empty());
        assert_eq!(neighbour.address, Ipv4Addr::new(172, 17, 0, 3));
        networking.shutdown(true).await.unwrap();
        assert_clean(&root);
    });
}

/// Nothing is left but what the test itself made.
fn assert_clean(root: &Path) {
    let links: Vec<String> = Route::open()
        .unwrap()
        .links()
        .unwrap()
        .into_iter()
        .map(|l| l.name)
        .filter(|n| n != "lo" && n != "uplink")
        .collect();
    assert!(links.is_empty(), "{links:?}");
    assert_eq!(std::fs::read_dir(root.join("run/netns")).unwrap().count(), 0);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(root.to_str().unwrap()), "{mounts}");
    if let Ok(nft) = std::process::Command::new("nft").args(["list", "tables"]).output() {
        assert_eq!(String::from_utf8_lossy(&nft.stdout), "");
    }
}

#[test]
fn networks_are_isolated_and_internal_ones_stay_inside() {
    isolated("networks_are_isolated_and_internal_ones_stay_inside", |root| async move {
        let outside = outside();
        serve(&outside, 8080);
        let networking = Networking::open(config(&root)).await.unwrap();
        let make = |name: &str, internal| NetworkSpec { name: name.into(), internal, ..NetworkSpec::default() };
        let red = networking.create_network(make("red", false)).await.unwrap();
        networking.create_network(make("blue", false)).await.unwrap();
        networking.create_network(make("vault", true)).await.unwrap();
        assert_eq!(red.subnet.unwrap().to_string(), "172.18.0.0/16");
        assert!(networking.create_network(make("red", false)).await.is_err());
        assert_eq!(networking.network(&red.id.as_str()[..8]).unwrap().name, "red");
        let (a, a_end) = container(&networking, "a", "red", vec![tcp(None, 8000)]).await;
        let (b, _) = container(&networking, "b", "blue", vec![]).await;
        let (v, v_end) = container(&networking, "v", "vault", vec![tcp(None, 8002)]).await;
        let (w, _) = container(&networking, "w", "vault", vec![]).await;
        for namespace in [&a, &v] {
            serve(namespace, 80);
        }
        assert!(ask(&b, a_end.address, 80).is_err(), "another network");
        assert!(ask(&b, NODE, 8000).is_ok(), "a published port of another network");
        assert!(ask(&w, v_end.address, 80).is_ok(), "the same internal network");
        assert!(ask(&v, OUTSIDE, 8080).is_err() && ask(&b, OUTSIDE, 8080).is_ok());
        assert!(v_end.ports.is_empty() && v_end.gateway.is_none());
        // Joining a second network opens it; leaving closes it, and the default route is taken over.
        let second = networking.connect("b", "red", named("b", vec![])).await.unwrap();
        assert_eq!(second.interface, "eth1");
        assert!(ask(&b, a_end.address, 80).is_ok());
        networking.disconnect("b", "blue", false).await.unwrap();
        assert!(ask(&b, OUTSIDE, 8080).is_ok());
        assert!(networking.disconnect("b", "blue", false).await.is_err());
        networking.disconnect("b", "blue", true).await.unwrap();
        let error = networking.remove_network("red").await.unwrap_err();
        assert!(error.to_string().contains("has active endpoints"), "{error}");
        networking.remove_network("blue").await.unwrap();
        assert!(networking.remove_network("bridge").await.is_err());
        networking.shutdown(true).await.unwrap();
        assert_clean(&root);
    });
}

/// A forged frame, sent from inside a container.
#[test]
fn a_container_cannot_send_with_anothers_address() {
    isolated("a_container_cannot_send_with_anothers_address", |root| async move {
        let outside = outside();
        let networking = Networking::open(config(&root)).await.unwrap();
        let (liar, endpoint) = container(&networking, "liar", "bridge", vec![]).await;
        let listener = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9000)).unwrap();
        listener.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let gateway = endpoint.gateway.unwrap();
        liar.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"honest", (gateway, 9000)).unwrap()).unwrap();
        assert_eq!(listener.recv_from(&mut [0; 16]).unwrap().1.ip(), endpoint.address);
        let forged = Ipv4Addr::new(172, 17, 0, 99);
        let mut route = liar.run(Route::open).unwrap().unwrap();
        let eth0 = route.link("eth0").unwrap().unwrap().index;
        route.ensure_address(eth0, forged, 16).unwrap();
        liar.run(|| UdpSocket::bind((forged, 0)).unwrap().send_to(b"forged", (gateway, 9000)).unwrap()).unwrap();
        assert!(listener.recv_from(&mut [0; 16]).is_err());
        drop(outside);
        networking.shutdown(true).await.unwrap();
    });
}

#[test]
fn everything_is_adopted_after_the_process_was_killed() {
    isolated("everything_is_adopted_after_the_process_was_killed", |root| async move {
        let outside = outside();
        let networking = Networking::open(config(&root)).await.unwrap();
        networking.create_network(NetworkSpec { name: "app".into(), ..NetworkSpec::default() }).await.unwrap();
        let (web, first) = container(&networking, "web", "app", vec![tcp(None, 8000)]).await;
        container(&networking, "db", "app", vec![]).await;
        serve(&web, 80);
        // As kill -9 leaves it: no clean-up runs, the sockets are gone. A pin and a link without a record are left by a crash too.
        drop(networking);
        let (stray, ()) = Namespace::create(|| Ok(())).unwrap();
        stray.pin(&root.join("run/netns/stray")).unwrap();
        assert_eq!(ask(&outside, NODE, 8000).unwrap(), OUTSIDE.to_string(), "traffic flows while nobody is there");
        let networking = Networking::open(config(&root)).await.unwrap();
        assert_eq!(networking.endpoints("web"), std::slice::from_ref(&first));
        assert!(!root.join("run/netns/stray").exists());
        assert_eq!(ask(&outside, NODE, 8000).unwrap(), OUTSIDE.to_string());
        let (_, third) = container(&networking, "new", "app", vec![]).await;
        assert_eq!(third.address, Ipv4Addr::new(172, 18, 0, 4), "no address is given twice");
        let error = networking.connect("new", "bridge", named("new", vec![tcp(None, 8000)])).await.unwrap_err();
        assert!(error.to_string().contains("port is already allocated"), "{error}");
        assert_eq!(look_up(&inside(&networking, "new"), "web", 1).unwrap(), first.address.octets());
        networking.remove_namespace("web").await.unwrap();
        networking.remove_namespace("web").await.unwrap();
        assert!(ask(&outside, NODE, 8000).is_err());
        networking.shutdown(true).await.unwrap();
        assert_clean(&root);
    });
}

/// A query by hand: the data of the first answer, or the response code.
fn look_up(from: &Namespace, name: &str, kind: u8) -> Result<Vec<u8>, u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, kind, 0, 1]);
    let answer = from
        .run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            socket.send_to(&query, "127.0.0.11:53").unwrap();
            let mut buffer = vec![0; 512];
            let len = socket.recv(&mut buffer).unwrap();
            buffer.truncate(len);
            buffer
        })
        .unwrap();
    let code = answer[3] & 15;
    if code != 0 || answer[7] == 0 {
        return Err(code);
    }
    Ok(answer[answer.len() - 4..].to_vec())
}

#[test]
fn containers_find_each_other_by_name_and_internal_networks_ask_nobody() {
    isolated("containers_find_each_other_by_name_and_internal_networks_ask_nobody", |root| async move {
        let _outside = outside();
        // The node's upstream: counts what it is asked and answers with an address of its own.
        let upstream = UdpSocket::bind((NODE, 53)).unwrap();
        let (asked, questions) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((len, peer)) = upstream.recv_from(&mut buffer) {
                let _ = asked.send(());
                let mut answer = buffer[..len].to_vec();
                answer[2] |= 0x80;
                answer[7] = 1;
                answer.truncate(12 + buffer[12..].iter().position(|b| *b == 0).unwrap() + 5);
                answer[11] = 0;
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 203, 0, 113, 5]);
                let _ = upstream.send_to(&answer, peer);
            }
        });
        let networking = Networking::open(config(&root)).await.unwrap();
        networking.create_network(NetworkSpec { name: "app".into(), ..NetworkSpec::default() }).await.unwrap();
        networking
            .create_network(NetworkSpec { name: "vault".into(), internal: true, ..NetworkSpec::default() })
            .await
            .unwrap();
        networking.create_namespace("db").await.unwrap();
        let db = networking
            .connect("db", "app", EndpointSpec { aliases: vec!["database".into()], ..named("db", vec![]) })
            .await
            .unwrap();
        let (web, _) = container(&networking, "web", "app", vec![]).await;
        let (closed, end) = container(&networking, "closed", "vault", vec![]).await;
        assert_eq!(look_up(&web, "db", 1).unwrap(), db.address.octets());
        assert_eq!(look_up(&web, "DATABASE.app", 1).unwrap(), db.address.octets());
        assert_eq!(look_up(&web, "db", 28), Err(0), "a name without IPv6 address is not a missing name");
        assert!(questions.try_recv().is_err());
        assert_eq!(look_up(&web, "example.org", 1).unwrap(), [203, 0, 113, 5]);
        assert_eq!(questions.try_iter().count(), 1);
        assert_eq!(look_up(&closed, "closed", 1).unwrap(), end.address.octets());
        assert_eq!(look_up(&closed, "example.net", 1), Err(2), "SERVFAIL, as Docker answers");
        assert!(questions.try_recv().is_err(), "nothing was forwarded for the internal network");
        networking.remove_namespace("db").await.unwrap();
        networking.shutdown(true).await.unwrap();
        assert_clean(&root);
    });
}

#[test]
fn pods_keep_their_address_towards_each_other_and_connecting_is_quick() {
    isolated("pods_keep_their_address_towards_each_other_and_connecting_is_quick", |root| async move {
        let _outside = outside();
        let networking = Networking::open(config(&root)).await.unwrap();
        while networking.ready() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut times = Vec::new();
        for n in 0..8 {
            let id = format!("pod{n}");
            let start = Instant::now();
            networking.create_namespace(&id).await.unwrap();
            let created = start.elapsed();
            networking.connect(&id, "gantry-pods", named(&id, vec![])).await.unwrap();
            times.push((created, start.elapsed() - created));
        }
        eprintln!("create, connect: {times:?}");
        let (one, two) = (inside(&networking, "pod1"), networking.endpoints("pod2").remove(0));
        serve(&inside(&networking, "pod2"), 80);
        assert_eq!((two.prefix_len, two.address), (32, Ipv4Addr::new(10, 42, 0, 4)));
        assert_eq!(ask(&one, two.address, 80).unwrap(), "10.42.0.3");
        assert!(ask_here(two.address, 80).is_ok(), "the node reaches its pods");
        let start = Instant::now();
        networking.remove_namespace("pod1").await.unwrap();
        eprintln!("remove: {:?}", start.elapsed());
        networking.shutdown(true).await.unwrap();
        assert_clean(&root);
    });
}
