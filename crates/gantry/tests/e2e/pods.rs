//! What the tests of real pods share: an image with all of busybox, manifests, and waiting on what the API says.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{self, World};

/// The machine may be busy; what takes a second on an idle one may take this long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// An instance that is up, with the image `tools`: busybox under all its names.
pub fn world() -> World {
    let world = World::new();
    world.up();
    import_tools(&world);
    world
}

pub fn import_tools(world: &World) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let script = "mkdir -p $0/bin $0/tmp $0/etc $0/www && chmod 1777 $0/tmp && cp $(command -v busybox) $0/bin/busybox \
        && for a in $(busybox --list); do ln -sf busybox $0/bin/$a; done; cp -f $(command -v busybox) $0/bin/busybox \
        && echo 'root:x:0:0:root:/:/bin/sh' > $0/etc/passwd && echo 'app:x:1000:1000:app:/:/bin/sh' >> $0/etc/passwd \
        && echo 'root:x:0:' > $0/etc/group && echo 'app:x:1000:' >> $0/etc/group && echo hello > $0/www/index.html \
        && tar -C $0 -cf $0/../tools.tar .";
    let tree = dir.path().join("tree");
    let made = std::process::Command::new("sh").args(["-c", script]).arg(&tree).status().expect("sh runs");
    assert!(made.success());
    let tar = dir.path().join("tools.tar");
    world.ok("docker", &["import", "-c", "CMD [\"sh\"]", "-c", "ENV PATH=/bin", harness::path(&tar), "tools:latest"]);
}

impl World {
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.ok("kubectl", args)
    }

    /// `kubectl apply` of a manifest of any number of documents.
    pub fn apply(&self, manifest: &str) -> String {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("manifest.yaml");
        std::fs::write(&file, manifest).expect("written");
        self.kubectl(&["apply", "-f", harness::path(&file)])
    }

    /// An object as JSON; null when it is not there.
    pub fn object(&self, kind: &str, name: &str) -> Value {
        let output = self.run("kubectl", &["get", kind, name, "-o", "json", "--ignore-not-found"]);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    pub fn pod(&self, name: &str) -> Value {
        self.object("pod", name)
    }

    /// Looks until `look` finds something.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}\n{}", self.situation());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What somebody would want to see of a test that failed.
    fn situation(&self) -> String {
        let show = |args: &[&str]| {
            let output = self.run("kubectl", args);
            format!("$ kubectl {}\n{}{}", args.join(" "), harness::text(&output.stdout), harness::text(&output.stderr))
        };
        let log = std::fs::read_to_string(self.root.join("gantry.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(30).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        let events = show(&["get", "events", "-A", "--sort-by=.lastTimestamp"]);
        format!("{}{events}{}", show(&["get", "pods", "-A", "-o", "wide"]), tail.join("\n"))
    }

    /// Waits until a pod satisfies a condition, and returns it.
    pub fn pod_when(&self, name: &str, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        self.until(&format!("pod {name}: {what}"), || {
            last = self.pod(name);
            holds(&last).then(|| last.clone())
        })
    }

    pub fn phase(&self, name: &str, wanted: &str) -> Value {
        self.pod_when(name, wanted, |pod| pod["status"]["phase"] == wanted)
    }

    pub fn ready(&self, name: &str) -> Value {
        self.pod_when(name, "ready", |pod| condition(pod, "Ready") == "True")
    }

    pub fn gone(&self, name: &str) {
        self.until(&format!("pod {name} gone"), || self.pod(name).is_null().then_some(()));
    }

    /// Output of a command in a pod.
    pub fn sh(&self, pod: &str, script: &str) -> String {
        self.kubectl(&["exec", pod, "--", "sh", "-c", script])
    }

    /// Waits for an event of an object with a reason and a piece of its message.
    pub fn event(&self, object: &str, reason: &str, text: &str) {
        let field = format!("involvedObject.name={object},reason={reason}");
        self.until(&format!("event {reason} of {object} with {text:?}"), || {
            let shown =
                self.kubectl(&["get", "events", "--field-selector", &field, "-o", "jsonpath={.items[*].message}"]);
            shown.contains(text).then_some(())
        });
    }

    /// `status.containerStatuses` of a pod by name; also init and ephemeral ones.
    pub fn status_column(&self, pod: &str) -> String {
        let row = self.kubectl(&["get", "pod", pod, "--no-headers"]);
        row.split_whitespace().nth(2).unwrap_or_default().to_owned()
    }
}

/// Status of a condition, or the empty string.
pub fn condition(pod: &Value, kind: &str) -> String {
    let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|one| one["type"] == kind);
    found.and_then(|one| one["status"].as_str()).unwrap_or_default().to_owned()
}

/// A container's status by its name, wherever it is listed.
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    const NOTHING: &Value = &Value::Null;
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let mut all = lists.iter().filter_map(|list| pod["status"][*list].as_array()).flatten();
    all.find(|one| one["name"] == name).unwrap_or(NOTHING)
}

pub fn restarts(pod: &Value, name: &str) -> i64 {
    container(pod, name)["restartCount"].as_i64().unwrap_or(-1)
}
