//! Driver options of the `local` driver: `type`, `o` and `device`, as `mount(8)` would take them.
//!
//! A bind (`o=bind,device=/path`) needs no mount on the host: the path itself goes into the container.
//! A tmpfs is mounted once at the volume's `_data`, so that several containers share it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{Error, Volume, VolumeName};

/// What is mounted into a container for a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Host path to bind.
    pub path: PathBuf,
    /// The volume itself says read-only.
    pub read_only: bool,
    /// Content of the image may be copied into it when it is empty.
    pub may_copy_up: bool,
}

enum Plan<'a> {
    Plain,
    Bind { device: &'a str, read_only: bool },
    Tmpfs { data: &'a str },
}

/// Refuses options that could never be mounted, at create.
pub(crate) fn validate(name: &VolumeName, opts: &BTreeMap<String, String>) -> Result<(), Error> {
    plan(name, opts).map(|_| ())
}

fn plan<'a>(name: &VolumeName, opts: &'a BTreeMap<String, String>) -> Result<Plan<'a>, Error> {
    let refuse = |reason: String| Error::InvalidOptions { name: name.to_string(), reason };
    if let Some(unknown) = opts.keys().find(|k| !matches!(k.as_str(), "type" | "o" | "device" | "size")) {
        return Err(refuse(format!("invalid option: \"{unknown}\"")));
    }
    let option = |key: &str| opts.get(key).map_or("", String::as_str);
    let (kind, flags, device) = (option("type"), option("o"), option("device"));
    let is_bind = flags.split(',').any(|f| matches!(f, "bind" | "rbind"));
    match kind {
        "" if flags.is_empty() && device.is_empty() => Ok(Plan::Plain),
        _ if device.is_empty() => Err(refuse("missing device in volume options".to_owned())),
        "" | "none" | "bind" if is_bind => {
            if device.starts_with('/') {
                Ok(Plan::Bind { device, read_only: flags.split(',').any(|f| f == "ro") })
            } else {
                Err(refuse(format!("invalid device \"{device}\": a bind needs an absolute path")))
            }
        }
        "tmpfs" => Ok(Plan::Tmpfs { data: flags }),
        "" => Err(refuse("missing type in volume options".to_owned())),
        other => Err(refuse(format!("file system type \"{other}\" is not supported, only bind and tmpfs are"))),
    }
}

/// Where a container gets the volume from.
pub(crate) fn resolve(volume: &Volume, data: &Path) -> Result<Source, Error> {
    match plan(&volume.name, &volume.driver_opts)? {
        Plan::Plain => Ok(Source { path: data.to_owned(), read_only: false, may_copy_up: true }),
        Plan::Bind { device, read_only } => {
            let path = PathBuf::from(device);
            std::fs::metadata(&path).map_err(|e| Error::io("stat", &path, e))?;
            Ok(Source { path, read_only, may_copy_up: !read_only })
        }
        Plan::Tmpfs { data: options } => {
            if !is_mount_point(data) {
                mount_tmpfs(data, options)?;
            }
            Ok(Source { path: data.to_owned(), read_only: false, may_copy_up: true })
        }
    }
}

/// A mount point lies on another device than its parent.
pub(crate) fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |p: &Path| std::fs::metadata(p).map(|m| m.dev()).ok();
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

fn mount_tmpfs(data: &Path, options: &str) -> Result<(), Error> {
    use rustix::mount::{MountFlags, mount};
    let options = std::ffi::CString::new(options)
        .map_err(|e| Error::io("mount", data, std::io::Error::new(std::io::ErrorKind::InvalidInput, e)))?;
    mount("tmpfs", data, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))
        .map_err(|e| Error::io("mount tmpfs on", data, e.into()))
}

/// Takes a tmpfs away when there is one.
pub(crate) fn unmount_quietly(data: &Path) {
    if is_mount_point(data)
        && let Err(error) = rustix::mount::unmount(data, rustix::mount::UnmountFlags::DETACH)
    {
        tracing::warn!(path = %data.display(), %error, "volume not unmounted");
    }
}
