//! The resolver of a node: service names, forwarding.
