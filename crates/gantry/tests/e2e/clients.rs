//! Gantry's own verbs: a machine with neither client can do the walk.

use crate::harness::{self, World};

#[test]
fn gantrys_own_verbs_take_an_application_from_a_dockerfile_to_a_rolled_out_service() {
    let world = World::new();
    world.up();
    world.import_busybox();
    let context = tempfile::tempdir().unwrap();
    std::fs::write(
        context.path().join("Dockerfile"),
        "FROM busybox\nENV GREETING=hello\nRUN echo built > /built\nCMD [\"sleep\", \"1000\"]\n",
    )
    .unwrap();
    let manifest = context.path().join("app.yaml");
    std::fs::write(
        &manifest,
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: c, image: web}]}\n",
    )
    .unwrap();
    let built = world.gantry(&["build", "-t", "web", harness::path(context.path())]);
    assert!(built.contains("Successfully tagged web:latest"), "{built}");
    assert!(world.gantry(&["build", "-t", "web", harness::path(context.path())]).contains("Using cache"));
    assert_eq!(world.gantry(&["run", "--rm", "web", "sh", "-c", "echo $GREETING; cat /built"]), "hello\nbuilt");
    world.gantry(&["run", "-d", "--name", "one", "web"]);
    assert!(world.gantry(&["ps"]).contains("one"));
    assert_eq!(world.gantry(&["exec", "one", "cat", "/built"]), "built");
    world.gantry(&["rm", "-f", "one"]);
    assert_eq!(world.gantry(&["apply", "-f", harness::path(&manifest)]), "deployment.apps/web created");
    let status = world.gantry(&["rollout", "status", "deployment/web", "--timeout", "60s"]);
    assert!(status.ends_with("deployment \"web\" successfully rolled out"), "{status}");
    assert!(world.gantry(&["get", "deployments"]).contains("2/2"));
    assert_eq!(world.gantry(&["exec", "deployment/web", "--", "cat", "/built"]), "built");
    world.gantry(&["scale", "deployment/web", "--replicas", "3"]);
    world.gantry(&["rollout", "status", "deployment/web", "--timeout", "60s"]);
    assert!(world.gantry(&["delete", "-f", harness::path(&manifest)]).contains("deleted"));
}
