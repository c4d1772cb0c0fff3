//! Tables for the choice of networks.

use jiff::Timestamp;

use super::*;
use crate::config::{Config, HostConfig};

fn record(mode: &str, networks: &[&str]) -> Record {
    Record {
        id: "0123456789abcdef".to_owned(),
        name: "web".to_owned(),
        created: Timestamp::UNIX_EPOCH,
        image_id: String::new(),
        config: Config::default(),
        host: HostConfig { network_mode: mode.to_owned(), ..HostConfig::default() },
        networks: networks.iter().map(|name| ((*name).to_owned(), EndpointRequest::default())).collect(),
        networks_are_all: false,
        mounts: Vec::new(),
        pod: None,
        cgroup: String::new(),
        hostname: String::new(),
        restart_count: 0,
        stopped_by_user: false,
        started_at: None,
        start_failure: None,
    }
}

#[test]
fn the_network_of_the_mode_comes_first_and_once() {
    let table: [(&str, &[&str], &[&str]); 6] = [
        ("bridge", &[], &["bridge"]),
        ("default", &["bridge"], &["bridge"]),
        ("default", &["default"], &["bridge"]),
        ("front", &["back", "front"], &["front", "back"]),
        ("host", &["front"], &[]),
        ("container:x", &[], &[]),
    ];
    for (mode, networks, expected) in table {
        let names: Vec<_> = wanted_networks(&record(mode, networks)).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, expected, "{mode}");
    }
}

#[test]
fn after_a_disconnect_the_mode_implies_nothing() {
    let mut record = record("front", &["back"]);
    record.networks_are_all = true;
    assert_eq!(wanted_networks(&record).into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["back"]);
    record.networks.clear();
    assert!(wanted_networks(&record).is_empty());
}

#[test]
fn fixed_addresses_are_for_user_defined_networks() {
    let ipam = EndpointIpam { ipv4_address: "172.18.0.9".to_owned(), ..EndpointIpam::default() };
    let request = EndpointRequest { ipam_config: Some(ipam), ..EndpointRequest::default() };
    let record = record("front", &[]);
    assert!(endpoint_spec(&record, DEFAULT_NETWORK, &request, Vec::new()).is_err());
    let spec = endpoint_spec(&record, "front", &request, Vec::new()).unwrap();
    assert_eq!((spec.ip, spec.aliases), (Some([172, 18, 0, 9].into()), vec!["0123456789ab".to_owned()]));
}
