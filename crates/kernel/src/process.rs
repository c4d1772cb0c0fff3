//! Making, replacing and ending processes, for callers that have exactly one thread.
//!
//! Called by the zygote, the monitors and container inits. Invariant: a process with more than one thread is
//! never forked ([`fork`] and [`clone_into_namespaces`] look and refuse), so the child may allocate and use
//! the standard library. Deliberately absent: any way to run code between fork and exec in the threaded engine.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    Parent { pid: i32 },
    Child,
}

/// The namespaces that a clone makes anew, as `CLONE_NEW*` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamespaceFlags(u64);

impl NamespaceFlags {
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET as u64);
    /// Counts for children only: unshare it, set its offsets, then clone.
    pub const TIME: Self = Self(0x80);
    const ALL: u64 = Self::MOUNT.0
        | Self::CGROUP.0
        | Self::UTS.0
        | Self::IPC.0
        | Self::USER.0
        | Self::PID.0
        | Self::NETWORK.0
        | Self::TIME.0;

    /// Bits that name no namespace are dropped: they would share memory or descriptors with the child.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits & Self::ALL)
    }
    pub fn bits(self) -> u64 {
        self.0
    }
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

fn refuse_threads() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.take(2).count();
    if threads == 1 { Ok(()) } else { Err(io::Error::other("a process with several threads is not forked")) }
}

/// Forks. Refused when the process has more than one thread.
pub fn fork() -> io::Result<Fork> {
    refuse_threads()?;
    // SAFETY: the process has one thread, so no lock of the allocator or of the standard library is held by a thread that the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent { pid }),
    }
}

/// Forks into new namespaces in one step (`clone3`), optionally straight into a cgroup v2 directory.
pub fn clone_into_namespaces(flags: NamespaceFlags, cgroup2: Option<&OwnedFd>) -> io::Result<Fork> {
    refuse_threads()?;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: clone_args is plain integers, all zero is its documented empty value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags.0;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(dir) = cgroup2 {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM (NamespaceFlags cannot carry it) and with no new stack this acts as fork(2); the process has one thread; `args` lives across the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent { pid: pid as i32 }),
    }
}

/// Moves this (single-threaded) process into a new namespace of each kind in `flags`.
pub fn unshare(flags: NamespaceFlags) -> io::Result<()> {
    // SAFETY: only namespace bits are passed (never CLONE_FILES and its like), no memory is touched.
    if unsafe { libc::unshare(flags.0 as libc::c_int) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Enters the namespaces `flags` of the process behind `pidfd`, or the one namespace that `fd` names.
pub fn set_namespaces(fd: impl AsFd, flags: NamespaceFlags) -> io::Result<()> {
    // SAFETY: setns takes integers only.
    let done = unsafe { libc::setns(fd.as_fd().as_raw_fd(), flags.0 as libc::c_int) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Replaces this process. Returns only when that failed.
pub fn exec(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays are null-terminated and their strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends the process at once: no destructors, no flushing of what a parent shares.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return; no destructor is owed, the kernel takes everything back.
    unsafe { libc::_exit(code) }
}

/// Every signal to its default action, none blocked: what a program expects at its start.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is a valid disposition; numbers that cannot be set (KILL, STOP, the C library's own) are refused with an error, which is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: `set` is initialised by sigemptyset before it is read; the old mask is not asked for.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Children are reaped by the kernel from now on.
pub fn ignore_children() {
    // SAFETY: SIG_IGN is a valid disposition for SIGCHLD.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Ignores the signals that a terminal or a dying parent sends: a monitor ends with its container, not with a session.
pub fn ignore_session_signals() {
    for signal in
        [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE, libc::SIGTTIN, libc::SIGTTOU]
    {
        // SAFETY: SIG_IGN is a valid disposition for each of these.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// A descriptor that becomes readable when a child changes state. SIGCHLD is blocked from here on.
pub fn child_events() -> io::Result<OwnedFd> {
    // SAFETY: `set` is initialised by sigemptyset before use; signalfd returns a new descriptor or -1.
    let fd = unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    owned(fd)
}

/// Blocks every signal, for this process and for what it forks: they wait for [`signal_events`].
pub fn block_signals() {
    // SAFETY: `set` is initialised by sigfillset before it is read; the old mask is not asked for.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Every signal that can be, as events to be read with [`next_signal`]. They are blocked from here on.
pub fn signal_events() -> io::Result<OwnedFd> {
    // SAFETY: `set` is initialised by sigfillset before use; signalfd returns a new descriptor or -1.
    let fd = unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC)
    };
    owned(fd)
}

/// Waits for one of [`signal_events`]: its number.
pub fn next_signal(events: &OwnedFd) -> io::Result<i32> {
    let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
    loop {
        match rustix::io::read(events, &mut record) {
            Ok(length) if length == record.len() => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut number = [0; 4];
    number.copy_from_slice(&record[..4]);
    Ok(u32::from_ne_bytes(number) as i32)
}

/// Every descriptor from `first` on will not survive an exec.
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: marks descriptors only; none is closed under an owner.
    let done = unsafe {
        libc::syscall(libc::SYS_close_range, first as libc::c_uint, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor from `first` on: what a role inherited without being told of it.
///
/// Only as the first act of a role, before anything of its own is open.
pub fn close_inherited_from(first: RawFd) -> io::Result<()> {
    assert!(first >= 3, "the standard descriptors are the role's");
    // SAFETY: at the start of a role nothing in this process owns a descriptor yet (the caller's promise), so none is closed under an owner.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, libc::c_uint::MAX, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `fd` the process's descriptor 0, 1 or 2.
pub fn become_stdio(fd: impl AsFd, target: RawFd) -> io::Result<()> {
    assert!((0..=2).contains(&target), "only the standard descriptors are replaced");
    // SAFETY: the standard descriptors are owned by nobody in a zygote or a container init.
    let done = unsafe { libc::dup2(fd.as_fd().as_raw_fd(), target) };
    if done >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes over descriptor `fd`, which a parent passed by number.
///
/// Only for descriptors that are known to be open and unowned, at the start of a role.
pub fn adopt_descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD reads only; it tells whether the number is open.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open (just checked), and the caller vouches that nothing else owns it: a role starts with exactly what its parent passed.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a raw signal number (real-time ones too) to the process behind `pidfd`.
pub fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: integers and a null siginfo, as the call documents.
    let done = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, ptr::null::<libc::siginfo_t>(), 0)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a raw signal number to `pid`.
pub fn signal(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: kill takes integers; `pid` names one process (checked above), never a group.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets resource limit number `resource` (`RLIMIT_*`) of this process.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` lives across the call; an unknown resource number is refused with EINVAL.
    if unsafe { libc::setrlimit(resource as _, &raw const limit) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The hard limit of resource number `resource` of this process.
pub fn hard_rlimit(resource: u32) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is written by the call and lives across it.
    if unsafe { libc::getrlimit(resource as _, &raw mut limit) } == 0 {
        Ok(limit.rlim_max)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Leaves the session keyring of whoever started us for a new, empty one. A kernel without keys has nothing to leave.
pub fn join_new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing else is read.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) };
    match done {
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            error => Err(error),
        },
        _serial => Ok(()),
    }
}

/// Sets the execution domain (`PER_LINUX`, `PER_LINUX32`) of this process.
pub fn set_personality(persona: u64) -> io::Result<()> {
    // SAFETY: takes an integer.
    if unsafe { libc::personality(persona as libc::c_ulong) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives unused heap pages back: a monitor starts from the zygote's heap and then waits for days.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer; only frees what the allocator holds unused.
    unsafe {
        libc::malloc_trim(0);
    }
}

pub(crate) fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just returned by a system call that makes a new descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
