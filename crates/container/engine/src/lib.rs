//! Containers, execs, images, networks, volumes, events: the lifecycle.
