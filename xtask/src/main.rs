//! Chores of the repository: check, test, tidy, parity, bench.

fn main() {}
