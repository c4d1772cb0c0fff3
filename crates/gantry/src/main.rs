//! The binary: commands, roles, wiring. The only place that knows every part.

fn main() {}
