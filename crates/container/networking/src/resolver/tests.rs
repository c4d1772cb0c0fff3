use super::*;
use crate::{Driver, MacAddress};

fn network(id: &str, internal: bool, user_defined: bool) -> (NetworkId, Network) {
    let id = NetworkId(id.into());
    let network = Network {
        id: id.clone(),
        name: id.0.clone(),
        driver: Driver::Bridge,
        created: jiff::Timestamp::UNIX_EPOCH,
        internal,
        attachable: false,
        interface: String::new(),
        subnet: None,
        ip_range: None,
        gateway: None,
        reserved: vec![],
        labels: Default::default(),
        options: Default::default(),
        user_defined,
        routed: false,
        endpoints: vec![],
    };
    (id, network)
}

fn endpoint(network: &str, name: &str, last: u8, gateway: bool) -> Endpoint {
    let address = Ipv4Addr::new(172, 18, 0, last);
    Endpoint {
        id: name.into(),
        network: NetworkId(network.into()),
        network_name: network.into(),
        namespace: name.into(),
        name: name.into(),
        aliases: vec!["alias".into()],
        address,
        prefix_len: 16,
        gateway: gateway.then_some(Ipv4Addr::new(172, 18, 0, 1)),
        mac: MacAddress::from_address(address),
        interface: "eth0".into(),
        host_interface: String::new(),
        ports: vec![],
        dns: vec![],
        links: vec![],
    }
}

#[test]
fn names_mean_neighbours_and_nothing_leaves_an_internal_network() {
    let networks: BTreeMap<_, _> =
        [network("open", false, true), network("closed", true, true), network("bridge", false, false)].into();
    let all = [
        endpoint("open", "web", 2, true),
        endpoint("open", "db", 3, true),
        endpoint("closed", "vault", 4, false),
        endpoint("bridge", "plain", 5, true),
    ];
    let upstream: SocketAddr = "10.0.0.1:53".parse().unwrap();
    let ask = |own: usize, name: &str, kind| {
        decide(
            &Question { name: Name::from_ascii(name).unwrap(), kind },
            &all[own..=own],
            all.iter(),
            &networks,
            vec![upstream],
        )
    };
    let address = |name: &str, last: &[u8]| {
        let name = Name::from_ascii(name).unwrap();
        Answer::Records(
            last.iter().map(|l| (name.clone(), TTL_S, RData::A(A(Ipv4Addr::new(172, 18, 0, *l))))).collect(),
        )
    };
    let forward = || Answer::Forward { upstreams: vec![upstream] };
    assert_eq!(ask(0, "db.", RecordType::A), address("db.", &[3]));
    assert_eq!(ask(0, "db.open.", RecordType::A), address("db.open.", &[3]));
    assert_eq!(ask(0, "alias.", RecordType::A), address("alias.", &[2, 3]));
    assert_eq!(ask(0, "db.", RecordType::AAAA), Answer::Empty(None));
    assert_eq!(ask(0, "vault.", RecordType::A), forward());
    assert_eq!(ask(0, "plain.", RecordType::A), forward());
    assert_eq!(ask(0, "example.org.", RecordType::A), forward());
    assert_eq!(ask(2, "example.org.", RecordType::A), Answer::Failure);
    assert_eq!(ask(2, "vault.", RecordType::A), address("vault.", &[4]));
    let Answer::Records(names) = ask(0, "3.0.18.172.in-addr.arpa.", RecordType::PTR) else { panic!() };
    assert_eq!(names[0].2, RData::PTR(PTR(Name::from_ascii("db.open.").unwrap())));
    assert_eq!(ask(0, "9.9.9.9.in-addr.arpa.", RecordType::PTR), forward());
}
