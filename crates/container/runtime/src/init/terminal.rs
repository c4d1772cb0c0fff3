//! A terminal from the container's own devpts.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use kernel::{
    inroot::{self, Make},
    mount, process,
};
use rustix::{
    fs::{FileType, OFlags, fstat, fstatfs, major, minor},
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::{Failure, failure::Step};

const DEVPTS_MAGIC: u64 = 0x1cd1;

pub(super) struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
}

/// The slave comes from the master, never by name: no link in `/dev/pts` can lead elsewhere (CVE-2025-52565).
pub(super) fn open(root: &OwnedFd, size: Option<(u16, u16)>, console: bool) -> Result<Terminal, Failure> {
    let master = inroot::open(root, Path::new("/dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW)
        .step("open /dev/pts/ptmx")?;
    verify(&master, |major, minor| (major, minor) == (5, 2))?;
    unlockpt(&master).step("unlock the terminal")?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .step("open the terminal's other end")?;
    verify(&slave, |major, _| (136..=143).contains(&major))?;
    if let Some((columns, rows)) = size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).step("set the terminal's size")?;
    }
    if console {
        let target = inroot::ensure(root, Path::new("/dev/console"), Make::File).step("make /dev/console")?;
        let copy = mount::copy_of_open(&slave, false).step("copy the terminal")?;
        mount::attach(&copy, &target).step("mount /dev/console")?;
    }
    Ok(Terminal { master, slave })
}

fn verify(file: impl AsFd, numbers: impl FnOnce(u32, u32) -> bool) -> Result<(), Failure> {
    let stat = fstat(&file).step("stat the terminal")?;
    let system = fstatfs(&file).step("statfs the terminal")?;
    let genuine = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && numbers(major(stat.st_rdev), minor(stat.st_rdev))
        && system.f_type as u64 == DEVPTS_MAGIC;
    if genuine { Ok(()) } else { Err(Failure::invalid("the container's terminal is not one")) }
}

impl Terminal {
    /// Makes it the controlling terminal and the standard descriptors of this session's leader; the master is for the monitor.
    pub(super) fn become_controlling(self) -> Result<OwnedFd, Failure> {
        rustix::process::ioctl_tiocsctty(&self.slave).step("set the controlling terminal")?;
        for target in 0..=2 {
            process::become_stdio(&self.slave, target).step("dup2")?;
        }
        Ok(self.master)
    }
}
