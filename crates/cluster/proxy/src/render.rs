//! A service port's plan as chains, sets and map elements (pure).
//!
//! A packet's way: base chain → `dispatch` → one look-up in `services` (address, protocol, port) or `node-ports` → the port's own chain →
//! an endpoint. The cost does not depend on the number of services or endpoints; only session affinity costs a rule an endpoint.

use crate::ProxyConfig;
use kernel::nft::{
    Chain, ChainKind, Data, Element, Field, Hook, HookPoint, Key, Policy, Reject, Rule, Set, SetKind, Statement,
    Verdict, connection_state, connection_status,
};
use service_plan::{ExternalPolicy, PortPlan, Target};
use std::net::Ipv4Addr;
use std::time::Duration;

pub(crate) const TABLE: &str = "gantry-services";
/// "Replace the sender's address": the bit that kube-proxy uses for it.
const MASQUERADE_MARK: u32 = 0x4000;
const LOCAL: u32 = 2;

pub(crate) const SERVICES: &str = "services";
pub(crate) const NODE_PORTS: &str = "node-ports";
pub(crate) const UNSERVED: &str = "unserved";
pub(crate) const UNSERVED_NODE_PORTS: &str = "unserved-node-ports";
pub(crate) const CLUSTER_IPS: &str = "cluster-ips";
pub(crate) const HAIRPIN: &str = "hairpin";

fn address_key() -> Vec<Field> {
    vec![Field::DestinationAddress, Field::L4Protocol, Field::DestinationPort]
}

fn port_key() -> Vec<Field> {
    vec![Field::L4Protocol, Field::DestinationPort]
}

/// The sets that always exist, without elements.
pub(crate) fn fixed_sets() -> Vec<Set> {
    let set = |name: &str, key, kind| Set { name: name.into(), key, kind, elements: vec![] };
    vec![
        set(SERVICES, address_key(), SetKind::Verdicts),
        set(NODE_PORTS, port_key(), SetKind::Verdicts),
        set(UNSERVED, address_key(), SetKind::Verdicts),
        set(UNSERVED_NODE_PORTS, port_key(), SetKind::Verdicts),
        set(CLUSTER_IPS, vec![Field::DestinationAddress], SetKind::Plain),
        set(HAIRPIN, vec![Field::SourceAddress, Field::DestinationAddress], SetKind::Plain),
    ]
}

/// The chains that always exist.
pub(crate) fn fixed_chains() -> Vec<Chain> {
    let base = |name: &str, kind, point, priority, rules| Chain {
        name: name.into(),
        hook: Some(Hook { kind, point, priority, policy: Policy::Accept }),
        rules,
    };
    let jump = |to: &str| vec![Rule::new([Statement::Do(Verdict::Jump(to.into()))])];
    let to_node = || Statement::is(Field::DestinationType, Key::new().number(LOCAL));
    let dispatch = vec![
        Rule::new([Statement::VerdictMap { key: address_key(), map: SERVICES.into() }]),
        Rule::new([to_node(), Statement::VerdictMap { key: port_key(), map: NODE_PORTS.into() }]),
    ];
    let refuse = vec![
        Rule::new([Statement::VerdictMap { key: address_key(), map: UNSERVED.into() }]),
        Rule::new([to_node(), Statement::VerdictMap { key: port_key(), map: UNSERVED_NODE_PORTS.into() }]),
        Rule::new([
            Statement::InSet { key: vec![Field::DestinationAddress], set: CLUSTER_IPS.into(), negated: false },
            Statement::Do(Verdict::Goto("reject".into())),
        ])
        .comment("a service has no such port"),
    ];
    let new_only = || {
        vec![Rule::new([
            Statement::any_bit(Field::ConnectionState, connection_state::NEW),
            Statement::Do(Verdict::Jump("refuse".into())),
        ])]
    };
    let translated = || Statement::any_bit(Field::ConnectionStatus, connection_status::DESTINATION_TRANSLATED);
    let postrouting = vec![
        Rule::new([
            Statement::InSet {
                key: vec![Field::SourceAddress, Field::DestinationAddress],
                set: HAIRPIN.into(),
                negated: false,
            },
            translated(),
            Statement::Masquerade,
        ])
        .comment("a pod reaches itself by a service"),
        Rule::new([
            Statement::any_bit(Field::Mark, MASQUERADE_MARK),
            Statement::ClearMark(MASQUERADE_MARK),
            Statement::Masquerade,
        ]),
    ];
    vec![
        base("prerouting", ChainKind::Nat, HookPoint::Prerouting, -100, jump("dispatch")),
        base("output", ChainKind::Nat, HookPoint::Output, -100, jump("dispatch")),
        base("postrouting", ChainKind::Nat, HookPoint::Postrouting, 100, postrouting),
        // After the translation: what still has a service's address then is for nobody.
        base("filter-input", ChainKind::Filter, HookPoint::Input, -90, new_only()),
        base("filter-forward", ChainKind::Filter, HookPoint::Forward, -90, new_only()),
        base("filter-output", ChainKind::Filter, HookPoint::Output, -90, new_only()),
        Chain { name: "dispatch".into(), hook: None, rules: dispatch },
        Chain { name: "refuse".into(), hook: None, rules: refuse },
        Chain {
            name: "reject".into(),
            hook: None,
            rules: vec![Rule::new([Statement::Reject(Reject::PortUnreachable)])],
        },
    ]
}

/// All that one service port adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) chains: Vec<Chain>,
    pub(crate) sets: Vec<Set>,
    /// Set and element; the same element may come from several ports.
    pub(crate) elements: Vec<(&'static str, Element)>,
}

pub(crate) fn render(plan: &PortPlan, config: &ProxyConfig) -> Rendered {
    let mut rendered = Rendered::default();
    let id = identity(&format!("{}/{}", plan.title, plan.protocol.as_str()));
    let at = |ip: Ipv4Addr| Key::new().address(ip).protocol(plan.protocol.number()).port(plan.port);
    rendered.elements.push((CLUSTER_IPS, Element::key(Key::new().address(plan.cluster_ip))));
    let internal = format!("svc-{id}");
    if plan.internal.is_empty() {
        rendered.elements.push((
            UNSERVED,
            Element::verdict(at(plan.cluster_ip), unserved_verdict(plan.internal_is_local && plan.served)),
        ));
    } else {
        rendered.elements.push((SERVICES, Element::verdict(at(plan.cluster_ip), Verdict::Goto(internal.clone()))));
        let mut rules = vec![
            Rule::new([
                Statement::is(Field::DestinationAddress, Key::new().address(plan.cluster_ip)),
                Statement::in_prefix(Field::SourceAddress, config.pod_range.0, config.pod_range.1, true),
                Statement::SetMark(MASQUERADE_MARK),
            ])
            .comment(plan.title.clone()),
        ];
        rules.extend(balance(&id, &plan.internal, plan.affinity));
        rendered.chains.push(Chain { name: internal, hook: None, rules });
    }
    if plan.node_port.is_some() || !plan.external_ips.is_empty() {
        render_external(&mut rendered, plan, config, &id, at);
    }
    if let Some(timeout) = plan.affinity {
        render_affinity(&mut rendered, plan, &id, timeout);
    }
    for target in &plan.local {
        rendered.elements.push((HAIRPIN, Element::key(Key::new().address(target.address).address(target.address))));
    }
    rendered
}

/// With endpoints elsewhere but a policy that forbids them, silence; with none at all, a refusal.
fn unserved_verdict(elsewhere: bool) -> Verdict {
    if elsewhere { Verdict::Drop } else { Verdict::Goto("reject".into()) }
}

fn render_external(
    rendered: &mut Rendered,
    plan: &PortPlan,
    config: &ProxyConfig,
    id: &str,
    at: impl Fn(Ipv4Addr) -> Key,
) {
    let node_key = |port: u16| Key::new().protocol(plan.protocol.number()).port(port);
    if !plan.served {
        rendered
            .elements
            .extend(plan.external_ips.iter().map(|ip| (UNSERVED, Element::verdict(at(*ip), unserved_verdict(false)))));
        rendered.elements.extend(
            plan.node_port.map(|p| (UNSERVED_NODE_PORTS, Element::verdict(node_key(p), unserved_verdict(false)))),
        );
        return;
    }
    let chain = format!("ext-{id}");
    rendered.chains.push(Chain { name: chain.clone(), hook: None, rules: external_rules(plan, config, id) });
    rendered
        .elements
        .extend(plan.node_port.map(|p| (NODE_PORTS, Element::verdict(node_key(p), Verdict::Goto(chain.clone())))));
    let mut entry = chain.clone();
    if !plan.source_ranges.is_empty() && !plan.external_ips.is_empty() {
        entry = format!("fw-{id}");
        let mut rules: Vec<Rule> = plan
            .source_ranges
            .iter()
            .map(|(address, len)| {
                Rule::new([
                    Statement::in_prefix(Field::SourceAddress, *address, *len, false),
                    Statement::Do(Verdict::Goto(chain.clone())),
                ])
            })
            .collect();
        rules.push(Rule::new([Statement::Do(Verdict::Drop)]));
        rendered.chains.push(Chain { name: entry.clone(), hook: None, rules });
    }
    rendered
        .elements
        .extend(plan.external_ips.iter().map(|ip| (SERVICES, Element::verdict(at(*ip), Verdict::Goto(entry.clone())))));
}

fn external_rules(plan: &PortPlan, config: &ProxyConfig, id: &str) -> Vec<Rule> {
    match &plan.external {
        ExternalPolicy::Cluster(targets) => {
            let mut rules =
                vec![Rule::new([Statement::SetMark(MASQUERADE_MARK)]).comment(format!("{} from outside", plan.title))];
            rules.extend(balance(id, targets, plan.affinity));
            rules
        }
        ExternalPolicy::Local(targets) => {
            let mut rules = Vec::new();
            // Pods and the node are inside, wherever they knock: they get any endpoint.
            if !plan.internal.is_empty() {
                let inside = Verdict::Goto(format!("svc-{id}"));
                let from_pods =
                    Statement::in_prefix(Field::SourceAddress, config.pod_range.0, config.pod_range.1, false);
                rules.push(Rule::new([from_pods, Statement::Do(inside.clone())]));
                rules.push(Rule::new([
                    Statement::is(Field::SourceType, Key::new().number(LOCAL)),
                    Statement::SetMark(MASQUERADE_MARK),
                    Statement::Do(inside),
                ]));
            }
            rules.extend(balance(id, targets, plan.affinity));
            if targets.is_empty() {
                rules.push(
                    Rule::new([Statement::Do(Verdict::Drop)]).comment(format!("{}: nobody on this node", plan.title)),
                );
            }
            rules
        }
    }
}

fn balance(id: &str, targets: &[Target], affinity: Option<Duration>) -> Vec<Rule> {
    if targets.is_empty() {
        return Vec::new();
    }
    if affinity.is_none() {
        return vec![Rule::new([Statement::DestinationNatRandom(
            targets.iter().map(|t| (t.address, t.port)).collect(),
        )])];
    }
    let goto = |target: &Target| Verdict::Goto(endpoint_name("ep", id, target));
    let mut rules: Vec<Rule> = targets
        .iter()
        .map(|t| {
            Rule::new([
                Statement::InSet { key: vec![Field::SourceAddress], set: endpoint_name("aff", id, t), negated: false },
                Statement::Do(goto(t)),
            ])
        })
        .collect();
    rules.push(Rule::new([Statement::RandomVerdict(targets.iter().map(goto).collect())]));
    rules
}

/// A chain and a set of clients for each endpoint; both keep their names, so clients stay where they are when other endpoints change.
fn render_affinity(rendered: &mut Rendered, plan: &PortPlan, id: &str, timeout: Duration) {
    let mut targets: Vec<&Target> = plan.internal.iter().chain(plan.external.targets()).collect();
    targets.sort();
    targets.dedup();
    for target in targets {
        let set = endpoint_name("aff", id, target);
        let key = vec![Field::SourceAddress];
        rendered.sets.push(Set {
            name: set.clone(),
            key: key.clone(),
            kind: SetKind::Dynamic { timeout },
            elements: vec![],
        });
        rendered.chains.push(Chain {
            name: endpoint_name("ep", id, target),
            hook: None,
            rules: vec![
                Rule::new([Statement::Remember { key, set, timeout }]),
                Rule::new([Statement::DestinationNat { address: target.address, port: target.port }]),
            ],
        });
    }
}

fn endpoint_name(kind: &str, id: &str, target: &Target) -> String {
    format!("{kind}-{id}-{}-{}", target.address, target.port)
}

/// A name's short form: FNV-1a, 64 bits. Names of one table never come near the number where two could meet.
fn identity(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// An element's place, for counting who wants it.
pub(crate) fn place(set: &'static str, element: &Element) -> (&'static str, Key) {
    (set, element.key.clone())
}

/// An element of that place.
pub(crate) fn element_at(key: &Key, data: &Data) -> Element {
    Element { key: key.clone(), data: data.clone() }
}
