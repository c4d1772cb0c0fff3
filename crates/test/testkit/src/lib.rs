//! What privileged tests share: namespaces of their own, a root to work in, a root file system, and the proof that nothing was left behind.
//!
//! Used by the tests of every crate that touches the kernel, never by product code. A test binary that links this crate can spawn a
//! [`monitor::Zygote`], or call the runtime: the role is taken before `main`, since a test binary's `main` is not ours.

mod attack;
mod leaks;
mod namespaces;
mod rootfs;
mod zygote;

pub use attack::{ATTACK, build_call_probe, make_attackable};
pub use leaks::{Leaks, assert_soon};
pub use namespaces::in_namespaces;
pub use rootfs::{busybox_rootfs, own_root};
pub use zygote::{can_spawn_zygotes, runtime_in};
