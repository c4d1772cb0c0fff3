use super::*;
use crate::fixtures::{Owned, Row, service, slice};
use serde_json::json;

fn settings() -> Settings {
    Settings { node: "here".into(), own_addresses: [Ipv4Addr::new(10, 43, 0, 10)].into() }
}

fn target(last: u8) -> Target {
    Target { address: Ipv4Addr::new(10, 42, 0, last), port: 8080 }
}

fn http() -> serde_json::Value {
    json!([{"name": "http", "port": 8080, "protocol": "TCP"}])
}

fn plan(spec: serde_json::Value, slices: &[Owned]) -> Vec<PortPlan> {
    plan_service(
        &service(
            spec,
            json!({"loadBalancer": {"ingress": [{"ip": "10.44.0.1"}, {"ip": "10.44.0.2", "ipMode": "Proxy"}]}}),
        ),
        slices,
        &settings(),
    )
    .ports
}

#[test]
fn ready_endpoints_win_and_draining_ones_stand_in() {
    let spec = json!({"clusterIP": "10.43.1.1", "ports": [{"name": "http", "port": 80}]});
    let table: [(&[Row<'_>], &[u8]); 5] = [
        (&[("10.42.0.2", "here", true, true, false), ("10.42.0.3", "there", false, true, true)], &[2]),
        (&[("10.42.0.2", "here", false, false, false), ("10.42.0.3", "there", false, true, true)], &[3]),
        (&[("10.42.0.2", "here", false, false, true)], &[]),
        (&[("10.42.0.2", "here", false, true, false)], &[]),
        (
            &[
                ("10.42.0.3", "a", true, true, false),
                ("10.42.0.2", "b", true, true, false),
                ("10.42.0.3", "a", true, true, false),
            ],
            &[2, 3],
        ),
    ];
    for (endpoints, expected) in table {
        let ports = plan(spec.clone(), &[slice(http(), endpoints)]);
        let expected: Vec<Target> = expected.iter().map(|l| target(*l)).collect();
        assert_eq!(
            (ports[0].internal.clone(), ports[0].served),
            (expected.clone(), !expected.is_empty()),
            "{endpoints:?}"
        );
    }
}

#[test]
fn ports_are_joined_by_name_and_protocol() {
    let spec = json!({"clusterIP": "10.43.1.1", "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "none", "port": 81}]});
    let ports = json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}]);
    let plans = plan(spec, &[slice(ports, &[("10.42.0.2", "here", true, true, false)])]);
    let found: Vec<_> =
        plans.iter().map(|p| (p.title.as_str(), p.protocol, p.internal.first().map(|t| t.port))).collect();
    assert_eq!(
        found,
        [
            ("shop/web:http", Protocol::Tcp, Some(8080)),
            ("shop/web:dns", Protocol::Udp, Some(5353)),
            ("shop/web:none", Protocol::Tcp, None)
        ]
    );
}

#[test]
fn local_policies_keep_traffic_on_the_node() {
    let endpoints =
        [slice(http(), &[("10.42.0.2", "here", true, true, false), ("10.42.0.3", "there", true, true, false)])];
    let spec = |internal: &str, external: &str| {
        json!({"type": "LoadBalancer", "clusterIP": "10.43.1.1", "internalTrafficPolicy": internal, "externalTrafficPolicy": external,
               "ports": [{"name": "http", "port": 80, "nodePort": 30080}]})
    };
    let both = vec![target(2), target(3)];
    let here = vec![target(2)];
    let open = &plan(spec("Cluster", "Cluster"), &endpoints)[0];
    assert_eq!((&open.internal, &open.external), (&both, &ExternalPolicy::Cluster(both.clone())));
    assert_eq!((open.node_port, open.external_ips.as_slice()), (Some(30080), &[Ipv4Addr::new(10, 44, 0, 1)][..]));
    let local = &plan(spec("Local", "Local"), &endpoints)[0];
    assert_eq!((&local.internal, &local.external), (&here, &ExternalPolicy::Local(here.clone())));
}

#[test]
fn services_without_an_address_of_their_own_need_no_rules() {
    for spec in [
        json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "example.org", "clusterIP": "10.43.1.1"}),
        json!({"clusterIP": "10.43.0.10", "ports": [{"port": 53}]}),
        json!({"clusterIP": "10.43.1.1", "ports": [{"port": 0}, {"port": 70000}]}),
        json!({"clusterIP": "fd00::1", "ports": [{"port": 80}]}),
    ] {
        assert_eq!(plan(spec.clone(), &[]), [], "{spec}");
    }
}

#[test]
fn external_ips_are_ignored_and_unreadable_ranges_admit_nobody() {
    let spec = json!({"clusterIP": "10.43.1.1", "externalIPs": ["8.8.8.8"], "loadBalancerSourceRanges": ["nonsense"], "ports": [{"port": 80}]});
    let port = &plan(spec, &[])[0];
    assert!(port.external_ips.is_empty());
    assert_eq!(port.source_ranges, [(Ipv4Addr::LOCALHOST, 32)]);
}

#[test]
fn affinity_has_a_default_and_a_limit() {
    let affinity = |config: serde_json::Value| {
        plan(json!({"clusterIP": "10.43.1.1", "sessionAffinity": "ClientIP", "sessionAffinityConfig": config, "ports": [{"port": 80}]}), &[])[0].affinity
    };
    assert_eq!(affinity(json!(null)), Some(Duration::from_secs(10_800)));
    assert_eq!(affinity(json!({"clientIP": {"timeoutSeconds": 20}})), Some(Duration::from_secs(20)));
    assert_eq!(affinity(json!({"clientIP": {"timeoutSeconds": 999_999_999}})), Some(Duration::from_secs(86_400)));
}

proptest::proptest! {
    #[test]
    fn the_order_of_slices_and_endpoints_does_not_matter(lasts in proptest::collection::vec(2u8..250, 0..20)) {
        let spec = json!({"clusterIP": "10.43.1.1", "ports": [{"name": "http", "port": 80}]});
        let texts: Vec<String> = lasts.iter().map(|l| format!("10.42.0.{l}")).collect();
        let endpoint = |text: &'static str| (text, "here", true, true, false);
        let leaked: Vec<&'static str> = texts.iter().map(|t| &*t.clone().leak()).collect();
        let one = plan(spec.clone(), &[slice(http(), &leaked.iter().map(|t| endpoint(t)).collect::<Vec<_>>())]);
        let split: Vec<Owned> = leaked.iter().rev().map(|t| slice(http(), &[endpoint(t)])).collect();
        proptest::prop_assert_eq!(one, plan(spec, &split));
    }
}
