//! Which pod goes first when the node runs out of something (pure).
//!
//! The node agent measures; this says what is short, ranks the pods and words the reason. Invariants: Kubernetes' ranking
//! (use beyond the request, then priority, then how far beyond); static and critical pods are never named.

use k8s_openapi::api::core::v1::Pod;

use crate::quantity;

/// Something that a node can run out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Memory.
    Memory,
    /// Bytes of the node's file system.
    Disk,
    /// Inodes of the node's file system.
    Inodes,
    /// Processes and threads.
    Pids,
}

impl Resource {
    /// The word in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// The node's condition while it is short.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk | Self::Inodes => "DiskPressure",
            Self::Pids => "PIDPressure",
        }
    }
}

/// A threshold and where the node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// Of what.
    pub resource: Resource,
    /// What is left.
    pub available: u64,
    /// What must be left.
    pub threshold: u64,
}

impl Signal {
    /// Whether something has to be done.
    pub fn is_short(&self) -> bool {
        self.available < self.threshold
    }
}

/// What one pod uses.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Memory by container.
    pub memory: Vec<(String, u64)>,
    /// Bytes of its volumes and logs.
    pub disk_bytes: u64,
    /// Files of its volumes and logs.
    pub inodes: u64,
    /// Processes and threads.
    pub processes: u64,
}

/// Pods of this priority and above belong to the system.
const CRITICAL: i32 = 2_000_000_000;

impl Candidate<'_> {
    fn is_untouchable(&self) -> bool {
        let annotations = self.pod.metadata.annotations.as_ref();
        let is_static = annotations.is_some_and(|all| {
            all.contains_key("kubernetes.io/config.mirror")
                || all.get("kubernetes.io/config.source").is_some_and(|source| source != "api")
        });
        is_static || self.priority() >= CRITICAL
    }

    fn priority(&self) -> i32 {
        self.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
    }

    fn has_ended(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }

    fn usage(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Memory => self.memory.iter().map(|(_, bytes)| bytes).sum(),
            Resource::Disk => self.disk_bytes,
            Resource::Inodes => self.inodes,
            Resource::Pids => self.processes,
        }
    }

    fn request(&self, resource: Resource) -> u64 {
        let name = match resource {
            Resource::Memory => "memory",
            Resource::Disk => "ephemeral-storage",
            Resource::Inodes | Resource::Pids => return 0,
        };
        let containers = self.pod.spec.iter().flat_map(|spec| &spec.containers);
        containers.map(|one| request_of(one, name)).sum()
    }
}

fn request_of(container: &k8s_openapi::api::core::v1::Container, name: &str) -> u64 {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let millis = requests.and_then(|requests| requests.get(name)).and_then(quantity::millis).unwrap_or(0);
    u64::try_from(millis / 1000).unwrap_or(0)
}

/// The pod to evict, and the message that its status gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// Index among the candidates.
    pub index: usize,
    /// For `status.message`.
    pub message: String,
}

/// The first pod to go for a resource that is short; `None` when none may go.
pub fn choose(signal: &Signal, candidates: &[Candidate<'_>]) -> Option<Eviction> {
    let resource = signal.resource;
    let beyond = |one: &Candidate<'_>| one.usage(resource).saturating_sub(one.request(resource));
    let rank = |one: &Candidate<'_>| {
        let exceeds = matches!(resource, Resource::Memory | Resource::Disk) && beyond(one) > 0;
        // Smaller goes first: those beyond their request, then low priority, then those far beyond it.
        (!exceeds, one.priority(), u64::MAX - beyond(one))
    };
    let (index, chosen) = candidates
        .iter()
        .enumerate()
        .filter(|(_, one)| !one.is_untouchable() && !one.has_ended())
        .min_by_key(|(_, one)| rank(one))?;
    Some(Eviction { index, message: message(signal, chosen) })
}

fn message(signal: &Signal, chosen: &Candidate<'_>) -> String {
    let word = signal.resource.word();
    let amount = |value: u64| match signal.resource {
        Resource::Memory | Resource::Disk => format!("{}Ki", value / 1024),
        Resource::Inodes | Resource::Pids => value.to_string(),
    };
    let mut text = format!(
        "The node was low on resource: {word}. Threshold quantity: {}, available: {}. ",
        amount(signal.threshold),
        amount(signal.available)
    );
    if signal.resource == Resource::Memory {
        for container in chosen.pod.spec.iter().flat_map(|spec| &spec.containers) {
            let used = chosen.memory.iter().find(|(name, _)| *name == container.name).map_or(0, |(_, bytes)| *bytes);
            let request = request_of(container, "memory");
            if used > request {
                let request = if request == 0 { "0".to_owned() } else { amount(request) };
                let (name, used) = (&container.name, amount(used));
                text.push_str(&format!(
                    "Container {name} was using {used}, request is {request}, has larger consumption of memory. "
                ));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, priority: i32, request: &str) -> Pod {
        let container = json!({"name": "c", "resources": {"requests": {"memory": request}}});
        let value = json!({"metadata": {"name": name}, "spec": {"priority": priority, "containers": [container]}});
        serde_json::from_value(value).unwrap()
    }

    fn candidate(pod: &Pod, mib: u64) -> Candidate<'_> {
        let memory = vec![("c".to_owned(), mib << 20)];
        Candidate { pod, memory, disk_bytes: mib << 20, inodes: mib, processes: mib }
    }

    fn short(resource: Resource) -> Signal {
        Signal { resource, available: 50 << 20, threshold: 100 << 20 }
    }

    #[test]
    fn who_uses_more_than_was_asked_for_goes_first_then_low_priority_then_the_greediest() {
        let within = pod("within", -5, "64Mi");
        let important = pod("important", 1000, "1Mi");
        let small = pod("small", 0, "1Mi");
        let big = pod("big", 0, "1Mi");
        let all = [candidate(&within, 60), candidate(&important, 500), candidate(&small, 10), candidate(&big, 20)];
        let chosen = choose(&short(Resource::Memory), &all).unwrap();
        assert_eq!(all[chosen.index].pod.metadata.name.as_deref(), Some("big"));
        assert_eq!(
            chosen.message,
            "The node was low on resource: memory. Threshold quantity: 102400Ki, available: 51200Ki. Container c was using \
             20480Ki, request is 1024Ki, has larger consumption of memory. "
        );
        // For processes nobody asked, so priority comes first.
        let chosen = choose(&short(Resource::Pids), &all).unwrap();
        assert_eq!(all[chosen.index].pod.metadata.name.as_deref(), Some("within"));
    }

    #[test]
    fn system_pods_static_pods_and_ended_pods_stay() {
        let critical = pod("critical", CRITICAL, "0");
        let mut mirror = pod("mirror", 0, "0");
        mirror.metadata.annotations = Some([("kubernetes.io/config.mirror".to_owned(), "x".to_owned())].into());
        let mut ended = pod("ended", 0, "0");
        ended.status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
        let all = [candidate(&critical, 9), candidate(&mirror, 9), candidate(&ended, 9)];
        assert_eq!(choose(&short(Resource::Memory), &all), None);
        assert!(!Signal { resource: Resource::Memory, available: 2, threshold: 2 }.is_short());
    }
}
