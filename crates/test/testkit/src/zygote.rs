//! The roles that a test binary takes: the zygote's, and the runtime's.

use crate::attack;
use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// Runs before `main`: the binary that [`monitor::Zygote::spawn`] starts again is the test's own, and so is a `gantry-runtime` linked to it.
extern "C" fn before_main() {
    attack::run_if_asked();
    monitor::run_role_if_asked();
    if let Some(code) = runtime_cli::run_if_asked() {
        std::process::exit(code.into());
    }
}

#[used]
#[expect(
    unsafe_code,
    reason = "the only way to run before the test harness's main; the section is the C library's list of such functions"
)]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

/// Call once in a test that spawns a zygote: makes the linker keep the hook above.
pub fn can_spawn_zygotes() {
    std::hint::black_box(&BEFORE_MAIN);
}

/// A `gantry-runtime` in `dir`, which is the test's own binary.
pub fn runtime_in(dir: &Path) -> PathBuf {
    can_spawn_zygotes();
    let path = dir.join("gantry-runtime");
    symlink(std::env::current_exe().expect("our own path"), &path).expect("symlink");
    path
}
