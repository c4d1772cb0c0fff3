use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second)
}

/// A small world: nodes, a DaemonSet, and a shell that applies decisions as the real one does.
struct World {
    set: DaemonSet,
    pods: Vec<Arc<Pod>>,
    nodes: Vec<Arc<Node>>,
    revisions: Vec<Arc<ControllerRevision>>,
    made: usize,
}

impl World {
    fn new(nodes: usize, strategy: Value) -> Self {
        let set =
            serde_json::from_value(json!({"metadata": {"name": "d", "namespace": "n", "uid": "set", "generation": 1},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "updateStrategy": strategy, "template":
                {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}}}))
            .unwrap();
        let mut world = World { set, pods: Vec::new(), nodes: Vec::new(), revisions: Vec::new(), made: 0 };
        (0..nodes).for_each(|n| world.node(&format!("node{n}"), json!({}), json!([])));
        world
    }

    fn node(&mut self, name: &str, labels: Value, taints: Value) {
        let node = json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
        self.nodes.push(Arc::new(serde_json::from_value(node).unwrap()));
    }

    fn template(&mut self, change: impl FnOnce(&mut PodSpec)) {
        change(self.set.spec.as_mut().unwrap().template.spec.as_mut().unwrap());
    }

    fn image(&mut self, image: &str) {
        self.template(|spec| spec.containers[0].image = Some(image.into()));
    }

    fn pass(&mut self) -> Decision {
        let view =
            View { set: &self.set, pods: &self.pods, nodes: &self.nodes, revisions: &self.revisions, now: at(100) };
        let decision = decide(&view);
        for action in &decision.actions {
            match action {
                Action::Create(pods) => pods.iter().for_each(|p| self.create(p)),
                Action::Delete(pod) => self.pods.retain(|p| p.metadata.uid != pod.metadata.uid),
                Action::Revision(revisions::Action::Create(r)) => self.revisions.push(Arc::new((**r).clone())),
                Action::Revision(revisions::Action::Renumber(r)) => {
                    self.revisions.retain(|o| o.metadata.name != r.metadata.name);
                    self.revisions.push(Arc::new((**r).clone()));
                }
                Action::Revision(revisions::Action::Delete(r)) => self.revisions.retain(|o| o != r),
                Action::Revision(_) | Action::Adopt(_) | Action::Release(_) | Action::Event { .. } => {}
            }
        }
        self.set.status = Some(decision.status.clone());
        decision
    }

    fn create(&mut self, pod: &Pod) {
        self.made += 1;
        let mut pod = pod.clone();
        pod.metadata.name = Some(format!("d-{}", self.made));
        pod.metadata.uid = pod.metadata.name.clone();
        self.pods.push(Arc::new(pod));
    }

    fn set_status(&mut self, at: usize, status: Value) {
        let pod = Arc::make_mut(&mut self.pods[at]);
        let node = target_node(pod).unwrap().to_owned();
        pod.spec.as_mut().unwrap().node_name = Some(node);
        pod.status = Some(serde_json::from_value(status).unwrap());
    }

    fn make_ready(&mut self) {
        for at in 0..self.pods.len() {
            let since = "2026-01-01T00:00:00Z";
            let condition = json!({"type": "Ready", "status": "True", "lastTransitionTime": since});
            self.set_status(at, json!({"phase": "Running", "conditions": [condition]}));
        }
    }

    fn of_image(&self, image: &str) -> usize {
        let image_of = |p: &&Arc<Pod>| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image);
        self.pods.iter().filter(image_of).count()
    }
}

#[test]
fn every_node_that_suits_gets_one_pod_and_no_other_does() {
    let mut world = World::new(2, json!({}));
    world.node("cordoned", json!({}), json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]));
    world.node("tainted", json!({}), json!([{"key": "mine", "effect": "NoSchedule"}]));
    world.pass();
    let mut targets: Vec<&str> = world.pods.iter().filter_map(|p| target_node(p)).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["cordoned", "node0", "node1"]);
    let labels = world.pods[0].metadata.labels.as_ref().unwrap();
    assert_eq!(labels[revisions::HASH_LABEL], revisions::hash(&world.revisions[0]));
    world.make_ready();
    let decision = world.pass();
    assert!(decision.actions.is_empty(), "{:?}", decision.actions);
    let status = decision.status;
    assert_eq!((status.desired_number_scheduled, status.number_ready, status.number_available), (3, 3, Some(3)));
    world.template(|spec| spec.node_selector = Some([("disk".to_owned(), "fast".to_owned())].into()));
    world.pass();
    assert!(world.pods.is_empty(), "no node has the label any longer");
}

#[test]
fn a_taint_that_only_keeps_new_pods_away_lets_the_old_one_stay() {
    let mut world = World::new(1, json!({}));
    world.pass();
    world.make_ready();
    let taint = |effect: &str| serde_json::from_value(json!([{"key": "x", "effect": effect}])).unwrap();
    Arc::make_mut(&mut world.nodes[0]).spec.as_mut().unwrap().taints = taint("NoSchedule");
    assert_eq!((world.pass().status.number_misscheduled, world.pods.len()), (1, 1));
    Arc::make_mut(&mut world.nodes[0]).spec.as_mut().unwrap().taints = taint("NoExecute");
    world.pass();
    assert!(world.pods.is_empty());
}

#[test]
fn a_pod_that_failed_is_told_of_and_replaced() {
    let mut world = World::new(1, json!({}));
    world.pass();
    world.set_status(0, json!({"phase": "Failed"}));
    let mut pod = Pod::clone(&world.pods[0]);
    pod.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
    world.pods[0] = Arc::new(pod);
    let decision = world.pass();
    let said = decision.actions.iter().any(|a| {
        matches!(a, Action::Event { reason: "FailedDaemonPod", message, .. }
            if message == "Found failed daemon pod n/d-1 on node node0, will try to kill it")
    });
    assert!(said && world.pods.is_empty());
    world.pass();
    assert_eq!(world.pods.len(), 1);
}

#[test]
fn an_undone_template_gets_the_highest_number_again_and_history_is_bounded() {
    let mut world = World::new(1, json!({"type": "OnDelete"}));
    world.set.spec.as_mut().unwrap().revision_history_limit = Some(1);
    for image in ["one", "two", "one"] {
        world.image(image);
        world.pass();
    }
    let mut numbers: Vec<i64> = world.revisions.iter().map(|r| r.revision).collect();
    numbers.sort_unstable();
    assert_eq!((numbers, world.of_image("one")), (vec![2, 3], 1));
    for image in ["three", "four", "five"] {
        world.image(image);
        world.pass();
    }
    assert_eq!(world.revisions.len(), 3, "the one in use, the one that pods carry, one of history");
    let newest = world.revisions.iter().max_by_key(|r| r.revision).unwrap();
    let template = revisions::template(newest).unwrap();
    assert_eq!(template.spec.unwrap().containers[0].image.as_deref(), Some("five"));
}

#[test]
fn a_surge_starts_the_new_pod_beside_the_old_one() {
    let mut world =
        World::new(2, json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}));
    world.pass();
    world.make_ready();
    world.image("two");
    world.pass();
    assert_eq!((world.of_image("one"), world.of_image("two")), (2, 1));
    world.pass();
    assert_eq!(world.pods.len(), 3, "the new one is not ready: nothing more happens");
    world.make_ready();
    world.pass();
    assert_eq!(world.of_image("one"), 1);
    for _ in 0..4 {
        world.make_ready();
        world.pass();
    }
    assert_eq!((world.of_image("one"), world.of_image("two")), (0, 2));
}

proptest! {
    #[test]
    fn an_update_never_takes_more_than_may_be_missing(nodes in 1..12usize, limit in 1..4i32) {
        let mut world = World::new(nodes, json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": limit}}));
        world.pass();
        world.make_ready();
        world.image("two");
        for _ in 0..(3 * nodes + 3) {
            world.pass();
            let ready = world.pods.iter().filter(|p| pods::is_ready(p)).count();
            prop_assert!(nodes - ready <= usize::try_from(limit).unwrap());
            world.pass();
            prop_assert!(world.pods.len() <= nodes);
            world.make_ready();
        }
        prop_assert_eq!((world.of_image("one"), world.of_image("two")), (0, nodes));
        prop_assert!(world.pass().actions.is_empty(), "at rest");
    }
}
