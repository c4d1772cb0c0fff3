//! Unpacking in a child that can reach nothing but the directory that it fills.
//!
//! Archives are hostile, and what reads them (inflating, tar headers, extended attributes) is the largest target that an
//! image gets to shoot at. The program therefore starts itself again as an unpacker: the compressed bytes are its standard
//! input, the target directory its standard output (a descriptor, no path), its answer goes to standard error. Before
//! the first byte is read it has made the directory its root, dropped all capabilities but those of files, and given
//! up every system call but those of files. A program that cannot be started again (a test) unpacks in itself.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use kernel::caps::{self, CapabilitySets};
use kernel::seccomp::{self, Instruction};
use oci::Digest;
use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};
use crate::limits::Limits;
use crate::tree;
use crate::unpack::{Unpacked, unpack};

const ROLE: &str = "gantry-unpack";
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// How this very program is started again; set once by its `main`.
static PROGRAM: OnceLock<std::path::PathBuf> = OnceLock::new();

#[derive(Serialize, Deserialize)]
struct Order {
    compressed_size: u64,
    is_base: bool,
    limits: Limits,
    /// The process that ordered it: an unpacker does not outlive it.
    orderer: u32,
    /// The digest of the whole file, where this program has just verified it.
    stored: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Done { diff_id: Digest, size: u64, has_root: bool, hides: bool },
    Failed(String),
}

/// Call early in `main`: runs the unpacker's role, and never returns, if this process was started as one. Otherwise
/// says that this program may be started so.
pub fn run_role_if_asked() {
    let mut args = std::env::args();
    if args.next().as_deref() != Some(ROLE) {
        let _ = PROGRAM.set("/proc/self/exe".into());
        return;
    }
    let done = args.next().ok_or_else(|| "no order".to_owned()).and_then(|order| child(&order));
    let answer = done.unwrap_or_else(Answer::Failed);
    let written = serde_json::to_vec(&answer).map(|bytes| std::io::Write::write_all(&mut std::io::stderr(), &bytes));
    kernel::process::exit_now(if matches!(written, Ok(Ok(()))) { 0 } else { 1 })
}

fn child(order: &str) -> std::result::Result<Answer, String> {
    let order: Order = serde_json::from_str(order).map_err(|e| e.to_string())?;
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    // First its end with the orderer's, then whether that has come already.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(|e| e.to_string())?;
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if u32::try_from(parent) != Ok(order.orderer) {
        return Err("nobody waits for it any more".to_owned());
    }
    kernel::process::close_inherited_from(3).map_err(failed("close what was inherited"))?;
    let target = kernel::process::adopt_descriptor(1).map_err(failed("take the target"))?;
    let stream = File::from(kernel::process::adopt_descriptor(0).map_err(failed("take the archive"))?);
    confine(&target)?;
    let unpacked = unpack(stream, order.compressed_size, target, order.is_base, &order.limits, order.stored);
    Ok(match unpacked {
        Ok(Unpacked { diff_id, size, has_root, hides }) => Answer::Done { diff_id, size, has_root, hides },
        Err(error) => Answer::Failed(error.to_string()),
    })
}

fn confine(target: &OwnedFd) -> std::result::Result<(), String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    rustix::process::fchdir(target).map_err(|e| failed("enter the target")(e.into()))?;
    rustix::process::chroot(".").map_err(|e| failed("make the target the root")(e.into()))?;
    let keep = KEPT.iter().fold(0, |bits, capability| bits | 1 << capability);
    caps::limit_bounding(keep).map_err(failed("limit capabilities"))?;
    let sets = CapabilitySets { bounding: keep, effective: keep, permitted: keep, inheritable: 0, ambient: 0 };
    caps::set(&sets).map_err(failed("drop capabilities"))?;
    rustix::thread::set_no_new_privs(true).map_err(|e| failed("give up new privileges")(e.into()))?;
    seccomp::install(&filter(), 0).map_err(failed("give up system calls"))
}

/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, MKNOD, SETFCAP; SYS_ADMIN for overlayfs's `trusted.` attributes,
/// of which the filter leaves only that use.
const KEPT: [u32; 8] = [0, 1, 2, 3, 4, 27, 31, 21];

/// What unpacking calls: files below a descriptor, memory, and the end.
const CALLS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsetxattr,
    libc::SYS_lsetxattr,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The filter as the kernel takes it: another architecture's calls end the process, other calls fail with EPERM.
fn filter() -> Vec<Instruction> {
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;
    const REFUSE: u32 = 0x0005_0000 | libc::EPERM as u32;
    const ARCHITECTURE: u32 = if cfg!(target_arch = "aarch64") { 0xc000_00b7 } else { 0xc000_003e };
    let step = |code, jump_true, jump_false, k| Instruction { code, jump_true, jump_false, k };
    let mut program = vec![
        step(LOAD, 0, 0, 4),
        step(JUMP_IF_EQUAL, 1, 0, ARCHITECTURE),
        step(RETURN, 0, 0, KILL),
        step(LOAD, 0, 0, 0),
    ];
    for call in CALLS {
        program.push(step(JUMP_IF_EQUAL, 0, 1, u32::try_from(*call).unwrap_or(u32::MAX)));
        program.push(step(RETURN, 0, 0, ALLOW));
    }
    program.push(step(RETURN, 0, 0, REFUSE));
    program
}

/// Unpacks a file, from where it stands, into the empty directory `target`.
pub(crate) fn unpack_file(
    file: File,
    compressed_size: u64,
    target: &Path,
    is_base: bool,
    limits: &Limits,
    stored: Option<Digest>,
) -> Result<Unpacked> {
    let Some(program) = PROGRAM.get() else {
        return unpack(file, compressed_size, tree::open_dir(target)?, is_base, limits, stored);
    };
    let ended = |reason: String| Error::Unpacker { target: target.to_owned(), reason };
    let order = serde_json::to_string(&Order {
        compressed_size,
        is_base,
        limits: limits.clone(),
        orderer: std::process::id(),
        stored,
    });
    let order = order.map_err(|e| ended(e.to_string()))?;
    // A descriptor that can be worked below, as the unpacker wants it.
    let dir = tree::open_dir(target)?;
    let mut command = Command::new(program);
    command.arg0(ROLE).arg(order).env_clear();
    command.stdin(Stdio::from(file)).stdout(Stdio::from(dir)).stderr(Stdio::piped());
    let mut child = command.spawn().at("start the unpacker for", target)?;
    // The command holds the descriptors that the child has now.
    drop(command);
    let mut said = Vec::new();
    let read = match child.stderr.take() {
        Some(answer) => answer.take(MAX_ANSWER_BYTES).read_to_end(&mut said),
        None => Ok(0),
    };
    let status = child.wait().at("wait for the unpacker of", target)?;
    read.at("read the unpacker's answer for", target)?;
    match serde_json::from_slice(&said) {
        Ok(Answer::Done { diff_id, size, has_root, hides }) if status.success() => {
            Ok(Unpacked { diff_id, size, has_root, hides })
        }
        Ok(Answer::Failed(reason)) => Err(Error::Refused(reason)),
        Ok(Answer::Done { .. }) | Err(_) => {
            let said = String::from_utf8_lossy(&said);
            Err(ended(format!("{status}: {}", said.lines().next().unwrap_or("it said nothing"))))
        }
    }
}

/// The same for a file that stays open.
pub(crate) fn unpack_shared(file: &File, size: u64, target: &Path, limits: &Limits) -> Result<Unpacked> {
    let copy = file.as_fd().try_clone_to_owned().at("duplicate", target)?;
    unpack_file(File::from(copy), size, target, true, limits, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_names_every_call_once_and_refuses_the_rest() {
        let program = filter();
        assert_eq!(program.len(), 5 + 2 * CALLS.len());
        let mut calls = CALLS.to_vec();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), CALLS.len());
        for forbidden in
            [libc::SYS_socket, libc::SYS_execve, libc::SYS_chroot, libc::SYS_mount, libc::SYS_ptrace, libc::SYS_setns]
        {
            assert!(!CALLS.contains(&forbidden));
        }
    }
}
