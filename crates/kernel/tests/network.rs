//! Links and nftables on the real kernel, each test in namespaces of its own.

use kernel::netlink::{Conntrack, Destination, Route, VethSpec};
use kernel::netns::{self, Namespace};
use kernel::nft::{
    Batch, Chain, ChainKind, Element, Family, Field, Hook, HookPoint, Key, Nft, Policy, Rule, Set, SetKind, Statement,
    Table, Verdict, connection_status,
};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// Two namespaces with a cable between them.
fn pair() -> (Namespace, Namespace) {
    let (near, mut near_route) = Namespace::create(Route::open).unwrap();
    let (far, mut far_route) = Namespace::create(Route::open).unwrap();
    near_route
        .create_veth(&VethSpec {
            name: "near",
            master: None,
            namespace: far.as_fd(),
            peer_name: "far",
            peer_mac: Some([2, 0, 0, 0, 0, 9]),
            mtu: None,
        })
        .unwrap();
    for (route, name, address) in [(&mut near_route, "near", NEAR), (&mut far_route, "far", FAR)] {
        let lo = route.link("lo").unwrap().unwrap().index;
        route.set_up(lo).unwrap();
        let link = route.link(name).unwrap().unwrap();
        route.configure(link.index, address, 24, None).unwrap();
        assert!(route.link(name).unwrap().unwrap().up);
    }
    assert_eq!(far_route.link("far").unwrap().unwrap().mac, Some([2, 0, 0, 0, 0, 9]));
    let near_index = near_route.link("near").unwrap().unwrap().index;
    near_route
        .ensure_route(
            (Ipv4Addr::new(198, 51, 100, 0), 24),
            Destination::Gateway { interface: near_index, gateway: FAR },
        )
        .unwrap();
    (near, far)
}

fn serve(far: &Namespace, port: u16, answer: &'static str) {
    let listener = far.run(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

fn ask(from: &Namespace, to: Ipv4Addr, port: u16) -> Result<String, std::io::Error> {
    from.run(move || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, port)), Duration::from_millis(500))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .unwrap()
}

fn table(targets: Vec<(Ipv4Addr, u16)>) -> Table {
    let base = |name: &str, kind, point, priority, rules| Chain {
        name: name.into(),
        hook: Some(Hook { kind, point, priority, policy: Policy::Accept }),
        rules,
    };
    let key = vec![Field::DestinationAddress, Field::L4Protocol, Field::DestinationPort];
    let at = |port| Key::new().address(VIRTUAL).protocol(6).port(port);
    Table {
        family: Family::Inet,
        name: "test".into(),
        comment: Some("made by a test".into()),
        sets: vec![
            Set {
                name: "services".into(),
                key: key.clone(),
                kind: SetKind::Verdicts,
                elements: vec![Element::verdict(at(80), Verdict::Goto("web".into()))],
            },
            Set {
                name: "published".into(),
                key: key.clone(),
                kind: SetKind::AddressPorts,
                elements: vec![Element::address_port(at(81), FAR, 8001)],
            },
            Set {
                name: "clients".into(),
                key: vec![Field::SourceAddress],
                kind: SetKind::Dynamic { timeout: Duration::from_secs(60) },
                elements: vec![],
            },
        ],
        chains: vec![
            base(
                "prerouting",
                ChainKind::Nat,
                HookPoint::Prerouting,
                -100,
                vec![
                    Rule::new([Statement::VerdictMap { key: key.clone(), map: "services".into() }])
                        .comment("by address"),
                    Rule::new([Statement::DestinationNatMap { key, map: "published".into() }]),
                ],
            ),
            base(
                "postrouting",
                ChainKind::Nat,
                HookPoint::Postrouting,
                100,
                vec![Rule::new([
                    Statement::any_bit(Field::ConnectionStatus, connection_status::DESTINATION_TRANSLATED),
                    Statement::Counter,
                    Statement::Masquerade,
                ])],
            ),
            base(
                "filter",
                ChainKind::Filter,
                HookPoint::Input,
                0,
                vec![Rule::new([
                    Statement::in_prefix(Field::SourceAddress, NEAR, 24, false),
                    Statement::is(Field::L4Protocol, Key::new().protocol(6)),
                    Statement::is(Field::DestinationPort, Key::new().port(8009)),
                    Statement::Do(Verdict::Drop),
                ])],
            ),
            Chain {
                name: "web".into(),
                hook: None,
                rules: vec![
                    Rule::new([Statement::Remember {
                        key: vec![Field::SourceAddress],
                        set: "clients".into(),
                        timeout: Duration::from_secs(60),
                    }]),
                    Rule::new([Statement::SetMark(0x4000)]),
                    Rule::new([Statement::DestinationNatRandom(targets)]),
                ],
            },
        ],
    }
}

#[test]
fn services_are_translated_balanced_and_patched_in_place() {
    let (near, far) = pair();
    serve(&far, 8001, "one");
    serve(&far, 8002, "two");
    serve(&far, 8009, "never");
    let mut nft = far.run(Nft::open).unwrap().unwrap();
    nft.replace(&table(vec![(FAR, 8001), (FAR, 8002)])).unwrap();
    // Once more over the old one: nothing is left of it, nothing clashes.
    nft.replace(&table(vec![(FAR, 8001), (FAR, 8002)])).unwrap();
    let answers: std::collections::BTreeSet<String> = (0..40).map(|_| ask(&near, VIRTUAL, 80).unwrap()).collect();
    assert_eq!(answers, ["one".to_owned(), "two".to_owned()].into());
    assert_eq!(ask(&near, VIRTUAL, 81).unwrap(), "one");
    assert!(ask(&near, FAR, 8009).is_err());

    let mut batch = Batch::new(Family::Inet, "test");
    batch.flush_chain("web");
    batch.add_rules("web", &[Rule::new([Statement::DestinationNatRandom(vec![(FAR, 8002)])])]);
    let key = Key::new().address(VIRTUAL).protocol(6).port(81);
    batch.delete_elements("published", &[Element::key(key.clone())]);
    batch.add_elements("services", &[Element::verdict(key, Verdict::Goto("web".into()))]);
    nft.apply(&batch).unwrap();
    assert!((0..10).all(|_| ask(&near, VIRTUAL, 81).unwrap() == "two"));
    nft.delete_table(Family::Inet, "test").unwrap();
    nft.delete_table(Family::Inet, "test").unwrap();
}

#[test]
fn a_batch_with_one_mistake_changes_nothing_and_names_it() {
    let (near, far) = pair();
    serve(&far, 8001, "one");
    let mut nft = far.run(Nft::open).unwrap().unwrap();
    nft.replace(&table(vec![(FAR, 8001)])).unwrap();
    let mut batch = Batch::new(Family::Inet, "test");
    batch.flush_chain("web");
    batch.delete_elements("published", &[Element::key(Key::new().address(FAR).protocol(6).port(1))]);
    let error = nft.apply(&batch).unwrap_err();
    assert!(error.is_absent() && error.to_string().contains("published"), "{error}");
    assert_eq!(ask(&near, VIRTUAL, 80).unwrap(), "one");
}

#[test]
fn ten_thousand_elements_fit_in_one_batch() {
    let (_namespace, mut nft) = Namespace::create(Nft::open).unwrap();
    let mut big = table(vec![(FAR, 1)]);
    big.sets[1].elements = (0..10_000u32)
        .map(|n| Element::address_port(Key::new().address(Ipv4Addr::from(n)).protocol(17).port(53), FAR, 53))
        .collect();
    nft.replace(&big).unwrap();
}

#[test]
fn udp_flows_can_be_found_and_forgotten() {
    let (near, far) = pair();
    let mut nft = far.run(Nft::open).unwrap().unwrap();
    let mut with_udp = table(vec![(FAR, 8001)]);
    with_udp.sets[1].elements =
        vec![Element::address_port(Key::new().address(VIRTUAL).protocol(17).port(53), FAR, 5353)];
    nft.replace(&with_udp).unwrap();
    let server = far.run(|| UdpSocket::bind((FAR, 5353)).unwrap()).unwrap();
    let client = near.run(|| UdpSocket::bind((NEAR, 0)).unwrap()).unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    }
    client.send_to(b"hello", (VIRTUAL, 53)).unwrap();
    server.recv_from(&mut [0; 16]).unwrap();
    let mut conntrack = far.run(Conntrack::open).unwrap().unwrap();
    let flows = conntrack.flows().unwrap();
    assert!(
        flows.iter().any(|f| f.protocol == 17
            && f.destination == VIRTUAL
            && f.destination_port == 53
            && f.answered_by == FAR
            && f.answered_from_port == 5353),
        "{flows:?}"
    );
    assert_eq!(conntrack.forget(|f| f.answered_from_port == 5353).unwrap(), 1);
    assert_eq!(conntrack.forget(|f| f.answered_from_port == 5353).unwrap(), 0);
}

#[test]
fn pins_keep_a_namespace_and_go_without_a_trace() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("one");
    let (namespace, ()) = Namespace::create(|| Ok(())).unwrap();
    namespace.pin(&path).unwrap();
    assert!(netns::is_pinned(&path));
    assert!(namespace.pin(&path).is_err());
    drop(namespace);
    let again = Namespace::open(&path).unwrap();
    assert_eq!(again.run(|| Route::open().unwrap().links().unwrap().len()).unwrap(), 1);
    netns::unpin(&path).unwrap();
    netns::unpin(&path).unwrap();
    assert!(!path.exists());
}

#[test]
fn links_are_made_once_and_names_are_checked() {
    let (_namespace, mut route) = Namespace::create(Route::open).unwrap();
    let index = route.ensure_bridge("br0", [2, 0, 0, 0, 0, 1]).unwrap();
    assert_eq!(route.ensure_bridge("br0", [2, 0, 0, 0, 0, 1]).unwrap(), index);
    assert!(route.ensure_bridge("lo", [2, 0, 0, 0, 0, 1]).is_err(), "of another kind");
    route.ensure_address(index, NEAR, 24).unwrap();
    route.ensure_address(index, NEAR, 24).unwrap();
    assert_eq!(route.addresses().unwrap(), [(index, NEAR, 24)]);
    assert!(route.delete_address(index, NEAR, 24).unwrap());
    assert!(!route.delete_address(index, NEAR, 24).unwrap());
    assert!(route.delete_link("br0").unwrap());
    assert!(!route.delete_link("br0").unwrap());
    assert!(route.link("../x").is_err() && route.link("a-name-that-is-too-long").is_err());
}
