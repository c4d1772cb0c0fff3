//! The engine's kernel rules (pure): networks and endpoints → two tables and their elements.
//!
//! `inet gantry-engine` translates, masquerades and isolates; `bridge gantry-engine` drops frames with a sender that is not the
//! endpoint's own. A container costs elements, never rules, so a packet's cost does not grow with the number of containers.
//! Every drop here is final, no accept is: a drop of the host's own firewall always wins.

use crate::{Endpoint, Network, Subnet};
use kernel::nft::{
    Chain, ChainKind, Element, Family, Field, Hook, HookPoint, Key, Policy, Rule, Set, SetKind, Statement, Table,
    Verdict, connection_state, connection_status, interface,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

pub(crate) const TABLE: &str = "gantry-engine";
const ETHER_IPV4: u16 = 0x0800;
const ETHER_ARP: u16 = 0x0806;
const LOCAL: u32 = 2;
const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 0);

/// Elements by set.
pub(crate) type Elements = BTreeMap<&'static str, Vec<Element>>;

/// What an endpoint adds to the inet table.
pub(crate) fn translation_elements(endpoint: &Endpoint, routed: bool) -> Elements {
    let mut elements = Elements::new();
    for port in &endpoint.ports {
        let key = |key: Key| key.protocol(port.protocol.number()).port(port.host_port);
        let (set, key) = if port.host_ip.is_unspecified() {
            ("published-any", key(Key::new()))
        } else {
            ("published-at", key(Key::new().address(port.host_ip)))
        };
        elements.entry(set).or_default().push(Element::address_port(key, endpoint.address, port.container_port));
    }
    if routed && !endpoint.ports.is_empty() {
        elements
            .entry("hairpin")
            .or_default()
            .push(Element::key(Key::new().address(endpoint.address).address(endpoint.address)));
    }
    elements
}

/// What an endpoint adds to the bridge table.
pub(crate) fn identity_elements(endpoint: &Endpoint) -> Elements {
    let port = || interface(&endpoint.host_interface);
    Elements::from([
        ("guarded", vec![Element::key(port())]),
        ("identities", vec![Element::key(port().mac(endpoint.mac.0).address(endpoint.address))]),
    ])
}

pub(crate) fn translation_table<'a>(
    networks: &[&Network],
    endpoints: impl Iterator<Item = (&'a Endpoint, bool)>,
) -> Table {
    let mut elements = Elements::new();
    for (endpoint, routed) in endpoints {
        for (set, more) in translation_elements(endpoint, routed) {
            elements.entry(set).or_default().extend(more);
        }
    }
    let mut set = |name: &'static str, key: Vec<Field>, kind| Set {
        name: name.into(),
        key,
        kind,
        elements: elements.remove(name).unwrap_or_default(),
    };
    let sets = vec![
        set("published-any", vec![Field::L4Protocol, Field::DestinationPort], SetKind::AddressPorts),
        set(
            "published-at",
            vec![Field::DestinationAddress, Field::L4Protocol, Field::DestinationPort],
            SetKind::AddressPorts,
        ),
        set("hairpin", vec![Field::SourceAddress, Field::DestinationAddress], SetKind::Plain),
    ];
    let bridges: Vec<Bridge<'_>> =
        networks.iter().filter_map(|n| Some(Bridge { network: n, name: &n.interface, subnet: n.subnet? })).collect();
    let local = || Statement::is(Field::DestinationType, Key::new().number(LOCAL));
    let to_published = || vec![Rule::new([local(), Statement::Do(Verdict::Jump("published".into()))])];
    Table {
        family: Family::Inet,
        name: TABLE.into(),
        comment: Some("containers: published ports, masquerade, isolation".into()),
        sets,
        chains: vec![
            base("guard-loopback", ChainKind::Filter, HookPoint::Prerouting, -300, guard_loopback()),
            base("prerouting", ChainKind::Nat, HookPoint::Prerouting, -100, to_published()),
            base("output", ChainKind::Nat, HookPoint::Output, -100, to_published()),
            base("postrouting", ChainKind::Nat, HookPoint::Postrouting, 100, masquerade(&bridges)),
            base("forward", ChainKind::Filter, HookPoint::Forward, 0, isolation(&bridges)),
            Chain { name: "published".into(), hook: None, rules: published() },
        ],
    }
}

struct Bridge<'a> {
    network: &'a Network,
    name: &'a str,
    subnet: Subnet,
}

fn base(name: &str, kind: ChainKind, point: HookPoint, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), hook: Some(Hook { kind, point, priority, policy: Policy::Accept }), rules }
}

/// Our bridges have `route_localnet`, which would open the node's loopback services to containers and other machines.
fn guard_loopback() -> Vec<Rule> {
    [Field::DestinationAddress, Field::SourceAddress]
        .map(|field| {
            Rule::new([
                Statement::is_not(Field::InputInterface, interface("lo")),
                Statement::in_prefix(field, LOOPBACK, 8, false),
                Statement::Counter,
                Statement::Do(Verdict::Drop),
            ])
            .comment("loopback addresses are this node's own")
        })
        .to_vec()
}

fn published() -> Vec<Rule> {
    let key = vec![Field::DestinationAddress, Field::L4Protocol, Field::DestinationPort];
    vec![
        Rule::new([Statement::DestinationNatMap { key: key.clone(), map: "published-at".into() }]),
        Rule::new([Statement::DestinationNatMap { key: key[1..].to_vec(), map: "published-any".into() }]),
    ]
}

fn translated() -> Statement {
    Statement::any_bit(Field::ConnectionStatus, connection_status::DESTINATION_TRANSLATED)
}

fn masquerade(bridges: &[Bridge<'_>]) -> Vec<Rule> {
    let mut rules = vec![
        Rule::new([
            Statement::in_prefix(Field::SourceAddress, LOOPBACK, 8, false),
            Statement::is_not(Field::OutputInterface, interface("lo")),
            translated(),
            Statement::Masquerade,
        ])
        .comment("from this node's loopback to a container"),
        Rule::new([
            Statement::InSet {
                key: vec![Field::SourceAddress, Field::DestinationAddress],
                set: "hairpin".into(),
                negated: false,
            },
            translated(),
            Statement::Masquerade,
        ])
        .comment("to itself by a published port"),
    ];
    for bridge in bridges {
        let from_here =
            || Statement::in_prefix(Field::SourceAddress, bridge.subnet.address(), bridge.subnet.prefix_len(), false);
        let out = |negated| Statement::Is { field: Field::OutputInterface, value: interface(bridge.name), negated };
        if !bridge.network.routed {
            // The answer would go straight to the neighbour and bypass the translation.
            rules.push(
                Rule::new([from_here(), out(false), translated(), Statement::Masquerade])
                    .comment(format!("{}: to a neighbour by a published port", bridge.network.name)),
            );
        }
        if !bridge.network.internal {
            rules.push(
                Rule::new([from_here(), out(true), Statement::Masquerade])
                    .comment(format!("{}: egress", bridge.network.name)),
            );
        }
    }
    rules
}

fn isolation(bridges: &[Bridge<'_>]) -> Vec<Rule> {
    let into = |bridge: &Bridge<'_>, negated| Statement::Is {
        field: Field::InputInterface,
        value: interface(bridge.name),
        negated,
    };
    let out = |bridge: &Bridge<'_>, negated| Statement::Is {
        field: Field::OutputInterface,
        value: interface(bridge.name),
        negated,
    };
    let mut rules = Vec::new();
    for bridge in bridges.iter().filter(|b| b.network.internal) {
        let comment = format!("{}: internal", bridge.network.name);
        rules.push(
            Rule::new([into(bridge, false), out(bridge, true), Statement::Do(Verdict::Drop)]).comment(comment.clone()),
        );
        rules.push(Rule::new([out(bridge, false), into(bridge, true), Statement::Do(Verdict::Drop)]).comment(comment));
    }
    rules.push(Rule::new([
        Statement::any_bit(Field::ConnectionState, connection_state::ESTABLISHED | connection_state::RELATED),
        Statement::Do(Verdict::Accept),
    ]));
    for bridge in bridges.iter().filter(|b| !b.network.routed) {
        rules.push(Rule::new([into(bridge, false), out(bridge, false), Statement::Do(Verdict::Accept)]));
        rules.push(
            Rule::new([out(bridge, false), translated(), Statement::Do(Verdict::Accept)])
                .comment(format!("{}: published ports", bridge.network.name)),
        );
        rules.push(
            Rule::new([out(bridge, false), Statement::Counter, Statement::Do(Verdict::Drop)])
                .comment(format!("{}: nothing else comes in", bridge.network.name)),
        );
    }
    rules
}

/// Frames of guarded ports pass with the endpoint's own addresses only (attack: ARP, MAC and address spoofing, router advertisements).
pub(crate) fn identity_table<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Table {
    let mut elements = Elements::new();
    for (set, more) in endpoints.flat_map(identity_elements) {
        elements.entry(set).or_default().extend(more);
    }
    let mut set = |name: &'static str, key: Vec<Field>| Set {
        name: name.into(),
        key,
        kind: SetKind::Plain,
        elements: elements.remove(name).unwrap_or_default(),
    };
    let sets = vec![
        set("guarded", vec![Field::InputInterface]),
        set("identities", vec![Field::InputInterface, Field::EtherSource, Field::SourceAddress]),
    ];
    let known = |ether_type, key: [Field; 3]| {
        Rule::new([
            Statement::is(Field::EtherType, Key::new().ether_type(ether_type)),
            Statement::InSet { key: key.to_vec(), set: "identities".into(), negated: false },
            Statement::Do(Verdict::Accept),
        ])
    };
    Table {
        family: Family::Bridge,
        name: TABLE.into(),
        comment: Some("containers: senders are who they say".into()),
        sets,
        chains: vec![base(
            "prerouting",
            ChainKind::Filter,
            HookPoint::Prerouting,
            -300,
            vec![
                Rule::new([
                    Statement::InSet { key: vec![Field::InputInterface], set: "guarded".into(), negated: true },
                    Statement::Do(Verdict::Accept),
                ]),
                known(ETHER_IPV4, [Field::InputInterface, Field::EtherSource, Field::SourceAddress]),
                known(ETHER_ARP, [Field::InputInterface, Field::ArpSenderMac, Field::ArpSenderAddress]),
                Rule::new([Statement::Counter, Statement::Do(Verdict::Drop)]),
            ],
        )],
    }
}
