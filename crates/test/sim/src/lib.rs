//! Whole clusters on a virtual clock: the real decisions of controllers and scheduler, over a store and watches that a
//! seed makes late, doubled, torn and stale, with crashes at writes and nodes that vanish.
//!
//! Called by `cargo xtask sim` and by the tests. Invariants: the same seed gives the same run; safety is checked at
//! every write, convergence once the faults have stopped; a failure names its seed. The shells' order of writes is
//! played here in short; their I/O is not.

mod actor;
mod checks;
mod cluster;
mod controllers_play;
pub mod decisions;
mod events;
mod machine;
mod objects;
mod random;
mod store;

pub use cluster::{Outcome, Scale, run};
