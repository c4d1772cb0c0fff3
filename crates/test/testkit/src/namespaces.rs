//! Running a test in namespaces of its own.

use std::{panic, thread};

use kernel::process::{NamespaceFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_change};

/// Runs `test` in a thread of new mount and network namespaces: the host's interfaces, firewall and mount table are out of its reach.
///
/// Threads and processes that `test` makes inherit the namespaces. A panic of `test` is passed on.
pub fn in_namespaces<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let outcome = thread::Builder::new()
        .name("in-namespaces".to_owned())
        .spawn(move || {
            enter();
            test()
        })
        .expect("a thread")
        .join();
    outcome.unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}

fn enter() {
    // A thread that gets a mount namespace of its own also stops sharing root and working directory with the others.
    unshare(NamespaceFlags::MOUNT.with(NamespaceFlags::NETWORK)).expect("unshare (root is needed)");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("make the mounts private");
}
