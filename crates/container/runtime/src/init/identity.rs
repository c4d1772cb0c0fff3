//! As whom the program runs: limits, labels, user, groups and capabilities.

use std::{
    fs,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
};

use kernel::{caps, process, schedule};
use rustix::{
    fs::{CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fchown, fstat, major, minor, openat, openat2},
    io::Errno,
    thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use crate::{Failure, ProcessPlan, failure::Step};

/// Root inside a user namespace whose maps were just written.
pub(super) fn become_root_of_namespace() -> Result<(), Failure> {
    let (user, group) = (Uid::ROOT, Gid::ROOT);
    set_thread_res_gid(Some(group), Some(group), Some(group)).step("setresgid")?;
    set_thread_res_uid(Some(user), Some(user), Some(user)).step("setresuid")
}

/// Files of this process in the host's procfs, opened while it is the one that is seen, and written at the end.
pub(super) struct Attributes {
    label: Option<(OwnedFd, String)>,
}

impl Attributes {
    pub(super) fn open(plan: &ProcessPlan) -> Result<Self, Failure> {
        if plan.oom_score_adj.is_none() && plan.apparmor_profile.is_none() && plan.selinux_label.is_none() {
            return Ok(Attributes { label: None });
        }
        let own = own_proc_dir()?;
        if let Some(score) = plan.oom_score_adj {
            set_oom_score(&own, score)?;
        }
        let label = match (&plan.apparmor_profile, &plan.selinux_label) {
            (Some(profile), _) if profile != "unconfined" => {
                Some((label_file(&own, "attr/apparmor/exec")?, format!("exec {profile}")))
            }
            (_, Some(label)) => Some((label_file(&own, "attr/exec")?, label.clone())),
            (Some(_) | None, None) => None,
        };
        Ok(Attributes { label })
    }

    pub(super) fn write(self) -> Result<(), Failure> {
        match self.label {
            Some((file, text)) => {
                rustix::io::write(&file, text.as_bytes()).map(drop).step(format!("apply label {text:?}"))
            }
            None => Ok(()),
        }
    }
}

/// A real procfs, or nothing (CVE-2025-52881).
fn own_proc_dir() -> Result<OwnedFd, Failure> {
    let proc =
        openat(CWD, "/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step("open /proc")?;
    if !super::procfs::is_procfs(&proc).step("statfs /proc")? {
        return Err(Failure::invalid("/proc is not a procfs"));
    }
    openat(&proc, "self", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step("open /proc/self")
}

fn label_file(own: &OwnedFd, path: &str) -> Result<OwnedFd, Failure> {
    openat2(
        own,
        Path::new(path),
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS,
    )
    .step(format!("open {path}"))
}

/// Lowering needs CAP_SYS_RESOURCE, which a container engine itself may lack; the score then stays.
fn set_oom_score(own: &OwnedFd, score: i32) -> Result<(), Failure> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat2(
        own,
        "oom_score_adj",
        flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS,
    )
    .step("open oom_score_adj")?;
    match rustix::io::write(&file, score.to_string().as_bytes()) {
        Ok(_) | Err(Errno::ACCESS | Errno::PERM) => Ok(()),
        Err(error) => Err(Failure::kernel("write oom_score_adj", &error.into())),
    }
}

/// A hard limit above our own needs CAP_SYS_RESOURCE; without it the limit is as high as it can be.
pub(super) fn set_rlimits(plan: &ProcessPlan) -> Result<(), Failure> {
    for (resource, soft, hard) in &plan.rlimits {
        match process::set_rlimit(*resource, *soft, *hard) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let most = process::hard_rlimit(*resource).step("getrlimit")?;
                process::set_rlimit(*resource, (*soft).min(most), (*hard).min(most))
                    .step(format!("setrlimit {resource}"))?;
            }
            Err(error) => return Err(Failure::kernel(format!("setrlimit {resource}"), &error)),
        }
    }
    Ok(())
}

/// The standard descriptors belong to the user that the program runs as, so that it may open `/dev/stdout` again; `/dev/null` is everybody's.
pub(super) fn own_stdio(plan: &ProcessPlan) -> Result<(), Failure> {
    if plan.uid == 0 {
        return Ok(());
    }
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = fstat(fd) else {
            continue;
        };
        let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
        if stat.st_uid == plan.uid || is_null {
            continue;
        }
        match fchown(fd, Some(Uid::from_raw(plan.uid)), None) {
            // Not mapped, not ours, or on a read-only file system: it stays as it is, and works as before.
            Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => {}
            Err(error) => return Err(Failure::kernel("chown the standard descriptors", &error.into())),
        }
    }
    Ok(())
}

/// How the program is scheduled. Last of all, since a real-time policy or an idle class slows down what precedes the program.
pub(super) fn schedule(plan: &ProcessPlan) -> Result<(), Failure> {
    if let Some(persona) = plan.personality {
        process::set_personality(persona).step("set the personality")?;
    }
    if let Some((class, level)) = plan.io_priority {
        schedule::set_io_priority(class, level).step("set ioPriority")?;
    }
    match plan.scheduler {
        Some(scheduler) => schedule::set_scheduler(scheduler).step("set the scheduler"),
        None => Ok(()),
    }
}

/// `HOME`, when the environment has none: the container's own user database says.
pub(super) fn missing_home(plan: &ProcessPlan) -> Option<String> {
    if plan.env.iter().any(|entry| entry.starts_with("HOME=")) {
        return None;
    }
    const LIMIT: u64 = 1 << 20;
    let mut text = String::new();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if let Ok(file) = openat2(CWD, "/etc/passwd", flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        // A database that is no text has no entry for anybody.
        let _ = fs::File::from(file).take(LIMIT).read_to_string(&mut text);
    }
    let home = text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
        [_, _, uid, _, _, home, ..] if uid.parse() == Ok(plan.uid) && !home.is_empty() => Some(home.to_owned()),
        _ => None,
    });
    Some(format!("HOME={}", home.unwrap_or_else(|| "/".to_owned())))
}

/// Groups, user and capabilities, in the one order in which each step still has the right to be taken.
pub(super) fn take(plan: &ProcessPlan) -> Result<(), Failure> {
    if plan.no_new_privileges {
        set_no_new_privs(true).step("set no_new_privs")?;
    }
    if let Some(sets) = &plan.capabilities {
        caps::limit_bounding(sets.bounding).step("drop capabilities from the bounding set")?;
        caps::keep_over_user_change(true).step("keep capabilities")?;
    }
    let groups: Vec<Gid> = plan.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match set_thread_groups(&groups) {
        Ok(()) => {}
        // A user namespace may forbid setgroups; without extra groups there is nothing to lose.
        Err(Errno::PERM) if groups.is_empty() => {}
        Err(error) => return Err(Failure::kernel("setgroups", &error.into())),
    }
    let (user, group) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    set_thread_res_gid(Some(group), Some(group), Some(group)).step("setgid")?;
    set_thread_res_uid(Some(user), Some(user), Some(user)).step("setuid")?;
    if let Some(sets) = &plan.capabilities {
        caps::keep_over_user_change(false).step("keep capabilities")?;
        caps::set(sets).step("apply capabilities")?;
    }
    Ok(())
}
