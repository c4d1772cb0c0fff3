//! The zygote's role in test binaries.

/// Runs before `main`: the binary that [`monitor::Zygote::spawn`] starts again is the test's own.
extern "C" fn before_main() {
    monitor::run_role_if_asked();
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
