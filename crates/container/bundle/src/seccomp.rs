//! Docker's default seccomp profile, and profiles in Docker's JSON format.
//!
//! A table of facts: which calls the default profile allows to everybody, and which only together with a capability. Everything
//! else is EPERM; calls newer than the table are ENOSYS (see `runtime::seccomp`).

use std::collections::HashSet;

use oci::runtime_spec::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};
use serde::Deserialize;

use crate::{Error, SeccompMode, capabilities};

/// Allowed to every container.
const ALWAYS: &str = "\
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime \
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 \
    close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old \
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat \
    faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat \
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs \
    fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat \
    getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer \
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit \
    get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32 getxattr \
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents \
    io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr listxattrat \
    llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create \
    memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify \
    mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget \
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 \
    pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 \
    preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 \
    pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg \
    remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction \
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
    rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min \
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile \
    sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 \
    setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 \
    setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat \
    shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat \
    stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create \
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create \
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask \
    uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write \
    writev arch_prctl modify_ldt";

/// Allowed to a container that has the capability.
const WITH_CAPABILITY: [(Capability, &str); 14] = [
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree \
         perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare listmount statmount \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module init_module finit_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (Capability::SysRawio, "iopl ioperm"),
    (Capability::SysTime, "settimeofday stime clock_settime clock_settime64"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

/// The personalities that change nothing another process could notice.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// AF_VSOCK reaches the machine's hypervisor.
const AF_VSOCK: u64 = 40;

/// The flags of clone that make namespaces.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

const ENOSYS: u32 = 38;

/// `None`: unconfined.
pub(crate) fn profile(
    mode: &SeccompMode,
    privileged: bool,
    granted: &[Capability],
) -> Result<Option<LinuxSeccomp>, Error> {
    match (mode, privileged) {
        (SeccompMode::Unconfined, _) | (SeccompMode::Default, true) => Ok(None),
        (SeccompMode::Default, false) => default_profile(granted).map(Some),
        (SeccompMode::Profile(json), _) => custom(json, granted).map(Some),
    }
}

fn built<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, Error> {
    result.map_err(|error| Error::SeccompProfile(error.to_string()))
}

fn rule(names: &str, action: LinuxSeccompAction, args: Vec<LinuxSeccompArg>) -> Result<LinuxSyscall, Error> {
    let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    built(LinuxSyscallBuilder::default().names(names).action(action).args(args).build())
}

fn condition(operator: LinuxSeccompOperator, value: u64) -> Result<LinuxSeccompArg, Error> {
    built(LinuxSeccompArgBuilder::default().index(0_usize).op(operator).value(value).value_two(0_u64).build())
}

fn default_profile(granted: &[Capability]) -> Result<LinuxSeccomp, Error> {
    let allow = LinuxSeccompAction::ScmpActAllow;
    let mut rules = vec![rule(ALWAYS, allow, vec![])?];
    rules.push(rule("socket", allow, vec![condition(LinuxSeccompOperator::ScmpCmpNe, AF_VSOCK)?])?);
    for personality in PERSONALITIES {
        rules.push(rule("personality", allow, vec![condition(LinuxSeccompOperator::ScmpCmpEq, personality)?])?);
    }
    for (capability, names) in WITH_CAPABILITY {
        if granted.contains(&capability) {
            rules.push(rule(names, allow, vec![])?);
        }
    }
    if !granted.contains(&Capability::SysAdmin) {
        rules.push(rule("clone", allow, vec![condition(LinuxSeccompOperator::ScmpCmpMaskedEq, CLONE_NAMESPACES)?])?);
        // Its flags are behind a pointer, where no filter can look: a C library that is told "unknown" uses clone.
        let mut unknown = rule("clone3", LinuxSeccompAction::ScmpActErrno, vec![])?;
        unknown.set_errno_ret(Some(ENOSYS));
        rules.push(unknown);
    }
    let profile = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(1_u32)
        .architectures(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32])
        .syscalls(rules);
    built(profile.build())
}

/// Docker's profile format: OCI's, with conditions on architectures and capabilities.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<Arch>>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default)]
    syscalls: Option<Vec<DocumentRule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentRule {
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    name: Option<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<Conditions>,
    #[serde(default)]
    excludes: Option<Conditions>,
}

#[derive(Debug, Default, Deserialize)]
struct Conditions {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
}

const OUR_ARCHES: [&str; 3] = ["amd64", "x86", "x32"];

impl DocumentRule {
    fn applies(&self, granted: &HashSet<String>) -> bool {
        let ours = |arches: &Vec<String>| arches.iter().any(|arch| OUR_ARCHES.contains(&arch.as_str()));
        let included = self.includes.as_ref().is_none_or(|conditions| {
            conditions.caps.iter().flatten().all(|name| granted.contains(name))
                && conditions.arches.as_ref().is_none_or(|arches| arches.is_empty() || ours(arches))
        });
        let excluded = self.excludes.as_ref().is_some_and(|conditions| {
            conditions.caps.iter().flatten().any(|name| granted.contains(name))
                || conditions.arches.as_ref().is_some_and(ours)
        });
        included && !excluded
    }
}

fn custom(json: &str, granted: &[Capability]) -> Result<LinuxSeccomp, Error> {
    let document: Document = built(serde_json::from_str(json))?;
    let granted: HashSet<String> = granted.iter().map(|capability| capabilities::name(*capability)).collect();
    let mut rules = Vec::new();
    for listed in document.syscalls.iter().flatten().filter(|listed| listed.applies(&granted)) {
        let names = listed.names.iter().flatten().chain(&listed.name).cloned().collect::<Vec<_>>();
        let mut rule = rule("", listed.action, listed.args.clone().unwrap_or_default())?;
        rule.set_names(names).set_errno_ret(listed.errno_ret);
        rules.push(rule);
    }
    let architectures = document.architectures.filter(|list| !list.is_empty());
    let mut profile = LinuxSeccompBuilder::default()
        .default_action(document.default_action)
        .architectures(
            architectures.unwrap_or_else(|| vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]),
        )
        .flags(document.flags.unwrap_or_default())
        .syscalls(rules);
    if let Some(errno) = document.default_errno_ret {
        profile = profile.default_errno_ret(errno);
    }
    built(profile.build())
}
