//! Pods that nobody will ever finish: on nodes that are gone, or too many that ended.
//!
//! Called by the controller manager's shell. Invariant: of pods that ended only the oldest beyond the threshold go.

use crate::pods;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

/// Pods that ended, before the oldest are deleted.
pub const THRESHOLD: usize = 12_500;

/// Pods that were being deleted before they ever got a node: no node agent will let them go.
pub fn is_stuck(pod: &Pod) -> bool {
    pods::is_terminating(pod) && pods::node_name(pod).is_none()
}

pub fn surplus(ended: &[Arc<Pod>], threshold: usize) -> Vec<Arc<Pod>> {
    let mut ended: Vec<&Arc<Pod>> = ended.iter().filter(|p| pods::is_finished(p)).collect();
    let many = ended.len().saturating_sub(threshold);
    ended.sort_by_key(|p| (p.metadata.creation_timestamp.as_ref().map(|t| t.0), p.metadata.name.clone()));
    ended.into_iter().take(many).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_oldest_ended_pods_beyond_the_threshold_go() {
        let pod = |name: &str, phase: &str, hour: u8| -> Arc<Pod> {
            let meta = json!({"name": name, "creationTimestamp": format!("2026-01-01T{hour:02}:00:00Z")});
            Arc::new(serde_json::from_value(json!({"metadata": meta, "status": {"phase": phase}})).unwrap())
        };
        let all =
            [pod("new", "Failed", 3), pod("run", "Running", 0), pod("old", "Succeeded", 1), pod("mid", "Failed", 2)];
        let names =
            |limit| -> Vec<String> { surplus(&all, limit).iter().filter_map(|p| p.metadata.name.clone()).collect() };
        assert_eq!(names(1), ["old", "mid"]);
        assert!(names(3).is_empty());
    }
}
