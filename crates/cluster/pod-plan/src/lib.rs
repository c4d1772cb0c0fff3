//! Pod, sandboxes and time to node actions (pure).
