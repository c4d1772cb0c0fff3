//! What could help a pod that found no place: the kinds of change that it waits for.
//!
//! Used by the shell's queue, so that a pod is tried again when something happened that matters to it, and not before.
//! Invariant: a cause that is not recognised waits for every change.

/// A set of kinds of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Causes(u8);

impl Causes {
    pub const NONE: Causes = Causes(0);
    /// Pods left, or a node has more room.
    pub const ROOM: Causes = Causes(1);
    /// A node's labels, taints or cordon changed.
    pub const NODE: Causes = Causes(2);
    /// Pods came or went that this one wants to be near, or away from.
    pub const NEIGHBOURS: Causes = Causes(4);
    /// Claims, volumes or classes changed.
    pub const VOLUMES: Causes = Causes(8);
    pub const ANY: Causes = Causes(15);

    #[must_use]
    pub const fn and(self, other: Causes) -> Causes {
        Causes(self.0 | other.0)
    }

    pub fn meets(self, other: Causes) -> bool {
        self.0 & other.0 != 0
    }

    /// What the pod with this message waits for.
    pub fn of(message: &str) -> Causes {
        let filters = message.split(" preemption: ").next().unwrap_or_default();
        let words = [
            ("Insufficient ", Causes::ROOM),
            ("Too many pods", Causes::ROOM),
            ("free ports", Causes::ROOM),
            ("untolerated taint", Causes::NODE),
            ("were unschedulable", Causes::NODE),
            ("node affinity/selector", Causes::NODE),
            ("requested node name", Causes::NODE),
            ("affinity rules", Causes::NEIGHBOURS),
            ("topology spread", Causes::NEIGHBOURS.and(Causes::NODE)),
            ("ersistent", Causes::VOLUMES.and(Causes::ROOM)),
            ("volume zone", Causes::VOLUMES),
        ];
        let found = words.iter().filter(|(word, _)| filters.contains(word));
        let causes = found.fold(Causes::NONE, |all, (_, cause)| all.and(*cause));
        if causes == Causes::NONE { Causes::ANY } else { causes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_its_pod_waits_for() {
        for (message, waits, not) in [
            ("0/1 nodes are available: 1 Insufficient cpu. preemption: not helpful", Causes::ROOM, Causes::NEIGHBOURS),
            ("0/1 nodes are available: 1 node(s) were unschedulable.", Causes::NODE, Causes::ROOM),
            (
                "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules.",
                Causes::NEIGHBOURS,
                Causes::VOLUMES,
            ),
            ("0/1 nodes are available: persistentvolumeclaim \"x\" not found.", Causes::VOLUMES, Causes::NODE),
        ] {
            assert!(Causes::of(message).meets(waits) && !Causes::of(message).meets(not), "{message}");
        }
        assert_eq!(Causes::of("no nodes available to schedule pods"), Causes::ANY);
    }
}
