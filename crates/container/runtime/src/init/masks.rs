//! Masked and read-only paths.

use std::{os::fd::OwnedFd, path::Path};

use kernel::{
    inroot,
    mount::{self, Change, Parameter, attr},
};
use rustix::fs::{FileType, OFlags, fstat, major, minor};

use crate::{Failure, Plan, failure::Step};

pub(super) fn apply(plan: &Plan, root: &OwnedFd) -> Result<(), Failure> {
    for path in &plan.read_only_paths {
        read_only(path, root).step(format!("make {} read-only", path.display()))?;
    }
    let mut masks = Masks { root, null: None, empty: None };
    for path in &plan.masked_paths {
        masks.mask(path)?;
    }
    Ok(())
}

fn exists(path: &Path, root: &OwnedFd) -> std::io::Result<Option<OwnedFd>> {
    match inroot::reference(root, path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn read_only(path: &Path, root: &OwnedFd) -> std::io::Result<()> {
    let Some(found) = exists(path, root)? else {
        return Ok(());
    };
    let copy = mount::copy_of_open(&found, true)?;
    // Only this bit: what the mount refuses already (nosuid, noexec) stays refused.
    mount::set_attributes(&copy, Change { set: attr::READ_ONLY, recursive: true, ..Change::default() })?;
    mount::attach(&copy, &found)
}

struct Masks<'a> {
    root: &'a OwnedFd,
    null: Option<OwnedFd>,
    /// One empty read-only directory, attached once and copied from then on.
    empty: Option<OwnedFd>,
}

impl Masks<'_> {
    fn mask(&mut self, path: &Path) -> Result<(), Failure> {
        let step = || format!("mask {}", path.display());
        let Some(found) = exists(path, self.root).step(step())? else {
            return Ok(());
        };
        let is_directory = FileType::from_raw_mode(fstat(&found).step(step())?.st_mode).is_dir();
        if is_directory {
            return self.mask_directory(&found).step(step());
        }
        if self.null.is_none() {
            self.null = Some(verified_null(self.root)?);
        }
        match &self.null {
            Some(null) => mount::copy_of_open(null, false).and_then(|copy| mount::attach(&copy, &found)).step(step()),
            None => Ok(()),
        }
    }

    fn mask_directory(&mut self, found: &OwnedFd) -> std::io::Result<()> {
        if let Some(empty) = &self.empty {
            return mount::copy_of_open(empty, false).and_then(|copy| mount::attach(&copy, found));
        }
        let parameters = [
            Parameter::Value("size".to_owned(), "0".to_owned()),
            Parameter::Value("mode".to_owned(), "555".to_owned()),
        ];
        let empty = mount::new_filesystem(
            "tmpfs",
            Some("tmpfs"),
            &parameters,
            attr::READ_ONLY | attr::NO_SUID | attr::NO_DEV | attr::NO_EXEC,
        )?;
        mount::attach(&empty, found)?;
        self.empty = Some(empty);
        Ok(())
    }
}

/// The very device, by its number, through the descriptor that is then mounted: a file or link in its place is refused (CVE-2025-31133).
fn verified_null(root: &OwnedFd) -> Result<OwnedFd, Failure> {
    let null = inroot::open(root, Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW).step("open /dev/null")?;
    let stat = fstat(&null).step("stat /dev/null")?;
    let genuine = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
    if genuine { Ok(null) } else { Err(Failure::invalid("/dev/null of the container is not the null device")) }
}
