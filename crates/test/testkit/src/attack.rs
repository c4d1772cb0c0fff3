//! An attacker inside of a container: the runtime's own binary, tricked into running there (CVE-2019-5736).
//!
//! A container whose program is `/proc/self/exe` runs the binary that made it. The real attack brings a loader of its own; this one brings the
//! machine's, and the test binary does the rest before its `main`.

use std::{
    fs,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::Path,
    process::Command,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::{FdFlags, fcntl_setfd},
};

/// In the container's environment.
pub const ATTACK: &str = "GANTRY_TEST_ATTACK=1";

/// Holds on to the binary without opening it, lets it end, and writes through the descriptor: what is refused then is refused for good.
pub(crate) fn run_if_asked() {
    let (name, value) = ATTACK.split_once('=').unwrap_or_default();
    if std::env::var(name).as_deref() != Ok(value) {
        return;
    }
    let own = openat(CWD, "/proc/self/exe", OFlags::PATH, Mode::empty()).expect("our own binary");
    fcntl_setfd(&own, FdFlags::empty()).expect("fcntl");
    println!("inside");
    // A file that is being executed is busy: the attacker waits until it is not.
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
         if (echo overwritten >>/proc/self/fd/{}) 2>/tmp/why; then echo written; exit; fi; \
         grep -q busy /tmp/why || break; sleep 0.1; done; cat /tmp/why",
        own.as_raw_fd()
    );
    let mut shell = Command::new("/bin/busybox");
    let failed = shell.args(["sh", "-c", &script]).env_clear().env("PATH", "/bin").exec();
    panic!("{failed}");
}

/// Gives the root file system at `rootfs` what this test binary needs to be started in it: the libraries that it has mapped itself.
pub fn make_attackable(rootfs: &Path) {
    let mapped = fs::read_to_string("/proc/self/maps").expect("our own mappings");
    for library in mapped.lines().filter_map(|line| line.split_whitespace().nth(5)).filter(|path| path.contains(".so"))
    {
        let name = Path::new(library).file_name().expect("a file");
        let dirs: &[&str] = if name.to_string_lossy().starts_with("ld-") {
            &["lib64", "lib/x86_64-linux-gnu"]
        } else {
            &["lib/x86_64-linux-gnu"]
        };
        for dir in dirs.iter().map(|dir| rootfs.join(dir)) {
            fs::create_dir_all(&dir).expect("mkdir");
            fs::copy(library, dir.join(name)).expect("a library");
        }
    }
}

/// System calls that a container must not make, through each of the machine's three call tables; prints `name errno` for each.
///
/// Compiled for the test (`cc`), without a C library, into `to`.
pub fn build_call_probe(to: &Path) {
    let source = to.with_extension("c");
    fs::write(&source, PROBE).expect("written");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-static", "-nostdlib", "-fno-stack-protector", "-o"]).arg(to).arg(&source);
    assert!(compiler.status().expect("cc (Debian: gcc)").success(), "cc");
    fs::remove_file(source).expect("removed");
}

const PROBE: &str = r#"
static long call64(long n, long a, long b, long c) {
    long r; register long d __asm__("r10") = 0;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(d) : "rcx", "r11", "memory");
    return r;
}
static long call32(long n, long a, long b, long c) {
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "r8", "r9", "r10", "r11", "memory");
    return (int)r;
}
static void put(const char *s) { long n = 0; while (s[n]) n++; call64(1, 1, (long)s, n); }
static void say(const char *name, long r) {
    char t[8]; int i = 7; t[i] = 0; t[--i] = '\n';
    long e = r < 0 ? -r : 0;
    do { t[--i] = '0' + e % 10; e /= 10; } while (e && i);
    put(name); put(" "); put(t + i);
}
void _start(void) {
    const long x32 = 0x40000000;
    say("keyctl", call64(250, 0, -3, 0)); say("add_key", call64(248, 0, 0, 0));
    say("io_uring_setup", call64(425, 1, 0, 0)); say("bpf", call64(321, 0, 0, 0));
    say("userfaultfd", call64(323, 0, 0, 0)); say("unshare_user", call64(272, 0x10000000, 0, 0));
    say("mount", call64(165, 0, 0, 0)); say("kexec_load", call64(246, 0, 0, 0));
    say("keyctl_32", call32(288, 0, -3, 0)); say("mount_32", call32(21, 0, 0, 0));
    say("unshare_user_32", call32(310, 0x10000000, 0, 0)); say("bpf_32", call32(357, 0, 0, 0));
    say("keyctl_x32", call64(250 | x32, 0, -3, 0)); say("mount_x32", call64(165 | x32, 0, 0, 0));
    call64(231, 0, 0, 0);
}
"#;
