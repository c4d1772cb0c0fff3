use super::*;
use serde_json::{Value, json};

fn service(change: impl FnOnce(&mut Value)) -> Service {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "s", "labels": {"team": "x"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.43.0.9", "ports": [{"port": 80, "targetPort": 8000}]}
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, ip: &str, ready: bool, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "node", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}
    });
    change(&mut value);
    Arc::new(serde_json::from_value(value).unwrap())
}

/// What stands in the API after the actions were applied.
#[derive(Default)]
struct World {
    slices: Vec<Arc<EndpointSlice>>,
    endpoints: Option<Endpoints>,
    made: usize,
}

impl World {
    fn pass(&mut self, service: &Service, pods: &[Arc<Pod>]) -> usize {
        let view = View { service, pods, slices: &self.slices, endpoints: self.endpoints.as_ref() };
        let actions = decide(&view);
        let count = actions.len();
        for action in actions {
            match action {
                Action::CreateSlice(mut slice) => {
                    self.made += 1;
                    slice.metadata.uid = Some(self.made.to_string());
                    self.slices.push(Arc::new(*slice));
                }
                Action::UpdateSlice(slice) => {
                    let at = self.slices.iter().position(|s| s.metadata.uid == slice.metadata.uid).unwrap();
                    self.slices[at] = Arc::new(*slice);
                }
                Action::DeleteSlice(slice) => self.slices.retain(|s| s.metadata.uid != slice.metadata.uid),
                Action::CreateEndpoints(e) | Action::UpdateEndpoints(e) => self.endpoints = Some(*e),
            }
        }
        count
    }

    fn all(&self) -> Vec<(String, [bool; 3])> {
        let endpoints = self.slices.iter().flat_map(|s| s.endpoints.iter().flatten());
        endpoints
            .map(|e| {
                let c = e.conditions.as_ref().unwrap();
                (e.addresses[0].clone(), [c.ready, c.serving, c.terminating].map(|b| b.unwrap()))
            })
            .collect()
    }
}

#[test]
fn ready_serving_and_terminating_follow_the_pod() {
    let terminating = |p: &mut Value| p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let pods = [
        pod("a", "10.0.0.1", true, |_| {}),
        pod("b", "10.0.0.2", false, |_| {}),
        pod("c", "10.0.0.3", true, terminating),
        pod("d", "10.0.0.4", false, terminating),
        pod("done", "10.0.0.5", false, |p| p["status"]["phase"] = "Succeeded".into()),
        pod("no-ip", "", true, |_| {}),
        pod("other", "10.0.0.7", true, |p| p["metadata"]["labels"]["app"] = "db".into()),
    ];
    let mut world = World::default();
    world.pass(&service(|_| {}), &pods);
    let expected = [
        ("10.0.0.1", [true, true, false]),
        ("10.0.0.2", [false, false, false]),
        ("10.0.0.3", [false, true, true]),
        ("10.0.0.4", [false, false, true]),
    ];
    assert_eq!(world.all(), expected.map(|(ip, c)| (ip.to_owned(), c)));
    let subset = &world.endpoints.as_ref().unwrap().subsets.as_ref().unwrap()[0];
    let ips = |list: &Option<Vec<EndpointAddress>>| list.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>();
    assert_eq!(
        (ips(&subset.addresses), ips(&subset.not_ready_addresses)),
        (vec!["10.0.0.1".into()], vec!["10.0.0.2".into()])
    );
    assert_eq!(world.pass(&service(|_| {}), &pods), 0, "a second pass does nothing");
}

#[test]
fn deletion_takes_readiness_away_in_one_pass() {
    let mut world = World::default();
    world.pass(&service(|_| {}), &[pod("a", "10.0.0.1", true, |_| {})]);
    let going = pod("a", "10.0.0.1", true, |p| p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    assert_eq!(world.pass(&service(|_| {}), &[going]), 2);
    assert_eq!(world.all(), [("10.0.0.1".to_owned(), [false, true, true])]);
    assert_eq!(world.endpoints.unwrap().subsets.unwrap(), []);
}

#[test]
fn slices_carry_the_labels_that_proxies_look_for() {
    let mut world = World::default();
    world.pass(&service(|s| s["spec"]["clusterIP"] = "None".into()), &[pod("a", "10.0.0.1", true, |_| {})]);
    let slice = &world.slices[0];
    let labels = slice.metadata.labels.as_ref().unwrap();
    for (key, value) in [(SERVICE_NAME, "web"), (MANAGED_BY, MANAGER), (HEADLESS, ""), ("team", "x")] {
        assert_eq!(labels.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(slice.metadata.generate_name.as_deref(), Some("web-"));
    let endpoint = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!(endpoint.node_name.as_deref(), Some("node"));
    assert_eq!(endpoint.target_ref.as_ref().unwrap().name.as_deref(), Some("a"));
}

#[test]
fn target_ports_resolve_by_number_by_name_and_by_default() {
    for (target, expected) in
        [(json!(8000), vec![8000]), (json!("http"), vec![8080]), (json!(null), vec![80]), (json!("nope"), vec![])]
    {
        let mut world = World::default();
        let service = service(|s| s["spec"]["ports"][0]["targetPort"] = target.clone());
        world.pass(&service, &[pod("a", "10.0.0.1", true, |_| {})]);
        let ports: Vec<_> = world.slices[0].ports.iter().flatten().filter_map(|p| p.port).collect();
        assert_eq!(ports, expected, "{target}");
    }
}

#[test]
fn a_service_that_publishes_not_ready_addresses_shows_them_ready() {
    let mut world = World::default();
    let service = service(|s| s["spec"]["publishNotReadyAddresses"] = true.into());
    world.pass(&service, &[pod("a", "10.0.0.1", false, |_| {})]);
    assert_eq!(world.all(), [("10.0.0.1".to_owned(), [true, false, false])]);
}

#[test]
fn services_without_a_selector_are_left_to_the_user() {
    let mut world = World::default();
    assert_eq!(world.pass(&service(|s| s["spec"]["selector"] = json!({})), &[]), 0);
    assert_eq!(world.pass(&service(|s| s["spec"]["type"] = "ExternalName".into()), &[]), 0);
}

#[test]
fn slices_hold_a_hundred_and_endpoints_stay_where_they_are() {
    let pods: Vec<_> = (0..250).map(|n| pod(&format!("p{n:03}"), &format!("10.0.1.{n}"), true, |_| {})).collect();
    let mut world = World::default();
    world.pass(&service(|_| {}), &pods);
    let sizes =
        |world: &World| world.slices.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).collect::<Vec<_>>();
    assert_eq!(sizes(&world), [100, 100, 50]);
    let without: Vec<_> = pods.iter().filter(|p| p.metadata.name.as_deref() != Some("p005")).cloned().collect();
    assert_eq!(
        world.pass(&service(|_| {}), &without),
        2,
        "the slice fills its gap from nowhere else: {:?}",
        sizes(&world)
    );
    assert_eq!(world.pass(&service(|_| {}), &without), 0);
    world.pass(&service(|_| {}), &[]);
    assert_eq!(sizes(&world), [0], "one empty slice stays");
}
