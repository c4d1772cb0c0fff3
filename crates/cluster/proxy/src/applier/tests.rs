//! Services on the real kernel: a node, its pods and another machine, each a namespace.

use super::*;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kernel::netlink::{Conntrack, Destination, Route, VethSpec};
use kernel::netns::{Namespace, write_sysctl};
use serde_json::{Value, json};
use service_plan::{Settings, plan_service};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 43, 7, 7);
const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 44, 0, 7);

fn pod(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 42, 0, last)
}

struct World {
    node: Namespace,
    pods: Vec<Namespace>,
    outside: Namespace,
    applier: Applier,
}

impl World {
    /// Two pods at 10.42.0.2 and .3, each serving its own address on 8080.
    fn new() -> Self {
        let config = ProxyConfig::for_node("here");
        let (node, mut route) = Namespace::create(Route::open).unwrap();
        let lo = route.link("lo").unwrap().unwrap().index;
        route.set_up(lo).unwrap();
        let bridge = route.ensure_bridge("pods", [2, 0, 0, 0, 0, 1]).unwrap();
        route.ensure_address(bridge, pod(1), 24).unwrap();
        let far_config = config.clone();
        let applier = node
            .run(move || {
                crate::node::ensure(&far_config).unwrap();
                crate::node::ensure(&far_config).unwrap();
                write_sysctl("net/ipv4/conf/pods/route_localnet", "1").unwrap();
                Applier::new(far_config).unwrap()
            })
            .unwrap();
        let mut attach = |name: &str, address: Ipv4Addr, len: u8, gateway: Ipv4Addr, master: Option<u32>| {
            let (namespace, mut inner) = Namespace::create(Route::open).unwrap();
            route
                .create_veth(&VethSpec {
                    name,
                    master,
                    namespace: namespace.as_fd(),
                    peer_name: "eth0",
                    peer_mac: None,
                    mtu: None,
                })
                .unwrap();
            for (link, with_address) in [("lo", false), ("eth0", true)] {
                let index = inner.link(link).unwrap().unwrap().index;
                inner.set_up(index).unwrap();
                if with_address {
                    inner.configure(index, address, len, Some(gateway)).unwrap();
                }
            }
            namespace
        };
        let pods: Vec<Namespace> =
            [2, 3].map(|last| attach(&format!("veth{last}"), pod(last), 32, pod(1), Some(bridge))).into();
        let outside = attach("uplink", OUTSIDE, 24, NODE, None);
        let uplink = route.link("uplink").unwrap().unwrap().index;
        route.configure(uplink, NODE, 24, None).unwrap();
        node.run(|| ["veth2", "veth3", "pods", "uplink"].map(|l| kernel::netlink::settle_link(l).unwrap())).unwrap();
        for (namespace, last) in pods.iter().zip([2u8, 3]) {
            let listener = namespace.run(|| TcpListener::bind(("0.0.0.0", 8080)).unwrap()).unwrap();
            std::thread::spawn(move || {
                while let Ok((mut stream, peer)) = listener.accept() {
                    let _ = stream.write_all(format!("{last} {}", peer.ip()).as_bytes());
                }
            });
        }
        Self { node, pods, outside, applier }
    }

    fn apply(&mut self, name: &str, spec: Value, endpoints: &[(u8, &str)]) -> Vec<StaleUdp> {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name}, "spec": spec,
            "status": {"loadBalancer": {"ingress": [{"ip": BALANCER.to_string()}]}}}))
        .unwrap();
        let endpoints: Vec<Value> = endpoints.iter().map(|(last, node)| json!({"addresses": [pod(*last).to_string()], "nodeName": node, "conditions": {"ready": true}})).collect();
        let ports = json!([{"name": "http", "port": 8080}, {"name": "udp", "port": 5353, "protocol": "UDP"}]);
        let slice: EndpointSlice = serde_json::from_value(
            json!({"metadata": {}, "addressType": "IPv4", "ports": ports, "endpoints": endpoints}),
        )
        .unwrap();
        let settings = Settings { node: "here".into(), ..Settings::default() };
        let plan = plan_service(&service, &[Arc::new(slice)], &settings);
        self.applier.apply(vec![(("shop".into(), name.into()), plan)]).unwrap()
    }

    /// Who answers, and whom it saw.
    fn ask(&self, from: &Namespace, to: Ipv4Addr, port: u16) -> Result<(u8, Ipv4Addr), ErrorKind> {
        from.run(|| {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, port)), Duration::from_millis(300))
                .map_err(|e| e.kind())?;
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map_err(|e| e.kind())?;
            let (last, peer) = answer.split_once(' ').unwrap();
            Ok((last.parse().unwrap(), peer.parse().unwrap()))
        })
        .unwrap()
    }

    fn answering(&self, from: &Namespace, to: Ipv4Addr, port: u16) -> std::collections::BTreeSet<u8> {
        (0..24).map(|_| self.ask(from, to, port).unwrap().0).collect()
    }
}

fn web() -> Value {
    json!({"type": "LoadBalancer", "clusterIP": VIP.to_string(), "ports": [{"name": "http", "port": 80, "nodePort": 30080}]})
}

const BOTH: [(u8, &str); 2] = [(2, "here"), (3, "here")];

#[test]
fn a_service_answers_on_all_its_addresses_from_everywhere() {
    let mut world = World::new();
    world.apply("web", web(), &BOTH);
    let here = [2, 3].into();
    assert_eq!(world.answering(&world.node, VIP, 80), here);
    assert_eq!(world.answering(&world.pods[0], VIP, 80), here, "from a pod, itself included");
    assert_eq!(world.answering(&world.node, BALANCER, 80), here);
    assert_eq!(world.answering(&world.node, Ipv4Addr::LOCALHOST, 30080), here);
    assert_eq!(world.answering(&world.node, NODE, 30080), here);
    assert_eq!(world.answering(&world.outside, NODE, 30080), here);
    assert_eq!(world.answering(&world.outside, BALANCER, 80), here);
    let seen = (0..24).filter_map(|_| world.ask(&world.pods[0], VIP, 80).ok()).find(|(last, _)| *last == 3).unwrap();
    assert_eq!(seen.1, pod(2), "a pod keeps its address");
    // A port that the service does not have is refused at once.
    assert_eq!(world.ask(&world.pods[0], VIP, 81), Err(ErrorKind::ConnectionRefused));
    assert_eq!(world.ask(&world.node, VIP, 81), Err(ErrorKind::ConnectionRefused));
    world.applier.purge().unwrap();
}

#[test]
fn changes_of_endpoints_reach_the_kernel_and_nothing_else_is_written() {
    let mut world = World::new();
    world.apply("web", web(), &BOTH);
    world.apply("web", web(), &BOTH[..1]);
    assert_eq!(world.answering(&world.node, VIP, 80), [2].into());
    world.apply("web", web(), &[]);
    for (from, to, port) in [
        (&world.pods[0], VIP, 80),
        (&world.node, VIP, 80),
        (&world.node, NODE, 30080),
        (&world.outside, NODE, 30080),
        (&world.outside, BALANCER, 80),
    ] {
        assert_eq!(world.ask(from, to, port), Err(ErrorKind::ConnectionRefused), "{to}:{port} without endpoints");
    }
    world.apply("web", web(), &BOTH);
    // With the table gone behind our back, an equal plan writes nothing, a different one repairs everything.
    let mut nft = world.node.run(Nft::open).unwrap().unwrap();
    nft.delete_table(Family::Inet, TABLE).unwrap();
    world.apply("web", web(), &BOTH);
    assert!(world.ask(&world.node, VIP, 80).is_err());
    world.apply("web", web(), &BOTH[1..]);
    assert_eq!(world.answering(&world.node, VIP, 80), [3].into());
    world.apply("web", json!({"type": "ExternalName", "externalName": "x"}), &[]);
    assert!(world.applier.claims.is_empty() && world.applier.services.is_empty());
}

#[test]
fn two_services_may_share_endpoints_and_fight_for_a_port() {
    let mut world = World::new();
    let other = json!({"type": "NodePort", "clusterIP": "10.43.8.8", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
    world.apply("web", web(), &BOTH[..1]);
    world.apply("other", other.clone(), &BOTH[1..]);
    assert_eq!(world.answering(&world.node, NODE, 30080), [2].into(), "who came first keeps it");
    world.apply("web", json!({}), &[]);
    assert_eq!(world.answering(&world.node, NODE, 30080), [3].into());
    assert_eq!(world.answering(&world.pods[1], Ipv4Addr::new(10, 43, 8, 8), 80), [3].into(), "to itself");
    world.applier.replace().unwrap();
    assert_eq!(world.answering(&world.node, Ipv4Addr::new(10, 43, 8, 8), 80), [3].into());
}

#[test]
fn affinity_keeps_a_client_and_survives_the_change_of_another_endpoint() {
    let mut world = World::new();
    let spec =
        json!({"clusterIP": VIP.to_string(), "sessionAffinity": "ClientIP", "ports": [{"name": "http", "port": 80}]});
    world.apply("web", spec.clone(), &BOTH);
    let first = world.ask(&world.node, VIP, 80).unwrap().0;
    assert_eq!(world.answering(&world.node, VIP, 80), [first].into());
    let stays = *BOTH.iter().find(|(last, _)| *last == first).unwrap();
    world.apply("web", spec.clone(), &[stays]);
    world.apply("web", spec.clone(), &BOTH);
    assert_eq!(world.answering(&world.node, VIP, 80), [first].into());
    let goes = BOTH.iter().find(|(last, _)| *last != first).copied().unwrap();
    world.apply("web", spec, &[goes]);
    assert_eq!(world.answering(&world.node, VIP, 80), [goes.0].into());
}

#[test]
fn the_local_policy_keeps_senders_and_source_ranges_keep_others_out() {
    let mut world = World::new();
    let mut spec = web();
    spec["externalTrafficPolicy"] = json!("Local");
    world.apply("web", spec.clone(), &[(2, "here"), (3, "there")]);
    assert_eq!(world.ask(&world.outside, NODE, 30080), Ok((2, OUTSIDE)));
    assert_eq!(world.answering(&world.node, BALANCER, 80), [2, 3].into(), "the node is inside");
    world.apply("web", spec, &[(3, "there")]);
    assert_eq!(
        world.ask(&world.outside, NODE, 30080),
        Err(ErrorKind::TimedOut),
        "silence, so that a balancer goes elsewhere"
    );
    let mut spec = web();
    spec["loadBalancerSourceRanges"] = json!(["203.0.113.0/24"]);
    world.apply("web", spec.clone(), &BOTH);
    assert_eq!(world.ask(&world.outside, BALANCER, 80), Err(ErrorKind::TimedOut));
    spec["loadBalancerSourceRanges"] = json!(["192.0.2.0/24"]);
    world.apply("web", spec, &BOTH);
    assert!(world.ask(&world.outside, BALANCER, 80).is_ok());
}

#[test]
fn udp_clients_leave_an_endpoint_that_is_gone() {
    let mut world = World::new();
    let spec = json!({"clusterIP": VIP.to_string(), "ports": [{"name": "udp", "port": 53, "protocol": "UDP"}]});
    world.apply("dns", spec.clone(), &BOTH[..1]);
    let servers: Vec<UdpSocket> =
        world.pods.iter().map(|p| p.run(|| UdpSocket::bind("0.0.0.0:5353").unwrap()).unwrap()).collect();
    let client = world.outside.run(|| UdpSocket::bind((OUTSIDE, 0)).unwrap()).unwrap();
    for socket in &servers {
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    }
    let mut route = world.outside.run(Route::open).unwrap().unwrap();
    let eth0 = route.link("eth0").unwrap().unwrap().index;
    route.ensure_route((VIP, 32), Destination::Gateway { interface: eth0, gateway: NODE }).unwrap();
    client.send_to(b"1", (VIP, 53)).unwrap();
    servers[0].recv_from(&mut [0; 8]).unwrap();
    let stale = world.apply("dns", spec, &BOTH[1..]);
    assert_eq!(stale.len(), 1);
    let mut table = world.node.run(Conntrack::open).unwrap().unwrap();
    let forgotten = table.forget(|f| {
        f.protocol == 17
            && stale[0].addresses.contains(&f.destination)
            && !stale[0].targets.contains(&(f.answered_by, f.answered_from_port))
    });
    assert_eq!(forgotten.unwrap(), 1);
    client.send_to(b"2", (VIP, 53)).unwrap();
    servers[1].recv_from(&mut [0; 8]).unwrap();
}
